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

/** Buffers of replies that are over, for those that come. */
const spares: Buffer[] = [];
const maxSpares = 256;

/**
 * Keeps the first and the last bytes of a reply, whatever its length: Ollama
 * names the model first and the counts last, with megabytes of `context` between
 * them at times. They are copied, as the chunks themselves would be a dozen
 * objects each that live as long as the stream, and that every garbage
 * collection meanwhile would have to move.
 */
export class ReplyEnds {
	/** The reply's head, and behind that its tail. */
	#kept: Buffer | undefined;
	#headLength = 0;
	#tailLength = 0;

	/** Takes note of the next bytes. */
	push(bytes: Buffer, start = 0, end = bytes.length): void {
		this.#kept ??=
			spares.pop() ?? Buffer.allocUnsafeSlow(headBytes + 2 * tailBytes);
		const kept = this.#kept;
		if (this.#headLength < headBytes)
			this.#headLength += bytes.copy(
				kept,
				this.#headLength,
				start,
				Math.min(end, start + headBytes - this.#headLength),
			);
		const from = Math.max(start, end - tailBytes);
		if (this.#tailLength + end - from > 2 * tailBytes) {
			const tailAt = headBytes + this.#tailLength - tailBytes;
			kept.copyWithin(headBytes, tailAt, tailAt + tailBytes);
			this.#tailLength = tailBytes;
		}
		this.#tailLength += bytes.copy(
			kept,
			headBytes + this.#tailLength,
			from,
			end,
		);
	}

	/** Gives up what it kept; from then on the reply has said nothing. */
	release(): void {
		if (this.#kept !== undefined && spares.length < maxSpares)
			spares.push(this.#kept);
		this.#kept = undefined;
		this.#headLength = 0;
		this.#tailLength = 0;
	}

	/** The last byte of the reply so far. */
	get lastByte(): number | undefined {
		return this.#tailLength === 0
			? undefined
			: this.#kept?.[headBytes + this.#tailLength - 1];
	}

	#tailText(): string {
		const end = headBytes + this.#tailLength;
		return (
			this.#kept?.toString(
				"latin1",
				Math.max(headBytes, end - tailBytes),
				end,
			) ?? ""
		);
	}

	#headText(): string {
		return this.#kept?.toString("utf8", 0, this.#headLength) ?? "";
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
