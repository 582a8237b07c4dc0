import {
	hash,
	type KeyObject,
	randomBytes,
	timingSafeEqual,
} from "node:crypto";
import type { BudgetEntry } from "../config/budget.ts";
import type { Charge } from "../ledger/budgets.ts";
import { parseOllamaKey } from "../ollama/cliSignature.ts";
import { type ModelPattern, parseModelPattern } from "../ollama/modelName.ts";
import { type OptionRules, readOptionRules } from "../ollama/options.ts";
import type { Scope } from "../ollama/routes.ts";
import { defaultPriority, type Priority } from "../priority.ts";
import { readBudget } from "./budget.ts";
import type { Binding } from "./keyFile.ts";
import {
	defaultScopes,
	defaultShare,
	type KeyEntry,
	type KeyLimits,
	parseTime,
} from "./keyFile.ts";
import type { PeopleEntry } from "./people.ts";

/** A key as the gate knows it, whichever of its digests was presented. */
export interface Key {
	readonly name: string;
	/** What the log and the counters call it, where its name is a person's. */
	readonly label?: string;
	readonly scopes: ReadonlySet<Scope>;
	readonly limits: KeyLimits;
	/** How much of the GPU's time it is owed beside others, above 0. */
	readonly share: number;
	/** The class of its requests. */
	readonly priority: Priority;
	/** The models that it may name; `undefined` for all. */
	readonly models: readonly ModelPattern[] | undefined;
	/** The same as its entry has them, to be told to anyone who has the key. */
	readonly modelNames: readonly string[];
	/** Why it may use fewer models than its entry says; `undefined` where it may use those. */
	readonly narrowed?: "from this device" | "for this person";
	/** The options that it may set; `undefined` for all. */
	readonly options: OptionRules | undefined;
	/** The devices that it may be used from; `undefined` for all. */
	readonly bind: Binding | undefined;
	/** The people behind it; `undefined` where it is nobody in particular. */
	readonly people: PeopleEntry | undefined;
	/** The budgets that its requests are charged to: its own, and its group's. */
	readonly charges: readonly Charge[];
	/** A key that lets nobody in and tells on anyone who uses it. */
	readonly canary: boolean;
	/** The entry that it was read from, to tell whether a reload has changed it. */
	readonly entry: string;
}

/** One thing that lets a client in: a digest, also one from before a rotation, or a key of Ollama's. */
export interface Credential {
	readonly key: Key;
	/** The SHA-256 of the presented key in hex, or the public key that signed. */
	readonly id: string;
	/** Epoch milliseconds, or Infinity. */
	readonly expiresAtMs: number;
	/** Whether it ends because a rotation has put another in its place. */
	readonly replaced: boolean;
}

/** A budget, with the keys that are charged to it. */
interface Account extends Charge {
	readonly keys: string[];
}

/** How long a reload may hold up everything else at once, in this part of it. */
const mostAtOnceMs = 2;

interface Held extends Credential {
	readonly digest: Buffer;
}

/** A credential that signs, and what verifies its signatures. */
export interface Signer extends Credential {
	readonly publicKey: KeyObject;
}

/**
 * The keys in force. It is never changed, only replaced whole.
 *
 * A credential is found through a hash of the presented key's digest, keyed by a
 * secret that lives as long as this process, and confirmed with
 * `timingSafeEqual`: how long it takes tells neither how many keys there are
 * nor how much of one was guessed.
 */
export class Keyring {
	/** A secret, and behind it the digest that is looked up. */
	readonly #secretAndDigest = randomBytes(64);
	readonly #digest = this.#secretAndDigest.subarray(32);
	readonly #byIndex = new Map<string, Held>();
	readonly #signers = new Map<string, Signer>();
	readonly #byId = new Map<string, Credential>();
	readonly #nobody = randomBytes(32);
	readonly #ends: { name: string; expiresAtMs: number }[] = [];
	readonly #names: string[] = [];
	readonly #accounts = new Map<string, Account>();
	/** By the names of keys that have any. */
	readonly #charges = new Map<string, readonly Charge[]>();
	readonly #groups: ReadonlyMap<string, BudgetEntry>;

	/** @param groups the budgets of groups, by their names */
	constructor(
		entries: readonly KeyEntry[],
		groups: Readonly<Record<string, BudgetEntry>> = {},
	) {
		this.#groups = new Map(Object.entries(groups));
		for (const entry of entries) this.#take(entry);
	}

	/** Makes one of many keys in small parts, between which the event loop goes on. */
	static async gather(
		entries: readonly KeyEntry[],
		groups: Readonly<Record<string, BudgetEntry>> = {},
	): Promise<Keyring> {
		const keyring = new Keyring([], groups);
		let restedAtMs = performance.now();
		for (const entry of entries) {
			keyring.#take(entry);
			if (performance.now() - restedAtMs < mostAtOnceMs) continue;
			await new Promise((resolve) => setImmediate(resolve));
			restedAtMs = performance.now();
		}
		return keyring;
	}

