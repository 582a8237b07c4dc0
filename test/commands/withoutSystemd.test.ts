import { execFile } from "node:child_process";
import t from "tap";
import type { Result } from "../../src/report/result.ts";
import { program } from "../support/program.ts";

/**
 * Runs the program in a mount namespace whose /run is empty, whatever host this
 * is: systemd's socket is not there. fail2ban is, and does not run. What would
 * be written is nowhere.
 */
function withoutSystemd(
	...args: string[]
): Promise<{ code: unknown; stdout: string; stderr: string }> {
	const host = `for folder in /run /var/lib /usr/local/sbin; do
			mount -t tmpfs none "$folder" || exit 99
		done
		printf '#!/bin/sh\\necho "ERROR   Failed to access socket path" >&2\\nexit 255\\n' >/usr/local/sbin/fail2ban-client
		chmod 0755 /usr/local/sbin/fail2ban-client
		exec "$@"`;
	return new Promise((resolve) => {
		execFile(
			"unshare",
			["--mount", "sh", "-c", host, "sh", process.execPath, program, ...args],
			(error, stdout, stderr) =>
				resolve({ code: error === null ? 0 : error.code, stdout, stderr }),
		);
	});
}

t.test(
	"on a host without systemd, setup plans nothing and says how to do without it",
	{ skip: process.getuid?.() === 0 ? false : "needs root" },
	async (t) => {
		for (const options of [
			["--dry-run"],
			["--tls", "tailscale", "--dry-run"],
		]) {
			const { code, stdout, stderr } = await withoutSystemd(
				"setup",
				...options,
			);
			t.equal(code, 1, options.join(" "));
			t.equal(stdout, "", "no plan");
			t.match(
				stderr,
				/^llamagate setup: systemd does not answer here, and setup works through it; nothing was changed\. .*docs\/install\.md, "Without systemd"/,
			);
		}
	},
);

t.test(
	"what setup has changed can be taken back without systemd",
	{ skip: process.getuid?.() === 0 ? false : "needs root" },
	async (t) => {
		const { code, stderr } = await withoutSystemd(
			"setup",
			"--undo",
			"--dry-run",
		);
		t.equal(code, 0, stderr);
	},
);

t.test(
	"doctor works without systemd, and gives no command of systemd's",
	{ skip: process.getuid?.() === 0 ? false : "needs root" },
	async (t) => {
		const { stdout, stderr } = await withoutSystemd(
			...["doctor", "--only", "fail2ban.running", "--json"],
		);
		const { results } = JSON.parse(stdout || stderr) as {
			results: readonly Result[];
		};
		t.match(results, [{ state: "finding", fix: "sudo fail2ban-client start" }]);
	},
);
