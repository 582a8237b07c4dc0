import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { Agent, type IncomingMessage, request } from "node:http";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { startStandIn } from "../src/ollama/standIn.ts";
import { bearer, startGate, testKeys } from "../test/support/gate.ts";
import { cpuSeconds, pinning, start, stop, stopAll } from "./processes.ts";
import { fixed, median, quantile, ratio, renderSection } from "./report.ts";

/**
 * What three hosts cost beside one: CPU of the gate a request, by turns, with the
 * fair queue on in both. The goal is 1.10 times at the most.
 *
 *     node bench/hosts.ts [--seconds 30] [--rounds 3]
 */
const { values: options, positionals } = parseArgs({
	allowPositionals: true,
	options: {
		seconds: { type: "string", default: "30" },
		rounds: { type: "string", default: "3" },
	},
});
const [seconds, rounds] = [options.seconds, options.rounds].map(Number) as [
	number,
	number,
];
const sliceRequests = 300;

const closing: (() => unknown)[] = [];
const bench = { teardown: (action: () => unknown) => closing.unshift(action) };

/** Both gates, in a process of their own that they share, so that they run the same compiled code. */
async function runGates(urls: readonly string[]): Promise<void> {
	const queue = { mode: "fair", parallel: 8 };
	const upstreams = urls.map((url, at) => ({ name: `host${at}`, url }));
	const gates = [
		await startGate(bench, {
			config: { queue },
			...(urls[0] && { upstreamUrl: urls[0] }),
		}),
		await startGate(bench, { config: { queue, upstreams } }),
	];
	process.stdout.write(`${gates.map(({ url }) => url).join(" ")}\n`);
	await once(process, "SIGTERM");
	process.exit(0);
}

async function firstLine(child: ChildProcess): Promise<string> {
	if (child.stdout === null) throw new Error("it has no output");
	const [line] = await once(createInterface({ input: child.stdout }), "line");
	return line as string;
}

const agent = new Agent({ keepAlive: true, maxSockets: 1 });
const conversation = (turns: number) =>
	JSON.stringify({
		model: "qwen3:8b",
		messages: [
			{ role: "system", content: "You are brief." },
			...Array.from({ length: turns }, (_, at) => ({
				role: at % 2 === 0 ? "user" : "assistant",
				content: `What is the capital of country ${at}? `.repeat(4),
			})),
		],
		options: { num_predict: 1 },
	});
const bodies = { "a short prompt": conversation(1), "8 KiB": conversation(41) };

async function ask(url: string, body: string): Promise<void> {
	const sent = request(new URL("/api/chat", url), {
		agent,
		method: "POST",
		headers: {
			...bearer(testKeys.worker),
			"content-length": Buffer.byteLength(body),
		},
	});
	sent.end(body);
	const [reply] = (await once(sent, "response")) as [IncomingMessage];
	if (reply.statusCode !== 200) throw new Error(`${reply.statusCode}`);
	for await (const _ of reply);
}

async function measure(): Promise<void> {
	const names = Object.keys(bodies) as (keyof typeof bodies)[];
	const all = names.map(() => ({
		one: [] as number[],
		three: [] as number[],
		added: [] as number[],
	}));
	for (let round = 0; round < rounds; round += 1) {
		const hosts = await Promise.all(
			[1, 2, 3].map(() => startStandIn({ remember: false })),
		);
		const gates = start(
			[
				...pinning.measured,
				...[process.execPath, import.meta.filename, "gates"],
				...hosts.map(({ url }) => url),
			],
			{ stdio: ["ignore", "pipe", "inherit"] },
		);
		const [one = "", three = ""] = (await firstLine(gates)).split(" ");
		const slice = async (url: string, body: string) => {
			const pids = [gates.pid ?? 0];
			const before = cpuSeconds(pids);
			for (let n = 0; n < sliceRequests; n += 1) await ask(url, body);
			return (1e6 * (cpuSeconds(pids) - before)) / sliceRequests;
		};
		for (const name of names)
			for (let n = 0; n < 2_000; n += 1)
				await ask(n % 2 === 0 ? one : three, bodies[name]);
		const endMs = performance.now() + (1000 * seconds) / rounds;
		while (performance.now() < endMs)
			for (const [at, name] of names.entries()) {
				const [alone, among] = [
					await slice(one, bodies[name]),
					await slice(three, bodies[name]),
				];
				all[at]?.one.push(alone);
				all[at]?.three.push(among);
				all[at]?.added.push(among - alone);
			}
		await stop(gates);
		for (const host of hosts) await host.close();
	}
	agent.destroy();
	process.stdout.write(
		`${renderSection({
			name: "hosts",
			title: "Three hosts beside one",
			notes: [
				`CPU of the gate a request, /api/chat of one token, fair queue: slices of ${sliceRequests} requests, by turns, two gates in one process, ${rounds} processes.`,
			],
			head: [
				"body",
				"one, µs",
				"three, µs",
				"ratio",
				"added, µs",
				"half within",
			],
			rows: all.map(({ one, three, added }, at) => [
				names[at] ?? "",
				fixed(median(one)),
				fixed(median(three)),
				ratio(median(three), median(one)),
				fixed(median(added)),
				`${fixed(quantile(added, 0.25))} to ${fixed(quantile(added, 0.75))}`,
			]),
			figures: {},
			data: {},
		})}\n`,
	);
}

if (positionals[0] === "gates") await runGates(positionals.slice(1));
else
	try {
		await measure();
	} finally {
		await stopAll();
		for (const close of closing) await close();
	}
