import type { Socket } from "node:net";
import { StringDecoder } from "node:string_decoder";
import type { Trial } from "./alarms/dispatcher.ts";
import type { Numbered } from "./alarms/outbox.ts";
import type { UsageRecord } from "./record.ts";
import type { UsageQuery, UsageRow } from "./store.ts";

/**
 * What is said on the ledger's socket: one JSON object a line, each way.
 *
 * A gate names itself, is told the number of its last batch that is in the file,
 * and sends those behind it. Each is answered once it is on the disk; one that
 * cannot be written is answered `failed`, and the connection closes: its gate
 * keeps it, and what follows it, and comes again.
 *
 * Its alarms go by a connection of their own, which has no greeting and which
 * nothing that befalls records ends. They have numbers of their own, and are answered once a person was told
 * or nobody can be, which may take an hour; a gate that comes again sends those
 * that were not answered.
 */
export type Question =
	| { readonly hello: string }
	| Batch
	| { readonly query: UsageQuery }
	| { readonly alarm: Numbered }
	| { readonly trial: true }
	/** Whether it tells those of this mark (`markOf` of alarms/targets.ts). */
	| { readonly tells: string };

/** Records of one gate, which go into the file whole, or not at all. */
export interface Batch {
	/** One run of a gate. */
	readonly source: string;
	/** Counts up from 1, without gaps, for each source. */
	readonly batch: number;
	readonly records: readonly UsageRecord[];
}

export type Answer =
	| { readonly last: number }
	| { readonly done: number }
	| { readonly failed: number; readonly why: string }
	| { readonly rows: readonly UsageRow[] }
	/** That alarm was sent, or given up (which an older ledger does not say), or nobody wants it. */
	| { readonly seen: number; readonly isGivenUp?: true }
	| { readonly trials: readonly Trial[] }
	| { readonly tells: boolean }
	| { readonly error: string };

/** The most records in a batch. */
export const maxBatchRecords = 256;
/** The longest line that a ledger reads: more than such a batch can have. */
export const maxQuestionLength = 4 * 2 ** 20;
/** The longest line that a ledger writes. */
export const maxAnswerLength = 64 * 2 ** 20;

/** How long after a gate's connection has ended it tries the next: at first, and at most. */
export const firstRetryMs = 200;
export const maxRetryMs = 2_000;

/** What is said of an answer that is none. */
export const strange = "what answers is not a ledger";

/** Reads a ledger's line; the error `strange` for what is not JSON. */
export function readAnswer(line: string): Answer {
	try {
		return Object(JSON.parse(line)) as Answer;
	} catch {
		return { error: strange };
	}
}

/**
 * Hands on a socket's lines, whole ones alone.
 *
 * @param maxLength of a line, in characters; a longer one ends the connection
 */
export function onLines(
	socket: Socket,
	maxLength: number,
	take: (line: string) => void,
): void {
	const decoder = new StringDecoder("utf8");
	let parts: string[] = [];
	let length = 0;
	socket.on("data", (chunk: Buffer) => {
		let text = decoder.write(chunk);
		for (;;) {
			const end = text.indexOf("\n");
			if (end === -1) break;
			const line = parts.join("") + text.slice(0, end);
			parts = [];
			length = 0;
			text = text.slice(end + 1);
			take(line);
			if (socket.destroyed) return;
		}
		parts.push(text);
		length += text.length;
		if (length > maxLength) socket.destroy();
	});
}
