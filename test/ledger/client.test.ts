import { once } from "node:events";
import { createServer } from "node:net";
import path from "node:path";
import t from "tap";
import { onLines } from "../../src/ledger/protocol.ts";
import { openLedger } from "../../src/ledger/server.ts";
import { eventually, type LogLine } from "../support/gate.ts";
import {
	collectedLog,
	killLedger,
	ledgerPlace,
	recordOf,
	requestsIn,
	spawnLedger,
	startLedgerClient,
	sumsOf,
} from "../support/ledger.ts";
import { tinyDisk } from "../support/tinyDisk.ts";

t.test(
	"kill -9 of the ledger, again and again, loses nothing and counts nothing twice",
	async (t) => {
		const place = await ledgerPlace(t);
		const { client } = startLedgerClient(t, place);
		let sent = 0;
		const send = (count: number) => {
			for (let n = 0; n < count; n += 1) {
				client.record(recordOf({ tokensIn: 1, gpuMs: sent % 7 }));
				sent += 1;
			}
		};
		send(100);
		for (let round = 0; round < 4; round += 1) {
			const ledger = await spawnLedger(t, place);
			send(1_000);
			const { written } = client.counts;
			await eventually(() => client.counts.written > written);
			send(3_000);
			// In the middle of it: some are on their way, some written and not answered.
			await killLedger(ledger);
			send(500);
		}
		await spawnLedger(t, place);
		await eventually(() => client.counts.waiting === 0);
		t.match(client.counts, { written: sent, lost: 0, aggregated: 0 });
		t.match(await sumsOf(place), [{ requests: sent, tokensIn: sent }]);
	},
);

t.test(
	"while no ledger is there, memory is bounded, and what it costs is told",
	async (t) => {
		const place = await ledgerPlace(t);
		const { client, lines } = startLedgerClient(t, place);
		const time = Date.now();
		for (let n = 0; n < 30_000; n += 1)
			client.record(recordOf({ time, user: `key:${n % 3}` }));
		const { waiting, aggregated, lost } = client.counts;
		t.equal(waiting, 30_000);
		t.ok(aggregated >= 10_000);
		t.equal(lost, 0);
		// Each of these is a sum of its own, and there is no end to them.
		for (let n = 0; n < 40_000; n += 1)
			client.record(recordOf({ time, user: `key:made-up-${n}` }));
		const after = client.counts;
		t.ok(after.lost > 0);
		t.equal(after.waiting + after.lost, 70_000, "every one is accounted for");
		t.match(
			lines.find(({ event }) => event === "usage_lost"),
			{ level: "error" },
		);
		await spawnLedger(t, place);
		await eventually(() => client.counts.waiting === 0);
		t.equal(await requestsIn(place), 70_000 - after.lost);
		const back = lines.filter(({ event }) => event === "ledger_back");
		t.match(back, [{ lost: after.lost, aggregated: after.aggregated }]);
	},
);

t.test(
	"a full disk loses nothing either, and is said on both sides",
	async (t) => {
		const place = await ledgerPlace(t);
		const full = collectedLog();
		const retentionMs = 90 * 86_400_000;
		const ledger = await openLedger(
			{ ...place, retentionMs, maxPages: 24 },
			full.log,
		);
		const { client, lines } = startLedgerClient(t, place);
		for (let n = 0; n < 4_000; n += 1)
			client.record(recordOf({ user: `key:${n}` }));
		await eventually(() => lines.some(({ event }) => event === "ledger_away"));
		t.match(
			lines.find(({ event }) => event === "ledger_away"),
			{ why: "the disk is full" },
		);
		t.match(
			full.lines.find(({ event }) => event === "ledger_unwritable"),
			{ why: "the disk is full" },
		);
		const written = await requestsIn(place);
		t.ok(written < 4_000, `${written} are in the file`);
		await ledger.close();
		const roomy = await openLedger({ ...place, retentionMs }, full.log);
		t.teardown(() => roomy.close());
		await eventually(() => client.counts.waiting === 0);
		t.equal(await requestsIn(place), 4_000);
	},
);

