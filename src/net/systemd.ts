import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import type { Writable } from "node:stream";

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

let notifier: ChildProcessByStdio<Writable, null, null> | undefined;

/**
 * Starts what tells systemd about the daemon's state (sd_notify(3)), if it
 * asked to be told. Node cannot open datagram sockets, so systemd's own helper
 * does it; the unit needs NotifyAccess=all. That helper is started by a
 * process beside the daemon, so that the daemon itself need start nothing.
 */
export function startNotifier(): void {
	const { NOTIFY_SOCKET, PATH } = process.env;
	if (NOTIFY_SOCKET === undefined) return;
	// Beside this file, in dist as in src.
	const extension = path.extname(import.meta.filename);
	notifier = spawn(
		process.execPath,
		[path.join(import.meta.dirname, `notifier${extension}`)],
		{ env: { NOTIFY_SOCKET, PATH }, stdio: ["pipe", "ignore", "ignore"] },
	);
	// A message that is lost must not stop the gate.
	notifier.on("error", () => {});
	notifier.stdin.on("error", () => {});
	notifier.unref();
}

/** @param assignments such as `READY=1` or `STATUS=…` */
export function notifySystemd(...assignments: string[]): void {
	notifier?.stdin.write(`${JSON.stringify(assignments)}\n`);
}

/** Resolves when systemd has been told all. */
export async function stopNotifier(): Promise<void> {
	if (notifier?.exitCode !== null || notifier.signalCode !== null) return;
	notifier.ref();
	notifier.stdin.end();
	await once(notifier, "close", { signal: AbortSignal.timeout(5_000) }).catch(
		() => {},
	);
}
