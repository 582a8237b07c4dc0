import { randomBytes } from "node:crypto";
import { connect, type Socket } from "node:net";
import type { Log } from "../log.ts";
import { Aggregates } from "./aggregate.ts";
import type { Alarm } from "./alarms/alarm.ts";
import { AlarmSender } from "./alarms/sender.ts";
import {
	firstRetryMs,
	maxAnswerLength,
	maxBatchRecords,
	maxRetryMs,
	onLines,
	readAnswer,
	strange,
} from "./protocol.ts";
import type { UsageRecord } from "./record.ts";

/** How long a record waits for others to go with it. */
const batchMs = 500;
/** Batches that are sent before the first of them is answered. */
const maxInFlight = 8;
/** So many records wait for a ledger; then the oldest are put together. */
const maxWaiting = 20_000;
const maxAggregates = 5_000;
/** How long a ledger may take to answer. It does nothing else while it sums up. */
const answerMs = 60_000;
/** What is lost is told of once in so long. */
const lossToldEveryMs = 60_000;

interface Sent {
	readonly batch: number;
	readonly requests: number;
	/** When the first of them ended; epoch milliseconds. */
	readonly oldestMs: number;
	/** The question's line. */
	readonly line: string;
}

/** What became of the records that a gate has had. */
export interface LedgerCounts {
	readonly isConnected: boolean;
	/** Requests of which no ledger has said that they are in its file. */
	readonly waiting: number;
	/** Requests that are in a ledger's file. */
	readonly written: number;
	/** Requests whose records were put together with others, as too many waited. */
	readonly aggregated: number;
	/** Requests of which nothing is left, as even that was too much. */
	readonly lost: number;
	/** What is known of why nothing has been taken since. */
	readonly why?: string;
}

/**
 * Sends a gate's records to the ledger. It never waits and never throws: what the
 * ledger has not taken is kept, in bounded memory, and sent again; each record
 * gets into the file once, whichever of the two is killed.
 */
export class LedgerClient {
	readonly #socketPath: string;
	readonly #log: Log;
	/** Names this run of the gate. */
	readonly #source = randomBytes(12).toString("hex");
	readonly #alarms: AlarmSender;
	#pending: UsageRecord[] = [];
	#older = new Aggregates(maxAggregates);
	/** Sent, or to be sent again; nobody knows which of them are in the file. */
	#inFlight: Sent[] = [];
	#batches = 0;
	#written = 0;
	#aggregated = 0;
	#lost = 0;
	#lossToldAtMs = Number.NEGATIVE_INFINITY;
	#socket: Socket | undefined;
	/** The ledger has said what it has. */
	#isReady = false;
	#isAway = false;
	#why: string | undefined;
	#retryMs = firstRetryMs;
	#timer: NodeJS.Timeout | undefined;
	#retryTimer: NodeJS.Timeout | undefined;
	#closing: (() => void) | undefined;
	/** Called whenever the ledger has written something. */
	readonly #onWritten = new Set<() => void>();
	#isClosed = false;

	constructor(socketPath: string, log: Log) {
		this.#socketPath = socketPath;
		this.#log = log;
		this.#alarms = new AlarmSender(socketPath);
		this.#connect();
	}

	/** Takes a record. */
	record(record: UsageRecord): void {
		this.#pending.push(record);
		if (this.#pending.length > maxWaiting) this.#putTogether();
		if (this.#pending.length >= maxBatchRecords) this.#send();
		else
			this.#timer ??= setTimeout(() => {
				this.#timer = undefined;
				this.#send();
			}, batchMs).unref();
	}

	/** Has the ledger tell its people, now or once it is there, whatever becomes of records. */
	alarm(alarm: Alarm): void {
		this.#alarms.alarm(alarm);
	}

