import { hostname } from "node:os";
import type { Log } from "../../log.ts";
import { type Alarm, oppositeOf, topicOf } from "./alarm.ts";
import type { AlarmBook } from "./book.ts";
import { type AlarmClock, systemClock } from "./clock.ts";
import { type Message, postOf } from "./forms.ts";
import { type PostResult, post } from "./post.ts";
import { type AlarmTarget, markOf } from "./targets.ts";

/** One topic (`topicOf`) is told of once in so long. */
const betweenMs = 3_600_000;
/** What happens meanwhile waits, so much of it; of more it is told how many there were. */
const maxTexts = 10;
/** Who waits to hear what became of alarms of a subject; beyond that nobody does. */
const maxWaiting = 128;
/** How long after a receiver has failed it is tried again; then it is given up. */
const retriesMs = [5_000, 30_000, 120_000, 600_000] as const;

/** What is to be told of a topic. */
interface Held {
	readonly about: Omit<Alarm, "text">;
	/** Each once. */
	readonly texts: Set<string>;
	/** Texts for which there was no room. */
	more: number;
	readonly done: ((isTold: boolean) => void)[];
	/** It is on its way, or waits for its time. */
	isBusy: boolean;
}

/** A message on its way. */
interface Delivery {
	/** It is no longer so, and is not tried again. */
	isOvertaken: boolean;
	/** End its waits for the next try. */
	readonly waits: Set<() => void>;
	/** It is with everybody whom it has reached. */
	readonly ended: PromiseWithResolvers<void>;
}

/** What a receiver said to a trial. */
export interface Trial {
	readonly to: string;
	readonly ok: boolean;
	/** Where it did not arrive. */
	readonly why?: string;
}

/**
 * Sends alarms to people, each topic at most once an hour, whatever is raised. Of
 * what comes and goes, the last that they hear is how it is.
 */
export class AlarmDispatcher {
	readonly #targets: readonly AlarmTarget[];
	readonly #book: AlarmBook;
	readonly #log: Log;
	readonly #clock: AlarmClock;
	readonly #held = new Map<string, Held>();
	readonly #deliveries = new Map<string, Delivery>();
	readonly #timers = new Set<() => void>();
	#trialAtMs = Number.NEGATIVE_INFINITY;
	#isClosed = false;

	constructor(
		targets: readonly AlarmTarget[],
		book: AlarmBook,
		log: Log,
		clock: AlarmClock = systemClock,
	) {
		this.#targets = targets;
		this.#book = book;
		this.#log = log;
		this.#clock = clock;
	}

