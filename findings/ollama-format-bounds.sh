#!/usr/bin/env bash
# Ollama holds a model to a JSON Schema that `format` has (Ollama's docs, structured outputs).
# Guess: what the schema says of a value's size holds, or the schema is refused.
# Seen: bounds hold of an integer and not of a number, and maxLength holds by itself and not
# beside a pattern; and no word of it.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

start_ollama OLLAMA_NUM_PARALLEL=1
# holds SCHEMA CONDITION: whether the value in each of twelve replies meets it.
holds() {
	local seed
	for seed in $(seq 12); do
		post /api/generate "{\"model\":\"smol\",\"prompt\":\"Say anything.\",\"stream\":false,\"format\":$1,\"options\":{\"seed\":$seed,\"temperature\":1.5,\"num_predict\":40}}"
		echo
	done | node -e '
		const replies = require("fs").readFileSync(0, "utf8").trim().split("\n").map((line) => JSON.parse(line));
		const isMet = eval(process.argv[1]);
		const values = replies.flatMap(({ response, done_reason }) => (done_reason === "stop" ? [JSON.parse(response)] : []));
		console.log(replies.some(({ error }) => error) ? "refused" : values.length > 0 && values.every(isMet) ? "holds" : "does not");
	' "$2"
}
# With so few tokens a value may be cut off; those that came to their end are looked at.
seen="minimum and maximum of an integer: $(holds '{"type":"integer","minimum":5,"maximum":7}' '(v) => v >= 5 && v <= 7')"
seen+="; of a number: $(holds '{"type":"number","minimum":5,"maximum":7}' '(v) => v >= 5 && v <= 7')"
seen+="; maxLength: $(holds '{"type":"string","maxLength":3}' '(v) => v.length <= 3')"
seen+="; beside a pattern: $(holds '{"type":"string","maxLength":3,"pattern":"^[a-z]+$"}' '(v) => v.length <= 3')"

conclude "$ollama_version" 'each holds, or is refused' "$seen" \
	'minimum and maximum of an integer: holds; of a number: does not; maxLength: holds; beside a pattern: does not'
