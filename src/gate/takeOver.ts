import type { Settings } from "../config/load.ts";
import type { Log } from "../log.ts";
import type { Listener } from "../net/listener.ts";
import type { Rules } from "./rules.ts";

/** What the gate opens at its start alone. */
const startOnly = ["admin", "ledger", "state"] as const;

/** What of new settings is not in force yet. */
export interface LeftOver {
	/** Sections in which they, or the files that they name, differ from what the gate was started with. */
	readonly restart: readonly (typeof startOnly)[number][];
	/** Whether alarms have changed, or hosts that they name came in: the ledger reads both at its own start. */
	readonly ledgerRestart: boolean;
}

type InForce = Pick<Rules, "settings" | "stateAccess">;

/**
 * Makes what takes over, at each reload, what of new settings is not in the gate's
 * rules: the log's level, and where it listens. It returns what takes a restart, and
 * says so in the log.
 *
 * @param started what was in force at the start
 */
export function takeOver(started: InForce, listener: Listener, log: Log) {
	return (
		{ settings: next, stateAccess }: InForce,
		{ settings: previous }: InForce,
	): LeftOver => {
		const differs = (
			part: "listen" | "alarms" | (typeof startOnly)[number],
			from: Settings,
		) => !isSame(from[part], next[part]);
		log.level = next.logLevel;
		if (differs("listen", previous)) listener.move(next.listen);
		const restart = startOnly.filter(
			(part) =>
				differs(part, started.settings) ||
				// The settings name its files; a new password in one is no less new.
				(part === "state" && !isSame(started.stateAccess, stateAccess)),
		);
		for (const part of restart)
			log.warn(`${part} has changed; that takes a restart`);
		const ledgerRestart =
			differs("alarms", previous) ||
			(next.alarms.length > 0 && hasNewHost(next, previous));
		if (ledgerRestart)
			log.warn(
				"alarms, or the hosts that they name, have changed; that takes a restart of the ledger",
			);
		return { restart, ledgerRestart };
	};
}

function isSame(one: unknown, other: unknown): boolean {
	return JSON.stringify(one) === JSON.stringify(other);
}

function hasNewHost({ hosts = [] }: Settings, previous: Settings): boolean {
	const known = new Set(previous.hosts?.map(({ name }) => name));
	return hosts.some(({ name }) => !known.has(name));
}
