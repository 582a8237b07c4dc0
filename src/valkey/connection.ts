import type { Redis } from "iovalkey";
import type { StateTarget } from "../config/state.ts";
import type { Log } from "../log.ts";
import type { StateAccess } from "./access.ts";
import type { Script } from "./scripts.ts";

/** How long Valkey may take for an answer; then it is away. */
export const answerMs = 250;
/** Questions that are not answered yet; one more is not asked. */
export const maxUnanswered = 1024;
/** How often it is asked by itself, away or not. */
const beatMs = 1_000;
/** Where it was away so lately, one good answer does not do. */
const lapseMs = 10_000;
const answersAfterLapse = 3;
const connectMs = 1_000;
const firstRetryMs = 100;
const maxRetryMs = 1_000;
/** What an error of Valkey's may say in the log. */
const maxWhyLength = 200;

/** A script's answer; `undefined` where Valkey is away. */
export type Answer = readonly unknown[] | undefined;

/** One that waits for its answer. */
interface Question {
	readonly sentAtMs: number;
	readonly resolve: (answer: Answer) => void;
}

/** What goes to and fro in the background. */
export interface Beat {
	/** What is asked, every second. It must write, or a Valkey that takes nothing would pass. */
	question(): { readonly keys: string[]; readonly args: (string | number)[] };
	answered(answer: readonly unknown[]): void;
	/** Valkey is there, for the first time or again. */
	back(): void;
	/** By how many the gate divides its limits while Valkey is away, for the log. */
	readonly gates: number;
}

/** Whether Valkey answers. */
export interface ConnectionCounts {
	readonly isConnected: boolean;
	/** Why it is not. */
	readonly why?: string;
	/** Times that it went away. */
	readonly losses: number;
	/** Questions that had no answer. */
	readonly unanswered: number;
}

/**
 * Runs scripts in Valkey. A question has its answer within a quarter of a second
 * or none, and never fails. The first that has none takes Valkey for away: all
 * that wait are let go, and nothing is asked by requests until a question in the
 * background has been answered.
 */
export class Connection {
	readonly #client: Redis;
	readonly #log: Log;
	readonly #where: string;
	readonly #beat: Beat;
	readonly #beatScript: Script;
	/** The oldest first. */
	readonly #waiting = new Set<Question>();
	#watchTimer: NodeJS.Timeout | undefined;
	readonly #timer: NodeJS.Timeout;
	/** Sent on this connection and neither answered nor lost with it. */
	#unanswered = 0;
	#connections = 0;
	#isOn = false;
	#isTold = false;
	#isClosed = false;
	#isBeating = false;
	#missing = 1;
	#onSinceMs = Number.NEGATIVE_INFINITY;
	#why = "it has not answered yet";
	/** Why the connection ends, where it is not Valkey that ends it. */
	#fault: string | undefined;
	#losses = 0;
	#noAnswers = 0;
	readonly #first = Promise.withResolvers<void>();

	/** @param where Valkey is, for the log */
	constructor(
		client: Redis,
		where: string,
		scripts: readonly Script[],
		beatScript: Script,
		beat: Beat,
		log: Log,
	) {
		this.#client = client;
		this.#where = where;
		this.#beatScript = beatScript;
		this.#beat = beat;
		this.#log = log;
		for (const { name, lua } of scripts) client.defineCommand(name, { lua });
		client.on("error", ({ code, message }: NodeJS.ErrnoException) => {
			this.#fault = worded(code ?? message);
		});
		client.on("ready", () => {
			this.#fault = undefined;
			void this.#look();
		});
		client.on("close", () => {
			// What it had not answered it never will.
			this.#connections += 1;
			this.#unanswered = 0;
			this.#lost(this.#fault ?? "it closed the connection");
		});
		this.#timer = setInterval(() => void this.#look(), beatMs);
		this.#timer.unref();
		client.connect().catch(() => {});
	}

