#!/usr/bin/env bash
# `ollama show --modelfile` prints a model as a Modelfile, "to build a new Modelfile based
# on this".
# Guess: `ollama create` makes the same model of it.
# Seen: not where a text begins with a quote, which it prints without quotes around it. A
# system prompt like that takes the lines below it up to the last quote, parameters and
# messages, and a stop sequence of a quote takes a message; a message like that is an
# unexpected end. A text of several lines, or with a quote further on, comes back as it was.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

start_ollama OLLAMA_NUM_PARALLEL=1
cat >"$lab/say.js" <<'JS'
const [, , before, after] = process.argv.map((text, place) => (place > 1 ? JSON.parse(text) : text));
const said = ({ system, parameters = "", messages = [] }) => ({
	system,
	stop: parameters.match(/^stop.*$/gm)?.toSorted().join(),
	message: messages.map(({ content }) => content).join(),
});
const [was, is] = [said(before), said(after)];
const other = Object.keys(was).filter((name) => was[name] !== is[name]);
console.log(other.map((name) => `${name} ${/MESSAGE/.test(is[name]) ? "has the message" : is[name] ? "another" : "gone"}`).join(", ") || "the same");
JS
# again SYSTEM STOP MESSAGE: what has changed of a model with these, made again of its Modelfile.
again() {
	local body
	body=$(node -p 'const [system, stop, content] = process.argv.slice(1); JSON.stringify({ model: "first", from: "smol", system, parameters: { stop: [stop] }, messages: [{ role: "user", content }] })' "$@")
	[ "$(post_status /api/create "$body")" = 200 ]
	# What it says of its weights is a file, which it would convert.
	ollama show --modelfile first | sed 's/^FROM .*/FROM smol/' >"$lab/Modelfile"
	if ollama create second -f "$lab/Modelfile" >"$lab/create.log" 2>&1; then
		node "$lab/say.js" "$(post /api/show '{"model":"first"}')" "$(post /api/show '{"model":"second"}')"
	else
		grep -o 'unexpected EOF' "$lab/create.log"
	fi
}
seen="$(again $'Be brief.\nSay "so".' '#' 'Say "hi"'); system: $(again '"Be brief" is your motto.' '#' 'Say "hi"'); stop: $(again 'Be brief.' '"' 'Say "hi"'); message: $(again 'Be brief.' '#' '"Hi" is a word.')"

conclude "$ollama_version" 'the same; system: the same; stop: the same; message: the same' "$seen" \
	'the same; system: system has the message, stop another, message gone; stop: stop has the message, message gone; message: unexpected EOF'