t.test(
	"a file system without room loses nothing, in a process of its own",
	{ skip: process.getuid?.() === 0 ? false : "mounting takes root" },
	async (t) => {
		const disk = await tinyDisk(t, "400k");
		const place = await ledgerPlace(t, {
			file: path.join(disk.folder, "ledger.sqlite"),
		});
		const ledger = await spawnLedger(t, place);
		const { client, lines } = startLedgerClient(t, place);
		for (let n = 0; n < 8_000; n += 1)
			client.record(recordOf({ user: `key:${n}` }));
		const says = (log: readonly LogLine[], event: string) =>
			eventually(() =>
				log.some(
					(line) => line.event === event && line.why === "the disk is full",
				),
			);
		await says(lines, "ledger_away");
		await says(ledger.log, "ledger_unwritable");
		const some = await requestsIn(place);
		t.ok(some > 0 && some < 8_000, `${some} are in the file`);
		// It is killed in its need.
		await killLedger(ledger);
		disk.makeRoom();
		await spawnLedger(t, place);
		await eventually(() => client.counts.waiting === 0);
		t.match(client.counts, { lost: 0, written: 8_000 });
		t.equal(await requestsIn(place), 8_000);
	},
);

t.test("a gate that ends hands over what is left", async (t) => {
	const place = await ledgerPlace(t);
	await spawnLedger(t, place);
	const { client } = startLedgerClient(t, place);
	await eventually(() => client.counts.isConnected);
	for (let n = 0; n < 3_000; n += 1) client.record(recordOf());
	await client.close(60_000);
	t.equal(await requestsIn(place), 3_000);
});

t.test("a gate that ends without a ledger says what it loses", async (t) => {
	const place = await ledgerPlace(t);
	const { client, lines } = startLedgerClient(t, place);
	client.record(recordOf({ requests: 7 }));
	await client.close(1);
	t.match(lines.at(-1), { event: "usage_lost", requests: 7 });
});

t.test("what answers in the ledger's place changes nothing", async (t) => {
	const place = await ledgerPlace(t);
	const answers = ["no JSON", "null", "[]", '{"done":-1}', '{"error":"no"}'];
	let asked = 0;
	const server = createServer((socket) => {
		socket.on("error", () => {});
		socket.resume();
		socket.end(`${answers[asked++ % answers.length]}\n`);
	});
	await new Promise<void>((resolve) => server.listen(place.socket, resolve));
	const { client } = startLedgerClient(t, place);
	client.record(recordOf());
	await eventually(() => asked >= answers.length);
	t.match(client.counts, { waiting: 1, written: 0 });
	await new Promise((resolve) => server.close(resolve));
	await spawnLedger(t, place);
	await eventually(async () => client.counts.waiting === 0);
	t.equal(await requestsIn(place), 1);
});

t.test(
	"it says whether all from before a moment is in the ledger",
	async (t) => {
		const place = await ledgerPlace(t);
		const { client } = startLedgerClient(t, place);
		// Neither the client nor what it waits for keeps a process alive.
		const alive = setInterval(() => {}, 60_000);
		t.teardown(() => clearInterval(alive));
		t.equal(await client.delivered(1_000, 60_000), true, "there is nothing");
		client.record(recordOf({ time: 1_000 }));
		t.equal(
			await client.delivered(1_000, 60_000),
			true,
			"it is not from before",
		);
		t.equal(await client.delivered(1_001, 1), false, "no ledger has it");
		const delivered = client.delivered(1_001, 60_000);
		await spawnLedger(t, place);
		t.equal(await delivered, true);
		t.equal(client.counts.waiting, 0);
	},
);

t.test(
	"what greets again and again is not sent everything each time",
	async (t) => {
		const place = await ledgerPlace(t);
		const heard: string[] = [];
		const ledger = createServer((socket) => {
			socket.on("error", () => {});
			onLines(socket, 1_000_000, (line) => {
				heard.push(line.includes("hello") ? "hello" : "batch");
				socket.write('{"last":0}\n');
			});
		});
		await once(ledger.listen(place.socket), "listening");
		t.teardown(() => ledger.close());
		const { client, lines } = startLedgerClient(t, place);
		client.record(recordOf({}));
		await eventually(() => heard.length >= 4);
		t.strictSame(heard.slice(0, 4), ["hello", "batch", "hello", "batch"]);
		t.match(
			lines.find(({ event }) => event === "ledger_away"),
			{ why: "what answers is not a ledger" },
		);
		t.equal(client.counts.waiting, 1, "nothing is lost");
	},
);