	get counts(): ConnectionCounts {
		return {
			isConnected: this.#isOn,
			...(!this.#isOn && { why: this.#why }),
			losses: this.#losses,
			unanswered: this.#noAnswers,
		};
	}

	/** Waits for the first answer, for so long at the most. */
	async opened(withinMs: number): Promise<void> {
		const { promise, resolve } = Promise.withResolvers<void>();
		const timer = setTimeout(resolve, withinMs);
		await Promise.race([this.#first.promise, promise]);
		clearTimeout(timer);
		if (!this.#isOn) this.#tell();
	}

	/** Runs a script. Resolves within 250 ms. */
	ask(
		script: Script,
		keys: readonly string[],
		args: readonly (string | number)[],
	): Promise<Answer> {
		return this.#isOn
			? this.#send(script, keys, args)
			: Promise.resolve(undefined);
	}

	/** Says good-bye with a last script, and closes. */
	async close(
		script: Script,
		keys: readonly string[],
		args: readonly (string | number)[],
	): Promise<void> {
		await this.ask(script, keys, args);
		this.#isClosed = true;
		this.#isOn = false;
		clearInterval(this.#timer);
		clearTimeout(this.#watchTimer);
		this.#client.disconnect();
	}

	#send(
		script: Script,
		keys: readonly string[],
		args: readonly (string | number)[],
	): Promise<Answer> {
		if (this.#unanswered >= maxUnanswered) {
			this.#noAnswers += 1;
			return Promise.resolve(undefined);
		}
		this.#unanswered += 1;
		const connection = this.#connections;
		const { promise, resolve } = Promise.withResolvers<Answer>();
		const question = { sentAtMs: performance.now(), resolve };
		this.#waiting.add(question);
		this.#watch();
		const settled = () => {
			if (connection === this.#connections) this.#unanswered -= 1;
		};
		commandsOf(this.#client)
			[script.name]?.(keys.length, ...keys, ...args)
			.then(
				(answer) => {
					settled();
					this.#end(question, Array.isArray(answer) ? answer : []);
				},
				(error: Error) => {
					settled();
					if (this.#end(question, undefined)) this.#lost(worded(error.message));
				},
			);
		return promise;
	}

	/** @returns whether it was still to be answered */
	#end(question: Question, answer: Answer): boolean {
		if (!this.#waiting.delete(question)) return false;
		if (answer === undefined) this.#noAnswers += 1;
		question.resolve(answer);
		return true;
	}

	/** One timer for all, set for the oldest: one for each question would cost as much as the question. */
	#watch(): void {
		const [oldest] = this.#waiting;
		if (this.#watchTimer !== undefined || oldest === undefined) return;
		const leftMs = oldest.sentAtMs + answerMs - performance.now();
		this.#watchTimer = setTimeout(() => {
			this.#watchTimer = undefined;
			// Where this process was busy, answers may be here and not be read yet.
			if (this.#lateOne() === undefined) this.#watch();
			else setImmediate(() => this.#giveUp());
		}, leftMs);
	}

	#giveUp(): void {
		const late = this.#lateOne();
		if (late !== undefined) {
			this.#end(late, undefined);
			this.#lost(`it did not answer in ${answerMs} ms`);
		}
		this.#watch();
	}

	#lateOne(): Question | undefined {
		const [oldest] = this.#waiting;
		return oldest !== undefined &&
			// Timers count whole milliseconds.
			performance.now() - oldest.sentAtMs > answerMs - 1
			? oldest
			: undefined;
	}

	/** Asks in the background. */
	async #look(): Promise<void> {
		if (this.#isBeating || this.#isClosed) return;
		// Why it is not, the connection's end has said.
		if (this.#client.status !== "ready") return;
		this.#isBeating = true;
		const { keys, args } = this.#beat.question();
		const answer = await this.#send(this.#beatScript, keys, args);
		this.#isBeating = false;
		if (this.#isClosed) return;
		if (answer !== undefined) {
			this.#beat.answered(answer);
			if (!this.#isOn) this.#found();
			return;
		}
		// It may have been failed over, or hang; another connection may not.
		if (this.#client.status !== "ready") return;
		this.#fault = this.#why;
		this.#client.disconnect(true);
	}

	#found(): void {
		this.#missing -= 1;
		if (this.#missing > 0) return;
		this.#isOn = true;
		this.#onSinceMs = performance.now();
		this.#beat.back();
		this.#first.resolve();
		this.#log.info(
			{ event: "state_shared", valkey: this.#where, gates: this.#beat.gates },
			"limits are shared with the other gates",
		);
		this.#isTold = false;
	}

	#lost(why: string): void {
		this.#why = why;
		if (this.#isClosed) return;
		const isLapse = performance.now() - this.#onSinceMs < lapseMs;
		this.#missing = isLapse ? answersAfterLapse : Math.max(1, this.#missing);
		if (this.#isOn) {
			this.#isOn = false;
			this.#losses += 1;
			for (const question of [...this.#waiting]) this.#end(question, undefined);
		}
		this.#tell();
	}

	#tell(): void {
		if (this.#isTold || this.#isOn) return;
		this.#isTold = true;
		this.#log.warn(
			{
				event: "state_away",
				valkey: this.#where,
				why: this.#why,
				gates: this.#beat.gates,
			},
			"Valkey is away; until it is back each gate keeps to its part of the limits",
		);
	}
}

/** A client that connects when it is told to, waits for nothing, and sends nothing twice. */
export function clientOptions(
	target: StateTarget,
	user: string | undefined,
	{ password, ca }: StateAccess,
) {
	return {
		...(target.kind === "unix"
			? { path: target.socketPath }
			: target.bridge !== undefined
				? { path: target.bridge }
				: { host: target.host, port: target.port, family: 0 }),
		...(target.kind === "tcp" &&
			target.tls && {
				tls: {
					// Through a bridge, too, the certificate must be that host's.
					host: target.host,
					// A certificate may be for an address, which is not a name to ask for.
					...(/^[\d.]+$|:/.test(target.host)
						? {}
						: { servername: target.host }),
					...(ca !== undefined && { ca }),
				},
			}),
		...(user !== undefined && { username: user }),
		...(password !== undefined && { password }),
		connectionName: "llamagate",
		lazyConnect: true,
		connectTimeout: connectMs,
		disconnectTimeout: 100,
		enableOfflineQueue: false,
		// It would ask for INFO, which the gate's user need not have.
		enableReadyCheck: false,
		autoResubscribe: false,
		autoResendUnfulfilledCommands: false,
		maxRetriesPerRequest: 0,
		keepAlive: 10_000,
		noDelay: true,
		retryStrategy: (times: number) =>
			Math.min(firstRetryMs * 2 ** Math.min(times, 8), maxRetryMs) *
			(0.75 + Math.random() / 2),
	};
}

/** A client has a method for each script that it was told of. */
function commandsOf(
	client: Redis,
): Record<string, (...args: (string | number)[]) => Promise<unknown>> {
	return client as unknown as ReturnType<typeof commandsOf>;
}

/** An error for the log. To whom it does not know, Valkey says more than one thing. */
function worded(text: string): string {
	return /^(NOAUTH|WRONGPASS)|unauthenticated|no password is set/.test(text)
		? "it does not accept the user or the password"
		: text.slice(0, maxWhyLength);
}
