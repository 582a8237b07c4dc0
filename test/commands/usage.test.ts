import { once } from "node:events";
import { createServer } from "node:net";
import t from "tap";
import { LedgerClient } from "../../src/ledger/client.ts";
import { runCli } from "../support/gate.ts";
import {
	collectedLog,
	ledgerPlace,
	recordOf,
	spawnLedger,
} from "../support/ledger.ts";

interface Teardown {
	teardown(action: () => unknown): unknown;
}

/** A ledger with some records, and what `llamagate usage` says of them. */
async function asked(t: Teardown) {
	const place = await ledgerPlace(t);
	await spawnLedger(t, place);
	const client = new LedgerClient(place.socket, collectedLog().log);
	const time = Date.now();
	for (const record of [
		recordOf({ gpuMs: 7_300_000, node: "phone", time }),
		recordOf({ gpuMs: 95_000, model: "big:70b", time }),
		recordOf({
			user: "login:me@x.example",
			userBy: "login",
			key: "web",
			gpuMs: 1,
		}),
		recordOf({ key: "web", outcome: "refused", model: null, gpuMs: 0, time }),
		recordOf({ time: time - 20 * 86_400_000, model: "old:1b" }),
		recordOf({ key: "bad", model: '=cmd|" /C calc"!A1' }),
		recordOf({ key: "bad", model: "x\u001b[31m" }),
	])
		client.record(record);
	await client.close(60_000);
	return (...args: string[]) =>
		runCli(["usage", "--config", place.configFile, ...args]);
}

t.test("as JSON a row has these members, in this order", async (t) => {
	const usage = await asked(t);
	const { code, stdout } = await usage("--json");
	t.equal(code, 0);
	const { rows } = JSON.parse(stdout) as { rows: object[] };
	for (const row of rows)
		t.strictSame(Object.keys(row), [
			...["user", "key", "model", "requests", "tokensIn", "tokensOut"],
			...["gpuMs", "queueMs", "refused"],
		]);
	t.strictSame(rows[0], {
		user: "key:laptop",
		key: "laptop",
		model: "qwen3:8b",
		requests: 1,
		tokensIn: 10,
		tokensOut: 20,
		gpuMs: 7_300_000,
		queueMs: 5,
		refused: 0,
	});
	t.match(
		rows.find((row) => "refused" in row && row.refused === 1),
		{ key: "web", model: null, requests: 1 },
	);
	t.notMatch(stdout, "old:1b", "a week, where nobody says");
	t.match((await usage("--json", "--since", "30d")).stdout, "old:1b");
});

t.test("rows are told apart by what was asked for", async (t) => {
	const usage = await asked(t);
	const rowsBy = async (by: string) =>
		(
			JSON.parse(
				(await usage("--json", "--by", by, "--since", "30d")).stdout,
			) as {
				rows: Record<string, unknown>[];
			}
		).rows;
	t.same(
		new Set((await rowsBy("key")).map(({ key }) => key)),
		new Set(["laptop", "web", "bad"]),
	);
	t.same(
		(await rowsBy("node")).map(({ node }) => node).sort(),
		[null, "phone"].sort(),
	);
	const days = (await rowsBy("day")).map(({ day }) => String(day));
	t.equal(days.length, 2);
	t.same(days, days.toSorted());
	t.match(days[0], /^\d{4}-\d\d-\d\d$/);
});

t.test("a table has as many users as the ledger tells of", async (t) => {
	const place = await ledgerPlace(t);
	const { user: _, ...rest } = { ...recordOf({}), refused: 0, requests: 1 };
	const rows = Array.from({ length: 150_000 }, (_, at) => ({
		...rest,
		user: `key:${at}`,
	}));
	const server = createServer((socket) => {
		socket.on("error", () => {});
		socket.once("data", () => socket.write(`${JSON.stringify({ rows })}\n`));
	}).listen(place.socket);
	await once(server, "listening");
	t.teardown(() => server.close());
	const { code, stdout, stderr } = await runCli([
		...["usage", "--config", place.configFile],
	]);
	t.equal(code, 0, stderr.slice(0, 500));
	t.equal(stdout.split("\n").length, 150_002);
});

t.test(
	"the table is for people: bars, hours, and nothing that steers",
	async (t) => {
		const usage = await asked(t);
		const { stdout } = await usage("--by", "model");
		const [head, first, second] = stdout.split("\n");
		t.match(
			head,
			/^MODEL {10} +GPU +REQUESTS +REFUSED +TOKENS IN +OUT +WAITED$/,
		);
		t.match(first, /^qwen3:8b +2 h 01 min {2}█{20} +2 /);
		t.match(second, /^big:70b +1 min 35 s {2}▎ /);
		t.match(stdout, "x<U+001B>[31m");
		t.match((await usage("--since", "1ms")).stdout, /^Nobody has used/);
	},
);

t.test("no cell of the CSV is a formula", async (t) => {
	const usage = await asked(t);
	const { stdout } = await usage("--csv");
	t.match(
		stdout,
		/^user,key,model,requests,tokensIn,tokensOut,gpuMs,queueMs,refused\r\n/,
	);
	t.match(stdout, `key:laptop,bad,"'=cmd|"" /C calc""!A1",1,10,20,300,5,0\r\n`);
	t.match(stdout, "key:laptop,bad,x<U+001B>[31m,1,", "nor does one steer");
});

t.test("what cannot be answered says why", async (t) => {
	const place = await ledgerPlace(t);
	const usage = (...args: string[]) =>
		runCli(["usage", "--config", place.configFile, ...args]);
	t.match(await usage(), { code: 1, stderr: /no ledger answers on .*ENOENT/ });
	t.match(await usage("--by", "moon"), { code: 2, stderr: /--by moon/ });
	t.match(await usage("--since", "yesterday"), { code: 2, stderr: /--since/ });
	t.match(await usage("--json", "--csv"), { code: 2 });
});
