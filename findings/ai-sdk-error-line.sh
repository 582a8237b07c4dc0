#!/usr/bin/env bash
# When something fails in a stream, Ollama's last line is {"error":"..."}, as its
# documentation has it. Two providers bring Ollama to Vercel's AI SDK, where errors
# come as parts of the stream and to onError. Here what runs the model is ended.
# Guess: both bring an error part.
# Seen: ollama-ai-provider-v2 drops the line, and the reply ends as one that is whole,
# for the reason "other"; ai-sdk-ollama throws out of the loop, past onError.
# shellcheck source-path=SCRIPTDIR source=finding.bash
. "$(dirname "$0")/finding.bash"

start_ollama OLLAMA_NUM_PARALLEL=1
need pgrep
from_npm ai@7.0.173 ollama-ai-provider-v2@4.0.1 ai-sdk-ollama@4.3.0
cat >"$lab/ask.mjs" <<'JS'
import { execFileSync } from "node:child_process";
import { streamText } from "ai";
import { createOllama as createSdk } from "ai-sdk-ollama";
import { createOllama as createV2 } from "ollama-ai-provider-v2";
const [, , host, pid] = process.argv;
async function told(model) {
	const errors = [];
	let isFirst = true;
	let reason;
	const { fullStream } = streamText({ model, prompt: "Tell me a long story.", temperature: 0, seed: 1, maxOutputTokens: 2000, maxRetries: 0, onError: () => errors.push("onError") });
	try {
		for await (const part of fullStream) {
			// Its only child is what runs the model.
			if (part.type === "text-delta" && isFirst) {
				process.kill(Number(execFileSync("pgrep", ["-P", pid])), "SIGKILL");
				isFirst = false;
			}
			if (part.type === "error") errors.push("error part");
			if (part.type === "finish") reason = part.finishReason;
		}
		return `ends for the reason ${reason}, ${errors.join(" and ") || "no error"}`;
	} catch (error) {
		return `throws ${error.message}, ${errors.join(" and ") || "no onError"}`;
	}
}
console.log(
	`ollama-ai-provider-v2 ${await told(createV2({ baseURL: `${host}/api` })("smol"))}; ai-sdk-ollama ${await told(createSdk({ baseURL: host })("smol"))}`,
);
process.exit();
JS
seen=$(timeout 120 node "$lab/ask.mjs" "$ollama" "${started[0]}" 2>"$lab/errors.log")

conclude "$ollama_version, ai 7.0.173, ollama-ai-provider-v2 4.0.1 and ai-sdk-ollama 4.3.0 (npm)" \
	'both end for the reason error, onError and error part' "$seen" \
	'ollama-ai-provider-v2 ends for the reason other, no error; ai-sdk-ollama throws an error was encountered while running the model: unexpected EOF, no onError'
