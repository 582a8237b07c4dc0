import { startStandIn } from "../src/ollama/standIn.ts";
import {
	readPairArgs,
	runGatePair,
	sliceRequests,
	startGatePair,
} from "./gatePair.ts";
import { stop, stopAll } from "./processes.ts";
import { fixed, median, quantile, ratio, renderSection } from "./report.ts";

/**
 * What three hosts cost beside one: CPU of the gate a request, by turns, with the
 * fair queue on in both. The goal is 1.10 times at the most.
 *
 *     node bench/hosts.ts [--seconds 30] [--rounds 3]
 */
const { seconds, rounds, positionals } = readPairArgs();

const closing: (() => unknown)[] = [];
const bench = { teardown: (action: () => unknown) => closing.unshift(action) };

function runGates(urls: readonly string[]): Promise<void> {
	const queue = { mode: "fair", parallel: 8 };
	const upstreams = urls.map((url, at) => ({ name: `host${at}`, url }));
	return runGatePair(bench, [
		{ config: { queue }, ...(urls[0] && { upstreamUrl: urls[0] }) },
		{ config: { queue, upstreams } },
	]);
}

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
		const gates = await startGatePair(
			import.meta.filename,
			hosts.map(({ url }) => url),
		);
		const [one, three] = gates.urls;
		for (const name of names) await gates.warmUp(bodies[name]);
		const endMs = performance.now() + (1000 * seconds) / rounds;
		while (performance.now() < endMs)
			for (const [at, name] of names.entries()) {
				const { cpu: alone } = await gates.slice(one, bodies[name]);
				const { cpu: among } = await gates.slice(three, bodies[name]);
				all[at]?.one.push(alone);
				all[at]?.three.push(among);
				all[at]?.added.push(among - alone);
			}
		gates.leave();
		await stop(gates.child);
		for (const host of hosts) await host.close();
	}
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
