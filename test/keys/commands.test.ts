import { spawn } from "node:child_process";
import { once } from "node:events";
import {
	readdir,
	readFile,
	readlink,
	stat,
	symlink,
	unlink,
	writeFile,
} from "node:fs/promises";
import path from "node:path";
import t from "tap";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import {
	bearer,
	runCli,
	spawnGate,
	startGate,
	temporaryFolder,
	testKeys,
} from "../support/gate.ts";
import { program } from "../support/program.ts";

// Two dozen processes, one after the other, take a while on a busy machine.

type Tap = Parameters<typeof temporaryFolder>[0];

/** A configuration without a daemon, and without keys yet. */
async function freshConfig(t: Tap) {
	const folder = await temporaryFolder(t);
	const config = path.join(folder, "config.json");
	await writeFile(
		config,
		JSON.stringify({ admin: { socket: path.join(folder, "none.sock") } }),
	);
	const file = path.join(folder, "keys.json");
	return {
		folder,
		file,
		keys: (...args: string[]) => runCli(["keys", ...args, "--config", config]),
		keysWithInput: (input: string, ...args: string[]) =>
			runCli(["keys", ...args, "--config", config], input),
		read: async () =>
			(JSON.parse(await readFile(file, "utf8")) as { keys: KeyEntry[] }).keys,
	};
}

t.test(
	"add prints the key once, alone on standard output, and stores only its digest",
	async (t) => {
		const { keys, read, file } = await freshConfig(t);
		const added = await keys("add", "laptop");
		t.equal(added.code, 0);
		t.match(added.stdout, /^lg_[0-9a-f]{64}\n$/);
		const key = added.stdout.trim();
		t.match(await read(), [
			{ name: "laptop", sha256: digestOf(key), scopes: ["read", "infer"] },
		]);
		t.notOk((await readFile(file, "utf8")).includes(key));
		t.equal((await stat(file)).mode & 0o777, 0o600);
		const listed = await keys("list");
		t.notOk((listed.stdout + listed.stderr).includes(key));
		t.match(
			listed.stdout,
			/laptop {2}active {2}never .*\n {2}read, infer; made \d/,
		);
	},
);

t.test(
	"add takes scopes and an expiry, and refuses what it does not know",
	async (t) => {
		const { keys, read } = await freshConfig(t);
		t.equal(
			(await keys("add", "ops", "--scopes", "read,manage", "--expires", "90d"))
				.code,
			0,
		);
		const [entry] = await read();
		t.strictSame(entry?.scopes, ["read", "manage"]);
		const days = (Date.parse(entry?.expires ?? "") - Date.now()) / 86_400_000;
		t.ok(days > 89.9 && days <= 90);
		for (const args of [
			["add"],
			["add", "bad name"],
			["add", "x", "--scopes", "read,root"],
			["add", "x", "--expires", "soon"],
			["add", "x", "--expires", "2001-01-01T00:00:00Z"],
			["add", "x", "--scope", "read"],
			["frobnicate"],
			[],
		]) {
			const refused = await keys(...args);
			t.equal(refused.code, 2, args.join(" "));
			t.notMatch(refused.stderr, /at .*\.ts:/, "no stack trace");
		}
		t.match(
			(await keys("add", "x", "--scope", "read")).stderr,
			/did you mean --scopes/,
		);
		const again = await keys("add", "ops");
		t.equal(again.code, 1);
		t.match(again.stderr, /rotate ops/);
		t.equal((await read()).length, 1);
	},
);

t.test(
	"--stdin takes a key made by openssl rand -hex 32, and refuses a weak one",
	async (t) => {
		const { keysWithInput, read } = await freshConfig(t);
		const made = `${"9b".repeat(4) + "0123456789abcdef".repeat(3)}deadbeef`;
		const added = await keysWithInput(`${made}\n`, "add", "phone", "--stdin");
		t.equal(added.code, 0);
		t.equal(added.stdout, "", "it is not shown again");
		t.match(await read(), [{ name: "phone", sha256: digestOf(made) }]);
		for (const weak of [
			"",
			"hunter2",
			"a".repeat(64),
			"0123456789abcdef",
			"12345678901234567890123456",
			"pass word with spaces and more of it",
			"schlüssel-schlüssel-schlüssel",
		]) {
			const refused = await keysWithInput(weak, "add", "weak", "--stdin");
			t.equal(refused.code, 1, JSON.stringify(weak));
			if (weak !== "")
				t.notOk(refused.stderr.includes(weak), "the key is not repeated");
		}
		const twice = await keysWithInput(made, "add", "other", "--stdin");
		t.equal(twice.code, 1);
		t.match(twice.stderr, /in use already, by phone/);
		t.equal((await read()).length, 1);
	},
);

