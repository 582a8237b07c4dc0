#!/usr/bin/env bash
# A message's content is a text or a list of parts, in OpenAI's API and in Anthropic's.
# Guess: the parts of one message are one message, as a template sees them.
# Seen: by /v1/chat/completions each part is a message of its own: two parts of a user's
# have an empty line between them, and two of a tool's result are two results. /v1/messages
# joins the parts as they are.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

start_ollama OLLAMA_NUM_PARALLEL=1
from_npm openai@7.59.0 @anthropic-ai/sdk@1.14.0
cat >"$lab/ask.mjs" <<'JS'
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
const baseURL = process.argv[2];
// A template that writes ten words for each message of a tool, and what users say as it is.
const template = '{{ range .Messages }}{{ if eq .Role "tool" }}a a a a a a a a a a{{ else }}{{ .Content }}{{ end }}{{ end }}{{ if .Tools }}{{ end }}';
await (await fetch(`${baseURL}/api/create`, { method: "POST", body: JSON.stringify({ model: "turns", from: "smol", template }) })).text();
const openai = new OpenAI({ apiKey: "none", baseURL: `${baseURL}/v1` });
const anthropic = new Anthropic({ apiKey: "none", baseURL });
const parts = (...texts) => texts.map((text) => ({ type: "text", text }));
const chat = async (...messages) => (await openai.chat.completions.create({ model: "turns", max_tokens: 1, messages })).usage.prompt_tokens;
async function messages(content) {
	const { usage } = await anthropic.messages.create({ model: "turns", max_tokens: 1, messages: [{ role: "user", content }] });
	return usage.input_tokens + (usage.cache_read_input_tokens ?? 0);
}
const user = (content) => ({ role: "user", content });
const call = { role: "assistant", tool_calls: [{ id: "c1", type: "function", function: { name: "look", arguments: "{}" } }] };
const result = (content) => chat(user("Look."), call, { role: "tool", tool_call_id: "c1", content });
const one = await chat(user("one two"));
const two = await chat(user(parts("one", " two")));
const blank = await chat(user("one\n\n two"));
if (one === blank) throw new Error("both have as many tokens");
const like = (count) => (count === one ? "as one text" : count === blank ? "with an empty line between" : count);
console.log(
	`user, two parts: ${like(two)}, of /v1/messages ${like(await messages(parts("one", " two")))}; a tool's result in two parts: ${(await result(parts("a", "b"))) - (await result("ab"))} tokens more`,
);
JS
seen=$(timeout 120 node "$lab/ask.mjs" "$ollama")

conclude "$ollama_version" \
	"user, two parts: as one text, of /v1/messages as one text; a tool's result in two parts: 0 tokens more" "$seen" \
	"user, two parts: with an empty line between, of /v1/messages as one text; a tool's result in two parts: 10 tokens more"
