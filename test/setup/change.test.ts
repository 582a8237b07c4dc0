import { execFileSync } from "node:child_process";
import fs, {
	appendFile,
	chmod,
	mkdir,
	readdir,
	readFile,
	readlink,
	rm,
	stat,
	symlink,
	writeFile,
} from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import path from "node:path";
import t, { type Test } from "tap";
import { removeDropIn } from "../../src/host/bridges/step.ts";
import { perform, takeBack } from "../../src/setup/change.ts";
import { Journal } from "../../src/setup/journal.ts";
import { asPlanned } from "../../src/setup/plan.ts";
import {
	type Action,
	type CommandAction,
	type DirectoryAction,
	type FileAction,
	todo,
} from "../../src/setup/step.ts";
import { temporaryFolder } from "../support/gate.ts";

const [user, group] = ["-un", "-gn"].map((option) =>
	execFileSync("id", [option], { encoding: "utf8" }).trim(),
) as [string, string];

const file = (place: string, content: string): FileAction => ({
	...{ kind: "file", path: place, content },
	...{ user, group, mode: 0o640 },
});
const directory = (place: string, mode = 0o750): DirectoryAction => ({
	...{ kind: "directory", path: place },
	...{ user, group, mode },
});
const appends = (place: string, line: string): CommandAction => ({
	kind: "command",
	command: ["sh", "-c", `echo "$1" >>"$0"`, place, line],
	changes: [place],
});

/** A folder to change things in, and a journal beside it. */
async function start(t: Test) {
	const folder = await temporaryFolder(t);
	const place = path.join(folder, "place");
	await mkdir(place);
	const journal = await Journal.open(path.join(folder, "journal"));
	const begin = (action: Action) =>
		journal.begin(
			"step",
			action,
			action.kind === "command" ? (action.changes ?? []) : [action.path],
		);
	return {
		place: path.join(place, "file"),
		folder: place,
		journal,
		begin,
		/** Begins an action and is cut off, once it has been done or before. */
		async cutOff(action: Action, how: "done" | "not done" = "done") {
			await begin(action);
			if (how === "not done") return;
			if (action.kind === "file") await writeFile(action.path, action.content);
			else if (action.kind === "command") {
				const [name = "", ...args] = action.command;
				execFileSync(name, args);
			}
		},
		/** What is left, once all that was begun has been taken back. */
		async takeAllBack() {
			const left: string[] = [];
			for (const entry of journal.entries)
				left.push(...(await takeBack(entry, journal)).left);
			return left;
		},
	};
}

const textOf = (place: string) => readFile(place, "utf8");

t.test("what was cut off and nobody touched since is put back", async (t) => {
	const { place, cutOff, takeAllBack } = await start(t);
	await writeFile(place, "mine\n");
	await cutOff(file(place, "setup's\n"));
	t.strictSame(await takeAllBack(), []);
	t.equal(await textOf(place), "mine\n");
});

t.test(
	"a file that was changed after the run that was cut off stays and is named",
	async (t) => {
		for (const how of ["done", "not done"] as const) {
			const { place, cutOff, takeAllBack } = await start(t);
			await writeFile(place, "mine\n");
			await cutOff(file(place, "setup's\n"), how);
			await appendFile(place, "mine too\n");
			const now = await textOf(place);
			t.strictSame(await takeAllBack(), [
				`${place} has been changed since and stays as it is`,
			]);
			t.equal(await textOf(place), now);
		}
	},
);

t.test(
	"a rule that was cut off goes, and one that a person has added since stays",
	async (t) => {
		const { place, cutOff, takeAllBack } = await start(t);
		const deny: CommandAction = {
			...appends(place, "rule deny 11434"),
			undoIfChanged: [["sed", "-i", "/deny 11434/d", place]],
			entryMark: "rule ",
		};
		await writeFile(place, "rule allow 22\n");
		await cutOff(deny);
		await appendFile(place, "rule allow 8096\n");
		t.strictSame(await takeAllBack(), []);
		t.equal(await textOf(place), "rule allow 22\nrule allow 8096\n");
	},
);

t.test(
	"a rule that was cut off and stands alone leaves the file byte for byte as it was",
	async (t) => {
		const { place, cutOff, takeAllBack } = await start(t);
		const before = "rule allow 22\n# as it came\nrule allow 80\n";
		await writeFile(place, before);
		await cutOff({
			// The order, and all that is no rule, are another program's to write.
			...appends(place, "rule deny 11434"),
			undoIfChanged: [
				["sh", "-c", `printf 'rule allow 80\\nrule allow 22\\n' >"$0"`, place],
			],
			entryMark: "rule ",
		});
		t.strictSame(await takeAllBack(), []);
		t.equal(await textOf(place), before);
	},
);