t.test(
	"rotate makes a new key while the old one works until the overlap ends",
	async (t) => {
		const gate = await spawnGate(t);
		const cli = (...args: string[]) =>
			runCli(["keys", ...args, "--config", gate.configFile]);
		const statusOf = async (key: string) =>
			(await fetch(`${gate.url}/api/version`, { headers: bearer(key) })).status;
		const rotated = await cli("rotate", "user", "--overlap", "24h");
		t.equal(rotated.code, 0);
		t.match(rotated.stderr, /daemon has taken it over/);
		const fresh = rotated.stdout.trim();
		t.equal(await statusOf(fresh), 200);
		t.equal(await statusOf(testKeys.user), 200, "the old key still works");
		const again = await cli("rotate", "user", "--overlap", "1s");
		const newest = again.stdout.trim();
		t.equal(
			await statusOf(testKeys.user),
			200,
			"a second rotation breaks no promise",
		);
		const until = Date.now() + 1_100;
		while (Date.now() < until)
			await new Promise((resolve) => setTimeout(resolve, 50));
		t.equal(await statusOf(fresh), 403, "the overlap has ended");
		t.equal(await statusOf(newest), 200);
		t.equal(await statusOf(testKeys.user), 200);
		await cli("rotate", "user", "--overlap", "0");
		t.equal(await statusOf(newest), 401, "no overlap at all");
		t.equal(await statusOf(testKeys.user), 401, "and none is left from before");
	},
);

t.test(
	"rotate never gives an old key more time than it had, and asks for a new expiry",
	async (t) => {
		const { keys, read, file } = await freshConfig(t);
		const expires = new Date(Date.now() + 3_600_000).toISOString();
		await writeFile(
			file,
			JSON.stringify({ keys: [{ name: "a", sha256: digestOf("a"), expires }] }),
			{ mode: 0o600 },
		);
		t.equal(
			(await keys("rotate", "a", "--overlap", "7d", "--expires", "90d")).code,
			0,
		);
		const [entry] = await read();
		t.equal(entry?.previous?.[0]?.expires, expires);
		t.not(entry?.expires, expires);
		await writeFile(
			file,
			JSON.stringify({
				keys: [
					{ name: "a", sha256: digestOf("a"), expires: "2001-01-01T00:00:00Z" },
				],
			}),
			{ mode: 0o600 },
		);
		const refused = await keys("rotate", "a");
		t.equal(refused.code, 1);
		t.match(refused.stderr, /--expires 90d/);
	},
);

t.test(
	"a replaced secret that ended with its key stays ended when the key lives on",
	async (t) => {
		const { keys, read, file } = await freshConfig(t);
		const inDays = (days: number) =>
			new Date(Date.now() + days * 86_400_000).toISOString();
		const write = (expires: string) =>
			writeFile(
				file,
				JSON.stringify({
					keys: [
						{
							...{ name: "a", sha256: digestOf("second"), expires },
							previous: [{ sha256: digestOf("first"), expires: inDays(6) }],
						},
					],
				}),
				{ mode: 0o600 },
			);
		const ended = inDays(-1);
		await write(ended);
		t.equal((await keys("rotate", "a", "--expires", "90d")).code, 0);
		t.equal((await read())[0]?.previous, undefined);
		await write(ended);
		t.equal((await keys("edit", "a", "--expires", "90d")).code, 0);
		t.strictSame((await read())[0]?.previous, [
			{ sha256: digestOf("first"), expires: ended },
		]);
		const soon = inDays(1);
		await write(soon);
		t.equal((await keys("rotate", "a", "--expires", "90d")).code, 0);
		t.match((await read())[0]?.previous, [
			{ sha256: digestOf("first"), expires: soon },
			{ sha256: digestOf("second") },
		]);
	},
);

t.test(
	"add warns of root's keys file only where no daemon has taken it over",
	{ skip: process.getuid?.() !== 0 && "needs root" },
	async (t) => {
		const gate = await startGate(t);
		const told = await runCli([
			...["keys", "add", "laptop", "--config", gate.configFile],
		]);
		t.match(told.stderr, /has taken it over/);
		t.notMatch(told.stderr, /belongs to root/);
		const { keys } = await freshConfig(t);
		for (const more of [[], ["--json"]])
			t.match(
				(await keys("add", `a${more.length}`, ...more)).stderr,
				/none to tell\.\n.* belongs to root\. If .* sudo chown USER /,
			);
	},
);

t.test("revoke takes a key away, at once where a daemon runs", async (t) => {
	const gate = await startGate(t);
	const statusOf = async () =>
		(await fetch(`${gate.url}/api/version`, { headers: bearer(testKeys.user) }))
			.status;
	t.equal(await statusOf(), 200);
	const revoked = await runCli([
		"keys",
		"revoke",
		"user",
		"--config",
		gate.configFile,
	]);
	t.equal(revoked.code, 0);
	t.equal(await statusOf(), 401);
	const unknown = await runCli([
		"keys",
		"revoke",
		"user",
		"--config",
		gate.configFile,
	]);
	t.equal(unknown.code, 1);
	t.match(unknown.stderr, /no key named user; known: owner, reader, worker/);
});

