import { execFileSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import t, { type Test } from "tap";
import { undo } from "../../src/commands/setupUndo.ts";
import { perform } from "../../src/setup/change.ts";
import { Journal } from "../../src/setup/journal.ts";
import type { CommandAction, FileAction } from "../../src/setup/step.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

const [user = "", group = ""] = ["-un", "-gn"].map((option) =>
	execFileSync("id", [option], { encoding: "utf8" }).trim(),
);

/** A journal of a file that was written and of a command that cannot be undone yet. */
async function changed(t: Test) {
	const folder = await temporaryFolder(t);
	const file = path.join(folder, "file");
	await writeFile(file, "mine\n");
	const journal = await Journal.open(path.join(folder, "journal"));
	const write: FileAction = {
		...{ kind: "file", path: file, content: "setup's\n" },
		...{ user, group, mode: 0o640 },
	};
	const command: CommandAction = {
		...{ kind: "command", command: ["true"] },
		undo: [["sh", "-c", "echo it is down >&2; exit 3"]],
	};
	for (const action of [write, command])
		await perform(action, "step", journal, () => {});
	return { file, journal };
}

/** What undo prints as JSON, and its exit code. */
async function undoAsJson(t: Test, journal: Journal, dryRun: boolean) {
	const printed: string[] = [];
	const { stdout } = process;
	const { write } = stdout;
	// What is not its own is the test's.
	t.intercept(stdout, "write", {
		value: (text: string, ...more: never[]) =>
			text.startsWith("{")
				? printed.push(text) > 0
				: write.call(stdout, text, ...more),
	});
	const code = await undo({ journal, dryRun, agreed: true, json: true });
	t.equal(printed.length, 1);
	return { code, ...(JSON.parse(printed[0] ?? "") as object) };
}

t.test("what could not be taken back is not said to be undone", async (t) => {
	const { file, journal } = await changed(t);
	const said = await undoAsJson(t, journal, false);
	t.match(said, {
		code: 1,
		undone: [`write ${file} (${user}:${group} 0640)`],
		left: [/ended with 3:\n {2}it is down$/, /^What failed is still/],
	});
	t.equal((said as unknown as { undone: [] }).undone.length, 1);
	t.equal(await readFile(file, "utf8"), "mine\n");
});

t.test("where nothing was taken back, nothing is undone", async (t) => {
	const { file, journal } = await changed(t);
	t.match(await undoAsJson(t, journal, true), { code: 0, left: [] });
	t.same((await undoAsJson(t, journal, true)) as object, {
		...{ code: 0, undone: [], left: [], kept: [] },
	});
	t.equal(await readFile(file, "utf8"), "setup's\n");
});