t.test(
	"a rule that may be there and cannot be taken out is told of",
	async (t) => {
		const { place, cutOff, takeAllBack } = await start(t);
		await writeFile(place, "rule allow 22\n");
		await cutOff({
			...appends(place, "rule deny 11434"),
			undoIfChanged: [["/nonexistent/ufw"]],
		});
		t.match(await takeAllBack(), [`${place} stays as it is, and may hold`]);
		t.match(await textOf(place), "deny 11434");
	},
);

t.test(
	"what a command has changed is put back, and what it held by then is kept for who has changed it too",
	async (t) => {
		const { place, journal, cutOff, takeAllBack } = await start(t);
		await cutOff(appends(place, "first"));
		await appendFile(place, "laptop\n");
		const [said = "", ...others] = await takeAllBack();
		t.strictSame(others, []);
		t.match(said, place);
		await t.rejects(textOf(place), { code: "ENOENT" });
		const [, copy = ""] = / is in (\S+)/.exec(said) ?? [];
		t.equal(await textOf(copy), "first\nlaptop\n");
		t.equal((await stat(copy)).mode & 0o777, 0o600);
		await journal.remove();
		t.equal(await textOf(copy), "first\nlaptop\n", "an undo leaves it");
		await (await Journal.open(path.dirname(path.dirname(copy)))).remove();
		await t.rejects(textOf(copy), { code: "ENOENT" }, "the next does not");
	},
);

t.test("a file that a command has taken away comes back", async (t) => {
	const { place, cutOff, takeAllBack } = await start(t);
	await writeFile(place, "mine\n");
	await cutOff({
		kind: "command",
		command: ["rm", place],
		changes: [place],
	});
	t.strictSame(await takeAllBack(), []);
	t.equal(await textOf(place), "mine\n");
});

t.test(
	"a folder that has gone with its program holds nothing up",
	async (t) => {
		for (const undoIfChanged of [undefined, [["/nonexistent/ufw", "delete"]]]) {
			const { folder, place, journal, begin, takeAllBack } = await start(t);
			await writeFile(place, "rule allow 22\n");
			const rule: CommandAction = {
				...appends(place, "rule deny 11434"),
				...(undoIfChanged === undefined ? {} : { undoIfChanged }),
			};
			await perform(rule, "step", journal, () => {});
			await begin(rule);
			await rm(folder, { recursive: true });
			const gone = `${place} stays away, since the folder that it was in is gone`;
			t.strictSame(await takeAllBack(), [gone, gone]);
			t.strictSame(journal.entries, []);
		}
	},
);

t.test(
	"a copy that is kept is written over by nothing, and one that is damaged is used for nothing",
	async (t) => {
		const { place, folder, journal, cutOff, takeAllBack } = await start(t);
		const kept = path.join(path.dirname(folder), "journal", "kept");
		const copyOf = async () => {
			const [name = "", ...others] = await readdir(kept);
			t.strictSame(others, []);
			return path.join(kept, name);
		};
		await writeFile(place, "mine\n");
		await cutOff(file(place, "setup's\n"), "not done");
		const copy = await copyOf();
		const { ino, mtimeMs, mode } = await stat(copy);
		t.equal(mode & 0o777, 0o600);
		await cutOff(file(place, "setup's\n"), "not done");
		t.match(await stat(copy), { ino, mtimeMs }, "it is not touched");
		// As a power cut leaves it.
		await writeFile(copy, "");
		await cutOff(file(place, "setup's\n"));
		t.equal(await textOf(await copyOf()), "mine\n", "it is made anew");
		await writeFile(copy, "mi");
		await t.rejects(journal.kept(path.basename(copy)), /is damaged/);
		t.strictSame(await takeAllBack(), [
			...Array(3).fill(
				`${place} stays as it is: the copy of what it held before is gone or damaged`,
			),
		]);
		t.equal(await textOf(place), "setup's\n");
	},
);

t.test(
	"where the copy is damaged, the commands that take a rule out are run all the same",
	async (t) => {
		const { place, folder, cutOff, takeAllBack } = await start(t);
		await writeFile(place, "rule allow 22\n");
		await cutOff({
			...appends(place, "rule deny 11434"),
			undoIfChanged: [["sed", "-i", "/deny 11434/d", place]],
			entryMark: "rule ",
		});
		await rm(path.join(path.dirname(folder), "journal", "kept"), {
			recursive: true,
		});
		t.strictSame(await takeAllBack(), []);
		t.equal(await textOf(place), "rule allow 22\n");
	},
);

