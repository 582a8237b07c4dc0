import { appendFile } from "node:fs/promises";
import t from "tap";
import {
	type BootedHost,
	bootHost,
	booting,
	publicAddresses,
} from "../support/bootedHost.ts";
import { becomes, type Namespace } from "../support/namespaces.ts";
import { fingerprint, runSetup, statesOf } from "../support/setupHost.ts";

const patience = { timeout: 120_000 };

/** A person's key, at home on the host so that nothing of this machine is used. */
async function installSshKey(host: BootedHost): Promise<string> {
	await host.sh(`mkdir -p -m 0700 /root/.ssh
		ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
		cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys`);
	return `${host.root}/root/.ssh/id_ed25519`;
}

function ssh(key: string, port: number, ...command: string[]): string[] {
	return [
		...[
			"ssh",
			"-F",
			"none",
			"-i",
			key,
			"-p",
			String(port),
			"-o",
			"BatchMode=yes",
		],
		...["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"],
		...["-o", "ConnectTimeout=5", "-o", "LogLevel=ERROR"],
		...[`root@${publicAddresses.server}`, "--", ...command],
	];
}

/** A login that says something every moment. */
function openSession(from: Namespace, key: string, port: number) {
	const session = from.start(
		...ssh(key, port, "while echo tick; do sleep 0.2; done"),
	);
	let ticks = 0;
	session.stdout.on("data", (text: string) => {
		ticks += text.split("tick").length - 1;
	});
	return {
		ticks: () => ticks,
		isOpen: () => session.exitCode === null,
	};
}

t.test(
	"whoever is logged in by SSH stays so, on whatever port, and can log in again",
	{ ...booting(), ...patience },
	async (t) => {
		const host = await bootHost(t, {
			llamagate: "installed",
			install: (root) =>
				appendFile(`${root}/etc/ssh/sshd_config`, "Port 2222\n"),
		});
		const key = await installSshKey(host);
		const stranger = await host.plugPublic();
		const session = openSession(stranger, key, 2222);
		await becomes(t, () => session.ticks() > 0, true, "logged in");
		// A rule of the person's own that would shut them out once UFW is on.
		await host.must("ufw", "deny", "2222/tcp");

		// As the person would: over that very port.
		const result = await stranger.run(
			...ssh(key, 2222, "llamagate setup --yes --json --only ufw,sshd"),
		);
		t.equal(result.code, 0, result.stdout + result.stderr);
		const report = JSON.parse(result.stdout) as {
			steps: { actions: string[] }[];
		};
		const actions = report.steps.flatMap((step) => step.actions);
		const allowed = actions.findIndex((action) =>
			/^ufw (prepend )?allow .*2222/.test(action),
		);
		t.ok(allowed >= 0, actions.join("\n"));
		t.ok(allowed < actions.indexOf("ufw --force enable"), "before it is on");
		const before = session.ticks();
		await becomes(t, () => session.ticks() > before + 3, true, "still there");
		t.ok(session.isOpen());
		const again = await stranger.run(...ssh(key, 2222, "echo in"));
		t.equal(again.stdout, "in\n", again.stderr);
		const byPassword = await stranger.run(
			"ssh",
			...["-F", "none", "-p", "2222", "-o", "StrictHostKeyChecking=no"],
			...["-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"],
			...["-o", "PubkeyAuthentication=no", `root@${publicAddresses.server}`],
		);
		t.match(byPassword.stderr, /Permission denied \(publickey\)/);
	},
);

