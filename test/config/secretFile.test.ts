import { chmod, mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import {
	exposureOf,
	type Reader,
	readSecretFile,
} from "../../src/config/secretFile.ts";
import { readPassword } from "../../src/ledger/postgres/password.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

const root: Reader = { uid: 0, gids: [0] };
const daemon: Reader = { uid: 990, gids: [990, 995] };
const file = "/etc/llamagate/secret";

/** A kind of file: whose, of which group, its mode, and whether the daemon and root take it. */
type Kind = readonly [
	what: string,
	access: readonly [uid: number, gid: number, mode: number],
	daemon: boolean,
	root: boolean,
];

const kinds: readonly Kind[] = [
	["the daemon's own", [990, 990, 0o600], true, true],
	["the daemon's own, to be read alone", [990, 990, 0o400], true, true],
	["root's own", [0, 0, 0o600], true, true],
	["root's, for the daemon's group", [0, 990, 0o640], true, true],
	["root's, for another group of the daemon", [0, 995, 0o440], true, true],
	[
		"root's, for a group that is not the daemon's",
		[0, 100, 0o640],
		false,
		true,
	],
	["root's, for root's group", [0, 0, 0o640], false, false],
	["root's, which the daemon's group may write", [0, 990, 0o660], false, false],
	[
		"root's, which the daemon's group may write alone",
		[0, 990, 0o620],
		false,
		false,
	],
	["the daemon's, for its group", [990, 990, 0o640], false, false],
	["another user's", [1000, 1000, 0o600], false, true],
	["another user's, for the daemon's group", [1000, 990, 0o640], false, false],
	["everybody's to read", [0, 990, 0o644], false, false],
	["everybody's to write", [990, 990, 0o602], false, false],
	["everybody's to enter", [990, 990, 0o701], false, false],
];

for (const [what, [uid, gid, mode], forDaemon, forRoot] of kinds)
	t.test(`a secret in a file that is ${what}`, async (t) => {
		const access = { uid, gid, mode: 0o100000 | mode };
		t.equal(exposureOf(file, access, daemon) === undefined, forDaemon);
		t.equal(exposureOf(file, access, root) === undefined, forRoot, "by root");
	});

t.test("what systemd hands to a unit is the unit's", async (t) => {
	t.teardown(() => {
		delete process.env.CREDENTIALS_DIRECTORY;
	});
	const folder = "/run/credentials/llamagate-ledger.service";
	const taken = (access: readonly number[], name = `${folder}/password`) => {
		const [uid = 0, gid = 0, mode = 0] = access;
		return exposureOf(name, { uid, gid, mode }, daemon) === undefined;
	};
	t.notOk(taken([0, 0, 0o440]), "not before there is such a folder");
	process.env.CREDENTIALS_DIRECTORY = folder;
	t.ok(taken([0, 0, 0o440]), "by an access list");
	t.ok(taken([990, 990, 0o400]), "without one");
	for (const mode of [0o444, 0o460, 0o642, 0o640])
		t.notOk(taken([0, 0, mode]), mode.toString(8));
	t.notOk(taken([1000, 0, 0o440]), "another user's");
	for (const elsewhere of [
		`${folder}/../password`,
		`${folder}/below/password`,
		"/etc/llamagate/password",
		folder,
	])
		t.notOk(taken([0, 0, 0o440], elsewhere), elsewhere);
});

t.test("a secret is read where it may lie, and nowhere else", async (t) => {
	const folder = await temporaryFolder(t);
	const secret = path.join(folder, "secret");
	await writeFile(secret, "a secret\n", { mode: 0o600 });
	t.equal(await readSecretFile(secret, ""), "a secret\n");
	t.equal(await readPassword(secret), "a secret");
	for (const mode of [0o604, 0o602, 0o660, 0o644]) {
		await chmod(secret, mode);
		const said = new RegExp(
			`others than its owner may read or write it \\(mode 0${mode.toString(8)}\\); run chmod 600 on it`,
		);
		await t.rejects(readSecretFile(secret, ""), {
			name: "BadFileError",
			message: said,
		});
		await t.rejects(readPassword(secret), { exitCode: 1, message: said });
	}
	await mkdir(path.join(folder, "folder"));
	for (const [none, message] of [
		["folder", /is not usable/],
		["absent", /does not exist/],
	] as const)
		await t.rejects(readPassword(path.join(folder, none)), {
			message,
			exitCode: 1,
		});
});
