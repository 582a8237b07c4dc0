import { readdir, readFile, stat, truncate, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { DatabaseSync } from "node:sqlite";
import t from "tap";
import { Finding } from "../../src/errors.ts";
import { Book } from "../../src/ledger/book.ts";
import { openStore } from "../../src/ledger/openStore.ts";
import { openLedger } from "../../src/ledger/server.ts";
import { TornError } from "../../src/ledger/sqliteErrors.ts";
import type { SqliteStore } from "../../src/ledger/sqliteStore.ts";
import { eventually, runCli } from "../support/gate.ts";
import {
	collectedLog,
	killLedger,
	ledgerPlace,
	recordOf,
	requestsIn,
	spawnLedger,
} from "../support/ledger.ts";

const retentionMs = 90 * 86_400_000;

t.test("a second ledger on the same file is refused", async (t) => {
	const place = await ledgerPlace(t);
	const first = await spawnLedger(t, place);
	const again = await runCli(["ledger", "--config", place.configFile]);
	t.equal(again.code, 1);
	t.match(again.stderr, `another llamagate ledger has ${place.file} open`);
	const elsewhere = await ledgerPlace(t, { file: place.file });
	const second = await runCli(["ledger", "--config", elsewhere.configFile]);
	t.equal(second.code, 1, "on a socket of its own too");
	await killLedger(first);
	await spawnLedger(t, place);
	t.equal(await requestsIn(place), 0, "one that was killed holds nothing");
});

t.test("the socket is its group's, the file nobody else's", async (t) => {
	const place = await ledgerPlace(t);
	await spawnLedger(t, place);
	t.equal((await stat(place.socket)).mode & 0o777, 0o660);
	t.equal((await stat(place.file)).mode & 0o777, 0o600);
});

t.test("a torn file is set aside, and said", async (t) => {
	const place = await ledgerPlace(t);
	const { store } = openStore(place.file, retentionMs);
	store.append(
		"gate",
		1,
		Array.from({ length: 256 }, (_, n) => recordOf({ user: `key:${n}` })),
	);
	store.close();
	const { size } = await stat(place.file);
	for (const tear of [
		() => truncate(place.file, size - 5_000),
		async () => {
			const bytes = await readFile(place.file);
			bytes.fill(0xa5, 4096, 3 * 4096);
			await writeFile(place.file, bytes);
		},
		() => writeFile(place.file, Buffer.alloc(9_000)),
	]) {
		await tear();
		const torn = await readFile(place.file);
		const { log, lines } = collectedLog();
		const ledger = await openLedger({ ...place, retentionMs }, log);
		t.equal(await requestsIn(place), 0, "it has begun anew");
		await ledger.close();
		const said = lines.find(({ event }) => event === "ledger_torn");
		t.ok(said, "the log says so");
		t.same(await readFile(String(said?.setAside)), torn, "nothing is lost");
		const { store: again } = openStore(place.file, retentionMs);
		again.append("gate", 1, [recordOf()]);
		again.close();
	}
	const aside = (await readdir(place.folder)).filter((name) =>
		name.includes(".torn-"),
	);
	t.equal(aside.length, 3);
});

t.test(
	"a file that is torn, and whose place will not do, is opened once it does",
	async (t) => {
		const place = await ledgerPlace(t);
		const { log, lines } = collectedLog();
		const opened: SqliteStore[] = [];
		let isAway = false;
		const book = new Book(() => {
			if (isAway) throw new Finding("its folder is not there");
			const { store } = openStore(place.file, retentionMs);
			opened.push(store);
			return store;
		}, log);
		const [first] = opened;
		if (first === undefined) throw new Error("nothing was opened");
		first.append = () => {
			throw new TornError("torn");
		};
		isAway = true;
		const write = (batch: number) => book.write("gate", batch, [recordOf()]);
		t.equal(await write(1), "torn");
		t.equal(await write(1), "its folder is not there");
		t.equal(await book.lastBatch("gate"), "its folder is not there");
		t.type(await book.usage({ sinceMs: 0, by: [] }), "string");
		await book.forget();
		isAway = false;
		t.equal(await write(1), undefined);
		t.equal(await book.lastBatch("gate"), 1);
		await book.close();
		t.match(lines, [
			{ event: "ledger_unwritable" },
			{ msg: "old records were not deleted" },
		]);
	},
);

t.test("a file of a newer llamagate is refused and left", async (t) => {
	const place = await ledgerPlace(t);
	openStore(place.file, retentionMs).store.close();
	const db = new DatabaseSync(place.file);
	db.exec("PRAGMA user_version = 99");
	db.close();
	const before = await readFile(place.file);
	const { code, stderr } = await runCli([
		...["ledger", "--config", place.configFile],
	]);
	t.equal(code, 1);
	t.match(stderr, /newer llamagate.*install that version again/);
	t.same(await readFile(place.file), before);
});

t.test("what is not a ledger is not touched", async (t) => {
	const place = await ledgerPlace(t);
	await writeFile(place.file, "# notes of somebody\n".repeat(100));
	const text = await runCli(["ledger", "--config", place.configFile]);
	t.match(text, { code: 1, stderr: /is not a ledger/ });
	await writeFile(place.file, "");
	const db = new DatabaseSync(place.file);
	db.exec("CREATE TABLE photos (name TEXT)");
	db.close();
	const other = await runCli(["ledger", "--config", place.configFile]);
	t.match(other, { code: 1, stderr: /database of another program/ });
	const missing = await ledgerPlace(t, { file: `${place.folder}/no/such` });
	const nowhere = await runCli(["ledger", "--config", missing.configFile]);
	t.match(nowhere, { code: 1, stderr: /does .* exist/ });
});

t.test("a configuration without a ledger says what to add", async (t) => {
	const { configFile } = await ledgerPlace(t);
	await writeFile(configFile, "{}");
	for (const command of ["ledger", "usage"]) {
		const { code, stderr } = await runCli([command, "--config", configFile]);
		t.equal(code, 1);
		t.match(stderr, /add "ledger": \{\}/);
	}
});

t.test(
	"what is no record ends the connection, and the ledger goes on",
	async (t) => {
		const place = await ledgerPlace(t);
		await spawnLedger(t, place);
		const source = "gate";
		const bad = [
			"{",
			"null",
			'"x"',
			"[]",
			JSON.stringify({ hello: "x".repeat(65) }),
			JSON.stringify({ source, batch: 1, records: [{}] }),
			...[
				{ time: -1 },
				{ time: 1e300 },
				{ gpuMs: 0.5 },
				{ tokensIn: Number.MAX_VALUE },
				{ outcome: "great" },
				{ user: "x".repeat(600) },
				{ user: null },
				{ model: 7 },
			].map((wrong) =>
				JSON.stringify({
					source,
					batch: 1,
					records: [recordOf(), { ...recordOf(), ...wrong }],
				}),
			),
			JSON.stringify({
				source,
				batch: 1,
				records: Array.from({ length: 257 }, () => recordOf()),
			}),
			JSON.stringify({
				query: { sinceMs: 0, by: ["key; DROP TABLE records"] },
			}),
			JSON.stringify({ query: { sinceMs: "0", by: [] } }),
			"x".repeat(5 * 2 ** 20),
		];
		for (const line of bad) {
			const socket = connect(place.socket);
			socket.on("error", () => {});
			let reply = "";
			socket.setEncoding("utf8").on("data", (text: string) => {
				reply += text;
			});
			socket.write(`${line}\n`);
			await new Promise((resolve) => socket.once("close", resolve));
			t.match(reply, /^(\{"error":"[^"]+"\}\n)?$/, line.slice(0, 80));
		}
		await eventually(async () => (await requestsIn(place)) === 0);
	},
);
