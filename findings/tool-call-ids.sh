#!/usr/bin/env bash
# Ollama gives each call of a tool an id, as OpenAI does, and a result comes back with
# the id of its call. Here a model calls the same tool twice.
# Guess: what brings Ollama to a framework hands on both ids.
# Seen: ollama-ai-provider-v2 does. ai-sdk-ollama and langchain-ollama make up their
# own, and LlamaIndex gives both calls the tool's name for an id: whoever keeps results
# by id has one left. ollama-python, on which those two stand, drops the id.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

from_npm ai@7.0.173 ollama-ai-provider-v2@4.0.1 ai-sdk-ollama@4.3.0 zod@4
from_pypi langchain-ollama==1.1.0 llama-index-llms-ollama==0.11.0
# As Ollama 0.34.0 streams two calls.
cat >"$lab/server.mjs" <<'JS'
import http from "node:http";
import { writeFileSync } from "node:fs";
const line = (content) => `${JSON.stringify({ model: "m", created_at: "2026-11-30T04:00:00.123456789Z", ...content })}\n`;
const call = (id, index, city) => line({ message: { role: "assistant", content: "", tool_calls: [{ id, function: { index, name: "time", arguments: { city } } }] }, done: false });
const server = http.createServer((request, response) => {
	request.resume();
	response.writeHead(200, { "Content-Type": "application/x-ndjson" });
	response.write(call("call_udb3u0ll", 0, "Rome"));
	response.write(call("call_19v8cg2u", 1, "Oslo"));
	response.end(line({ message: { role: "assistant", content: "" }, done: true, done_reason: "stop", prompt_eval_count: 5, eval_count: 2 }));
});
server.listen(0, "127.0.0.1", () => writeFileSync(process.argv[2], `${server.address().port}`));
JS
start server node "$lab/server.mjs" "$lab/port"
until_so 10 test -s "$lab/port"
host=http://127.0.0.1:$(cat "$lab/port")
cat >"$lab/ask.mjs" <<'JS'
import { streamText, tool } from "ai";
import { createOllama as createSdk } from "ai-sdk-ollama";
import { createOllama as createV2 } from "ollama-ai-provider-v2";
import { z } from "zod";
const host = process.argv[2];
async function ids(model) {
	const { fullStream } = streamText({ model, prompt: "a", tools: { time: tool({ inputSchema: z.object({ city: z.string() }) }) } });
	const found = [];
	for await (const part of fullStream) if (part.type === "tool-call") found.push(part.toolCallId);
	return found.join(" ");
}
console.log(`ollama-ai-provider-v2 ${await ids(createV2({ baseURL: `${host}/api` })("m"))}`);
console.log(`ai-sdk-ollama ${await ids(createSdk({ baseURL: host })("m"))}`);
process.exit();
JS
cat >"$lab/ask.py" <<'PY'
import sys
from langchain_ollama import ChatOllama
from llama_index.core.llms import ChatMessage
from llama_index.llms.ollama import Ollama
reply = ChatOllama(model="m", base_url=sys.argv[1]).invoke("a")
print("langchain-ollama", *(call["id"] for call in reply.tool_calls))
llm = Ollama(model="m", base_url=sys.argv[1], context_window=1000)
for reply in llm.stream_chat([ChatMessage(role="user", content="a")]):
    pass
print("LlamaIndex", *(call.tool_id for call in llm.get_tool_calls_from_response(reply)))
PY
# Each line: who, and two ids.
told() {
	awk '{ print $1, NF != 3 ? NF - 1 " ids" : $2 == "call_udb3u0ll" && $3 == "call_19v8cg2u" ? "both" : $2 == $3 ? $2 " twice" : "two of its own" }'
}
seen=$({
	timeout 60 node "$lab/ask.mjs" "$host" 2>"$lab/node.log"
	timeout 60 "$lab/venv/bin/python" "$lab/ask.py" "$host" 2>"$lab/python.log"
} | told | paste -sd ';' | sed 's/;/; /g')

conclude 'ollama-ai-provider-v2 4.0.1, ai-sdk-ollama 4.3.0 (npm), langchain-ollama 1.1.0, llama-index-llms-ollama 0.11.0 (PyPI)' \
	'both, all of them' "$seen" \
	'ollama-ai-provider-v2 both; ai-sdk-ollama two of its own; langchain-ollama two of its own; LlamaIndex time twice'
