#!/usr/bin/env bash
# jsonc-parser edits JSON with comments, as of VS Code's settings, and leaves what is
# around an edit as it is. People write what an entry is behind it, on its line.
# Guess: such a comment stays with its entry when another is appended or taken out.
# Seen: appended behind the last entry, the new one comes in front of the last one's
# comment, which is then its own; and with the last entry the comment of the one before
# goes, too. Taking the first out is right.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

from_npm jsonc-parser@3.3.1
cat >"$lab/edit.mjs" <<'JS'
import { applyEdits, modify } from "jsonc-parser";
const text = `[
  1, // one
  2 // two
]`;
const formattingOptions = { insertSpaces: true, tabSize: 2 };
const edited = (place, value, more) => applyEdits(text, modify(text, [place], value, { formattingOptions, ...more })).replace(/\s+/g, " ");
console.log(`append 3: ${edited(-1, 3, { isArrayInsertion: true }).replaceAll("//", "#")}; without the first: ${edited(0).replaceAll("//", "#")}; without the last: ${edited(1).replaceAll("//", "#")}`);
JS
seen=$(cd "$lab" && node edit.mjs)

conclude 'jsonc-parser 3.3.1' \
	'append 3: [ 1, # one 2, # two 3 ]; without the first: [ 2 # two ]; without the last: [ 1 # one ]' "$seen" \
	'append 3: [ 1, # one 2, 3 # two ]; without the first: [ 2 # two ]; without the last: [ 1 ]'
