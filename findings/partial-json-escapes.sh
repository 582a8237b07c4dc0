#!/usr/bin/env bash
# While a model writes JSON, as a call's arguments, programs show what there is of it by
# parsers of unfinished JSON. Go writes `<` as \u003c, and so does Ollama.
# Guess: three of them read every beginning of {"html":"\u003c"}, and the whole.
# Seen: partial-json does. best-effort-json-parser throws from \u to its last digit;
# untruncate-json breaks the whole one, where such an escape ends a text.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

from_npm partial-json@0.1.7 best-effort-json-parser@1.5.1 untruncate-json@0.0.1
cat >"$lab/read.mjs" <<'JS'
import { parse, setErrorLogger } from "best-effort-json-parser";
import * as partial from "partial-json";
import untruncate from "untruncate-json";
setErrorLogger(() => {});
const finish = untruncate.default ?? untruncate;
const whole = String.raw`{"html":"\u003c"}`;
const parsers = { "partial-json": (text) => partial.parse(text), "best-effort-json-parser": parse, "untruncate-json": (text) => JSON.parse(finish(text)) };
function failed(read) {
	const ends = [];
	for (let end = 1; end <= whole.length; end++) {
		try {
			read(whole.slice(0, end));
		} catch {
			ends.push(end === whole.length ? "the whole" : `...${whole.slice(9, end)}`);
		}
	}
	return ends.join(" ") || "nothing";
}
console.log(Object.entries(parsers).map(([name, read]) => `${name}: ${failed(read)}`).join("; "));
JS
seen=$(cd "$lab" && node read.mjs)

conclude 'partial-json 0.1.7, best-effort-json-parser 1.5.1, untruncate-json 0.0.1' 'all fail on: nothing' "$seen" \
	'partial-json: nothing; best-effort-json-parser: ...\u ...\u0 ...\u00 ...\u003; untruncate-json: ...\u003c" the whole'
