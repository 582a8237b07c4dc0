import { execFile } from "node:child_process";
import t from "tap";
import { node } from "../support/gate.ts";

/** Runs the program in a mount namespace whose /run is empty: systemd's socket is not there, whatever host this is. What it would write is nowhere. */
function withoutSystemd(
	...args: string[]
): Promise<{ code: unknown; stdout: string; stderr: string }> {
	return new Promise((resolve) => {
		execFile(
			"unshare",
			[
				...["--mount", "sh", "-c"],
				'mount -t tmpfs none /run && mount -t tmpfs none /var/lib && exec "$@"',
				...["sh", ...node, "src/main.ts", ...args],
			],
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
