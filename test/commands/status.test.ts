import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { text } from "node:stream/consumers";
import t, { type Test } from "tap";
import { program } from "../support/program.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

const main = path.resolve(program);

const wellOff = {
	version: "0.1.0",
	pid: 7,
	startedAt: new Date().toISOString(),
	listening: ["local", "100.101.102.104:11434"],
	keys: ["laptop"],
	keyUse: {},
	lastReload: { at: new Date().toISOString(), ok: true },
	connections: 3,
	streams: 1,
	lockedOut: 0,
	lockouts: [],
};

/** What `status` prints while a daemon gives this answer; `undefined` for none. */
async function statusOf(t: Test, answer: unknown, ...options: string[]) {
	const folder = await temporaryFolder(t);
	const socket = path.join(folder, "admin.sock");
	const config = path.join(folder, "config.json");
	await writeFile(config, JSON.stringify({ admin: { socket } }));
	if (answer !== undefined) {
		const server = createServer((_, res) =>
			res.end(typeof answer === "string" ? answer : JSON.stringify(answer)),
		);
		t.teardown(() => server.close());
		await once(server.listen(socket), "listening");
	}
	const child = spawn(process.execPath, [
		...[main, "status", "--config", config, ...options],
	]);
	const [stdout, stderr] = await Promise.all([
		text(child.stdout),
		text(child.stderr),
		once(child, "close"),
	]);
	return { stdout, stderr, code: child.exitCode };
}

t.test("status has a line for each of several hosts", async (t) => {
	const host = {
		...{ kind: "ollama", forSeconds: 90, why: null, models: 4 },
		...{ outstanding: 2, requests: 9, failed: 1, moved: 1 },
	};
	const { stdout, code } = await statusOf(t, {
		...wellOff,
		hosts: [
			{ ...host, name: "own", url: "http://127.0.0.1:11434", state: "up" },
			{
				...host,
				...{ name: "minipc", url: "http://minipc:11434", state: "down" },
				...{ why: "ECONNREFUSED", models: null, outstanding: 0 },
			},
		],
	});
	t.match(
		stdout,
		/ok {4}host: own \(http:\/\/127\.0\.0\.1:11434\) is up for 90 s; 4 model\(s\), 2 request\(s\) with it or waiting for it\n/,
	);
	t.match(
		stdout,
		/look {2}host: minipc \(http:\/\/minipc:11434\) is down for 90 s: ECONNREFUSED; its models are not known, 0 request/,
	);
	t.equal(code, 1);
});

t.test("status says how the gate does", async (t) => {
	const { stdout, stderr } = await statusOf(t, wellOff);
	t.equal(stderr, "");
	t.match(stdout, /ok {4}gate: llamagate 0\.1\.0, process 7, up for \d+ s\n/);
	t.match(stdout, /ok {4}listening: on 100\.101\.102\.104:11434\n/);
	t.match(stdout, /ok {4}keys: 1: laptop\n/);
	t.match(stdout, / {6}streams: 1, on 3 connection\(s\)/);
	t.match(stdout, /ok {4}files: read \d+ s ago\n/);
	t.match(stdout, /; nobody is locked out\n/);
	const json = await statusOf(t, wellOff, "--json");
	t.match(JSON.parse(json.stdout), { gate: wellOff });
});

t.test(
	"status says of a budget whether it is kept, and what becomes of its key",
	async (t) => {
		const budget = {
			...{ key: "lab", per: "day", used: { gpuMs: 0, tokens: 0, requests: 2 } },
			...{ limits: { requests: 5 }, resetsAt: "2030-01-01T00:00:00.000Z" },
		};
		const said = async (
			more: object,
			isKnown: boolean,
			untilKnown?: string,
		) => {
			const budgets = [{ ...budget, isKnown, untilKnown }];
			return (await statusOf(t, { ...wellOff, ...more, budgets })).stdout;
		};
		const begins =
			"lab has used 2 of 5 requests a day; it begins anew at 2030-01-01T00:00:00.000Z";
		const notKnown = `${begins}; what it used before the gate's start is not known`;
		const whole =
			"; without a ledger it is whole again after each restart (docs/usage.md)";
		const ledger = { isConnected: true, waiting: 0, written: 1, lost: 0 };
		t.match(await said({ ledger }, true), `${begins}\n`);
		t.match(await said({}, true), `${begins}${whole}\n`);
		t.match(
			await said({}, false, "batch"),
			`${notKnown}, and until then its requests are served in the class batch${whole}\n`,
		);
		t.match(
			await said({ ledger }, false, "refuse"),
			`${notKnown}, and until the ledger tells its requests are answered 503\n`,
		);
		t.match(await said({ ledger }, false), `${notKnown}\n`, "of an older gate");
	},
);

