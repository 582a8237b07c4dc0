import { createServer, type Server, type Socket } from "node:net";
import { Finding } from "../errors.ts";
import type { Log } from "../log.ts";
import { removeStaleSocket } from "../net/staleSocket.ts";
import { explain, openStore, saysTorn } from "./openStore.ts";
import {
	type Answer,
	maxAnswerLength,
	maxBatchRecords,
	maxQuestionLength,
	onLines,
} from "./protocol.ts";
import { readRecord, type UsageRecord } from "./record.ts";
import { dimensions, type UsageQuery } from "./store.ts";

/** Connections at once; each gate has one. */
const maxConnections = 64;
/** How often what is too old is looked for, and how many of it go at once. */
const forgetEveryMs = 3_600_000;
const forgetAtOnce = 5_000;
/** What goes wrong with each batch is said once in so long. */
const saidAgainAfterMs = 60_000;

export interface LedgerOptions {
	/** Absolute. */
	readonly file: string;
	readonly socket: string;
	readonly retentionMs: number;
	/** For tests of a full disk. */
	readonly maxPages?: number;
}

export interface Ledger {
	/** Takes nothing more, and closes the file. */
	close(): Promise<void>;
}

/**
 * Opens the ledger: its file, which is this process's alone, and the socket
 * (mode 0660) on which gates send records and anybody in its group asks for sums.
 *
 * @throws {Finding} if it cannot have the file or the socket
 */
export async function openLedger(
	options: LedgerOptions,
	log: Log,
): Promise<Ledger> {
	const book = new Book(options, log);
	const sockets = new Set<Socket>();
	const server = createServer((socket) => {
		sockets.add(socket);
		socket.once("close", () => sockets.delete(socket));
		socket.on("error", () => {});
		serve(socket, book);
	});
	server.maxConnections = maxConnections;
	try {
		await listen(server, options.socket);
	} catch (error) {
		book.close();
		throw error;
	}
	const timer = setInterval(() => void book.forget(), forgetEveryMs);
	void book.forget();
	log.info({ file: options.file, socket: options.socket }, "ledger open");
	return {
		async close() {
			clearInterval(timer);
			for (const socket of sockets) socket.destroy();
			await new Promise((resolve) => server.close(resolve));
			book.close();
			log.info("ledger closed");
		},
	};
}

async function listen(server: Server, socket: string): Promise<void> {
	if (await removeStaleSocket(socket))
		throw new Finding(`another ledger answers on ${socket}`);
	const failure = await new Promise<NodeJS.ErrnoException | undefined>(
		(resolve) => {
			server.once("error", resolve);
			// Binding happens inside listen(), so the socket never exists with a wider mode.
			const umask = process.umask(0o117);
			server.listen(socket, () => resolve(undefined));
			process.umask(umask);
		},
	);
	if (failure !== undefined)
		throw new Finding(
			`cannot listen on ${socket} (${failure.code}): does its folder exist, and may this user write there?`,
		);
}

/** The file, and what becomes of it. */
class Book {
	readonly #options: LedgerOptions;
	readonly #log: Log;
	#store;
	#closed = false;
	#complainedAtMs = Number.NEGATIVE_INFINITY;

	constructor(options: LedgerOptions, log: Log) {
		this.#options = options;
		this.#log = log;
		this.#store = this.#open();
	}

	#open() {
		const { file, retentionMs, maxPages } = this.#options;
		const { store, setAside } = openStore(file, retentionMs, maxPages);
		if (setAside !== undefined)
			this.#log.error(
				{ event: "ledger_torn", file, setAside },
				"the ledger's file is torn; it was set aside, and a new one begun. sqlite3 may save what is in it: .recover",
			);
		return store;
	}

	lastBatch(source: string): number {
		return this.#store.lastBatch(source);
	}

	/** Writes a batch. @returns why it could not, or `undefined` once it is on the disk */
	write(
		source: string,
		batch: number,
		records: readonly UsageRecord[],
	): string | undefined {
		try {
			this.#store.append(source, batch, records);
			return undefined;
		} catch (error) {
			const why = explain(error);
			const nowMs = performance.now();
			if (nowMs - this.#complainedAtMs > saidAgainAfterMs) {
				this.#complainedAtMs = nowMs;
				this.#log.error(
					{ event: "ledger_unwritable", file: this.#options.file, why },
					"a batch could not be written; its gate keeps it and tries again",
				);
			}
			// A torn file is set aside when it is opened.
			if (saysTorn(error)) {
				this.#store.close();
				this.#store = this.#open();
			}
			return why;
		}
	}

	usage(query: UsageQuery) {
		return this.#store.usage(query);
	}

	/** Deletes what is too old, in parts between which batches are written. */
	async forget(): Promise<void> {
		try {
			while (!this.#closed && this.#store.forgetSome(forgetAtOnce))
				await new Promise((resolve) => setImmediate(resolve));
		} catch (error) {
			this.#log.warn({ why: explain(error) }, "old records were not deleted");
		}
	}

	close(): void {
		this.#closed = true;
		this.#store.close();
	}
}

function serve(socket: Socket, book: Book): void {
	onLines(socket, maxQuestionLength, (line) => {
		// What has come of a gate that is gone is written too; only the answer is not.
		if (socket.writableEnded) return;
		const answer = answerTo(line, book);
		socket.write(`${JSON.stringify(answer)}\n`);
		if ("failed" in answer || "error" in answer) socket.end();
	});
}

function answerTo(line: string, book: Book): Answer {
	let asked: Record<string, unknown>;
	try {
		asked = Object(JSON.parse(line));
	} catch {
		return { error: "this is no JSON" };
	}
	const { hello, source, batch, records, query } = asked;
	if (isName(hello)) return { last: book.lastBatch(hello) };
	if (isName(source) && Number.isSafeInteger(batch) && Array.isArray(records)) {
		const read = records.map(readRecord);
		if (
			records.length > maxBatchRecords ||
			!read.every((one) => one !== undefined)
		)
			return { error: "this is no batch of records" };
		const why = book.write(source, Number(batch), read);
		return why === undefined
			? { done: Number(batch) }
			: { failed: Number(batch), why };
	}
	const read = readQuery(query);
	if (read === undefined) return { error: "this is no question" };
	const rows = book.usage(read);
	return JSON.stringify(rows).length < maxAnswerLength
		? { rows }
		: { error: "the answer is too long; ask for less time, or by less" };
}

function isName(value: unknown): value is string {
	return typeof value === "string" && /^[a-z0-9-]{1,64}$/.test(value);
}

function readQuery(value: unknown): UsageQuery | undefined {
	if (typeof value !== "object" || value === null) return undefined;
	const { sinceMs, untilMs, by, key } = value as Record<
		keyof UsageQuery,
		unknown
	>;
	const isGood =
		Number.isSafeInteger(sinceMs) &&
		(untilMs === undefined || Number.isSafeInteger(untilMs)) &&
		Array.isArray(by) &&
		by.every((name) => dimensions.includes(name)) &&
		new Set(by).size === by.length &&
		(key === undefined || typeof key === "string");
	return isGood ? (value as UsageQuery) : undefined;
}
