import { execFileSync } from "node:child_process";
import { createInterface } from "node:readline";

/**
 * A program of its own, which the daemon starts before it gives up the right
 * to start any: has systemd-notify say what comes in, a JSON list of
 * assignments a line, and ends with its input. Who has taken over the daemon
 * gets no more out of it than these four words.
 */
const known = /^(READY|STATUS|STOPPING|WATCHDOG)=\P{Cc}*$/u;

// It would be another's once the daemon is gone.
const daemon = process.ppid;
for await (const line of createInterface({ input: process.stdin })) {
	const assignments = (JSON.parse(line) as string[]).filter((assignment) =>
		known.test(assignment),
	);
	try {
		execFileSync("systemd-notify", [`--pid=${daemon}`, "--", ...assignments], {
			stdio: "ignore",
			timeout: 5_000,
		});
	} catch {
		// A message that is lost must not stop the gate.
	}
}
