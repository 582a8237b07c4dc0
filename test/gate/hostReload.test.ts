import { writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import type { GateLive } from "../../src/admin/live.ts";
import { eventually, type TestGate } from "../support/gate.ts";
import { send, startWithHosts, statusOf } from "../support/hosts.ts";
import { startPlainHost } from "../support/plainHost.ts";

const keys = { own: `lg_${"ab".repeat(32)}`, next: `lg_${"cd".repeat(32)}` };
const body = { model: "m:1", messages: [], stream: false };

async function liveOf({ folder }: TestGate): Promise<GateLive> {
	const { body } = await askDaemon(`${folder}/admin.sock`, "GET /live");
	return JSON.parse(body) as GateLive;
}

interface Teardown {
	teardown(action: () => unknown): unknown;
}

/** A host that answers a prompt when it is told to, and from some moment on none of the gate's questions. */
async function startHeld(t: Teardown) {
	const held: (() => void)[] = [];
	let most = 0;
	let muted: Promise<void> | undefined;
	let unmute = () => {};
	const { url, prompts } = await startPlainHost(
		t,
		["m:1"],
		async () => {
			await new Promise<void>((resolve) => {
				most = Math.max(most, held.push(resolve));
			});
			return { body: { done: true } };
		},
		() => muted,
	);
	return {
		url,
		prompts,
		get most() {
			return most;
		},
		mute() {
			muted = new Promise((resolve) => {
				unmute = resolve;
			});
		},
		unmute() {
			muted = undefined;
			unmute();
		},
		/** Answers the prompt that is there, once one is. */
		async answer() {
			await eventually(() => held.length > 0);
			held.shift()?.();
		},
	};
}

for (const [what, change] of [
	["weight", { entry: { weight: 2 } }],
	["models", { entry: { models: ["m:*"] } }],
	["key", { key: keys.next }],
	["limits", { upstream: { connectTimeout: "7s", maxConnections: 50 } }],
] as const)
	t.test(
		`a reload that changes a host's ${what} keeps what waits in its place, and serves what comes`,
		async (t) => {
			const { entry, key, upstream } = {
				entry: {},
				key: keys.own,
				upstream: {},
				...change,
			};
			const a = await startHeld(t);
			const first = { name: "a", url: a.url, keyFile: "k" };
			const queue = { mode: "fair", parallel: 1 };
			const gate = await startWithHosts(t, [first], {
				config: { queue },
				files: { k: `${keys.own}\n` },
			});
			const waits = (count: number) =>
				eventually(
					async () => (await statusOf(gate)).queue?.waiting.normal === count,
				);
			const asked = [send(gate, { body })];
			await eventually(() => a.prompts.length === 1);
			for (let count = 1; count <= 5; count += 1) {
				asked.push(send(gate, { body }));
				await waits(count);
			}
			a.mute();
			await writeFile(path.join(gate.folder, "k"), `${key}\n`);
			await gate.writeConfig({
				upstreams: [{ ...first, ...entry }],
				upstream,
				queue,
			});
			t.match(await gate.daemon.reload(), { ok: true });
			asked.push(send(gate, { body }));
			await waits(6);
			t.equal(a.prompts.length, 1);
			for (const _ of asked) await a.answer();
			for (const reply of asked) t.equal((await reply).status, 200);
			t.equal(a.most, 1);
		},
	);

t.test(
	"what waits where a reload leaves its model no more goes to another host",
	async (t) => {
		const a = await startHeld(t);
		const b = await startPlainHost(t, ["m:1"], () => ({
			body: { by: "b", done: true },
		}));
		const queue = { mode: "fair", parallel: 1 };
		const first = { name: "a", url: a.url };
		const second = { name: "b", url: b.url };
		const gate = await startWithHosts(
			t,
			[first, { ...second, models: ["other:*"] }],
			{ config: { queue } },
		);
		const running = send(gate, { body });
		await eventually(() => a.prompts.length === 1);
		const waiting = send(gate, { body });
		await eventually(
			async () => (await statusOf(gate)).queue?.waiting.normal === 1,
		);
		let waitedMs = 0;
		await eventually(async () => {
			const { requests } = (await liveOf(gate)).top;
			waitedMs =
				requests.find(({ state }) => state === "waiting")?.waitedMs ?? 0;
			return waitedMs > 5;
		});
		const left = { ...first, models: ["other:*"] };
		await gate.writeConfig({ upstreams: [left, second], queue });
		t.match(await gate.daemon.reload(), { ok: true });
		const reply = await waiting;
		t.match(await reply.json(), { by: "b" });
		const line = await gate.logged(
			({ msg, upstream }) => msg === "request" && upstream === "b",
		);
		t.ok(Number(line.queueMs) >= waitedMs, "both waits are told of");
		const told = Number(reply.headers.get("x-llamagate-queue-ms"));
		// Both are rounded, the line to a tenth.
		t.ok(Math.abs(Number(line.queueMs) - told) <= 0.55);
		await a.answer();
		t.equal((await running).status, 200);
		t.equal(a.prompts.length, 1);
	},
);

for (const speaks of [true, false])
	t.test(
		`what waits for a host that a reload has moved ${speaks ? "goes to the new place once that has said what it has" : "keeps its turn while the new place says nothing"}`,
		async (t) => {
			const a = await startHeld(t);
			const b = await startHeld(t);
			b.mute();
			const queue = { mode: "fair", parallel: 1 };
			const host = { name: "a", keyFile: "k" };
			const gate = await startWithHosts(t, [{ ...host, url: a.url }], {
				config: { queue },
				files: { k: `${keys.own}\n` },
			});
			const asked = [send(gate, { body })];
			await eventually(() => a.prompts.length === 1);
			const waiting = async () =>
				(await statusOf(gate)).queue?.waiting.normal ?? 0;
			for (let count = 1; count <= 2; count += 1) {
				asked.push(send(gate, { body }));
				await eventually(async () => (await waiting()) === count);
			}
			await gate.writeConfig({ upstreams: [{ ...host, url: b.url }], queue });
			t.match(await gate.daemon.reload(), { ok: true });
			t.equal(await waiting(), 2);
			if (speaks) {
				b.unmute();
				await b.answer();
				await b.answer();
			} else {
				await a.answer();
				await a.answer();
			}
			await a.answer();
			for (const reply of asked) t.equal((await reply).status, 200);
			t.strictSame(
				[a.prompts.length, b.prompts.length],
				speaks ? [1, 2] : [3, 0],
			);
			t.equal(a.most, 1);
		},
	);

for (const to of ["upstream", "upstreams"])
	t.test(
		`what waits for what hosts have goes to none that a reload has taken out, to ${to}`,
		async (t) => {
			const silent = new Promise<void>(() => {});
			const [former, next] = await Promise.all(
				["former", "next"].map((by) =>
					startPlainHost(
						t,
						["m:1"],
						() => ({ body: { by, done: true } }),
						() => (by === "former" ? silent : undefined),
					),
				),
			);
			if (former === undefined || next === undefined) return;
			const gate = await startWithHosts(
				t,
				[{ name: "former", url: former.url }],
				{ files: { k: `${keys.own}\n` } },
				false,
			);
			const reply = send(gate, { body });
			await eventually(async () => (await statusOf(gate)).streams === 1);
			await gate.writeConfig(
				to === "upstream"
					? { upstream: { url: next.url } }
					: { upstreams: [{ name: "next", url: next.url, keyFile: "k" }] },
			);
			t.match(await gate.daemon.reload(), { ok: true });
			t.match(await (await reply).json(), { by: "next" });
			t.equal(former.prompts.length, 0);
		},
	);

t.test(
	"what a host fails goes to no other of those that a reload has taken out",
	async (t) => {
		let fail = () => {};
		const isToFail = new Promise<void>((resolve) => {
			fail = resolve;
		});
		const one = await startPlainHost(t, ["m:1"], () => ({ body: {} }));
		const hosts = await Promise.all(
			["a", "b"].map((name) =>
				startPlainHost(t, ["m:1"], async () => {
					await isToFail;
					return { status: 503, body: { name } };
				}),
			),
		);
		const gate = await startWithHosts(
			t,
			hosts.map(({ url }, at) => ({ name: `h${at}`, url, keyFile: "k" })),
			{ files: { k: `${keys.own}\n` } },
		);
		const prompts = () => hosts.flatMap((host) => host.prompts).length;
		const reply = send(gate, { body });
		await eventually(() => prompts() === 1);
		await gate.writeConfig({ upstream: { url: one.url } });
		t.match(await gate.daemon.reload(), { ok: true });
		fail();
		t.equal((await reply).status, 503);
		t.equal(prompts(), 1);
	},
);
