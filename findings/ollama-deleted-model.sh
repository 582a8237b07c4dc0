#!/usr/bin/env bash
# A model that is loaded is deleted, as when the wrong one was pulled and tried.
# Guess: it is unloaded, or can be.
# Seen: it keeps its memory until its keep_alive is over, with -1 until Ollama ends,
# and /api/ps lists it. Nobody can use it and nobody can unload it: a request for it
# with keep_alive 0 is a 404, and `ollama stop` does not find it.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

start_ollama OLLAMA_NUM_PARALLEL=1
need pgrep
[ "$(post_status /api/create '{"model":"tried","from":"smol","system":"Be brief."}')" = 200 ]
[ "$(post_status /api/generate '{"model":"tried","keep_alive":-1}')" = 200 ]
[ "$(curl -sS -m 60 -o /dev/null -w '%{http_code}' -X DELETE "$ollama/api/delete" -d '{"model":"tried"}')" = 200 ]
listed() { curl -sS -m 20 "$ollama$1" | grep -q '"tried:latest"' && echo yes || echo no; }
stopped=$(post_status /api/generate '{"model":"tried","keep_alive":0}')
command=$(ollama stop tried 2>&1 | grep -o 'Error: .*' || true)
# Unloading takes less than a second. After two it would be gone.
sleep 2
seen="in /api/tags $(listed /api/tags), keep_alive 0: $stopped, ollama stop: $command, in /api/ps $(listed /api/ps), its process: $(pgrep -c -P "${started[0]}")"

conclude "$ollama_version" 'in /api/tags no, in /api/ps no, its process: 0' "$seen" \
	'in /api/tags no, keep_alive 0: 404, ollama stop: Error: couldn'"'"'t find model "tried" to stop, in /api/ps yes, its process: 1'
