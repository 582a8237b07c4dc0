#!/usr/bin/env bash
# How long a model stays loaded is said to Ollama in two places: OLLAMA_KEEP_ALIVE
# for all, keep_alive in a request for one.
# Guess: both read the same texts. People move a value from one to the other.
# Seen: "-1" (for ever) and "600" (seconds) are fine in the variable, and a 400 in
# a request, where they must be numbers or have a unit. "0" is fine in both.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

start_ollama OLLAMA_KEEP_ALIVE=600
# Ollama writes down what it has read of its variables.
variable=$(grep -o 'OLLAMA_KEEP_ALIVE:[^ ]*' "$lab/ollama.log")

# A keep_alive that is well formed brings the request to the next step, where the model is missing.
in_request() { post_status /api/generate "{\"model\":\"none\",\"keep_alive\":$1}"; }
seen="variable 600 is ${variable#*:}; in a request \"600\" $(in_request '"600"'), \"-1\" $(in_request '"-1"'), \"0\" $(in_request '"0"'), 600 $(in_request 600), \"-1m\" $(in_request '"-1m"')"

conclude "$ollama_version" \
	'"600" and "-1" in a request are taken as they are in the variable' \
	"$seen" \
	'variable 600 is 10m0s; in a request "600" 400, "-1" 400, "0" 404, 600 404, "-1m" 404'