t.test("on a host", { ...booting(), timeout: 300_000 }, async (t) => {
	const host = await bootHost(t, {
		llamagate: "installed",
		ollama: "none",
		tailscale: false,
	});
	const untouched = await fingerprint(host);

	t.test("what is absent is said and passed over", async (t) => {
		const { code, report } = await runSetup(host, "--dry-run");
		t.strictSame(statesOf(report), {
			account: "todo",
			ollama: "absent",
			gate: "todo",
			ufw: "todo",
			tailscale: "absent",
			"open-webui": "absent",
			sshd: "unsafe",
			fail2ban: "todo",
		});
		t.equal(code, 1, "something is left to the person");
	});

	t.test("without a key to log in with, passwords stay on", async (t) => {
		const { code, report } = await runSetup(host, "--yes", "--only", "sshd");
		t.equal(code, 1);
		t.match(report.steps[0]?.says, /would lock root out.*ssh-copy-id/);
		t.equal(await fingerprint(host), untouched);
		// Nor does one that sshd would not take.
		await host.sh(`mkdir -p -m 0700 /root/.ssh
			echo 'no key at all' >/root/.ssh/authorized_keys`);
		t.equal((await runSetup(host, "--yes", "--only", "sshd")).code, 1);
		await host.must("rm", "/root/.ssh/authorized_keys");
	});

	t.test("nothing is done that nobody agreed to", async (t) => {
		for (const [answer, terminal] of [
			["", false],
			["y", false],
			["n", true],
			["", true],
			["yesss", true],
		] as const) {
			const command = "llamagate setup --only ufw";
			const { code, stdout } = await host.run(
				...["sh", "-c"],
				terminal
					? `printf '${answer}\\n' | script -qec '${command}' /dev/null`
					: `printf '${answer}\\n' | ${command}`,
			);
			t.equal(code, 1, `${JSON.stringify(answer)} ${terminal}: ${stdout}`);
		}
		t.equal(await fingerprint(host), untouched);
	});

	t.test("a yes at the terminal is one", async (t) => {
		const { code, stdout } = await host.run(
			...["sh", "-c"],
			"printf 'y\\n' | script -qec 'llamagate setup --only ufw' /dev/null",
		);
		t.equal(code, 0, stdout);
		t.match(await host.must("ufw", "status"), "Status: active");
		await host.must("llamagate", "setup", "--undo", "--yes");
		t.equal(await fingerprint(host), untouched);
	});

	t.test(
		"a step that fails is taken back, and the run ends there",
		async (t) => {
			await host.write("/etc/fail2ban/jail.d/broken.conf", "[sshd\n");
			const { code, report } = await runSetup(host, "--yes", "--skip", "sshd");
			t.equal(code, 1);
			const states = statesOf(report);
			t.equal(states.fail2ban, "failed");
			t.equal(states.ufw, "changed", "what came before stays");
			t.match(report.steps.at(-1)?.says, /fail2ban-client --test ended with/);
			t.not(
				(await host.run("test", "-e", "/etc/fail2ban/jail.d/llamagate.conf"))
					.code,
				0,
			);
			await host.must("rm", "/etc/fail2ban/jail.d/broken.conf");
			const mended = await runSetup(host, "--yes", "--skip", "sshd");
			t.equal(mended.code, 0, JSON.stringify(mended.report, undefined, 2));
			t.equal(statesOf(mended.report).fail2ban, "changed");
			await host.must("llamagate", "setup", "--undo", "--yes");
			t.equal(await fingerprint(host), untouched);
		},
	);

	t.test("undo leaves what somebody else has changed since", async (t) => {
		await runSetup(host, "--yes", "--only", "account,ufw,fail2ban");
		await host.must("ufw", "allow", "5432/tcp");
		await host.must("llamagate", "keys", "add", "another");
		const jail = "/etc/fail2ban/jail.d/llamagate.conf";
		await host.sh(`echo '# mine' >>${jail}`);
		const { code, stdout } = await host.run(
			...["llamagate", "setup", "--undo", "--yes", "--json"],
		);
		t.equal(code, 1);
		const { left } = JSON.parse(stdout) as { left: string[] };
		t.match(left.join("\n"), `${jail} has been changed since`);
		t.match(left.join("\n"), "keys.json has been changed since");
		t.match(await host.read(jail), "# mine");
		const rules = await host.must("ufw", "show", "added");
		t.match(rules, "ufw allow 5432/tcp");
		t.notMatch(rules, "11434", "ours are gone");
		t.match(await host.must("llamagate", "keys", "list"), "another");
		await host.sh(`rm ${jail} /etc/llamagate/keys.json
			ufw delete allow 5432/tcp`);
	});

	t.test("two at once do not get in each other's way", async (t) => {
		const first = host.run("llamagate", "setup", "--yes", "--only", "ufw");
		await host.sh(
			"until pgrep -f 'llamagate.js setup' >/dev/null; do :; done; sleep 0.3",
		);
		const second = await host.run(
			"llamagate",
			"setup",
			"--yes",
			"--only",
			"ufw",
		);
		t.equal(second.code, 1);
		t.match(second.stderr, "another llamagate setup runs");
		t.equal((await first).code, 0);
		await host.must("llamagate", "setup", "--undo", "--yes");
	});

	t.test("a command line that makes no sense is a usage error", async (t) => {
		for (const options of [
			["--only", "firewall"],
			["--json"],
			["--skip", "ufw,nothing"],
			["--undoo"],
		])
			t.equal(
				(await host.run("llamagate", "setup", ...options)).code,
				2,
				options.join(" "),
			);
	});

	t.test("only root may", async (t) => {
		const { code, stderr } = await host.run(
			...["setpriv", "--reuid=65534", "--clear-groups"],
			...["llamagate", "setup", "--dry-run"],
		);
		t.equal(code, 1);
		t.match(stderr, "sudo llamagate setup");
	});
});
