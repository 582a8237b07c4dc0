import { appendFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import t, { type Test } from "tap";
import { undo } from "../../src/commands/setupUndo.ts";
import { perform, takeBack } from "../../src/setup/change.ts";
import { Journal } from "../../src/setup/journal.ts";
import type { FileAction } from "../../src/setup/step.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";
import { tinyDisk } from "../support/tinyDisk.ts";

const isRoot = process.getuid?.() === 0;
const owner = { user: "root", group: "root", mode: 0o644 } as const;

const file = (place: string, content: string): FileAction => ({
	...{ kind: "file", path: place, content },
	...owner,
});

/** A folder with a journal of one file that was written, and the journal's own. */
async function start(t: Test) {
	const folder = await temporaryFolder(t);
	const place = path.join(folder, "file");
	const journal = await Journal.open(path.join(folder, "journal"));
	await journal.begin("step", file(place, "setup's\n"), [place]);
	await writeFile(place, "setup's\n");
	await journal.end(1);
	const lines = path.join(folder, "journal", "journal.jsonl");
	return {
		folder,
		place,
		lines,
		open: () => Journal.open(path.dirname(lines)),
	};
}

const numbersIn = ({ entries }: Journal) => entries.map(({ number }) => number);

t.test(
	"a disk that fills up in the middle of a step leaves a journal that the next run reads",
	{ skip: !isRoot && "mounting takes root" },
	async (t) => {
		const disk = await tinyDisk(t);
		const folder = path.join(disk.folder, "journal");
		const etc = path.join(disk.folder, "etc");
		await mkdir(etc);
		const journal = await Journal.open(folder);
		const write = (name: string, sizeBytes: number) =>
			perform(
				file(path.join(etc, name), "x".repeat(sizeBytes)),
				...(["gate", journal, () => {}] as const),
			);
		await journal.beginStep("gate");
		await write("one.conf", 6_000);
		await writeFile(
			path.join(disk.folder, "ballast"),
			Buffer.alloc(disk.freeBytes()),
		);
		await t.rejects(write("two.conf", 9_000), { code: "ENOSPC" });
		for (const entry of journal.cutOff)
			t.strictSame((await takeBack(entry, journal)).left, []);
		await journal.endStep();
		const again = await Journal.open(folder);
		t.match(again, { entries: [], cutOff: [], unreadLines: 0 });
	},
);

t.test(
	"a line that is cut off last is gone when the next is written",
	async (t) => {
		const { lines, open } = await start(t);
		const whole = await readFile(lines);
		// In the middle of a letter, too.
		for (const rest of ['{"kind":"begin","num', Buffer.from([0x7b, 0xc3])]) {
			await appendFile(lines, rest);
			t.strictSame(numbersIn(await open()), [1]);
			t.ok((await readFile(lines)).equals(whole));
		}
	},
);

t.test(
	"a line that was written on after half of another is read",
	async (t) => {
		const { lines, open } = await start(t);
		await appendFile(
			lines,
			'{"kind":"begin","number":2,"step":"gate","action":{"kind":"file","pa{"kind":"undone","number":1}\n',
		);
		t.match(await open(), { entries: [], unreadLines: 0 });
	},
);

t.test("a line that nobody can read is passed over and told of", async (t) => {
	const { folder, place, lines, open } = await start(t);
	const text = await readFile(lines, "utf8");
	await writeFile(lines, `\u0000\u0000\nnull\n{"kind":"end"}\n${text}`);
	const journal = await open();
	t.strictSame(numbersIn(journal), [1]);
	t.equal(journal.unreadLines, 3);
	const code = await undo({
		...{ journal, dryRun: false },
		...{ agreed: true, json: true },
	});
	t.equal(code, 1);
	await t.rejects(
		readFile(place),
		{ code: "ENOENT" },
		"the rest is taken back",
	);
	t.match(await readFile(lines, "utf8"), /^\0\0\n/, "it is left for a person");
	await rm(folder, { recursive: true });
});
