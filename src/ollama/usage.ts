import type { ReplyFormat } from "./errors.ts";
import type { Route } from "./routes.ts";

/** What a reply says about itself, read from its two ends. */
export interface Usage {
	readonly model: string | undefined;
	readonly tokensIn: number | undefined;
	readonly tokensOut: number | undefined;
}

const headBytes = 1024;
const tailBytes = 4096;

// An unescaped quote in front: the same words inside a model's text stand as \"eval_count\".
const modelPattern = /(?<!\\)"model"\s*:\s*"([^"\\]{1,256})"/;
const tokensInPattern =
	/(?<!\\)"(?:prompt_eval_count|prompt_tokens|input_tokens)"\s*:\s*(\d{1,15})/g;
const tokensOutPattern =
	/(?<!\\)"(?:eval_count|completion_tokens|output_tokens)"\s*:\s*(\d{1,15})/g;

/**
 * Keeps the first and the last bytes of a reply by reference, so that a chunk
 * costs the same whatever its size: Ollama names the model first and the
 * counts last, with megabytes of `context` between them at times.
 */
export class ReplyEnds {
	readonly #head: Buffer[] = [];
	#headLength = 0;
	#tail: Buffer[] = [];
	#tailLength = 0;

	/** Takes note of the next chunk; it must not be written to afterwards. */
	push(chunk: Buffer): void {
		if (this.#headLength < headBytes) {
			this.#head.push(chunk);
			this.#headLength += chunk.length;
		}
		if (chunk.length >= tailBytes) {
			this.#tail = [chunk];
			this.#tailLength = chunk.length;
			return;
		}
		this.#tail.push(chunk);
		this.#tailLength += chunk.length;
		// Merged rather than shifted: a stream of tiny chunks must not hold a long list.
		if (this.#tailLength >= 2 * tailBytes) {
			this.#tail = [Buffer.from(this.#tailText(), "latin1")];
			this.#tailLength = tailBytes;
		}
	}

	/** The last byte of the reply so far. */
	get lastByte(): number | undefined {
		const last = this.#tail.at(-1);
		return last?.[last.length - 1];
	}

	#tailText(): string {
		let text = "";
		for (
			let index = this.#tail.length - 1;
			index >= 0 && text.length < tailBytes;
			index--
		)
			text =
				(this.#tail[index]?.toString(
					"latin1",
					Math.max(0, (this.#tail[index]?.length ?? 0) - tailBytes),
				) ?? "") + text;
		return text.slice(-tailBytes);
	}

	#headText(): string {
		return Buffer.concat(this.#head).toString("utf8", 0, headBytes);
	}

	/** The model and the token counts, as far as the reply names them. */
	usage(route: Route): Usage {
		const tail = this.#tailText();
		const model = modelPattern.exec(this.#headText())?.[1];
		// A native reply that is not at its end has no counts, whatever a tool call in it says.
		if (nativeStreams.has(route.path) && !isNativeEnd(tail))
			return { model, tokensIn: undefined, tokensOut: undefined };
		return {
			model,
			tokensIn: lastCount(tail, tokensInPattern),
			tokensOut: lastCount(tail, tokensOutPattern),
		};
	}

	/**
	 * Whether a reply that ended came to its own end. Ollama's event streams just
	 * stop when a runner dies, so one without its terminator has failed.
	 */
	isComplete(route: Route, format: ReplyFormat): boolean {
		const tail = this.#tailText();
		if (format === "ndjson" && nativeStreams.has(route.path))
			return isNativeEnd(tail);
		const terminator = format === "sse" && terminators.get(route.path);
		return terminator ? terminator.test(tail) : true;
	}

	/** Whether the reply's own last words are an error. */
	endsWithError(format: ReplyFormat): boolean {
		const tail = this.#tailText().trimEnd();
		if (format === "ndjson") return lastLine(tail).startsWith('{"error":');
		return (
			format === "sse" &&
			/(?:^|\n)(?:event: error\n.*|data: \{"error":.*)$/.test(tail)
		);
	}
}

function lastCount(text: string, pattern: RegExp): number | undefined {
	const last = [...text.matchAll(pattern)].at(-1)?.[1];
	return last === undefined ? undefined : Number(last);
}

function lastLine(text: string): string {
	return text.slice(text.lastIndexOf("\n") + 1);
}

const nativeStreams = new Set(["/api/generate", "/api/chat"]);

/** The arguments of a tool call stand unescaped in a line, so only a parsed one tells what is at its top. */
function isNativeEnd(tail: string): boolean {
	const line = lastLine(tail.trimEnd());
	try {
		const last = JSON.parse(line) as { done?: unknown; error?: unknown };
		return last.done === true || last.error !== undefined;
	} catch {
		// The last line of a long generation has a `context` array that is longer than the tail.
		return /,"total_duration":\d+(?:,"\w+":\d+)*\}$/.test(line);
	}
}

// Anchored at a line's start, where a model's text cannot put anything: its newlines are escaped.
const openaiEnd = /(?:^|\n)data: (?:\[DONE\]|\{"error":)/;

const terminators = new Map<string, RegExp>([
	["/v1/chat/completions", openaiEnd],
	["/v1/completions", openaiEnd],
	["/v1/messages", /(?:^|\n)event: (?:message_stop|error)\n/],
	[
		"/v1/responses",
		/(?:^|\n)event: (?:response\.(?:completed|failed|incomplete)|error)\n/,
	],
]);
