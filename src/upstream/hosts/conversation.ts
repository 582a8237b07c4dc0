import { hash } from "node:crypto";

/** As much of a body is looked at, and as much of its messages. */
const lookedAtBytes = 32 * 1024;
const longestChars = 4 * 1024;
/** The system's words and the user's first; what follows changes from turn to turn. */
const firstMessages = 2;
const ofUser = /"role"\s*:\s*"user"/;
const quote = 0x22;
const openBrace = 0x7b;
const openBracket = 0x5b;
const closeBrace = 0x7d;
const closeBracket = 0x5d;
/** Conversations that are remembered, and for how long. */
const maxConversations = 4096;
const rememberedMs = 10 * 60_000;
/** What reading one byte of a prompt anew takes: some 500 tokens a second, four bytes each. */
const msPerByte = 0.5;
const longestWorthMs = 30_000;

/** Whatever else a body holds, a conversation's first messages stay as they are from turn to turn. */
const members = ['"messages"', '"input"', '"prompt"'];

/**
 * What tells a conversation from others: who, with which model, and how it began.
 * A guess, which decides where its prompt may be in a cache and nothing else.
 *
 * @param body its beginning
 */
export function conversationOf(
	key: string,
	model: string,
	body: Buffer,
): string | undefined {
	const looked = body.subarray(0, lookedAtBytes);
	for (const member of members) {
		const at = looked.indexOf(member, 0, "latin1");
		if (at === -1) continue;
		const from = at + member.length;
		const text = looked.toString("latin1", from, from + longestChars);
		const beginning = beginningOf(text);
		return hash("sha1", `${key}\n${model}\n${beginning}`, "base64");
	}
	return undefined;
}

/** What the cache of a prompt in a body of this size saves. */
export function worthOf(sizeBytes: number): number {
	return Math.min(longestWorthMs, sizeBytes * msPerByte);
}

/** The first elements of a list, or the beginning of whatever else it is. */
function beginningOf(text: string): string {
	const end = text.length;
	const start = text.indexOf("[");
	// A prompt that is one text.
	if (start === -1 || start > 8) return text;
	let depth = 0;
	let elements = 0;
	let elementAt = start;
	let whole = start;
	for (let at = start + 1; at < end; at += 1) {
		switch (text.charCodeAt(at)) {
			case quote:
				at = endOfString(text, at, end);
				break;
			case openBrace:
			case openBracket:
				if (depth === 0) elementAt = at;
				depth += 1;
				break;
			case closeBrace:
			case closeBracket:
				depth -= 1;
				if (depth < 0) return text.slice(start, whole);
				if (depth > 0) break;
				whole = at + 1;
				elements += 1;
				if (
					elements === firstMessages ||
					ofUser.test(text.slice(elementAt, whole))
				)
					return text.slice(start, whole);
		}
	}
	return text.slice(start);
}

function endOfString(text: string, from: number, end: number): number {
	let at = text.indexOf('"', from + 1);
	while (at !== -1 && at < end && isEscaped(text, at))
		at = text.indexOf('"', at + 1);
	return at === -1 ? end : at;
}

function isEscaped(text: string, at: number): boolean {
	let count = 0;
	while (text.charCodeAt(at - 1 - count) === 0x5c) count += 1;
	return count % 2 === 1;
}

/** Where conversations were answered last; the one that has rested longest is forgotten first. */
export class Conversations {
	readonly #hosts = new Map<string, { host: string; untilMs: number }>();

	get size(): number {
		return this.#hosts.size;
	}

	/** The host's name. */
	find(conversation: string, nowMs: number): string | undefined {
		const found = this.#hosts.get(conversation);
		return found !== undefined && found.untilMs > nowMs
			? found.host
			: undefined;
	}

	remember(conversation: string, host: string, nowMs: number): void {
		this.#hosts.delete(conversation);
		this.#hosts.set(conversation, { host, untilMs: nowMs + rememberedMs });
		if (this.#hosts.size <= maxConversations) return;
		const [oldest] = this.#hosts.keys();
		if (oldest !== undefined) this.#hosts.delete(oldest);
	}
}
