import { chmod, writeFile } from "node:fs/promises";
import t from "tap";
import { LedgerClient } from "../../src/ledger/client.ts";
import { openLedger } from "../../src/ledger/server.ts";
import { eventually } from "../support/gate.ts";
import {
	collectedLog,
	type LedgerPlace,
	ledgerPlace,
	recordOf,
	spawnLedger,
} from "../support/ledger.ts";
import { startReceiver } from "../support/receiver.ts";

interface Teardown {
	teardown(action: () => unknown): unknown;
}

function startClient(t: Teardown, { socket }: LedgerPlace) {
	const { log, lines } = collectedLog();
	const client = new LedgerClient(socket, log);
	t.teardown(() => client.close(0));
	const isAway = () =>
		eventually(() => lines.some(({ event }) => event === "ledger_away"));
	return { client, isAway };
}

t.test("an alarm leaves while the ledger's disk is full", async (t) => {
	const receiver = await startReceiver(t);
	const place = await ledgerPlace(t);
	const { log } = collectedLog();
	const ledger = await openLedger(
		{
			...place,
			retentionMs: 90 * 86_400_000,
			maxPages: 24,
			alarms: [
				{
					name: "ntfy at here",
					form: "ntfy",
					url: new URL(`${receiver.url}/a-topic`),
					on: new Set(["canary"]),
				},
			],
		},
		log,
	);
	t.teardown(() => ledger.close());
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
