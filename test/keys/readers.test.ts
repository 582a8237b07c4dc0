import {
	chmod,
	chown,
	readFile,
	stat,
	unlink,
	writeFile,
} from "node:fs/promises";
import path from "node:path";
import t from "tap";
import {
	runCli,
	runProgram,
	startGate,
	temporaryFolder,
} from "../support/gate.ts";
import { program } from "../support/program.ts";
import { requireRoot } from "../support/tools.ts";

type Tap = Parameters<typeof temporaryFolder>[0];

/** A keys file of some user and group, in a folder of the user's. */
async function keysOf(t: Tap, uid: number, gid: number, mode: number) {
	const folder = await temporaryFolder(t);
	const config = path.join(folder, "config.json");
	await writeFile(
		config,
		'{ "listen": { "interface": "none0" }, "admin": { "socket": "off" } }',
	);
	const file = path.join(folder, "keys.json");
	const text = '{ "keys": [] }\n';
	await writeFile(file, text);
	await chown(folder, uid, gid);
	await chmod(folder, 0o755);
	await chown(config, uid, gid);
	await chown(file, uid, gid);
	await chmod(file, mode);
	return {
		...{ folder, config, file, text },
		add: (user: readonly string[], ...more: string[]) =>
			runProgram([
				...[...user, process.execPath, program, "keys", "add", "laptop"],
				...[...more, "--config", config],
			]),
	};
}

/** `1234:4321 0640` */
async function accessOf(file: string): Promise<string> {
	const { uid, gid, mode } = await stat(file);
	return `${uid}:${gid} ${(mode & 0o7777).toString(8).padStart(4, "0")}`;
}

const asUser = (uid: number, ...groups: number[]) => [
	"setpriv",
	...[`--reuid=${uid}`, `--regid=${uid}`],
	groups.length === 0 ? "--clear-groups" : `--groups=${groups.join(",")}`,
];

t.test("who may read a keys file may read the next one", async (t) => {
	if (!requireRoot(t)) return;
	for (const [uid, gid, mode] of [
		[0, 0, 0o644],
		[0, 0, 0o600],
		[0, 4321, 0o640],
		[1234, 4321, 0o640],
		[1234, 4321, 0o644],
		[1234, 1234, 0o600],
	] as const) {
		const { add, file } = await keysOf(t, uid, gid, mode);
		const before = await accessOf(file);
		const { code, stderr } = await add([]);
		t.equal(code, 0, stderr);
		t.match(await readFile(file, "utf8"), "laptop");
		t.equal(await accessOf(file), before);
	}
});

t.test(
	"a first keys file is for its folder's owner, and for the group to which root shows the folder",
	async (t) => {
		if (!requireRoot(t)) return;
		for (const [uid, gid, mode, seen] of [
			[0, 0, 0o755, "0:0 0600"],
			[0, 4321, 0o750, "0:4321 0640"],
			[0, 4321, 0o700, "0:4321 0600"],
			[1234, 4321, 0o755, "1234:4321 0600"],
		] as const) {
			const { add, folder, file } = await keysOf(t, uid, gid, 0o644);
			await unlink(file);
			await chmod(folder, mode);
			const { code, stderr } = await add([]);
			t.equal(code, 0, stderr);
			t.equal(await accessOf(file), seen);
		}
	},
);

t.test(
	"the secret of an app is for nobody else, whoever may read the keys",
	async (t) => {
		if (!requireRoot(t)) return;
		for (const [uid, gid, mode, seen] of [
			[0, 0, 0o644, "0:0 0600"],
			[0, 4321, 0o644, "0:4321 0640"],
			[1234, 4321, 0o640, "1234:4321 0600"],
		] as const) {
			const { add, folder } = await keysOf(t, uid, gid, mode);
			const { code, stderr } = await add([], "--people", "open-webui");
			t.equal(code, 0, stderr);
			t.equal(await accessOf(path.join(folder, "laptop.secret")), seen);
		}
	},
);

t.test("its owner without root keeps the readers, too", async (t) => {
	if (!requireRoot(t)) return;
	for (const [gid, mode] of [
		[4321, 0o640],
		[1234, 0o644],
	] as const) {
		const { add, file } = await keysOf(t, 1234, gid, mode);
		const before = await accessOf(file);
		const { code, stderr } = await add(asUser(1234, 4321));
		t.equal(code, 0, stderr);
		t.equal(await accessOf(file), before);
	}
});

t.test(
	"who may not keep the readers of a keys file leaves it as it is, and is told",
	async (t) => {
		if (!requireRoot(t)) return;
		for (const [owner, group, groups] of [
			[0, 4321, [4321]],
			[1234, 4321, []],
		] as const) {
			const { add, file, folder, text } = await keysOf(t, 1234, 1234, 0o640);
			await chown(file, owner, group);
			const before = await accessOf(file);
			const { code, stdout, stderr } = await add(asUser(1234, ...groups));
			t.equal(code, 1, stderr);
			t.equal(stdout, "", "no key is shown");
			t.ok(stderr.includes(`${folder}/keys.json cannot be written`), stderr);
			t.match(
				stderr,
				new RegExp(
					`user ${owner} or the group ${group} would no longer read it.*; use sudo \\(EPERM\\)`,
				),
			);
			t.equal(await readFile(file, "utf8"), text);
			t.equal(await accessOf(file), before);
		}
	},
);

t.test(
	"a daemon that may not read its keys is to be let, not to be run by root",
	async (t) => {
		if (!requireRoot(t)) return;
		const gate = await startGate(t);
		await chmod(gate.folder, 0o711);
		await chmod(gate.configFile, 0o644);
		const { code, stderr } = await runProgram([
			...[...asUser(65_534), process.execPath, program],
			...["serve", "--config", gate.configFile],
		]);
		t.equal(code, 78);
		t.match(stderr, "where a daemon runs as nobody, let that user read it");
	},
);

t.test(
	"the advice for a keys file that is too open shuts no daemon out",
	async (t) => {
		if (!requireRoot(t)) return;
		for (const [uid, gid, mode, advice] of [
			[0, 4321, 0o644, /run chmod 640 on it/],
			[0, 0, 0o644, /sudo chown USER \S+keys\.json && sudo chmod 600 /],
			[1234, 1234, 0o644, /sudo chown USER \S+keys\.json && sudo chmod 600 /],
			[0, 4321, 0o660, /run chmod go-w on it/],
		] as const) {
			const { add, config, file } = await keysOf(t, uid, gid, 0o600);
			t.equal((await add([])).code, 0);
			await chmod(file, mode);
			const { stdout, stderr } = await runCli(["check", "--config", config]);
			t.match(stdout + stderr, advice, `${uid}:${gid} ${mode.toString(8)}`);
		}
	},
);
