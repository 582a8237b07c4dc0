#!/usr/bin/env bash
# num_predict is "the maximum number of tokens to predict", max_tokens the same for
# OpenAI's clients. Some ask for 0 to have a prompt read and nothing written.
# Guess: 0 is none. llama-server, which runs the model for Ollama, writes one token.
# Seen: 0 is as if nothing were asked for, and the reply goes on to its end: Ollama
# leaves a 0 out of what it asks llama-server. Only /v1/messages refuses it.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

start_ollama OLLAMA_NUM_PARALLEL=1
from_npm openai@7.59.0 @anthropic-ai/sdk@1.14.0
weights=$(node -p 'JSON.parse(fs.readFileSync(process.argv[1])).layers.find(({ mediaType }) => mediaType.endsWith(".model")).digest.replace(":", "-")' "$lab/models/manifests/registry.ollama.ai/library/smol/latest")
port=$(free_port)
start llama env "LD_LIBRARY_PATH=$parts/lib/ollama" "$parts/lib/ollama/llama-server" --host 127.0.0.1 --port "$port" --no-webui --threads 1 --ctx-size 512 --model "$lab/models/blobs/$weights"
until_so 60 curl -sf -m 2 "http://127.0.0.1:$port/health"

cat >"$lab/ask.mjs" <<'JS'
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
const [, , ollama, llama] = process.argv;
// The one thing that the model may write, so that a reply has an end.
const schema = { type: "string", enum: ["one two three four five"] };
const messages = [{ role: "user", content: "Count." }];
const post = async (url, body) => (await fetch(url, { method: "POST", body: JSON.stringify(body) })).json();
async function native(num_predict) {
	const reply = await post(`${ollama}/api/chat`, { model: "smol", messages, stream: false, format: schema, options: { num_predict } });
	return `${reply.message.content} ${reply.done_reason}`;
}
async function openai(max_tokens) {
	const client = new OpenAI({ apiKey: "none", baseURL: `${ollama}/v1` });
	const response_format = { type: "json_schema", json_schema: { name: "count", schema } };
	const [choice] = (await client.chat.completions.create({ model: "smol", messages, max_tokens, response_format })).choices;
	return `${choice.message.content} ${choice.finish_reason}`;
}
const anthropic = (max_tokens) =>
	new Anthropic({ apiKey: "none", baseURL: ollama }).messages.create({ model: "smol", max_tokens, messages }).then(
		({ stop_reason }) => stop_reason,
		({ status }) => status,
	);
const llamaServer = await post(`${llama}/v1/chat/completions`, { messages, max_tokens: 0 });
console.log(
	`num_predict 1: ${await native(1)}, 0: ${await native(0)}; max_tokens 0: ${await openai(0)}, of /v1/messages ${await anthropic(0)}, of llama-server ${llamaServer.usage.completion_tokens} token`,
);
JS
seen=$(timeout 120 node "$lab/ask.mjs" "$ollama" "http://127.0.0.1:$port")

conclude "$ollama_version, llama-server $(version_of llama-server)" \
	'num_predict 0 and max_tokens 0: nothing, or one token, of all of them' "$seen" \
	'num_predict 1: " length, 0: "one two three four five" stop; max_tokens 0: "one two three four five" stop, of /v1/messages 400, of llama-server 1 token'
