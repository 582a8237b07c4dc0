import { createServer, type Server, type Socket } from "node:net";
import { formatDatabase } from "../config/databaseUrl.ts";
import { Finding } from "../errors.ts";
import type { Log } from "../log.ts";
import { removeStaleSocket } from "../net/staleSocket.ts";
import { readAlarm } from "./alarms/alarm.ts";
import { openAlarmBook } from "./alarms/book.ts";
import { AlarmDispatcher } from "./alarms/dispatcher.ts";
import type { AlarmTarget } from "./alarms/targets.ts";
import { type Book, type BookPlace, openBook } from "./book.ts";
import {
	type Answer,
	maxAnswerLength,
	maxBatchRecords,
	maxQuestionLength,
	onLines,
} from "./protocol.ts";
import { readRecord } from "./record.ts";
import { dimensions, type UsageQuery } from "./store.ts";

/** Connections at once; each gate has one, and another from its first alarm on. */
const maxConnections = 64;
/** How often what is too old is looked for. */
const forgetEveryMs = 3_600_000;

export interface LedgerOptions extends BookPlace {
	readonly socket: string;
	/** Whom it tells of what; nobody if it is not given. */
	readonly alarms?: readonly AlarmTarget[];
	/** Names of the hosts behind the gate, where there are several. */
	readonly hosts?: readonly string[];
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
	const book = await openBook(options, log);
	const alarms = new AlarmDispatcher(
		options.alarms ?? [],
		openAlarmBook(options.file, log),
		log,
	);
	const sockets = new Set<Socket>();
	const server = createServer((socket) => {
		sockets.add(socket);
		socket.once("close", () => sockets.delete(socket));
		socket.on("error", () => {});
		serve(socket, book, alarms, options.hosts ?? []);
	});
	server.maxConnections = maxConnections;
	try {
		await listen(server, options.socket);
	} catch (error) {
		await book.close();
		throw error;
	}
	const timer = setInterval(() => void book.forget(), forgetEveryMs);
	void book.forget();
	const { file, database, socket, gate } = options;
	log.info(
		{
			...(database === undefined
				? { file }
				: { database: formatDatabase(database.database), gate }),
			socket,
		},
		"ledger open",
	);
	return {
		async close() {
			clearInterval(timer);
			alarms.close();
			for (const socket of sockets) socket.destroy();
			await new Promise((resolve) => server.close(resolve));
			await book.close();
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

/**
 * Answers a connection's lines in their order; while one is at work, no more are
 * read. Alarms are answered when their time has come, which holds up nothing.
 */
function serve(
	socket: Socket,
	book: Book,
	alarms: AlarmDispatcher,
	hosts: readonly string[],
): void {
	const lines: string[] = [];
	let isAtWork = false;
	const work = async () => {
		isAtWork = true;
		socket.pause();
		for (let line = lines.shift(); line !== undefined; line = lines.shift()) {
			const asked = readQuestion(line);
			const seen = asked && alarmAnswer(asked, alarms, hosts);
			if (seen instanceof Promise) {
				void seen.then((answer) => {
					if (socket.writable) socket.write(`${JSON.stringify(answer)}\n`);
				});
				continue;
			}
			const answer = seen ?? (await answerTo(asked, book));
			// What has come of a gate that is gone is written too; only the answer is not.
			socket.write(`${JSON.stringify(answer)}\n`);
			if ("failed" in answer || "error" in answer) {
				socket.end();
				break;
			}
		}
		isAtWork = false;
		// Where it has ended, what follows is read and dropped, up to its end.
		socket.resume();
	};
	onLines(socket, maxQuestionLength, (line) => {
		if (socket.writableEnded) return;
		lines.push(line);
		if (!isAtWork) void work();
	});
}

type Asked = Record<string, unknown>;

/** @returns `undefined` where it is not JSON */
function readQuestion(line: string): Asked | undefined {
	try {
		return Object(JSON.parse(line)) as Asked;
	} catch {
		return undefined;
	}
}

/** @returns `undefined` where it does not concern alarms */
function alarmAnswer(
	{ alarm, trial, tells }: Asked,
	alarms: AlarmDispatcher,
	hosts: readonly string[],
): Promise<Answer> | Answer | undefined {
	if (trial === true)
		return alarms
			.try()
			.then((told) =>
				typeof told === "string" ? { error: told } : { trials: told },
			);
	if (typeof tells === "string") return { tells: alarms.tells(tells) };
	if (alarm === undefined) return undefined;
	const read = readAlarm(alarm, hosts);
	const { number } = Object(alarm) as { number?: unknown };
	if (read === undefined || !Number.isSafeInteger(number))
		return { error: "this is not an alarm" };
	return alarms.take(read).then((isTold) => ({
		seen: Number(number),
		...(!isTold && { isGivenUp: true as const }),
	}));
}

async function answerTo(asked: Asked | undefined, book: Book): Promise<Answer> {
	if (asked === undefined) return { error: "this is not JSON" };
	const { hello, source, batch, records, query } = asked;
	if (isName(hello)) {
		const last = await book.lastBatch(hello);
		return typeof last === "number" ? { last } : { error: last };
	}
	if (isName(source) && Number.isSafeInteger(batch) && Array.isArray(records)) {
		const read = records.map(readRecord);
		if (
			records.length > maxBatchRecords ||
			!read.every((one) => one !== undefined)
		)
			return { error: "this is not a batch of records" };
		const why = await book.write(source, Number(batch), read);
		return why === undefined
			? { done: Number(batch) }
			: { failed: Number(batch), why };
	}
	const read = readQuery(query);
	if (read === undefined) return { error: "this is not a question" };
	const rows = await book.usage(read);
	if (typeof rows === "string") return { error: rows };
	return JSON.stringify(rows).length < maxAnswerLength
		? { rows }
		: { error: "the answer is too long; ask for less time, or by less" };
}

function isName(value: unknown): value is string {
	return typeof value === "string" && /^[a-z0-9-]{1,64}$/.test(value);
}

function readQuery(value: unknown): UsageQuery | undefined {
	if (typeof value !== "object" || value === null) return undefined;
	const { sinceMs, untilMs, by, key, own } = value as Record<
		keyof UsageQuery,
		unknown
	>;
	const isGood =
		Number.isSafeInteger(sinceMs) &&
		(untilMs === undefined || Number.isSafeInteger(untilMs)) &&
		Array.isArray(by) &&
		by.every((name) => dimensions.includes(name)) &&
		new Set(by).size === by.length &&
		(key === undefined || typeof key === "string") &&
		(own === undefined || typeof own === "boolean");
	return isGood ? (value as UsageQuery) : undefined;
}
