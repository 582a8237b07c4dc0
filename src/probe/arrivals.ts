import { codeOf } from "../net/errorCode.ts";
import {
	type Caller,
	isObject,
	isReply,
	type NoReply,
	type OpenReply,
	readObject,
} from "./caller.ts";

/** How a stream arrived. Times are in milliseconds. */
export interface Timings {
	readonly model: string;
	/** From the request to the first piece of text. */
	readonly firstTokenMs: number;
	/** From the first piece of text to the last. */
	readonly spanMs: number;
	/** Lines with a piece of text. */
	readonly tokens: number;
	/** How many times text arrived. */
	readonly arrivals: number;
	/** Between one arrival and the next. */
	readonly gapsMs: readonly number[];
	/** How long Ollama says that a token took it, if it does. */
	readonly madePerTokenMs: number | undefined;
}

export const askedTokens = 48;
/** Below this, tokens that come together may well have been made together. */
export const fastTokenMs = 4;
/** Silence in a stream that has begun. */
export const maxSilenceMs = 60_000;
/** From its first token to its end. */
const maxStreamMs = 180_000;
const maxStreamBytes = 4 * 2 ** 20;
const maxLineLength = 256 * 2 ** 10;
/** A cloud model may make more than it was asked for. */
const maxTokens = 1_000;
type Asked = OpenReply & { askedAt: number };

export async function ask(
	caller: Caller,
	key: string,
	model: string,
	tokens: number,
	waitMs: number,
): Promise<Asked | NoReply> {
	const askedAt = performance.now();
	const reply = await caller.open(
		{
			method: "POST",
			path: "/api/chat",
			key,
			body: JSON.stringify({
				model,
				messages: [
					{ role: "user", content: "Count from one to one hundred in words." },
				],
				stream: true,
				options: { num_predict: tokens },
			}),
		},
		{ waitMs, silenceMs: maxSilenceMs, wholeMs: waitMs + maxStreamMs },
	);
	return isReply(reply) ? { ...reply, askedAt } : reply;
}

/** The pieces of text of a stream, as many as each arrival brings, and Ollama's last line. */
export async function* readArrivals(chunks: AsyncIterable<Buffer>) {
	const decoder = new TextDecoder();
	let rest = "";
	let sizeBytes = 0;
	for await (const chunk of chunks) {
		const at = performance.now();
		sizeBytes += chunk.length;
		if (sizeBytes > maxStreamBytes) throw new Error("more than 4 MiB");
		const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
		rest = lines.pop() ?? "";
		if (rest.length > maxLineLength)
			throw new Error("a line of more than 256 KiB");
		let tokens = 0;
		let last: Record<string, unknown> | undefined;
		let problem: string | undefined;
		for (const line of lines) {
			if (line.trim() === "") continue;
			const part = readObject(line);
			problem =
				part === undefined
					? "a line that is not JSON"
					: part.error !== undefined
						? String(part.error)
						: undefined;
			if (part === undefined || problem !== undefined) break;
			const message = isObject(part.message) ? part.message : {};
			if (`${message.thinking ?? ""}${message.content ?? ""}` !== "")
				tokens += 1;
			if (part.done === true) last = part;
		}
		yield { at, tokens, last };
		if (problem !== undefined) throw new Error(problem);
	}
}

/** @returns what went wrong, if it did not come to its end */
export async function readWhole(
	{ chunks }: OpenReply,
	model: string,
	askedAt: number,
): Promise<Timings | string> {
	const arrivedAt: number[] = [];
	let tokens = 0;
	let last: Record<string, unknown> | undefined;
	try {
		for await (const arrival of readArrivals(chunks)) {
			if (arrival.tokens > 0) arrivedAt.push(arrival.at);
			tokens += arrival.tokens;
			last ??= arrival.last;
			if (tokens > maxTokens)
				throw new Error(
					`more than ${maxTokens} tokens, and ${askedTokens} were asked for`,
				);
		}
	} catch (error) {
		const { message } = error as Error;
		return `it broke off after ${tokens} tokens: ${message === "" ? codeOf(error) : message}`;
	}
	const [first] = arrivedAt;
	if (last === undefined)
		return `it ended after ${tokens} tokens, without its last line`;
	if (first === undefined) return "it ended without a token";
	const { eval_duration: madeInNs, eval_count: made } = last;
	return {
		model,
		firstTokenMs: first - askedAt,
		spanMs: (arrivedAt.at(-1) ?? first) - first,
		tokens,
		arrivals: arrivedAt.length,
		gapsMs: arrivedAt.slice(1).map((at, i) => at - (arrivedAt[i] ?? at)),
		madePerTokenMs:
			typeof madeInNs === "number" && typeof made === "number" && made > 0
				? madeInNs / 1e6 / made
				: undefined,
	};
}
