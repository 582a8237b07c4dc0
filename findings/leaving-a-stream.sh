#!/usr/bin/env bash
# A program has read enough of a stream: it leaves the loop, or aborts the signal that
# it gave along. The server should hear of it, or the model works on for nobody.
# Guess: every client closes the request at once.
# Seen: those of OpenAI and Anthropic do. ollama-js reads on behind a loop that was
# left, to the reply's end; ai-sdk-ollama ends the loop on its abortSignal, hands the
# signal to ollama-js, which takes none, and reads on too.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

from_npm openai@7.59.0 @anthropic-ai/sdk@1.14.0 ollama@0.6.4 ai@7.0.173 ollama-ai-provider-v2@4.0.1 ai-sdk-ollama@4.3.0
cat >"$lab/leave.mjs" <<'JS'
import { once } from "node:events";
import http from "node:http";
import Anthropic from "@anthropic-ai/sdk";
import { streamText } from "ai";
import { createOllama as createSdk } from "ai-sdk-ollama";
import { Ollama } from "ollama";
import { createOllama as createV2 } from "ollama-ai-provider-v2";
import OpenAI from "openai";
const event = (data) => `event: ${data.type}\ndata: ${JSON.stringify(data)}\n\n`;
const piece = {
	"/v1/chat/completions": 'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n',
	"/v1/messages": event({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "a" } }),
	"/api/chat": '{"model":"m","created_at":"2026-11-30T04:00:00Z","message":{"role":"assistant","content":"a"},"done":false}\n',
};
const head = {
	"/v1/messages":
		event({ type: "message_start", message: { id: "m", type: "message", role: "assistant", model: "m", content: [], usage: { input_tokens: 1, output_tokens: 0 } } }) +
		event({ type: "content_block_start", index: 0, content_block: { type: "text", text: "" } }),
};
const server = http.createServer((request, response) => {
	request.resume();
	response.writeHead(200, { "Content-Type": request.url === "/api/chat" ? "application/x-ndjson" : "text/event-stream" });
	response.write(head[request.url] ?? "");
	const sending = setInterval(() => response.write(piece[request.url]), 50);
	response.on("close", () => clearInterval(sending));
}).listen(0, "127.0.0.1");
await once(server, "listening");
const url = `http://127.0.0.1:${server.address().port}`;
const body = { model: "m", max_tokens: 9, messages: [{ role: "user", content: "a" }], stream: true };
async function told(name, leave) {
	const arrived = once(server, "request").then(([, response]) => response);
	await leave();
	const response = await arrived;
	// A request that is left is closed within milliseconds.
	const open = new Promise((resolve) => setTimeout(resolve, 3000, "open after 3 s"));
	const outcome = await Promise.race([response.closed ? "closed" : once(response, "close").then(() => "closed"), open]);
	response.destroy();
	return `${name} ${outcome}`;
}
const breakOut = (start) => async () => {
	for await (const _ of await start()) break;
};
const abort = (model) => async () => {
	const controller = new AbortController();
	for await (const _ of streamText({ model, prompt: "a", maxRetries: 0, abortSignal: controller.signal, onError() {} }).textStream) controller.abort();
};
const seen = [
	await told("break: openai-node", breakOut(() => new OpenAI({ apiKey: "none", baseURL: `${url}/v1` }).chat.completions.create(body))),
	await told("anthropic", breakOut(() => new Anthropic({ apiKey: "none", baseURL: url }).messages.create(body))),
	await told("ollama-js", breakOut(() => new Ollama({ host: url }).chat(body))),
	await told("signal: ollama-ai-provider-v2", abort(createV2({ baseURL: `${url}/api` })("m"))),
	await told("ai-sdk-ollama", abort(createSdk({ baseURL: url })("m"))),
];
console.log(seen.join(", "));
process.exit();
JS
# What is cut at last is an error to those that read on, and meant here.
seen=$(timeout 60 node --unhandled-rejections=none "$lab/leave.mjs" 2>"$lab/errors.log")

conclude 'openai 7.59.0, @anthropic-ai/sdk 1.14.0, ollama 0.6.4, ai 7.0.173, ollama-ai-provider-v2 4.0.1, ai-sdk-ollama 4.3.0 (npm)' \
	'closed, all of them' "$seen" \
	'break: openai-node closed, anthropic closed, ollama-js open after 3 s, signal: ollama-ai-provider-v2 closed, ai-sdk-ollama open after 3 s'
