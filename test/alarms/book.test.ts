import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { openAlarmBook } from "../../src/ledger/alarms/book.ts";
import { collectedLog } from "../support/ledger.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

t.test("when each was told of outlives the ledger, by itself", async (t) => {
	const ledger = path.join(await temporaryFolder(t), "ledger.sqlite");
	const { log } = collectedLog();
	const book = openAlarmBook(ledger, log);
	t.equal(book.toldAtMs("canary"), 0);
	const topics = ["canary", "upstream_down minipc", "upstream_down (over)"];
	for (const [index, topic] of topics.entries())
		book.setToldAtMs(topic, index + 1);
	const again = openAlarmBook(ledger, log);
	t.strictSame(
		topics.map((topic) => again.toldAtMs(topic)),
		[1, 2, 3],
	);
	t.equal(again.toldAtMs("upstream_down"), 0);
});

t.test(
	"of what is written there nothing odd is taken, and no end",
	async (t) => {
		const folder = await temporaryFolder(t);
		const ledger = path.join(folder, "ledger.sqlite");
		const file = path.join(folder, "alarms.json");
		const { log, lines } = collectedLog();
		const many = Object.fromEntries(
			Array.from({ length: 1_000 }, (_, n) => [`upstream_down host${n}`, n]),
		);
		const odd = { other: 5, budget: "6", "": 7, __proto__: 8, canary: 9 };
		await writeFile(file, JSON.stringify({ ...many, ...odd }));
		const book = openAlarmBook(ledger, log);
		t.equal(book.toldAtMs("canary"), 9);
		for (const topic of ["other", "budget", "", "upstream_down host0"])
			t.equal(book.toldAtMs(topic), 0, topic);
		book.setToldAtMs("canary", 10);
		const kept = JSON.parse(await readFile(file, "utf8")) as object;
		t.equal(Object.keys(kept).length, 100);
		for (const text of ["", "null", "[1]", '"a"', "{"]) {
			await writeFile(file, text);
			t.equal(openAlarmBook(ledger, log).toldAtMs("canary"), 0, text);
		}
		t.strictSame(lines, []);
	},
);
