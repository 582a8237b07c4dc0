import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { openBrowser } from "../test/support/browser.ts";
import { ask, openViewer } from "../test/support/dashboard.ts";
import { bearer, spawnGate, testKeys } from "../test/support/gate.ts";
import { cpuSeconds, pinning, start, stop } from "./processes.ts";
import { median } from "./report.ts";

/**
 * What the live page costs while streams run: its own CPU, and what the gate's
 * grows by while somebody watches; how much a browser is sent, and how soon it
 * paints.
 *
 *     node bench/dashboard.ts [--streams 100] [--seconds 10] [--rounds 3]
 */
const { values } = parseArgs({
	options: {
		streams: { type: "string", default: "100" },
		seconds: { type: "string", default: "10" },
		rounds: { type: "string", default: "3" },
	},
});
const [streams, seconds, rounds] = [
	values.streams,
	values.seconds,
	values.rounds,
].map(Number) as [number, number, number];

const endings: (() => unknown)[] = [];
const t = {
	teardown(action: () => unknown) {
		endings.unshift(action);
	},
};
/** Streams go on without a token: the browser has the core that they took. */
let areHeld = false;
const gate = await spawnGate(t, {
	launcher: pinning.measured,
	standIn: {
		tokenIntervalMs: 50,
		remember: false,
		misbehave: () => (areHeld ? "stall-mid-stream" : undefined),
	},
});
async function stream(): Promise<void> {
	for (;;) {
		const reply = await fetch(`${gate.url}/api/generate`, {
			method: "POST",
			headers: bearer(testKeys.user),
			body: JSON.stringify({ model: "qwen3:8b", prompt: "a" }),
		});
		for await (const _ of reply.body ?? []);
	}
}
for (let n = 0; n < streams; n += 1)
	// At the end the gate goes away under them.
	stream().catch(() => {});

const page = start(
	[
		...pinning.measured,
		process.execPath,
		...["src/main.ts", "dashboard", "--config", gate.configFile],
		...["--listen", "127.0.0.1:0"],
	],
	{ stdio: ["ignore", "pipe", "inherit"] },
);
const said = String((await once(page.stdout ?? page, "data"))[0]);
const url = /http:\S+/.exec(said)?.[0] ?? "";
const port = Number(new URL(url).port);

/** Parts of a core that both take, with so many pages open. */
async function measure(viewers: number) {
	const open = await Promise.all(
		Array.from({ length: viewers }, () => openViewer(t, url)),
	);
	let bytes = 0;
	const reading = open.map(async ({ response }) => {
		for await (const piece of response.body ?? []) bytes += piece.length;
	});
	await delay(2_000);
	const cpu = (pid: number | undefined) => cpuSeconds([pid ?? 0]);
	const before = [cpu(gate.child.pid), cpu(page.pid)] as const;
	bytes = 0;
	const startedMs = performance.now();
	await delay(seconds * 1_000);
	const tookSeconds = (performance.now() - startedMs) / 1_000;
	const figures = {
		gate: (100 * (cpu(gate.child.pid) - before[0])) / tookSeconds,
		page: (100 * (cpu(page.pid) - before[1])) / tookSeconds,
		bytes: viewers === 0 ? 0 : bytes / tookSeconds / viewers,
	};
	for (const { leave } of open) leave();
	await Promise.allSettled(reading);
	return figures;
}

const counts = [0, 1, 20];
const samples = counts.map((): Awaited<ReturnType<typeof measure>>[] => []);
for (let round = 0; round < rounds; round += 1)
	for (const [at, viewers] of counts.entries())
		samples[at]?.push(await measure(viewers));
const of = (at: number, name: "gate" | "page" | "bytes") =>
	median((samples[at] ?? []).map((sample) => sample[name]));
process.stdout.write(
	`${streams} streams of 20 tokens a second; ${rounds} rounds of ${seconds} s; medians\n| pages open | the page's process, % of a core | the gate, % of a core | KB a second to each page |\n|--:|--:|--:|--:|\n`,
);
for (const [at, viewers] of counts.entries())
	process.stdout.write(
		`| ${viewers} | ${of(at, "page").toFixed(2)} | ${of(at, "gate").toFixed(2)} | ${(of(at, "bytes") / 1_000).toFixed(1)} |\n`,
	);

const sizes = await Promise.all(
	["/", "/page.css", "/page.js", "/curves.js"].map(async (path) => {
		const headers = { host: `127.0.0.1:${port}`, "accept-encoding": "gzip" };
		return (await ask(port, path, headers)).body.length;
	}),
);
process.stdout.write(
	`sent, gzip: ${sizes.join(" + ")} = ${sizes.reduce((a, b) => a + b)} bytes\n`,
);

areHeld = true;
await delay(5_000);
// On any core: it is a reader's own machine that has it.
const tab = await openBrowser(
	t,
	pinning.measured.length > 0 ? ["taskset", "0xffff"] : [],
);
const paints: number[] = [];
for (let n = 0; n < 7; n += 1) {
	await tab.open("about:blank", { width: 1280, scheme: "light" });
	await tab.open(url, { width: 1280, scheme: "light" });
	paints.push(
		await tab.evaluate<number>(
			"new Promise((done) => new PerformanceObserver((list) => { const found = list.getEntriesByName('first-contentful-paint')[0]; if (found) done(found.startTime); }).observe({ type: 'paint', buffered: true }))",
		),
	);
}
process.stdout.write(
	`first contentful paint, ms: ${paints.map((ms) => Math.round(ms)).join(", ")} (median ${Math.round(median(paints))})\n`,
);
await stop(page);
for (const end of endings) await end();
process.exit();
