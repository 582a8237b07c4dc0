#!/usr/bin/env bash
# Ollama streams what a model thinks as `reasoning`, piece by piece, beside `content`.
# OpenAI's clients have a helper, chat.completions.stream(), that puts a message
# together while it streams.
# Guess: the message has all that was thought, as it has without a stream.
# Seen: openai-python joins the pieces; openai-node keeps the last one alone.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

start_ollama OLLAMA_NUM_PARALLEL=1
from_npm openai@7.59.0
from_pypi openai==3.57.0
# By its template it thinks from the start; it never comes to the end of that.
[ "$(post_status /api/create '{"model":"thinks","from":"smol","template":"{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n<think>\n"}')" = 200 ]

cat >"$lab/ask.mjs" <<'JS'
import OpenAI from "openai";
const client = new OpenAI({ apiKey: "none", baseURL: `${process.argv[2]}/v1` });
const body = { model: "thinks", reasoning_effort: "high", seed: 1, max_tokens: 8, messages: [{ role: "user", content: "Why?" }] };
const whole = (await client.chat.completions.create(body)).choices[0].message.reasoning;
const stream = client.chat.completions.stream(body);
const pieces = [];
for await (const { choices } of stream) pieces.push(choices[0]?.delta.reasoning ?? "");
const { reasoning } = (await stream.finalChatCompletion()).choices[0].message;
const last = pieces.findLast((piece) => piece !== "");
if (pieces.join("") !== whole || last === whole) throw new Error(`${whole} ${pieces}`);
console.log(reasoning === whole ? "all of it" : reasoning === last ? "the last piece" : reasoning);
JS
cat >"$lab/ask.py" <<'PY'
import sys, openai
client = openai.OpenAI(api_key="none", base_url=f"{sys.argv[1]}/v1")
body = dict(model="thinks", reasoning_effort="high", seed=1, max_tokens=8, messages=[{"role": "user", "content": "Why?"}])
whole = client.chat.completions.create(**body).choices[0].message.reasoning
with client.chat.completions.stream(**body) as stream:
    for _ in stream:
        reasoning = stream.current_completion_snapshot.choices[0].message.reasoning
print("all of it" if reasoning == whole else reasoning)
PY
seen="openai-node: $(timeout 60 node "$lab/ask.mjs" "$ollama"), openai-python: $(timeout 60 "$lab/venv/bin/python" "$lab/ask.py" "$ollama")"

conclude "$ollama_version, openai 7.59.0 (npm), openai 3.57.0 (PyPI)" \
	'openai-node: all of it, openai-python: all of it' "$seen" \
	'openai-node: the last piece, openai-python: all of it'
