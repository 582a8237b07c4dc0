import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import path from "node:path";
import t from "tap";
import { History } from "../../src/dashboard/history.ts";
import { type Snapshot, Watch } from "../../src/dashboard/snapshot.ts";
import {
	idleLive,
	openViewer,
	startDashboard,
	startFakeGate,
} from "../support/dashboard.ts";
import { eventually } from "../support/gate.ts";

interface Teardown {
	teardown(action: () => unknown): unknown;
}

const { now } = performance;
t.afterEach(() => {
	performance.now = now;
});

/** Lets time pass for what is as old as it is by a clock that nobody sets. */
function pass(ms: number): void {
	const before = performance.now();
	const began = now.call(performance);
	performance.now = () => before + ms + now.call(performance) - began;
}

/** A ledger that takes questions, and answers when the test says so. */
async function startSilentLedger(t: Teardown, folder: string) {
	const file = path.join(folder, "ledger.sock");
	const open = new Set<Socket>();
	const ledger = {
		file,
		asked: 0,
		answer(line: object) {
			for (const socket of open) socket.end(`${JSON.stringify(line)}\n`);
		},
	};
	const server = createServer((socket) => {
		open.add(socket);
		ledger.asked += 1;
		socket.on("error", () => {});
		socket.once("close", () => open.delete(socket));
	});
	await once(server.listen(file), "listening");
	t.teardown(() => {
		for (const socket of open) socket.destroy();
		server.close();
	});
	return ledger;
}

const rowOf = (user: string) => ({
	...{ user, requests: 1, refused: 0, tokensIn: 1, tokensOut: 1 },
	...{ queueMs: 0, loadMs: 0, gpuMs: 1_000 },
});

t.test(
	"a ledger that takes a question and says nothing holds up no look",
	async (t) => {
		const gate = await startFakeGate(t, idleLive);
		const ledger = await startSilentLedger(t, gate.folder);
		const watch = new Watch({
			adminSocket: path.join(gate.folder, "admin.sock"),
			ledgerSocket: ledger.file,
			people: "off",
			doctorFile: path.join(gate.folder, "doctor.json"),
			freshMs: 0,
		});
		t.match(await watch.look(), {
			gate: { kind: "live" },
			usage: { kind: "awaited" },
		});
		await eventually(() => ledger.asked === 2);
		pass(30_000);
		for (let n = 0; n < 3; n += 1) await watch.look();
		t.equal(gate.looks, 4);
		t.equal(ledger.asked, 2, "today and this week, and no question behind it");

		const answered = () =>
			eventually(async () => (await watch.look()).usage.kind !== "awaited");
		ledger.answer({ rows: [rowOf("key:laptop")] });
		await answered();
		const sums = { kind: "sums", today: [{ user: "key:laptop" }] };
		t.match(await watch.look(), { usage: sums });
		pass(15_000);
		t.match(await watch.look(), { usage: sums }, "what it said before");
		await eventually(() => ledger.asked === 4);
		pass(120_000);
		t.match(await watch.look(), { usage: { kind: "awaited" } }, "not for long");

		ledger.answer({ error: "the database did not answer in 5 s" });
		await answered();
		t.match(await watch.look(), { usage: { kind: "unknown" } });
		pass(15_000);
		t.match(await watch.look(), { usage: { kind: "unknown" } });
		await eventually(() => ledger.asked === 6);
	},
);

t.test("a clock that is put back keeps no old look", async (t) => {
	const { now: wallNow } = Date;
	t.teardown(() => {
		Date.now = wallNow;
	});
	const gate = await startFakeGate(t, idleLive);
	const watch = new Watch({
		adminSocket: path.join(gate.folder, "admin.sock"),
		ledgerSocket: undefined,
		people: "off",
		doctorFile: path.join(gate.folder, "doctor.json"),
	});
	t.match(await watch.look(), { gate: { kind: "live" } });
	gate.isAway = true;
	Date.now = () => wallNow() - 3_600_000;
	pass(1_000);
	t.match(await watch.look(), { gate: { kind: "silent" } });
});

t.test("curves begin anew where the clock is put back", async (t) => {
	const history = new History();
	const look = (atSeconds: number) => {
		const { points, isAnew } = history.add(snapshotAt(atSeconds * 1000));
		return { at: points.map(([at]) => at), isAnew };
	};
	look(7_200);
	t.strictSame(look(7_201), { at: [7_201], isAnew: false });
	t.strictSame(look(7_201), { at: [], isAnew: false }, "the same look");
	t.strictSame(
		look(7_200),
		{ at: [], isAnew: false },
		"a moment is waited for",
	);
	t.strictSame(look(3_600), { at: [3_600], isAnew: true });
	t.strictSame(look(3_601), { at: [3_601], isAnew: false });
	t.strictSame(
		history.points.map(([at]) => at),
		[3_600, 3_601],
	);
});

t.test(
	"an open page drops the curves of a time that is yet to come",
	async (t) => {
		const { now: wallNow } = Date;
		t.teardown(() => {
			Date.now = wallNow;
		});
		const gate = await startFakeGate(t, idleLive);
		const limits = { intervalMs: 1 };
		const page = await startDashboard(t, gate, { freshMs: 1, limits });
		const { looks } = await openViewer(t, page.url);
		t.match((await looks.next()).value, { isWhole: true });
		Date.now = () => wallNow() - 3_600_000;
		let next = (await looks.next()).value;
		while (next !== undefined && !next.isWhole)
			next = (await looks.next()).value;
		t.match(next, { points: [[Number]] });
		t.equal(next?.points.length, 1);
	},
);

const snapshotAt = (atMs: number): Snapshot => ({
	atMs,
	gate: { kind: "silent", why: "" },
	rateOf: () => undefined,
	tokensPerSecond: undefined,
	usage: { kind: "none" },
	doctor: { kind: "none" },
});