	get counts(): LedgerCounts {
		const sum = (list: readonly { readonly requests: number }[]) =>
			list.reduce((total, { requests }) => total + requests, 0);
		return {
			isConnected: this.#isReady,
			waiting: sum(this.#pending) + this.#older.requests + sum(this.#inFlight),
			written: this.#written,
			aggregated: this.#aggregated,
			lost: this.#lost,
			...(this.#why !== undefined && { why: this.#why }),
		};
	}

	/**
	 * Sends what is left and waits for the ledger to have it, for so long at the
	 * most. What it has not taken by then is lost, and told of.
	 */
	async close(withinMs: number): Promise<void> {
		if (this.#isClosed) return;
		const done = new Promise<void>((resolve) => {
			this.#closing = resolve;
		});
		const timer = setTimeout(() => this.#closing?.(), withinMs);
		this.#send();
		this.#endIfDone();
		await done;
		clearTimeout(timer);
		clearTimeout(this.#timer);
		clearTimeout(this.#retryTimer);
		this.#isClosed = true;
		const { waiting } = this.counts;
		this.#socket?.destroy();
		this.#alarms.close();
		if (waiting > 0)
			this.#log.error(
				{ event: "usage_lost", requests: waiting },
				"the gate ends and the ledger has not taken the usage of these requests",
			);
	}

	/**
	 * Sends what is left, and waits for the ledger to have everything from before a
	 * moment; epoch milliseconds.
	 *
	 * @returns whether it has, within so long
	 */
	async delivered(beforeMs: number, withinMs: number): Promise<boolean> {
		const isThere = () => this.#oldestWaitingMs() >= beforeMs;
		if (isThere()) return true;
		let check = () => {};
		const done = new Promise<boolean>((resolve) => {
			const timer = setTimeout(() => resolve(false), withinMs).unref();
			check = () => {
				if (!isThere()) return;
				clearTimeout(timer);
				resolve(true);
			};
		});
		this.#onWritten.add(check);
		this.#send();
		const has = await done;
		this.#onWritten.delete(check);
		return has;
	}

	/** When the first of those ended that no ledger has acknowledged; Infinity where there is none. */
	#oldestWaitingMs(): number {
		return Math.min(
			...[this.#inFlight[0], this.#older].map(
				(one) => one?.oldestMs ?? Number.POSITIVE_INFINITY,
			),
			this.#pending[0]?.time ?? Number.POSITIVE_INFINITY,
		);
	}

	#endIfDone(): void {
		if (
			this.#closing !== undefined &&
			this.#inFlight.length === 0 &&
			this.#pending.length === 0 &&
			this.#older.size === 0
		)
			this.#closing();
	}

	/** Makes room: the oldest that were never sent become sums. */
	#putTogether(): void {
		let lost = 0;
		for (const record of this.#pending.splice(0, maxBatchRecords))
			if (this.#older.add(record)) this.#aggregated += record.requests;
			else lost += record.requests;
		this.#lost += lost;
		const nowMs = performance.now();
		if (lost === 0 || nowMs - this.#lossToldAtMs < lossToldEveryMs) return;
		this.#lossToldAtMs = nowMs;
		this.#log.error(
			{ event: "usage_lost", requests: this.#lost },
			"no ledger takes the usage of requests, and room for more of it is lacking",
		);
	}

	#connect(): void {
		this.#retryTimer = undefined;
		const socket = connect(this.#socketPath);
		this.#socket = socket;
		let why = "it closed the connection";
		socket.unref();
		socket.setTimeout(answerMs, () => {
			if (this.#isReady && this.#inFlight.length === 0) return;
			why = `it did not answer in ${answerMs / 1000} s`;
			socket.destroy();
		});
		socket.once("connect", () => {
			socket.write(`${JSON.stringify({ hello: this.#source })}\n`);
		});
		onLines(socket, maxAnswerLength, (line) => {
			why = this.#take(line) ?? why;
		});
		socket.on("error", ({ code, message }: NodeJS.ErrnoException) => {
			why = code ?? message;
		});
		socket.once("close", () => this.#disconnected(why));
	}

	#disconnected(why: string): void {
		this.#isReady = false;
		this.#socket = undefined;
		if (this.#isClosed) return;
		this.#why = why;
		if (!this.#isAway) {
			this.#isAway = true;
			this.#log.warn(
				{ event: "ledger_away", socket: this.#socketPath, why },
				"the ledger takes nothing; the usage of requests is kept until it does",
			);
		}
		this.#retryTimer = setTimeout(() => this.#connect(), this.#retryMs);
		// A gate that ends waits for the ledger, for a moment.
		if (this.#closing === undefined) this.#retryTimer.unref();
		this.#retryMs = Math.min(2 * this.#retryMs, maxRetryMs);
	}

	/** Takes an answer. @returns what is wrong, where it is not as it should be */
	#take(line: string): string | undefined {
		const socket = this.#socket;
		const answer = readAnswer(line);
		if ("last" in answer) {
			// It answers the greeting alone: all is sent anew for it.
			if (this.#isReady) {
				socket?.destroy();
				return strange;
			}
			this.#begin(answer.last);
		} else if ("done" in answer) this.#finish(answer.done);
		else if ("failed" in answer || "error" in answer) {
			socket?.destroy();
			return "why" in answer ? answer.why : answer.error;
		}
		return undefined;
	}

	/** The ledger tells what of this gate it has: the rest is sent again. */
	#begin(last: number): void {
		this.#finish(last);
		this.#isReady = true;
		for (const { line } of this.#inFlight) this.#socket?.write(line);
		this.#send();
	}

	#finish(batch: number): void {
		while ((this.#inFlight[0]?.batch ?? Number.POSITIVE_INFINITY) <= batch) {
			this.#written += this.#inFlight.shift()?.requests ?? 0;
			if (this.#isAway) this.#isBack();
		}
		this.#send();
		this.#endIfDone();
		for (const check of this.#onWritten) check();
	}

	/** It has written something: to be connected is not enough, where its disk is full. */
	#isBack(): void {
		this.#isAway = false;
		this.#why = undefined;
		this.#retryMs = firstRetryMs;
		const { waiting, aggregated, lost } = this.counts;
		this.#log.info(
			{ event: "ledger_back", waiting, aggregated, lost },
			"the ledger takes records again",
		);
	}

	#send(): void {
		if (!this.#isReady) return;
		while (
			this.#inFlight.length < maxInFlight &&
			(this.#pending.length > 0 || this.#older.size > 0)
		) {
			const older = this.#older.take(maxBatchRecords);
			const records =
				older.length > 0 ? older : this.#pending.splice(0, maxBatchRecords);
			this.#batches += 1;
			const batch = this.#batches;
			const line = `${JSON.stringify({ source: this.#source, batch, records })}\n`;
			const requests = records.reduce((sum, one) => sum + one.requests, 0);
			const oldestMs = records[0]?.time ?? Number.POSITIVE_INFINITY;
			this.#inFlight.push({ batch, requests, oldestMs, line });
			this.#socket?.write(line);
		}
	}
}
