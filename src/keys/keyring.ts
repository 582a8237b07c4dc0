import { hash, randomBytes, timingSafeEqual } from "node:crypto";
import type { Scope } from "../ollama/routes.ts";
import {
	defaultScopes,
	type KeyEntry,
	type KeyLimits,
	parseTime,
} from "./keyFile.ts";

/** A key as the gate knows it, whichever of its digests was presented. */
export interface Key {
	readonly name: string;
	readonly scopes: ReadonlySet<Scope>;
	readonly limits: KeyLimits;
}

/** One digest that lets somebody in: a key's own, or one that it had before a rotation. */
export interface Credential {
	readonly key: Key;
	/** SHA-256 of the presented key, in hex. */
	readonly sha256: string;
	/** Epoch milliseconds, or Infinity. */
	readonly expiresAtMs: number;
}

interface Held extends Credential {
	readonly digest: Buffer;
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
	readonly #secret = randomBytes(32);
	readonly #byIndex = new Map<string, Held>();
	readonly #bySha256 = new Map<string, Held>();
	readonly #nobody = randomBytes(32);
	readonly names: readonly string[];

	constructor(entries: readonly KeyEntry[]) {
		this.names = entries.map(({ name }) => name);
		for (const entry of entries) {
			const key: Key = {
				name: entry.name,
				scopes: new Set(entry.scopes ?? defaultScopes),
				limits: entry.limits ?? {},
			};
			const expiresAtMs = timeOf(entry.expires);
			this.#add(key, entry.sha256, expiresAtMs);
			for (const previous of entry.previous ?? [])
				this.#add(
					key,
					previous.sha256,
					Math.min(timeOf(previous.expires), expiresAtMs),
				);
		}
	}

	#add(key: Key, sha256: string, expiresAtMs: number): void {
		const held: Held = {
			key,
			sha256,
			expiresAtMs,
			digest: Buffer.from(sha256, "hex"),
		};
		this.#byIndex.set(this.#indexOf(held.digest), held);
		this.#bySha256.set(sha256, held);
	}

	/**
	 * Both halves have a fixed length, so SHA-256 keyed by its prefix is as good
	 * as HMAC here, and a tenth of its cost in Node.
	 */
	#indexOf(digest: Buffer): string {
		return hash("sha256", Buffer.concat([this.#secret, digest]), "hex");
	}

	/** The credential that a presented key is, expired or not; `undefined` if it is none. */
	find(presented: string): Credential | undefined {
		// Header bytes reach Node as Latin-1 text; the digest is of those bytes, exactly.
		const digest = hash("sha256", Buffer.from(presented, "latin1"), "buffer");
		const held = this.#byIndex.get(this.#indexOf(digest));
		const equal = timingSafeEqual(held?.digest ?? this.#nobody, digest);
		return equal ? held : undefined;
	}

	/** The credential with this digest, to ask whether one that was let in before is still in force. */
	current(sha256: string): Credential | undefined {
		return this.#bySha256.get(sha256);
	}
}

/** An unreadable time cannot get past the file's check; if it did, the key is expired. */
function timeOf(text: string | undefined): number {
	return text === undefined
		? Number.POSITIVE_INFINITY
		: (parseTime(text) ?? Number.NEGATIVE_INFINITY);
}
