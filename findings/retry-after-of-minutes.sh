#!/usr/bin/env bash
# A server that wants to be left alone for five minutes answers 429 with
# Retry-After: 300, as gates before a shared Ollama do.
# Guess: the clients of OpenAI and Anthropic, which come from one generator, wait
# that long, or give up and say so.
# Seen: three ways. openai (npm) asks again twice, at its own pace, within seconds;
# openai (PyPI) gives up at once; @anthropic-ai/sdk sits still without a word.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

from_npm openai@7.59.0 @anthropic-ai/sdk@1.14.0
from_pypi openai==3.57.0

cat >"$lab/busy.mjs" <<'JS'
import http from "node:http";
import { writeFileSync } from "node:fs";
const requests = {};
const server = http.createServer((request, response) => {
	if (request.method === "GET") return response.end(`${requests[request.url.slice(1)] ?? 0}`);
	const client = request.url.split("/")[1];
	requests[client] = (requests[client] ?? 0) + 1;
	request.resume();
	response.writeHead(429, { "Retry-After": "300", "Content-Type": "application/json" });
	response.end('{"error":{"message":"busy"}}');
});
server.listen(0, "127.0.0.1", () => writeFileSync(process.argv[2], `${server.address().port}`));
JS
start busy node "$lab/busy.mjs" "$lab/port"
until_so 10 test -s "$lab/port"
busy=http://127.0.0.1:$(cat "$lab/port")

cat >"$lab/openai.mjs" <<JS
import OpenAI from "openai";
await new OpenAI({ apiKey: "none", baseURL: "$busy/openai-npm/v1" }).chat.completions.create({ model: "m", messages: [] }).catch(() => {});
JS
cat >"$lab/anthropic.mjs" <<JS
import Anthropic from "@anthropic-ai/sdk";
await new Anthropic({ apiKey: "none", baseURL: "$busy/anthropic-npm" }).messages.create({ model: "m", max_tokens: 1, messages: [] }).catch(() => {});
JS
cat >"$lab/openai_.py" <<PY
import openai
try:
    openai.OpenAI(api_key="none", base_url="$busy/openai-pypi/v1").chat.completions.create(model="m", messages=[])
except openai.RateLimitError:
    pass
PY
asks() { [ "$(curl -sS "$busy/$1")" != 0 ]; }
# Ten seconds from its first request tell a pause of its own (half a second, then one) from one of minutes.
told() {
	local name=$1 end
	shift
	timeout 120 "$@" >&2 &
	until_so 120 asks "$name"
	for _ in {1..100}; do kill -0 $! 2>/dev/null && sleep 0.1; done
	if kill $! 2>/dev/null; then end="still waits"; else end="gave up"; fi
	echo "$name $end after $(curl -sS "$busy/$name") requests"
}
seen="$(told openai-npm node "$lab/openai.mjs"), $(told openai-pypi "$lab/venv/bin/python" "$lab/openai_.py"), $(told anthropic-npm node "$lab/anthropic.mjs")"

conclude 'openai 7.59.0 and @anthropic-ai/sdk 1.14.0 (npm), openai 3.57.0 (PyPI)' \
	'all of them still wait, or gave up after 1 request' "$seen" \
	'openai-npm gave up after 3 requests, openai-pypi gave up after 1 requests, anthropic-npm still waits after 1 requests'
