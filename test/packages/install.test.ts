import { execFile } from "node:child_process";
import { cp, readdir, readFile, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import t from "tap";
import {
	debianPackage,
	laterPackage,
	packageTools,
} from "../support/builtPackages.ts";
import { debianRoot, debianRootTools } from "../support/debianRoot.ts";
import { requireRoot, requireTool } from "../support/tools.ts";

// The first of these tests to run makes a Debian and the packages.
const execute = promisify(execFile);

const userConfig = `{
	"upstream": { "url": "unix:/run/llamagate-ollama/ollama.sock" },
	"listen": { "port": 11500 },
	"admin": { "metrics": "off" }
}
`;
const configFile = "/etc/llamagate/config.json";
const keysFile = "/etc/llamagate/keys.json";

/** A Debian that is not running, and its root's command line. */
interface Installation {
	readonly root: string;
	/** What a program inside says; it must succeed. */
	run(...command: string[]): Promise<string>;
	/** Everything in it that tells of llamagate, by path. */
	traces(): Promise<string[]>;
	read(file: string): Promise<string>;
	write(file: string, content: string): Promise<void>;
	/** `llamagate:llamagate 0640 /path` and so on. */
	access(...files: string[]): Promise<string[]>;
}

async function freshDebian(
	t: Parameters<typeof debianRoot>[0],
): Promise<Installation> {
	const root = await debianRoot(t);
	const run = async (...command: string[]) => {
		// Nothing of this machine's environment, nor what tap adds to it.
		const { stdout } = await execute("chroot", [
			...[root, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
			...["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"],
			...command,
		]);
		return stdout;
	};
	return {
		root,
		run,
		async traces() {
			const found = await run(
				...["find", "/", "-xdev", "-name", "*llamagate*"],
				...["-not", "-path", "/tmp/*", "-not", "-path", "/var/lib/dpkg/*"],
			);
			return found.split("\n").filter((line) => line !== "");
		},
		read: (file) => readFile(path.join(root, file), "utf8"),
		write: (file, content) => writeFile(path.join(root, file), content),
		async access(...files) {
			const found = await run("stat", "-c", "%U:%G %04a %n", ...files);
			return found.trim().split("\n");
		},
	};
}

/** Installs a package as `apt install FILE` does, where all it needs is there. */
async function install(debian: Installation, file: string): Promise<string> {
	const inside = path.join("/tmp", path.basename(file));
	await cp(file, path.join(debian.root, inside));
	return debian.run("dpkg", "--force-confold", "--install", inside);
}

function possible(t: Parameters<typeof requireTool>[0]): boolean {
	return (
		requireRoot(t) &&
		requireTool(t, ...packageTools, ...debianRootTools, "chroot")
	);
}

t.test(
	"installing brings a program, a user and settings, and starts and enables nothing",
	async (t) => {
		if (!possible(t)) return;
		const debian = await freshDebian(t);
		const units = async () =>
			(await debian.run("find", "/etc/systemd/system")).split("\n").sort();
		const before = await units();
		await install(debian, await debianPackage());

		t.strictSame(await units(), before);
		const { version } = JSON.parse(
			await readFile(
				path.join(import.meta.dirname, "../../package.json"),
				"utf8",
			),
		) as { version: string };
		t.equal(await debian.run("llamagate", "--version"), `${version}\n`);
		t.match(
			await debian.run("getent", "passwd", "llamagate"),
			/^llamagate:x:\d+:\d+:llamagate:\/nonexistent:\/usr\/sbin\/nologin\n$/,
		);
		t.strictSame(await debian.access("/etc/llamagate", configFile), [
			"root:llamagate 0750 /etc/llamagate",
			`root:llamagate 0640 ${configFile}`,
		]);
		t.strictSame(await readdir(path.join(debian.root, "etc/llamagate")), [
			"config.json",
		]);
		t.equal(await debian.run("dpkg", "--verify", "llamagate"), "");
	},
);

t.test(
	"the settings that come with the package load, and lack only a key",
	async (t) => {
		if (!possible(t)) return;
		const debian = await freshDebian(t);
		await install(debian, await debianPackage());
		const check = () =>
			debian.run("llamagate", "check").then(
				() => "all is well",
				(error: { stdout: string; stderr: string }) =>
					error.stdout + error.stderr,
			);
		t.match(await check(), /Make the first key with: llamagate keys add NAME/);
		await debian.run("llamagate", "keys", "add", "laptop");
		t.match(
			await check(),
			/^ok +configuration: \/etc\/llamagate\/config.json loads/m,
		);
	},
);

t.test(
	"an upgrade leaves keys, settings, their owners and what is enabled as they were",
	async (t) => {
		if (!possible(t)) return;
		const debian = await freshDebian(t);
		const first = await debianPackage();
		await install(debian, first);
		await debian.run("llamagate", "keys", "add", "laptop");
		await debian.write(configFile, userConfig);
		await debian.run("chown", "root:root", configFile);
		await debian.run("chmod", "0600", configFile);
		await debian.run("systemctl", "--quiet", "enable", "llamagate.service");
		const kept = async () => ({
			config: await debian.read(configFile),
			keys: await debian.read(keysFile),
			access: await debian.access("/etc/llamagate", configFile, keysFile),
			enabled: await debian.run("systemctl", "is-enabled", "llamagate.service"),
		});
		const before = await kept();
		t.equal(before.config, userConfig);
		t.equal(before.enabled, "enabled\n");

		await install(debian, await laterPackage(t, first));
		t.equal(
			await debian.run("dpkg-query", "--show", "llamagate"),
			"llamagate\t99.0-1\n",
		);
		t.strictSame(await kept(), before);
	},
);

t.test(
	"removing takes the program and disables its units; keys and settings wait for a new installation",
	async (t) => {
		if (!possible(t)) return;
		const debian = await freshDebian(t);
		const file = await debianPackage();
		await install(debian, file);
		await debian.run("llamagate", "keys", "add", "laptop");
		await debian.write(configFile, userConfig);
		await debian.run(
			...["systemctl", "--quiet", "enable"],
			...["llamagate.service", "llamagate.socket", "llamagate-ollama.socket"],
			...["llamagate-listen.service", "llamagate-bridge@127.0.0.1-8000.socket"],
		);
		const keys = await debian.read(keysFile);

		await debian.run("dpkg", "--remove", "llamagate");
		t.strictSame(
			(await debian.traces()).sort(),
			["/etc/llamagate", "/etc/ufw/applications.d/llamagate"],
			"only settings are left",
		);
		t.equal(await debian.read(configFile), userConfig);
		t.equal(await debian.read(keysFile), keys);

		await install(debian, file);
		t.equal(await debian.read(configFile), userConfig);
		t.match(await debian.run("llamagate", "keys", "list"), /laptop/);
		const answer = await debian
			.run("systemctl", "is-enabled", "llamagate.service")
			.catch(({ stdout }: { stdout: string }) => stdout);
		t.equal(answer, "disabled\n");
	},
);

t.test(
	"purging takes keys, settings and state too, and leaves the user",
	async (t) => {
		if (!possible(t)) return;
		const debian = await freshDebian(t);
		await install(debian, await debianPackage());
		await debian.run("llamagate", "keys", "add", "laptop");
		await debian.run("mkdir", "/var/lib/llamagate");
		await debian.write("/var/lib/llamagate/state", "");
		await debian.run("mkdir", "/etc/llamagate/alarms");
		const bridge =
			"/etc/systemd/system/llamagate-bridge@127.0.0.1-8000.service.d";
		await debian.run("mkdir", "-p", bridge);
		await debian.write(`${bridge}/llamagate.conf`, "[Service]\n");
		await debian.write("/etc/llamagate/alarms/ntfy", "https://ntfy.sh/gpu");
		const dropIns = "/etc/systemd/system/llamagate-ledger.service.d";
		await debian.run("mkdir", dropIns);
		for (const name of ["llamagate-database.conf", "llamagate-way-out.conf"])
			await debian.write(`${dropIns}/${name}`, "[Service]\n");
		for (const name of ["gate.key", "minipc.key", "valkey.password"])
			await debian.write(`/etc/llamagate/${name}`, "a person's");
		const ledger = "/var/lib/private/llamagate-ledger";
		await debian.run("mkdir", "-p", ledger);
		await debian.write(`${ledger}/ledger.sqlite`, "who used what");

		const said = await debian.run("dpkg", "--purge", "llamagate");
		t.match(
			said,
			`llamagate: the ledger stays in ${ledger}; remove it yourself\n`,
		);
		t.match(
			said,
			"llamagate: what you have put there stays in /etc/llamagate, secrets too: gate.key minipc.key valkey.password; remove it yourself\n",
		);
		t.equal(await debian.read("/etc/llamagate/gate.key"), "a person's");
		await debian.run("rm", "-r", "/etc/llamagate");
		t.equal(await debian.read(`${ledger}/ledger.sqlite`), "who used what");
		await debian.run("rm", "-r", ledger);
		t.strictSame(await debian.traces(), []);
		// Its number must not go to another user while files of it may be about.
		t.match(await debian.run("getent", "passwd", "llamagate"), /^llamagate:/);
		// Once more, as dpkg does when it was interrupted.
		await install(debian, await debianPackage());
		t.notMatch(
			await debian.run("dpkg", "--purge", "llamagate"),
			/stays in/,
			"where nothing of a person's is left",
		);
		t.strictSame(await debian.traces(), []);
		await t.rejects(stat(path.join(debian.root, keysFile)));
	},
);
