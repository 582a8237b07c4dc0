import type { Raise } from "../ledger/alarms/alarm.ts";
import type { Log } from "../log.ts";
import type { Reloader } from "./reload.ts";
import type { Rules } from "./rules.ts";

/** How long before its end a key's expiry is told of. */
const expiryNoticeMs = 7 * 86_400_000;
const expiryWatchMs = 24 * 3_600_000;

/** A key that is about to run out is told of at the start, at a reload, and every day. */
export function watchExpiry(
	reloader: Reloader,
	log: Log,
	raise: Raise,
): () => void {
	const look = () => warnOfExpiry(reloader.rules, log, raise);
	const timer = setInterval(look, expiryWatchMs);
	timer.unref();
	look();
	return () => clearInterval(timer);
}

/** Tells, in the log and the owner, of each key that has expired or is about to. */
export function warnOfExpiry({ keyring }: Rules, log: Log, raise: Raise): void {
	const nowMs = Date.now();
	for (const { name, expiresAtMs } of keyring.expiring(
		nowMs + expiryNoticeMs,
	)) {
		const expires = new Date(expiresAtMs).toISOString();
		log.warn(
			{ event: "key_expires", key: name, expires },
			expiresAtMs <= nowMs
				? "a key has expired; rotate or revoke it"
				: "a key expires within seven days; rotate it",
		);
		// One that has run out long ago was meant to.
		if (expiresAtMs > nowMs - expiryWatchMs)
			raise("key_expiring", `the key "${name}" expires at ${expires}`);
	}
}
