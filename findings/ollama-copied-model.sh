#!/usr/bin/env bash
# `ollama cp` gives a model a second name, as for a client that asks for "gpt-4".
# Here both names are used, the copy second.
# Guess: /api/ps lists both, and keep_alive 0 for one leaves the other loaded.
# Seen: one process serves both. /api/ps lists only the name that loaded it, with the
# time that the other name has set; keep_alive 0 for either takes both away.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

start_ollama OLLAMA_NUM_PARALLEL=1
[ "$(post_status /api/copy '{"source":"smol","destination":"gpt-4"}')" = 200 ]
loaded() {
	# shellcheck disable=SC2016 # JavaScript's
	curl -sS -m 20 "$ollama/api/ps" | node -p 'JSON.parse(fs.readFileSync(0)).models.map(({ name, expires_at }) => `${name} for ${Math.round((Date.parse(expires_at) - Date.now()) / 3600000)} h`).join(", ") || "none"'
}
[ "$(post_status /api/generate '{"model":"smol","keep_alive":"2h"}')" = 200 ]
[ "$(post_status /api/generate '{"model":"gpt-4","keep_alive":"9h"}')" = 200 ]
both=$(loaded)
[ "$(post_status /api/generate '{"model":"gpt-4","keep_alive":0}')" = 200 ]
# Unloading takes less than a second.
sleep 2
seen="both used: $both; gpt-4 unloaded: $(loaded)"

conclude "$ollama_version" 'both used: smol:latest for 2 h, gpt-4:latest for 9 h; gpt-4 unloaded: smol:latest for 2 h' "$seen" \
	'both used: smol:latest for 9 h; gpt-4 unloaded: none'
