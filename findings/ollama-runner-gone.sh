#!/usr/bin/env bash
# Ollama has each model in a process of its own, which the system may end, as when
# memory runs out. Here it is ended while a reply streams.
# Guess: both of Ollama's APIs end the stream with an error, and the clients throw it.
# Seen: ollama-js throws. In OpenAI's form the stream ends cleanly, without an error,
# a finish_reason or [DONE], and openai-node's loop ends as after a whole reply.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

start_ollama OLLAMA_NUM_PARALLEL=1
need pgrep
from_npm openai@7.59.0 ollama@0.6.4
cat >"$lab/ask.mjs" <<'JS'
import { execFileSync } from "node:child_process";
import { Ollama } from "ollama";
import OpenAI from "openai";
const [, , host, pid] = process.argv;
const messages = [{ role: "user", content: "Tell me a long story." }];
// Otherwise it may be at its end before it is killed.
const sampling = { temperature: 0, seed: 1 };
const options = { num_predict: 2000, ...sampling };
async function told(stream) {
	let isFirst = true;
	let reason;
	try {
		for await (const piece of await stream) {
			reason = piece.choices?.[0]?.finish_reason ?? reason;
			// Its only child is what runs the model.
			if (isFirst) process.kill(Number(execFileSync("pgrep", ["-P", pid])), "SIGKILL");
			isFirst = false;
		}
		return `ends, finish_reason ${reason}`;
	} catch (error) {
		return `throws ${error.message}`;
	}
}
const native = await told(new Ollama({ host }).chat({ model: "smol", messages, options, stream: true }));
const openai = await told(
	new OpenAI({ apiKey: "none", baseURL: `${host}/v1` }).chat.completions.create({
		model: "smol", messages, ...sampling, max_tokens: 2000, stream: true,
	}),
);
console.log(`ollama-js ${native}; openai-node ${openai}`);
JS
seen=$(timeout 120 node "$lab/ask.mjs" "$ollama" "${started[0]}")

conclude "$ollama_version, ollama 0.6.4 and openai 7.59.0 (npm)" 'both throw' "$seen" \
	'ollama-js throws an error was encountered while running the model: unexpected EOF; openai-node ends, finish_reason undefined'
