import { execFileSync } from "node:child_process";
import { chmod, chown, readFile, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import t, { type Test } from "tap";
import { runProgram, temporaryFolder } from "../support/gate.ts";
import { program } from "../support/program.ts";
import { requireRoot, requireTool } from "../support/tools.ts";

const script = `
import os, struct, sys
_, what, file, name, *entries = sys.argv
if what == "set":
    packed = [struct.pack("<HHI", *[int(part) for part in entry.split(":")]) for entry in entries]
    os.setxattr(file, name, struct.pack("<I", 2) + b"".join(packed))
elif name in os.listxattr(file):
    text = os.getxattr(file, name)
    print(*["%d:%d:%d" % struct.unpack("<HHI", text[at:at + 8]) for at in range(4, len(text), 8)])
`;
const python = (...args: string[]) =>
	execFileSync("python3", ["-c", script, ...args], { encoding: "utf8" }).trim();

/** As acl(5) has it and the kernel keeps it: tag, rights, number. */
const nobody = 2 ** 32 - 1;
const entriesFor = (user: number, groupRights: number, mask: number) => [
	...[`1:6:${nobody}`, `2:4:${user}`, `4:${groupRights}:${nobody}`],
	...[`16:${mask}:${nobody}`, `32:0:${nobody}`],
];
const listOf = (file: string) => python("get", file, "system.posix_acl_access");

/** A keys file of 2000:100 with mode 0640, in a folder of root's. */
async function keysOf(t: Test) {
	const folder = await temporaryFolder(t);
	const config = path.join(folder, "config.json");
	const file = path.join(folder, "keys.json");
	await writeFile(
		config,
		'{ "listen": { "interface": "none0" }, "admin": { "socket": "off" } }',
	);
	await writeFile(file, '{ "keys": [] }\n');
	await chmod(folder, 0o755);
	await chown(file, 2000, 100);
	await chmod(file, 0o640);
	const run = (by: readonly string[]) =>
		runProgram([
			...[...by, process.execPath, program, "keys", "add", "laptop"],
			...["--config", config],
		]);
	const add = async (by: readonly string[] = []) => {
		const { code, stderr } = await run(by);
		t.equal(code, 0, stderr);
		t.match(await readFile(file, "utf8"), "laptop");
	};
	return { add, run, file, folder };
}

t.test(
	"whom an access list lets read a keys file goes on reading it, and nobody else does",
	async (t) => {
		if (!requireRoot(t) || !requireTool(t, "python3")) return;
		const owner = ["setpriv", "--reuid=2000", "--regid=100", "--clear-groups"];
		// Whether the group itself may read or not, its bits in the mode say so.
		for (const user of [[], owner])
			for (const groupRights of [0, 4]) {
				const { add, file, folder } = await keysOf(t);
				await chown(folder, 2000, 100);
				const entries = entriesFor(1234, groupRights, 4);
				python("set", file, "system.posix_acl_access", ...entries);
				await add(user);
				t.equal(listOf(file), entries.join(" "));
				const { uid, gid, mode } = await stat(file);
				t.same([uid, gid, mode & 0o7777], [2000, 100, 0o640]);
			}
	},
);

t.test(
	"a list that a folder hands on to new files gives a keys file no reader",
	async (t) => {
		if (!requireRoot(t) || !requireTool(t, "python3")) return;
		const { add, file, folder } = await keysOf(t);
		const entries = entriesFor(1234, 5, 7);
		python("set", folder, "system.posix_acl_default", ...entries);
		await add();
		t.equal(listOf(file), "");
		t.equal((await stat(file)).mode & 0o777, 0o640);
	},
);

/** What starts a program where `cp` fails with these words. */
async function whereCpSays(folder: string, words: string): Promise<string[]> {
	const cp = path.join(folder, "cp");
	await writeFile(cp, `#!/bin/sh\necho "cp: ${words}" >&2\nexit 1\n`);
	await chmod(cp, 0o755);
	const replace = 'mount --bind "$0" "$(command -v cp)" && exec "$@"';
	return ["unshare", "--mount", "sh", "-c", replace, cp];
}

t.test(
	"a keys file whose list cannot be kept is left as it is, and says what to do",
	async (t) => {
		if (!requireRoot(t) || !requireTool(t, "python3", "unshare")) return;
		const { file, folder, run } = await keysOf(t);
		const entries = entriesFor(1234, 0, 4);
		python("set", file, "system.posix_acl_access", ...entries);
		const before = await readFile(file, "utf8");
		const { code, stdout, stderr } = await run(
			await whereCpSays(folder, "preserving permissions: Input/output error"),
		);
		t.equal(code, 1, stderr);
		t.equal(stdout, "", "no key is shown");
		t.match(stderr, /access list cannot be kept: cp: preserving .*setfacl -b/);
		t.equal(await readFile(file, "utf8"), before);
		t.equal(listOf(file), entries.join(" "));
	},
);

t.test("keys are made beside a cp that knows nothing of lists", async (t) => {
	if (!requireRoot(t) || !requireTool(t, "unshare")) return;
	const { add, file, folder } = await keysOf(t);
	await add(await whereCpSays(folder, "unrecognized option: attributes-only"));
	const { uid, gid, mode } = await stat(file);
	t.same([uid, gid, mode & 0o7777], [2000, 100, 0o640]);
});
