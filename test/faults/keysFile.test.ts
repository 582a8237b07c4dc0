import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { isDeepStrictEqual } from "node:util";
import t from "tap";
import { changeKeys } from "../../src/keys/changeKeys.ts";
import { parseKeys } from "../../src/keys/keyFile.ts";
import { runCli, temporaryFolder, testEntries } from "../support/gate.ts";
import { program } from "../support/program.ts";
import { tinyDisk } from "../support/tinyDisk.ts";
import { requireRoot } from "../support/tools.ts";

const keysText = `${JSON.stringify({ keys: testEntries }, undefined, 2)}\n`;

/** A configuration whose keys file lies in a folder. */
async function keysIn(folder: string): Promise<string> {
	await writeFile(path.join(folder, "keys.json"), keysText, { mode: 0o600 });
	const config = path.join(folder, "config.json");
	await writeFile(
		config,
		JSON.stringify({ admin: { socket: path.join(folder, "admin.sock") } }),
	);
	return config;
}

const rotate = ["rotate", "user"];
const addApp = ["add", "webui", "--people", "open-webui"];
const add = ["add", "another"];

t.test(
	"a keys file on a full or read-only disk stays whole, and the command says why",
	async (t) => {
		if (!requireRoot(t)) return;
		const disk = await tinyDisk(t);
		const config = await keysIn(disk.folder);
		const filler = path.join(disk.folder, "filler");
		await writeFile(filler, Buffer.alloc(disk.freeBytes()));
		const stopBy = async (said: RegExp, ...changes: string[][]) => {
			for (const change of changes) {
				const { code, stdout, stderr } = await runCli([
					...["keys", ...change, "--config", config],
				]);
				const what = change.join(" ");
				t.equal(code, 1, what);
				t.equal(stdout, "", `${what}: no key that is not stored`);
				t.match(stderr, said, what);
				t.strictSame(
					(await readdir(disk.folder)).sort(),
					["config.json", "filler", "keys.json"],
					`${what}: nothing half-written is left`,
				);
				t.equal(
					await readFile(path.join(disk.folder, "keys.json"), "utf8"),
					keysText,
				);
			}
		};
		await stopBy(
			/keys\.json cannot be written: the disk is full \(ENOSPC\)/,
			rotate,
			add,
		);
		await stopBy(
			/webui\.secret cannot be written: the disk is full \(ENOSPC\)/,
			addApp,
		);
		disk.setReadOnly(true);
		await stopBy(
			/keys\.json cannot be written: the file system is read-only \(EROFS\)/,
			rotate,
		);
		disk.setReadOnly(false);
		await rm(filler);
		const { code } = await runCli([
			...["keys", "rotate", "user", "--config", config],
		]);
		t.equal(code, 0, "it works once there is room");
	},
);

t.test(
	"a rotation that is killed between any two of its steps leaves the old keys or the new ones, whole, and never its lock",
	async (t) => {
		const outcomes: string[] = [];
		for (let step = 1; outcomes.at(-1) !== "ended"; step++) {
			const folder = await temporaryFolder(t);
			const config = await keysIn(folder);
			const child = spawn(
				process.execPath,
				[
					...["--import", "./test/support/killAtStep.mjs", program],
					...["keys", "rotate", "user", "--config", config],
				],
				{
					env: { ...process.env, KILL_AT_STEP: String(step) },
					stdio: "ignore",
				},
			);
			const [, signal] = await once(child, "exit");
			const file = path.join(folder, "keys.json");
			const text = await readFile(file, "utf8");
			const [user, ...others] = parseKeys(text, file);
			const isOld = text === keysText;
			const isNew =
				user?.sha256 !== testEntries[0]?.sha256 &&
				user?.previous?.[0]?.sha256 === testEntries[0]?.sha256 &&
				isDeepStrictEqual(others, testEntries.slice(1));
			t.ok(isOld || isNew, `step ${step}: ${isOld ? "old" : "new"}`);
			t.equal((await stat(file)).mode & 0o777, 0o600);
			for (const name of await readdir(folder))
				if (name.includes(".new-"))
					t.equal((await stat(path.join(folder, name))).mode & 0o077, 0);
			outcomes.push(signal === null ? "ended" : isOld ? "old" : "new");
			if (step % 4 === 0) {
				await changeKeys(file, false, (keys) => keys);
				t.strictSame(
					(await readdir(folder)).sort(),
					["config.json", "keys.json"],
					"the next command waits for nothing and clears up",
				);
			}
		}
		t.comment(outcomes.join(" "));
		t.ok(outcomes.filter((outcome) => outcome === "old").length > 6);
		t.ok(outcomes.includes("new"));
	},
);

t.test(
	"an app's secret whose making is killed between any two of its steps is whole or not there",
	async (t) => {
		const outcomes: string[] = [];
		for (let step = 1; outcomes.at(-1) !== "ended"; step++) {
			const folder = await temporaryFolder(t);
			const file = path.join(folder, "webui.secret");
			const make = `import { makePeopleSecret } from "./src/keys/peopleSecret.ts";
await makePeopleSecret(process.argv[1], process.argv[1]);`;
			const child = spawn(
				process.execPath,
				[
					...["--import", "./test/support/killAtStep.mjs"],
					...["--input-type=module", "--eval", make, file],
				],
				{
					env: { ...process.env, KILL_AT_STEP: String(step) },
					stdio: "ignore",
				},
			);
			const [, signal] = await once(child, "exit");
			const text = await readFile(file, "utf8").catch(() => "none");
			t.match(text, /^([0-9a-f]{64}\n|none)$/, `step ${step}`);
			for (const name of await readdir(folder))
				t.equal((await stat(path.join(folder, name))).mode & 0o077, 0);
			outcomes.push(
				signal === null ? "ended" : text === "none" ? "none" : "made",
			);
		}
		t.comment(outcomes.join(" "));
		t.ok(outcomes.includes("none"));
		t.ok(outcomes.includes("made"));
	},
);
