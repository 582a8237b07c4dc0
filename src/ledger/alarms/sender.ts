import { connect, type Socket } from "node:net";
import {
	firstRetryMs,
	maxAnswerLength,
	maxRetryMs,
	onLines,
	readAnswer,
} from "../protocol.ts";
import type { Alarm } from "./alarm.ts";
import { AlarmOutbox, type Numbered } from "./outbox.ts";

/**
 * Hands a gate's alarms to the ledger. It has a connection of its own, from the
 * first alarm on: that of the records breaks off and waits where they cannot be
 * stored, which is when somebody has to hear of things. It never waits or throws.
 */
export class AlarmSender {
	readonly #socketPath: string;
	readonly #outbox = new AlarmOutbox();
	#socket: Socket | undefined;
	#retryTimer: NodeJS.Timeout | undefined;
	#retryMs = firstRetryMs;
	#isClosed = false;

	constructor(socketPath: string) {
		this.#socketPath = socketPath;
	}

	/** Has the ledger tell its people, now or once it is there. */
	alarm(alarm: Alarm): void {
		const numbered = this.#outbox.add(alarm, performance.now());
		if (numbered === undefined || this.#isClosed) return;
		if (this.#socket !== undefined) this.#send(numbered);
		else if (this.#retryTimer === undefined) this.#connect();
	}

	/** Sends nothing more. */
	close(): void {
		this.#isClosed = true;
		clearTimeout(this.#retryTimer);
		this.#socket?.destroy();
	}

	#send(alarm: Numbered): void {
		this.#socket?.write(`${JSON.stringify({ alarm })}\n`);
	}

	#connect(): void {
		this.#retryTimer = undefined;
		const socket = connect(this.#socketPath).unref();
		this.#socket = socket;
		// What is written before it is connected waits in the socket.
		for (const alarm of this.#outbox.waiting) this.#send(alarm);
		onLines(socket, maxAnswerLength, (line) => this.#take(line));
		socket.on("error", () => {});
		socket.once("close", () => {
			this.#socket = undefined;
			const [first] = this.#outbox.waiting;
			if (this.#isClosed || first === undefined) return;
			this.#retryTimer = setTimeout(() => this.#connect(), this.#retryMs);
			this.#retryTimer.unref();
			this.#retryMs = Math.min(2 * this.#retryMs, maxRetryMs);
		});
	}

	#take(line: string): void {
		const answer = readAnswer(line);
		if (!("seen" in answer)) {
			// What is no ledger; one that does not understand has closed, and says nothing of the rest.
			this.#socket?.destroy();
			return;
		}
		this.#retryMs = firstRetryMs;
		const sum = this.#outbox.done(answer.seen, answer.isGivenUp === true);
		if (sum !== undefined) this.#send(sum);
	}
}
