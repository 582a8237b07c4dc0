import { randomBytes } from "node:crypto";
import type { StateStatus } from "../../admin/status.ts";
import { formatState, type StateSettings } from "../../config/state.ts";
import type { Budgets } from "../../ledger/budgets.ts";
import type { Log } from "../../log.ts";
import {
	type Answer,
	type Beat,
	Connection,
	clientOptions,
} from "../../valkey/connection.ts";
import { Names } from "../../valkey/names.ts";
import {
	beat,
	fail,
	goneMs,
	leave,
	lock,
	put,
	remember,
	type Script,
	scripts,
	unlock,
} from "../../valkey/scripts.ts";
import type { Lockout } from "../lockout.ts";
import type { Rules } from "../rules.ts";
import { SharedBudgets } from "./budgets.ts";
import { SharedLocks } from "./locks.ts";
import { placeAmongGates } from "./places.ts";
import { Rates } from "./rates.ts";
import { SharedService } from "./service.ts";
import { Slots, slotsKeptMs } from "./slots.ts";

/** What of a gate is shared. */
export interface Parts {
	readonly lockout: Lockout;
	readonly budgets: Budgets;
	readonly log: Log;
	/** In force now. */
	readonly settings: Rules["settings"];
}

/** How long a gate's start waits for Valkey. */
const startPatienceMs = 1_000;
/** What is held is told anew after so many beats. */
const beatsToRefresh = 30;

/**
 * What this gate shares with others through Valkey, and its own part of it for
 * when Valkey is away.
 */
export class Shared implements Beat {
	readonly rates = new Rates();
	readonly slots: Slots;
	readonly locks: SharedLocks;
	readonly budgets: SharedBudgets;
	readonly service: SharedService;
	readonly names: Names;
	/** Names this run of the gate. */
	readonly id = randomBytes(8).toString("hex");
	readonly #parts: Parts;
	readonly #where: string;
	readonly #connection: Connection;
	#gates: number;
	#countedAtMs = Number.NEGATIVE_INFINITY;
	#epoch = "";
	#sinceMs = 0;
	#lastServed = "0";
	#beats = 0;

	/**
	 * Connects to Valkey where the settings have one, and waits for it for a second
	 * at the most. The library for it is loaded here and nowhere else.
	 */
	static async open(
		{ settings: { state }, stateAccess }: Rules,
		parts: Parts,
	): Promise<Shared | undefined> {
		if (state === undefined) return undefined;
		const { Redis } = await import("../../valkey/iovalkey.ts");
		const client = new Redis(
			clientOptions(state.target, state.user, stateAccess),
		);
		const shared = new Shared(
			state,
			stateAccess.password ?? "",
			parts,
			(self, where) =>
				new Connection(client, where, scripts, beat, self, parts.log),
		);
		await shared.#connection.opened(startPatienceMs);
		return shared;
	}

