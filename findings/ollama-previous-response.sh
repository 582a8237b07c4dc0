#!/usr/bin/env bash
# In OpenAI's Responses API a conversation goes on by previous_response_id: the
# server has the turns before, the client sends the next one alone.
# Guess: Ollama, which keeps no responses, refuses the field.
# Seen: it answers 200, with previous_response_id null, and the model has read no
# more than the new turn: the conversation starts anew without a word.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

start_ollama OLLAMA_NUM_PARALLEL=1
from_npm openai@7.59.0
cat >"$lab/ask.mjs" <<'JS'
import OpenAI from "openai";
const client = new OpenAI({ apiKey: "none", baseURL: `${process.argv[2]}/v1` });
const ask = (input, more) =>
	client.responses.create({ model: "smol", max_output_tokens: 4, input, ...more });
const first = await ask("My name is Ada and I have a long story to tell about it.");
const alone = await ask("What is my name?");
const next = await ask("What is my name?", { previous_response_id: first.id }).catch(
	({ status }) => ({ status }),
);
console.log(
	`${next.status}, previous_response_id ${next.previous_response_id}, ${next.usage?.input_tokens - alone.usage.input_tokens} tokens read before the new turn`,
);
JS
seen=$(timeout 120 node "$lab/ask.mjs" "$ollama")

conclude "$ollama_version, openai 7.59.0 (npm)" 'refused with a 400' "$seen" \
	'completed, previous_response_id null, 0 tokens read before the new turn'