t.test("status names who is locked out, and for how long", async (t) => {
	const addresses = ["100.64.0.7", "fd7a:115c:a1e0::7"];
	const lockouts = [
		{ addresses, node: "laptop", secondsLeft: 250 },
		{ addresses: ["100.64.0.9"], node: null, secondsLeft: 59 },
		{ addresses: ["100.64.0.10"], node: null, secondsLeft: 7_500 },
	];
	const { stdout, code } = await statusOf(t, {
		...wellOff,
		lockedOut: 3,
		lockouts,
	});
	t.match(stdout, "; 3 device(s) or address(es) are locked out\n");
	t.match(
		stdout,
		"locked out: laptop (100.64.0.7, fd7a:115c:a1e0::7) for another 4 min 10 s, after wrong keys; to let it in: sudo llamagate unlock 100.64.0.7\n",
	);
	t.match(stdout, "locked out: 100.64.0.9 for another 59 s");
	t.match(stdout, "locked out: 100.64.0.10 for another 2 h 5 min");
	t.equal(code, 0, "a guesser that is locked out is no fault of the gate's");
	const strange = await statusOf(t, { ...wellOff, lockouts: [{}] });
	t.match(strange.stdout, /is not a gate of this version/);
});

t.test("status says who waits, and for which model", async (t) => {
	const queue = {
		waiting: { interactive: 1, normal: 0, batch: 11 },
		running: 1,
		models: [
			...[{ name: "qwen3:8b", state: "loaded", slots: 2 }],
			...[{ name: "gemma3:27b", state: "not loaded", slots: 1 }],
		].map((model) => ({ ...model, running: 1, waiting: 6 })),
	};
	const { stdout, code } = await statusOf(t, { ...wellOff, queue });
	t.match(
		stdout,
		/ {6}queue: fair; 1 at work, 12 waiting \(interactive 1, batch 11\)\n/,
	);
	t.match(
		stdout,
		/ {6}model: qwen3:8b is loaded; 1 at work in 2 slot\(s\), 6 waiting\n/,
	);
	t.match(stdout, "model: gemma3:27b is not loaded; ");
	t.equal(code, 0, "that somebody waits is no fault");
	t.notMatch((await statusOf(t, wellOff)).stdout, "queue:");
	const json = await statusOf(t, { ...wellOff, queue }, "--json");
	t.match(JSON.parse(json.stdout), { gate: { queue } });
	for (const strange of [{}, { ...queue, models: [{}] }]) {
		const { stdout } = await statusOf(t, { ...wellOff, queue: strange });
		t.match(stdout, /is not a gate of this version/);
	}
});

t.test("and what needs attention", async (t) => {
	for (const [answer, says] of [
		[undefined, /look {2}gate: no gate answers on .*ENOENT/],
		[{ ...wellOff, listening: ["local"] }, /look {2}listening: on nothing/],
		[{ ...wellOff, keys: [] }, /look {2}keys: none/],
		[
			{ ...wellOff, lastReload: { ...wellOff.lastReload, ok: false } },
			/look {2}files: refused/,
		],
		["<html>", /look {2}gate: what answers on .* is not a gate/],
		["null", /look {2}gate: what answers on .* is not a gate/],
		[
			{ ...wellOff, keys: [1] },
			/look {2}gate: what answers on .* is not a gate/,
		],
	] as const) {
		const { stdout, code } = await statusOf(t, answer);
		t.match(stdout, says);
		t.equal(code, 1);
	}
});

t.test("what a daemon says writes no line of its own", async (t) => {
	const odd = { ...wellOff, keys: ["\x1b[2J\nok    doctor: all is well"] };
	const { stdout } = await statusOf(t, odd);
	t.notMatch(stdout, "\x1b[2J");
	t.notMatch(stdout, /^ok {4}doctor: all is well/m);
	const json = await statusOf(t, { ...odd, version: "\u009b2J" }, "--json");
	t.notMatch(json.stdout, "\u009b");
});