	private constructor(
		{ target, prefix, gates }: StateSettings,
		secret: string,
		parts: Parts,
		connect: (beat: Beat, where: string) => Connection,
	) {
		const { lockout, budgets } = parts;
		this.#parts = parts;
		this.#where = formatState(target);
		this.names = new Names(prefix, secret);
		this.service = new SharedService(this.names);
		this.#gates = gates;
		this.slots = new Slots((slots) =>
			this.#put(
				slots.map(([name, own]) => [
					this.names.of("slots", name),
					own === 0 ? "" : String(own),
					slotsKeptMs,
				]),
			),
		);
		this.locks = new SharedLocks(lockout, {
			hash: (address) => this.names.hash(placeAmongGates(address)),
			failed: async (address, fresh, { max, windowMs, lockoutMs }) => {
				const place = placeAmongGates(address);
				const answer = await this.ask(
					fail,
					[this.names.of("wrong", place), this.names.one("locks")],
					[this.names.hash(place), fresh, max, windowMs, lockoutMs],
				);
				return Number(answer?.[0] ?? 0);
			},
			locked: (hashes) =>
				void this.ask(lock, [this.names.one("locks")], hashes.flat()),
			unlocked: async (hashes) =>
				(await this.ask(
					unlock,
					[this.names.one("locks"), this.names.one("unlocks")],
					hashes,
				)) !== undefined,
		});
		this.budgets = new SharedBudgets(budgets, this.names, {
			put: (entries) =>
				this.#put(
					entries.map(({ key, value, keptMs }) => [key, value, keptMs]),
				),
			remember: (entries) =>
				void this.ask(
					remember,
					[this.names.one("gates"), ...entries.map(({ key }) => key)],
					[this.id, ...entries.flatMap(({ value, keptMs }) => [value, keptMs])],
				),
		});
		this.#connection = connect(this, this.#where);
	}

	/** By how many this gate divides its limits while Valkey is away. */
	get gates(): number {
		return this.#gates;
	}

	/** How long a lockout is. */
	get lockoutMs(): number {
		return this.#parts.settings.limits.authFailures.lockoutMs;
	}

	get counts(): StateStatus {
		return {
			...this.#connection.counts,
			valkey: this.#where,
			gates: this.#gates,
			lockedOut: this.locks.count,
		};
	}

	/** Runs a script. Resolves within a quarter of a second, with `undefined` where Valkey is away. */
	ask(
		script: Script,
		keys: readonly string[],
		args: readonly (string | number)[],
	): Promise<Answer> {
		return this.#connection.ask(script, keys, args);
	}

	question() {
		const { names } = this;
		const { text, number } = this.service.entry();
		return {
			keys: ["gates", "epoch", "locks", "unlocks", "served"].map((kind) =>
				names.one(kind),
			),
			args: [
				this.id,
				// Whoever comes later sees since when nothing was lost.
				`${Date.now()}.${randomBytes(8).toString("hex")}`,
				this.#sinceMs,
				this.#lastServed,
				text,
				number,
				this.lockoutMs,
			],
		};
	}

	answered(answer: readonly unknown[]): void {
		const [now, epoch, gates, locks, unlocks, served, last] = answer;
		this.#count(Number(gates));
		this.locks.told(listOf(locks), listOf(unlocks));
		this.service.told(listOf(served));
		this.#sinceMs = Number(now);
		// What comes after data were lost is numbered anew.
		this.#lastServed = epoch === this.#epoch ? String(last) : "0";
		if (this.#epoch !== "" && epoch !== this.#epoch) this.back();
		this.#epoch = String(epoch);
		const [, begunMs] = /^(\d+)\./.exec(this.#epoch) ?? [];
		this.#parts.budgets.sharedSinceMs =
			begunMs === undefined ? Number.POSITIVE_INFINITY : Number(begunMs);
		this.#beats += 1;
		if (this.#beats % beatsToRefresh === 0) this.slots.refresh(false);
	}

	back(): void {
		this.slots.refresh(true);
		this.locks.back();
		this.budgets.back();
		this.service.back();
	}

	async close(): Promise<void> {
		this.slots.stop();
		await this.budgets.close();
		await this.#connection.close(leave, [this.names.one("gates")], [this.id]);
	}

	/** Others that are back later than this one are still there. */
	#count(gates: number): void {
		// Of no number of gates there would be no part.
		if (!(gates >= 1)) return;
		const nowMs = performance.now();
		if (gates < this.#gates && nowMs - this.#countedAtMs < goneMs) return;
		this.#gates = gates;
		this.#countedAtMs = nowMs;
	}

	async #put(
		values: readonly (readonly [string, string, number])[],
	): Promise<boolean> {
		const answer = await this.ask(
			put,
			values.map(([key]) => key),
			[this.id, ...values.flatMap(([, value, keptMs]) => [value, keptMs])],
		);
		return answer !== undefined;
	}
}

function listOf(value: unknown): readonly unknown[] {
	return Array.isArray(value) ? value : [];
}
