#!/usr/bin/env bash
# Models come with a chat template in Jinja, written for Python. @huggingface/jinja
# renders these in JavaScript, as Hugging Face's own pages and tools do.
# Guess: what it renders without an error is what Jinja renders.
# Seen: lists and objects equal nothing but themselves, so that `tools == []` is false of
# an empty list; a number equals its text; the remainder of a negative number has
# JavaScript's sign; what strip() is given is ignored.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

from_npm @huggingface/jinja@0.5.11
from_pypi jinja2==3.1.6
cat >"$lab/expressions.json" <<'JSON'
["tools == []", "[1] != [1]", "{'a': 1} == {'a': 1}", "1 == '1'", "0 == ''", "-7 % 3", "'xax'.strip('x')"]
JSON
cat >"$lab/render.mjs" <<'JS'
import { readFileSync } from "node:fs";
import { Template } from "@huggingface/jinja";
const expressions = JSON.parse(readFileSync("expressions.json", "utf8"));
console.log(expressions.map((text) => new Template(`{{ ${text} }}`).render({ tools: [] })).join(", "));
JS
cat >"$lab/render.py" <<'PY'
import json, jinja2
print(", ".join(jinja2.Template("{{ " + text + " }}").render(tools=[]) for text in json.load(open("expressions.json"))))
PY
cd "$lab"
jinja=$(venv/bin/python render.py | tr '[:upper:]' '[:lower:]')
seen="$(node render.mjs) where Jinja has $jinja"

conclude '@huggingface/jinja 0.5.11, Jinja 3.1.6 (PyPI)' "the same of both" "$seen" \
	'false, true, false, true, true, -1, xax where Jinja has true, false, true, false, false, 2, a'
