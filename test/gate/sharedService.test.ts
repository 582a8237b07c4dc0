import t, { type Test } from "tap";
import { SharedService } from "../../src/gate/shared/service.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import { Fairness } from "../../src/queue/fairness.ts";
import { Names } from "../../src/valkey/names.ts";
import { eventually, testKeys } from "../support/gate.ts";
import { startPair } from "../support/gatePair.ts";
import { send, waitUntil } from "../support/queue.ts";
import {
	requireValkey,
	startValkey,
	type TestValkey,
} from "../support/valkey.ts";

const keys = [
	{ name: "laptop", sha256: digestOf(testKeys.user) },
	{ name: "phone", sha256: digestOf(testKeys.worker) },
	{ name: "owner", sha256: digestOf(testKeys.owner) },
];

/** Waits until every gate has asked for what was there at this moment. */
async function heardByAll(valkey: TestValkey): Promise<void> {
	await eventually(
		async () =>
			(await valkey.command("XLEN", "{llamagate}:served")) !== ":0\r\n",
	);
	const [, seconds = ""] =
		/\$\d+\r\n(\d+)\r\n/.exec(await valkey.command("TIME")) ?? [];
	const laterMs = (Number(seconds) + 1) * 1000;
	await eventually(async () => {
		const gates = await valkey.command(
			...["ZRANGEBYSCORE", "{llamagate}:gates", String(laterMs), "+inf"],
		);
		return gates.startsWith("*2\r\n");
	});
}

async function pairWithQueues(t: Test, valkey: TestValkey) {
	return startPair(t, valkey.url, {
		keys,
		config: { queue: { mode: "fair", parallel: 1 } },
		standIn: {
			parallel: 1,
			firstTokenMs: 50,
			misbehave: ({ headers }) =>
				headers["user-agent"] === "holds" ? "stall-mid-stream" : undefined,
		},
	});
}

t.test(
	"who was served at one gate goes behind who was not at the other",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const [one, other] = await pairWithQueues(t, valkey);
		const held = send(other, { as: "holds", key: testKeys.owner });
		await held.response;
		const first = send(other, { as: "laptop", key: testKeys.user });
		await waitUntil(other, 1);
		const second = send(other, { as: "phone", key: testKeys.worker });
		await waitUntil(other, 2);
		await send(one, { as: "laptop there", key: testKeys.user }).text();
		await heardByAll(valkey);
		held.leave();
		await Promise.all([first.text(), second.text()]);
		t.same(
			other.standIn.calls
				.filter(({ method }) => method === "POST")
				.map(({ headers }) => headers["user-agent"]),
			["holds", "phone", "laptop"],
		);
		t.notMatch(
			await valkey.command("XRANGE", "{llamagate}:served", "-", "+"),
			/laptop|key:/,
		);
	},
);

t.test("service is told until it has arrived, and heard once", (t) => {
	const names = new Names("llamagate", "");
	const one = new SharedService(names);
	const other = new SharedService(names);
	const heard: unknown[] = [];
	other.hear = (...served) => heard.push(served);
	t.strictSame(one.entry(), { text: "", number: 0 });
	one.served("normal", "u1", 1000);
	one.served("normal", "u1", 500);
	one.served("batch", "u1", 7);
	const entry = one.entry();
	t.strictSame(entry, {
		text: "normal u1 1500\nbatch u1 7",
		number: 1,
	});
	// Valkey has it, and its answer is lost.
	one.served("normal", "u2", 3);
	t.strictSame(one.entry(), entry);
	const told = ["one", String(entry.number), entry.text];
	other.told([...told, ...told]);
	other.told(told);
	t.strictSame(heard, [
		["normal", "u1", 1500],
		["batch", "u1", 7],
	]);
	one.told([]);
	t.strictSame(one.entry(), { text: "normal u2 3", number: 2 });
	t.end();
});

t.test("what no gate can have written is not heard", (t) => {
	const service = new SharedService(new Names("llamagate", ""));
	const heard: unknown[] = [];
	service.hear = (...served) => heard.push(served);
	service.told([
		...["x", "1", "normal u -5\nnormal u x\nurgent u 5\nnormal u 1e99\n\n"],
		...["x", "NaN", "normal u 5"],
		"y",
	]);
	t.strictSame(heard, [["normal", "u", 3_600_000]]);
	t.end();
});

t.test("what waits to be told has a bound", (t) => {
	const service = new SharedService(new Names("llamagate", ""));
	for (let at = 0; at < 11_000; at += 1) service.served("normal", `u${at}`, 1);
	let users = 0;
	for (;;) {
		const { text } = service.entry();
		if (text === "") break;
		const lines = text.split("\n").length;
		t.ok(lines <= 500);
		users += lines;
		service.told([]);
	}
	t.equal(users, 10_000);
	t.end();
});

t.test(
	"service elsewhere counts for who waits and for who comes later, and for nobody where nobody is",
	(t) => {
		const fairness = new Fairness();
		fairness.hear("a", 1000);
		t.equal(fairness.size, 0);
		const waits = fairness.enter("a", 1);
		const other = fairness.enter("b", 1);
		fairness.hear("a", 1000);
		t.equal(waits.settledMs, 1000);
		fairness.hear("c", 300);
		const later = fairness.enter("c", 1);
		t.equal(later.settledMs, 300);
		t.equal(other.settledMs, 0);
		for (let at = 0; at < 10_100; at += 1) fairness.hear(`x${at}`, 1);
		t.ok(fairness.size <= 10_000);
		fairness.leave(other);
		fairness.leave(waits);
		fairness.leave(later);
		t.ok(fairness.size <= 1, "and is forgotten once all have left");
		t.end();
	},
);