	/**
	 * Takes an alarm. It is told of now, or with others of its topic an hour
	 * after the last that was. What its opposite has not told yet is dropped: it is
	 * not so any more.
	 *
	 * @returns `false` where it was given up; `true` once it was sent or dropped, or
	 *   where nobody wants it
	 */
	take({ text, ...about }: Alarm): Promise<boolean> {
		if (!this.#targets.some(({ on }) => on.has(about.subject)))
			return Promise.resolve(true);
		this.#overtake(oppositeOf(about));
		const held = this.#heldOf(about);
		if (held.texts.has(text) || held.texts.size < maxTexts)
			held.texts.add(text);
		else held.more += 1;
		const { promise, resolve } = Promise.withResolvers<boolean>();
		if (held.done.length < maxWaiting) held.done.push(resolve);
		else resolve(true);
		if (!held.isBusy) this.#tellInTime(held);
		return promise;
	}

	/** Sends a message to everybody at once, for the owner to see that it arrives. @returns why not, or what came of each */
	async try(): Promise<readonly Trial[] | string> {
		const nowMs = this.#clock.now();
		const sinceMs = nowMs - this.#trialAtMs;
		if (sinceMs >= 0 && sinceMs < 10_000)
			return "a trial was sent a moment ago; wait ten seconds";
		this.#trialAtMs = nowMs;
		const message: Message = {
			subject: "test",
			title: `llamagate on ${hostname()}: a trial`,
			text: "Alarms of this gate arrive here.",
		};
		return Promise.all(
			this.#targets.map(async (target): Promise<Trial> => {
				const result = await this.#post(target, message);
				return result.kind === "arrived"
					? { to: target.name, ok: true }
					: { to: target.name, ok: false, why: result.why };
			}),
		);
	}

	/** Whether it tells those of this mark (`markOf`), of the same subjects. */
	tells(mark: string): boolean {
		return mark === markOf(this.#targets);
	}

	/** Sends nothing more. */
	close(): void {
		this.#isClosed = true;
		for (const cancel of this.#timers) cancel();
	}

	#heldOf(about: Omit<Alarm, "text">): Held {
		const topic = topicOf(about);
		let held = this.#held.get(topic);
		if (held === undefined) {
			held = { about, texts: new Set(), more: 0, done: [], isBusy: false };
			this.#held.set(topic, held);
		}
		return held;
	}

	#overtake(topic: string | undefined): void {
		if (topic === undefined) return;
		const held = this.#held.get(topic);
		if (held !== undefined) {
			held.texts.clear();
			held.more = 0;
			for (const resolve of held.done.splice(0)) resolve(true);
		}
		const delivery = this.#deliveries.get(topic);
		if (delivery === undefined) return;
		delivery.isOvertaken = true;
		for (const end of delivery.waits) end();
	}

	/** @param delivery what it waits for; where that is overtaken, the wait ends */
	#wait(delayMs: number, delivery?: Delivery): Promise<void> {
		return new Promise((resolve) => {
			const end = () => {
				cancel();
				this.#timers.delete(cancel);
				delivery?.waits.delete(end);
				resolve();
			};
			const cancel = this.#clock.after(delayMs, end);
			this.#timers.add(cancel);
			delivery?.waits.add(end);
		});
	}

	/** Until nothing of a topic is on its way. */
	async #arrival(topic: string | undefined): Promise<void> {
		for (;;) {
			const delivery = this.#deliveries.get(topic ?? "");
			if (delivery === undefined) return;
			await delivery.ended.promise;
		}
	}

	#tellInTime(held: Held): void {
		held.isBusy = true;
		void this.#tell(held);
	}

	/** Never rejects. */
	async #tell(held: Held): Promise<void> {
		const { about } = held;
		const { subject } = about;
		const topic = topicOf(about);
		const sinceMs = this.#clock.now() - this.#book.toldAtMs(topic);
		// A clock that was put back must not silence anything for longer.
		if (sinceMs >= 0 && sinceMs < betweenMs)
			await this.#wait(betweenMs - sinceMs);
		// Else an older word could arrive last.
		await this.#arrival(oppositeOf(about));
		if (this.#isClosed) return;
		if (held.texts.size === 0) {
			// It was overtaken.
			held.isBusy = false;
			return;
		}
		const texts = [...held.texts];
		const message: Message = {
			...about,
			title: `llamagate on ${hostname()}: ${titleOf(about)}`,
			text: [
				...texts,
				...(held.more > 0 ? [`and ${held.more} more`] : []),
			].join("\n"),
		};
		const { done } = held;
		this.#held.delete(topic);
		// What comes from now on is the next message.
		const next = this.#heldOf(about);
		next.isBusy = true;
		const delivery: Delivery = {
			isOvertaken: false,
			waits: new Set(),
			ended: Promise.withResolvers(),
		};
		this.#deliveries.set(topic, delivery);
		const arrived = await Promise.all(
			this.#targets
				.filter(({ on }) => on.has(subject))
				.map((target) => this.#send(target, message, topic, delivery)),
		);
		this.#deliveries.delete(topic);
		delivery.ended.resolve();
		if (this.#isClosed) return;
		const isSettled = delivery.isOvertaken || arrived.includes(true);
		for (const resolve of done) resolve(isSettled);
		next.isBusy = false;
		if (next.texts.size > 0) this.#tellInTime(next);
	}

	/** Only what has arrived is written down: where nobody was told, the next need not wait. */
	async #send(
		target: AlarmTarget,
		message: Message,
		topic: string,
		delivery: Delivery,
	): Promise<boolean> {
		let result: PostResult = { kind: "failed", why: "" };
		for (const delayMs of [0, ...retriesMs]) {
			if (delayMs > 0 && !delivery.isOvertaken)
				await this.#wait(delayMs, delivery);
			if (this.#isClosed) return false;
			if (delivery.isOvertaken) break;
			result = await this.#post(target, message);
			if (result.kind !== "failed") break;
		}
		const { subject, host } = message;
		const facts = { subject, ...(host && { host }), to: target.name };
		if (result.kind === "arrived") {
			this.#book.setToldAtMs(topic, this.#clock.now());
			this.#log.info({ event: "alarm_sent", ...facts }, "an alarm was sent");
			return true;
		}
		this.#log.error(
			{ event: "alarm_undelivered", ...facts, why: result.why },
			"an alarm did not arrive, and is given up",
		);
		return false;
	}

	/** Never rejects. */
	async #post(
		{ form, url }: AlarmTarget,
		message: Message,
	): Promise<PostResult> {
		try {
			return await post(postOf(form, url, message), this.#clock);
		} catch {
			// What was thrown may have the address in it, which is a secret.
			return { kind: "refused", why: "its address cannot be posted to" };
		}
	}
}

function titleOf({
	subject,
	host,
	isOver,
	isUnknownHost,
}: Omit<Alarm, "text">): string {
	switch (subject) {
		case "canary":
			return "a canary key was used";
		case "lockout":
			return "a device is locked out";
		case "budget":
			return "a budget runs out";
		case "upstream_down":
			if (isUnknownHost) return "a host is down or up again";
			return `${host ?? "Ollama"} is ${isOver ? "up again" : "down"}`;
		case "key_expiring":
			return "a key expires";
	}
}
