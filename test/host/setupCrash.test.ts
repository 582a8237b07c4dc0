import { statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import t from "tap";
import { type BootedHost, bootHost, booting } from "../support/bootedHost.ts";
import type { RunResult } from "../support/gate.ts";
import { fingerprint, runSetup } from "../support/setupHost.ts";

const steps = [
	...["account", "ollama", "gate", "ufw"],
	...["open-webui", "sshd", "fail2ban"],
];

const journalOf = ({ root }: BootedHost) =>
	path.join(root, "var/lib/llamagate/setup/journal.jsonl");

/** Lines of the journal of one kind. */
async function countLines(host: BootedHost, kind: string): Promise<number> {
	const text = await readFile(journalOf(host), "utf8").catch(() => "");
	return text.split("\n").filter((line) => line.includes(`"kind":"${kind}"`))
		.length;
}

/**
 * Runs setup and kills it as soon as the journal has grown by some lines of a
 * kind, in the middle of what the last of them tells of.
 *
 * @returns what it ended with, if it came to its end before
 */
async function runAndKill(
	host: BootedHost,
	kind: string,
	lines: number,
	...options: string[]
): Promise<RunResult | undefined> {
	const limit = (await countLines(host, kind)) + lines;
	const command = ["llamagate", "setup", "--yes", ...options];
	let result: RunResult | undefined;
	const running = host
		.run("sh", "-c", '"$@"; exit $?', "sh", ...command)
		.then((ended) => {
			result = ended;
		});
	// It is looked at too often to be read each time.
	let seen: number | undefined;
	while (result === undefined) {
		const size = statSync(journalOf(host), { throwIfNoEntry: false })?.size;
		if (size !== seen && (await countLines(host, kind)) >= limit) break;
		seen = size;
		await delay(2);
	}
	// By itself, as the kernel would: what it had started goes on, and ends before somebody comes to run it again.
	await host.sh(`setup=$(pgrep -f 'llamagate[.]js setup') || exit 0
		started=$(pgrep -P "$setup") || :
		kill -KILL $setup || :
		for child in $started; do tail --pid="$child" -f /dev/null; done`);
	await running;
	return result?.code === 137 ? undefined : result;
}

/** Every key is another, so its digest is none of what is compared. */
async function comparable(host: BootedHost): Promise<string> {
	return (await fingerprint(host))
		.split("\n")
		.filter((line) => !/^[0-9a-f]{64} .*llamagate\/keys\.json$/.test(line))
		.filter((line) => !line.startsWith("/var/lib/llamagate/setup"))
		.join("\n");
}

t.test(
	"killed in the middle of every change and run again, setup ends the same, and undo gives the host back",
	booting(),
	async (t) => {
		const host = await bootHost(t, {
			llamagate: "installed",
			ollama: "everywhere",
			docker: "open-webui",
		});
		await host.plugTailnet();
		await host.sh(`mkdir -p -m 0700 /root/.ssh
			ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
			cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys`);
		const before = await fingerprint(host);
		const whole = await runSetup(host, "--yes");
		t.equal(whole.code, 0, JSON.stringify(whole.report, undefined, 2));
		const wanted = await comparable(host);
		await host.must("llamagate", "setup", "--undo", "--yes");
		t.equal(await fingerprint(host), before);

		let kills = 0;
		for (const step of steps) {
			// What was cut off is taken back by the next run, which then gets one change further.
			for (let change = 1; ; change++) {
				const ended = await runAndKill(host, "begin", change, "--only", step);
				if (ended === undefined) {
					kills += 1;
					continue;
				}
				t.equal(ended.code, 0, `${step}: ${ended.stdout}${ended.stderr}`);
				break;
			}
		}
		const changes = whole.report.steps.flatMap(({ actions }) => actions).length;
		t.ok(
			kills >= changes - steps.length,
			`${kills} kills in ${changes} changes`,
		);
		t.equal(await comparable(host), wanted, "the same as in one go");
		const again = await runSetup(host, "--yes");
		t.equal(again.code, 0, JSON.stringify(again.report, undefined, 2));
		t.strictSame(
			again.report.steps.flatMap(({ actions }) => actions),
			[],
		);

		kills = 0;
		for (;;) {
			const ended = await runAndKill(host, "undone", 3, "--undo");
			if (ended === undefined) {
				kills += 1;
				continue;
			}
			t.equal(ended.code, 0, `undo: ${ended.stdout}${ended.stderr}`);
			break;
		}
		t.ok(kills > 3, `undo was killed ${kills} times`);
		t.equal(await fingerprint(host), before, "byte for byte as before");
	},
);