	/** Of all credentials: digests, those from before rotations too, and public keys. */
	get ids(): readonly string[] {
		return [...this.#byId.keys()];
	}

	/** What the keys were read from. */
	get entries(): KeyEntry[] {
		const keys = new Set([...this.#byId.values()].map(({ key }) => key));
		return Array.from(keys, ({ entry }) => JSON.parse(entry) as KeyEntry);
	}

	get names(): readonly string[] {
		return this.#names;
	}

	/** The budgets of keys, and of the groups that they are in. */
	get budgets(): ReadonlyMap<string, Account> {
		return this.#accounts;
	}

	/** The budgets that the requests of a key of that name are charged to. */
	chargesOf(name: string): readonly Charge[] {
		return this.#charges.get(name) ?? [];
	}

	#gatherCharges({ name, budget, group }: KeyEntry): Charge[] {
		const charges: Charge[] = [];
		if (budget !== undefined)
			charges.push({
				account: name,
				group: undefined,
				budget: readBudget(budget),
			});
		const shared = group === undefined ? undefined : this.#groups.get(group);
		if (shared !== undefined && group !== undefined)
			// No name of a key has a colon.
			charges.push({
				account: `group:${group}`,
				group,
				budget: readBudget(shared),
			});
		for (const charge of charges) {
			const account = this.#accounts.get(charge.account);
			if (account === undefined)
				this.#accounts.set(charge.account, { ...charge, keys: [name] });
			else account.keys.push(name);
		}
		if (charges.length > 0) this.#charges.set(name, charges);
		return charges;
	}

	#take(entry: KeyEntry): void {
		this.#names.push(entry.name);
		this.#ends.push({
			name: entry.name,
			expiresAtMs: timeOf(entry.expires),
		});
		const key: Key = {
			name: entry.name,
			scopes: new Set(entry.scopes ?? defaultScopes),
			limits: entry.limits ?? {},
			share: entry.share ?? defaultShare,
			priority: entry.priority ?? defaultPriority,
			models: entry.models?.map(readPattern),
			modelNames: entry.models ?? [],
			options: readOptionRules(entry, entry.models !== undefined),
			bind: entry.bind,
			people: entry.people,
			charges: this.#gatherCharges(entry),
			canary: entry.canary ?? false,
			entry: JSON.stringify(entry),
		};
		const expiresAtMs = timeOf(entry.expires);
		if (entry.ollamaKey !== undefined)
			this.#addSigner(key, entry.ollamaKey, expiresAtMs);
		if (entry.sha256 !== undefined)
			this.#add(key, entry.sha256, expiresAtMs, false);
		for (const previous of entry.previous ?? []) {
			const endsAtMs = timeOf(previous.expires);
			this.#add(
				key,
				previous.sha256,
				Math.min(endsAtMs, expiresAtMs),
				endsAtMs < expiresAtMs,
			);
		}
	}

	#add(key: Key, id: string, expiresAtMs: number, replaced: boolean): void {
		const digest = Buffer.from(id, "hex");
		const held: Held = { key, id, expiresAtMs, replaced, digest };
		digest.copy(this.#digest);
		this.#byIndex.set(this.#index(), held);
		this.#byId.set(id, held);
	}

	#addSigner(key: Key, id: string, expiresAtMs: number): void {
		const publicKey = parseOllamaKey(id);
		if (publicKey === undefined) return;
		const signer: Signer = {
			key,
			id,
			expiresAtMs,
			replaced: false,
			publicKey,
		};
		this.#signers.set(id, signer);
		this.#byId.set(id, signer);
	}

	/**
	 * Both halves have a fixed length, so SHA-256 keyed by its prefix is as good
	 * as HMAC here, and a tenth of its cost in Node.
	 */
	#index(): string {
		return hash("sha256", this.#secretAndDigest, "hex");
	}

	/** The credential that a presented key is, expired or not; `undefined` if it is none. */
	find(presented: string): Credential | undefined {
		// Header bytes reach Node as Latin-1 text; the digest is of those bytes, exactly.
		// A buffer made for it would cost more than both hashes.
		const bytes = Buffer.from(presented, "latin1");
		const digest = this.#digest;
		digest.write(hash("sha256", bytes, "binary"), "latin1");
		const held = this.#byIndex.get(this.#index());
		const equal = timingSafeEqual(held?.digest ?? this.#nobody, digest);
		return equal ? held : undefined;
	}

	/** Keys whose own end comes before a time, epoch milliseconds. */
	expiring(beforeMs: number): { name: string; expiresAtMs: number }[] {
		return this.#ends.filter(({ expiresAtMs }) => expiresAtMs < beforeMs);
	}

	/** Who signs with this public key; it is not a secret, so a plain look-up does. */
	signer(publicKey: string): Signer | undefined {
		return this.#signers.get(publicKey);
	}

	/** The credential with this id, to ask whether one that was let in before is still in force. */
	current(id: string): Credential | undefined {
		return this.#byId.get(id);
	}
}

/** A pattern that cannot be read cannot get past the file's check; if it did, it would match nothing. */
function readPattern(text: string): ModelPattern {
	return parseModelPattern(text) ?? (() => false);
}

/** An unreadable time cannot get past the file's check; if it did, the key is expired. */
function timeOf(text: string | undefined): number {
	return text === undefined
		? Number.POSITIVE_INFINITY
		: (parseTime(text) ?? Number.NEGATIVE_INFINITY);
}
