import type { Settings } from "../config/load.ts";
import type { Log } from "../log.ts";
import type { Listener } from "../net/listener.ts";

/**
 * Takes over at a reload what of new settings is not in the gate's rules: the log's
 * level, and where it listens. What takes a restart is said in the log.
 */
export function takeOver(
	next: Settings,
	previous: Settings,
	listener: Listener,
	log: Log,
): void {
	const changed = (part: "listen" | "admin" | "ledger" | "state" | "alarms") =>
		JSON.stringify(previous[part]) !== JSON.stringify(next[part]);
	log.level = next.logLevel;
	if (changed("listen")) listener.move(next.listen);
	for (const part of ["admin", "ledger", "state"] as const)
		if (changed(part)) log.warn(`${part} has changed; that takes a restart`);
	if (changed("alarms"))
		log.warn("alarms have changed; that takes a restart of the ledger");
}