t.test("a folder that was cut off is put back", async (t) => {
	const { folder, journal, begin, takeAllBack } = await start(t);
	const [there, made] = ["there", "made"].map((name) =>
		path.join(folder, name),
	) as [string, string];
	await mkdir(there, { mode: 0o700 });
	await perform(directory(there), "step", journal, () => {});
	await chmod(there, 0o700);
	t.match(await takeAllBack(), []);
	await begin(directory(there));
	await chmod(there, 0o750);
	await begin(directory(made));
	await mkdir(made);
	t.strictSame(await takeAllBack(), []);
	t.equal((await stat(there)).mode & 0o777, 0o700);
	await t.rejects(stat(made), { code: "ENOENT" });
	await begin(directory(there));
	await chmod(there, 0o711);
	t.match(await takeAllBack(), [/has been changed since/]);
	t.equal((await stat(there)).mode & 0o777, 0o711, "a person's mode stays");
});

t.test("a folder's owner and mode are changed through no link", async (t) => {
	const { folder, place, journal } = await start(t);
	const target = path.join(folder, "srv");
	await mkdir(target, { mode: 0o711 });
	await symlink(target, place);
	const planned = await asPlanned(todo("to do", [directory(place)]));
	t.match(planned, { state: "unsafe", actions: [] });
	t.match(planned.says, `${place} is a link to ${target}`);
	await t.rejects(
		perform(directory(place), "step", journal, () => {}),
		{
			code: "LLAMAGATE_ACTION",
		},
	);
	t.strictSame(journal.entries, []);
	t.equal((await stat(target)).mode & 0o777, 0o711);
	// One that leads to what is wanted is as good as a folder.
	await chmod(target, 0o750);
	t.match(await asPlanned(todo("to do", [directory(place)])), {
		state: "done",
		actions: [],
	});
	const more = await asPlanned(
		todo("to do", [directory(place), file(`${place}/a`, "")]),
	);
	t.match(more, { state: "todo", actions: [{ kind: "file" }] });
	t.equal(more.actions.length, 1);
});

t.test(
	"a file that is changed while the plan waits for an answer stays",
	async (t) => {
		for (const before of ["mine\n", undefined]) {
			const { place, journal } = await start(t);
			if (before !== undefined) await writeFile(place, before);
			const { actions } = await asPlanned(
				todo("to do", [file(place, "setup's\n")]),
			);
			const [action] = actions;
			if (action === undefined) return t.fail("nothing was planned");
			const carryOut = () => perform(action, "step", journal, () => {});
			await writeFile(place, "mine, changed\n");
			await t.rejects(carryOut(), {
				code: "LLAMAGATE_ACTION",
				message: `${place} has changed since the plan was made`,
			});
			t.strictSame(journal.entries, []);
			t.equal(await textOf(place), "mine, changed\n");
			// As it was, or as it is to be, it holds nothing that would be lost.
			if (before === undefined) await rm(place);
			else await writeFile(place, before);
			await carryOut();
			await carryOut();
			t.equal(await textOf(place), "setup's\n");
		}
	},
);

t.test(
	"a drop-in that goes takes its folder along, unless somebody else has one there",
	async (t) => {
		for (const others of [["override.conf"], []]) {
			const { folder, journal } = await start(t);
			const own = path.join(folder, "llamagate.conf");
			for (const name of ["llamagate.conf", ...others])
				await writeFile(path.join(folder, name), name);
			for (const action of removeDropIn(own))
				await perform(
					{ ...action, undo: [] }, // it is systemd's
					"step",
					journal,
					() => {},
				);
			const now = await readdir(folder).catch(() => "no folder");
			t.strictSame(now, others.length > 0 ? others : "no folder");
			for (const entry of journal.entries)
				t.strictSame(await takeBack(entry, journal), { left: [] });
			t.strictSame(
				(await readdir(folder)).sort(),
				["llamagate.conf", ...others].sort(),
			);
			t.equal(await textOf(own), "llamagate.conf");
		}
	},
);

t.test(
	"a link that cannot be put back leaves what stands there, for the next try",
	async (t) => {
		const { place, journal, takeAllBack } = await start(t);
		await symlink("mine", place);
		await perform(file(place, "setup's\n"), "step", journal, () => {});
		const { symlink: real } = fs;
		fs.symlink = async () => {
			throw new Error("no space left on device");
		};
		syncBuiltinESMExports();
		await t.rejects(takeAllBack(), /no space/);
		fs.symlink = real;
		syncBuiltinESMExports();
		t.equal(await textOf(place), "setup's\n");
		t.strictSame(await takeAllBack(), []);
		t.equal(await readlink(place), "mine");
	},
);
