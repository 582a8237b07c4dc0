import { chmod, writeFile } from "node:fs/promises";
import t from "tap";
import type { AlarmTarget } from "../../src/ledger/alarms/targets.ts";
import { askWhetherTells } from "../../src/ledger/ask.ts";
import { openLedger } from "../../src/ledger/server.ts";
import { eventually } from "../support/gate.ts";
import {
	collectedLog,
	type LedgerPlace,
	ledgerPlace,
	recordOf,
	spawnLedger,
	startLedgerClient,
} from "../support/ledger.ts";
import { type Receiver, startReceiver } from "../support/receiver.ts";

interface Teardown {
	teardown(action: () => unknown): unknown;
}

function startClient(t: Teardown, place: LedgerPlace) {
	const { client, lines } = startLedgerClient(t, place);
	const isAway = () =>
		eventually(() => lines.some(({ event }) => event === "ledger_away"));
	return { client, isAway };
}

const targetOf = (receiver: Receiver): AlarmTarget => ({
	...{ name: "ntfy at here", form: "ntfy" },
	url: new URL(`${receiver.url}/a-topic`),
	on: new Set(["canary"]),
});

/** A ledger that tells of canaries. */
async function startLedger(
	t: Teardown,
	place: LedgerPlace,
	receiver: Receiver,
	maxPages?: number,
) {
	const { log, lines } = collectedLog();
	const ledger = await openLedger(
		{
			...place,
			retentionMs: 90 * 86_400_000,
			...(maxPages !== undefined && { maxPages }),
			alarms: [targetOf(receiver)],
		},
		log,
	);
	t.teardown(() => ledger.close());
	return lines;
}

t.test("an alarm leaves while the ledger's disk is full", async (t) => {
	const receiver = await startReceiver(t);
	const place = await ledgerPlace(t);
	await startLedger(t, place, receiver, 24);
	const { client, isAway } = startClient(t, place);
	for (let n = 0; n < 4_000; n += 1)
		client.record(recordOf({ user: `key:${n}` }));
	await isAway();
	client.alarm({ subject: "canary", text: "bait was used" });
	await receiver.got(1);
	t.match(receiver.received, [{ body: { message: "bait was used" } }]);
	t.ok(client.counts.waiting > 0, "records are not in the file yet");
});

t.test("an alarm leaves while the ledger's database is away", async (t) => {
	const receiver = await startReceiver(t);
	// Nothing listens there.
	const url = "postgres://llamagate@127.0.0.1:9/llamagate";
	const place = await ledgerPlace(t, { url, gate: "here" });
	const alarms = [{ url: `${receiver.url}/a-topic` }];
	await writeFile(
		place.configFile,
		JSON.stringify({ ledger: place.section, alarms }),
	);
	await chmod(place.configFile, 0o600);
	await spawnLedger(t, place);
	const { client, isAway } = startClient(t, place);
	client.record(recordOf());
	await isAway();
	client.alarm({ subject: "canary", text: "bait was used" });
	await receiver.got(1);
	t.match(receiver.received, [{ body: { message: "bait was used" } }]);
	t.match(client.counts, { waiting: 1, isConnected: false });
});

t.test(
	"an alarm that was given up is told when it is raised again",
	async (t) => {
		const receiver = await startReceiver(t);
		receiver.behave({ status: 403 }, { status: 200 });
		const place = await ledgerPlace(t);
		const lines = await startLedger(t, place, receiver);
		const { client } = startClient(t, place);
		const raise = () =>
			client.alarm({ subject: "canary", text: "bait was used" });
		raise();
		await eventually(() =>
			lines.some(({ event }) => event === "alarm_undelivered"),
		);
		const now = performance.now.bind(performance);
		t.teardown(() => {
			performance.now = now;
		});
		performance.now = () => now() + 60_000;
		// The gate hears of it a moment later than the log.
		await eventually(() => {
			raise();
			return receiver.received.length > 1;
		});
		await eventually(() => lines.some(({ event }) => event === "alarm_sent"));
		t.equal(receiver.received.length, 2);
	},
);

t.test(
	"a ledger says whether it tells those whom it is asked about",
	async (t) => {
		const place = await ledgerPlace(t);
		const receiver = await startReceiver(t);
		await startLedger(t, place, receiver);
		const target = targetOf(receiver);
		const tells = (targets: readonly AlarmTarget[]) =>
			askWhetherTells(place.socket, targets);
		t.equal(await tells([target]), true);
		const others: readonly AlarmTarget[][] = [
			[],
			[target, target],
			[{ ...target, url: new URL(`${receiver.url}/another-topic`) }],
			[{ ...target, form: "slack" }],
			[{ ...target, on: new Set(["canary", "lockout"]) }],
		];
		for (const targets of others) t.equal(await tells(targets), false);
	},
);
