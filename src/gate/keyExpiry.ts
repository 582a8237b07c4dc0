import type { Raise } from "../ledger/alarms/alarm.ts";
import type { Log } from "../log.ts";
import type { Rules } from "./rules.ts";

/** How long before its end a key's expiry is told of. */
const expiryNoticeMs = 7 * 86_400_000;
const expiryWatchMs = 24 * 3_600_000;

/**
 * Tells of each key that has expired or is about to: in the log at the start, at
 * a reload and every day, and the owner once a day.
 */
export class ExpiryWatch {
	readonly #log: Log;
	readonly #raise: Raise;
	/** What the owner was told since the last daily look, and still holds. */
	#raised: ReadonlySet<string> = new Set();

	constructor(log: Log, raise: Raise) {
		this.#log = log;
		this.#raise = raise;
	}

	/** Looks now and every day. @returns what ends it */
	start(rules: () => Rules): () => void {
		const timer = setInterval(() => {
			this.#raised = new Set();
			this.look(rules());
		}, expiryWatchMs);
		timer.unref();
		this.look(rules());
		return () => clearInterval(timer);
	}

	/** Looks at rules that are in force from now on. */
	look({ keyring }: Rules): void {
		const nowMs = Date.now();
		const raised = new Set<string>();
		for (const { name, expiresAtMs } of keyring.expiring(
			nowMs + expiryNoticeMs,
		)) {
			const expires = new Date(expiresAtMs).toISOString();
			this.#log.warn(
				{ event: "key_expires", key: name, expires },
				expiresAtMs <= nowMs
					? "a key has expired; rotate or revoke it"
					: "a key expires within seven days; rotate it",
			);
			// One that has run out long ago was meant to.
			if (expiresAtMs <= nowMs - expiryWatchMs) continue;
			const text = `the key "${name}" expires at ${expires}`;
			raised.add(text);
			if (!this.#raised.has(text)) this.#raise("key_expiring", text);
		}
		this.#raised = raised;
	}
}
