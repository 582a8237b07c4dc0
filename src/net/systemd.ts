import { execFile } from "node:child_process";

/**
 * How often systemd wants a sign of life at most (sd_watchdog_enabled(3)), in
 * milliseconds; `undefined` if it waits for none from this process.
 */
export function watchdogMs(env: NodeJS.ProcessEnv): number | undefined {
	const microseconds = Number(env.WATCHDOG_USEC);
	return env.WATCHDOG_PID === String(process.pid) && microseconds > 0
		? microseconds / 1_000
		: undefined;
}

/**
 * Tells systemd about the daemon's state (sd_notify(3)), if it asked to be
 * told. Node cannot open datagram sockets, so systemd's own helper does it;
 * the unit needs NotifyAccess=all. Resolves when it has been sent, and never
 * rejects: a message that is lost must not stop the gate.
 *
 * @param assignments such as `READY=1` or `STATUS=…`
 */
export function notifySystemd(...assignments: string[]): Promise<void> {
	if (process.env.NOTIFY_SOCKET === undefined) return Promise.resolve();
	return new Promise((resolve) => {
		execFile(
			"systemd-notify",
			[`--pid=${process.pid}`, ...assignments],
			{ timeout: 5_000 },
			() => resolve(),
		);
	});
}