t.test("a daemon that refuses to reload is reported", async (t) => {
	const gate = await startGate(t);
	await gate.writeConfig({
		log: { level: "loud" },
		admin: { socket: path.join(gate.folder, "admin.sock") },
	});
	const added = await runCli(["keys", "add", "x", "--config", gate.configFile]);
	t.equal(added.code, 78, "the command reads the same file");
	t.match(added.stderr, /log\.level: expected trace, debug/);
});

t.test("list --json is for programs", async (t) => {
	const { keys } = await freshConfig(t);
	await keys("add", "a", "--json");
	const { stdout, code } = await keys("list", "--json");
	t.equal(code, 0);
	t.match(JSON.parse(stdout), {
		keys: [
			{
				name: "a",
				scopes: ["read", "infer"],
				state: "active",
				expires: null,
				oldKeysUntil: [],
			},
		],
	});
});

t.test("twenty commands at once lose nothing", async (t) => {
	const { keys, read } = await freshConfig(t);
	const names = Array.from({ length: 20 }, (_, i) => `key${i}`);
	const results = await Promise.all(names.map((name) => keys("add", name)));
	t.ok(
		results.every(({ code }) => code === 0),
		JSON.stringify(results.find(({ code }) => code !== 0)),
	);
	t.strictSame((await read()).map(({ name }) => name).sort(), names.sort());
});

t.test(
	"killed at any moment, the command leaves the old file or the new one, whole",
	async (t) => {
		const { keys, read, folder, file } = await freshConfig(t);
		await keys("add", "first");
		const config = path.join(folder, "config.json");
		let written = 0;
		for (let round = 0; round < 25; round++) {
			const child = spawn(
				process.execPath,
				[program, "keys", "add", `k${round}`, "--config", config],
				{ stdio: "ignore" },
			);
			const exit = once(child, "exit");
			// Spread over start-up, lock, write and rename.
			const timer = setTimeout(() => child.kill("SIGKILL"), 60 + round * 12);
			await exit;
			clearTimeout(timer);
			const entries = await read();
			t.equal(entries[0]?.name, "first");
			written = entries.length - 1;
			t.equal((await stat(file)).mode & 0o777, 0o600);
		}
		t.comment(`${written} of 25 were written before they were killed`);
		const last = await keys("add", "last");
		t.equal(last.code, 0, "no lock is left behind");
		t.notOk(
			(await readdir(folder)).some((name) => name.includes(".new-")),
			"and no half-written file",
		);
	},
);

t.test("a symbolic link to the keys file stays one", async (t) => {
	const { keys, folder, file, read } = await freshConfig(t);
	const real = path.join(folder, "real.json");
	await writeFile(real, '{"keys":[]}', { mode: 0o600 });
	await symlink(real, file);
	t.equal((await keys("add", "a")).code, 0);
	t.match(JSON.parse(await readFile(real, "utf8")), { keys: [{ name: "a" }] });
	t.equal((await read()).length, 1);
});

t.test("a symbolic link that leads to no file is left as it is", async (t) => {
	const { keys, folder, file } = await freshConfig(t);
	const away = path.join(folder, "disk", "keys.json");
	await symlink("disk/keys.json", path.join(folder, "between.json"));
	await symlink("between.json", file);
	const refused = await keys("add", "a");
	t.equal(refused.code, 78);
	t.ok(refused.stderr.includes(away), refused.stderr);
	t.equal(refused.stdout, "", "no key is shown");
	t.equal(await readlink(file), "between.json");
	await unlink(file);
	await symlink("keys.json", file);
	t.equal((await keys("add", "a")).code, 78, "nor one that leads to itself");
	t.equal(await readlink(file), "keys.json");
});

t.test(
	"a broken keys file is reported with its mistakes and left as it is",
	async (t) => {
		const { keys, file } = await freshConfig(t);
		const broken = '{"keys":[{"name":"a","sha256":"nope","scopez":[]}]}';
		await writeFile(file, broken, { mode: 0o600 });
		const refused = await keys("add", "b");
		t.equal(refused.code, 78);
		t.match(refused.stderr, /keys\[0\]\.sha256: expected a SHA-256 digest/);
		t.match(
			refused.stderr,
			/keys\[0\]\.scopez: unknown setting; did you mean "scopes"/,
		);
		t.notOk(
			refused.stderr.includes("nope"),
			"what is in place of a digest could be a key",
		);
		t.equal(await readFile(file, "utf8"), broken);
	},
);
