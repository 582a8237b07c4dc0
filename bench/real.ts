import { once } from "node:events";
import { Agent, type IncomingMessage, request } from "node:http";
import { availableParallelism, cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { startOllama } from "../test/real/ollama.ts";
import { newestOllama } from "../test/real/parts.ts";
import { bearer, spawnGate, testKeys } from "../test/support/gate.ts";
import { writeDocuments } from "./document.ts";
import {
	fixed,
	median,
	quantile,
	renderSection,
	type Section,
} from "./report.ts";

const help = `
Usage: node bench/real.ts [--pairs N] [--docs]

Tokens a second and the time to the first token of the real Ollama with a small
model on one core, directly and through the gate by turns, at 1, 4 and 16
streams. The real parts must be there: npm run test:real gets them.

  --pairs N  how often each way is measured (20)
  --docs     puts the tables into docs/performance.md
`;

const { values } = parseArgs({
	options: {
		pairs: { type: "string", default: "20" },
		docs: { type: "boolean", default: false },
		help: { type: "boolean", short: "h", default: false },
	},
});
if (values.help) {
	process.stdout.write(help);
	process.exit(0);
}

process.env.LLAMAGATE_REAL ??= fileURLToPath(
	new URL("../.cache/real", import.meta.url),
);
const pairs = Number(values.pairs);
const tokens = 48;
const most = 16;
const agent = new Agent({ keepAlive: true });

/** What has to be closed at the end, the last first. */
const closing: (() => unknown)[] = [];
const bench = {
	teardown: (action: () => unknown) => closing.unshift(action),
};

/** One stream's words do not depend on the others, so both ways make the same number of tokens. */
async function stream(url: string, index: number, headers: object) {
	const since = performance.now();
	const sent = request(new URL("/api/generate", url), {
		...{ agent, method: "POST" },
		headers: { "content-type": "application/json", ...headers },
	});
	sent.end(
		JSON.stringify({
			model: "smol",
			prompt: `Tell me a long story about a lighthouse with ${index + 3} rooms.`,
			options: { temperature: 0, seed: 1, num_predict: tokens },
		}),
	);
	const [reply] = (await once(sent, "response")) as [IncomingMessage];
	if (reply.statusCode !== 200) throw new Error(`status ${reply.statusCode}`);
	let firstMs: number | undefined;
	let text = "";
	for await (const piece of reply.setEncoding("utf8")) {
		firstMs ??= performance.now() - since;
		text += piece;
	}
	const [, count] = /"eval_count":(\d+)/.exec(text) ?? [];
	if (count === undefined || firstMs === undefined)
		throw new Error("a stream broke off");
	return { firstMs, tokens: Number(count) };
}

async function together(url: string, streams: number, headers: object) {
	const since = performance.now();
	const all = await Promise.all(
		Array.from({ length: streams }, (_, index) => stream(url, index, headers)),
	);
	const seconds = (performance.now() - since) / 1000;
	return {
		rate: all.reduce((sum, one) => sum + one.tokens, 0) / seconds,
		firstMs: all.map((one) => one.firstMs),
	};
}

async function measure(
	direct: () => ReturnType<typeof together>,
	gate: () => ReturnType<typeof together>,
	streams: number,
): Promise<Section> {
	await direct();
	await gate();
	const rounds: Record<
		"direct" | "gate",
		Awaited<ReturnType<typeof together>>
	>[] = [];
	for (let pair = 0; pair < pairs; pair++)
		if (pair % 2 === 0)
			rounds.push({ direct: await direct(), gate: await gate() });
		else {
			const through = await gate();
			rounds.push({ direct: await direct(), gate: through });
		}
	const ratios = rounds.map((round) => round.gate.rate / round.direct.rate);
	const figures = Object.fromEntries(
		(["direct", "gate"] as const).map((way) => {
			const firsts = rounds.flatMap((round) => round[way].firstMs);
			return [
				way,
				{
					rate: median(rounds.map((round) => round[way].rate)),
					first50: quantile(firsts, 0.5),
				},
			];
		}),
	) as Record<"direct" | "gate", { rate: number; first50: number }>;
	const added = figures.gate.first50 - figures.direct.first50;
	const ratio = median(ratios);
	return {
		name: `real model, ${streams}`,
		title: `The real Ollama with a small model: ${streams} stream(s) at once`,
		notes: [
			`Ollama ${newestOllama}, SmolLM2-135M on one of ${availableParallelism()} cores (${cpus()[0]?.model}), the gate and the load on what is left; ${pairs} times each way, by turns, ${tokens} tokens a stream`,
			`the ratio is the median of the pairs; half of them lie between ${fixed(quantile(ratios, 0.25), 3)} and ${fixed(quantile(ratios, 0.75), 3)}`,
		],
		head: ["", "tokens/s", "of direct", "first token p50, ms", "added"],
		rows: [
			[
				"direct",
				fixed(figures.direct.rate),
				"",
				fixed(figures.direct.first50),
				"",
			],
			[
				...["gate", fixed(figures.gate.rate), fixed(ratio, 3)],
				...[fixed(figures.gate.first50), fixed(added)],
			],
		],
		figures: {
			direct: figures.direct,
			gate: { ...figures.gate, ratio, added },
		},
		data: rounds,
	};
}

try {
	const ollama = await startOllama(bench, {
		// Streams run side by side, each with a context that all of them have room for.
		env: { OLLAMA_NUM_PARALLEL: `${most}`, OLLAMA_CONTEXT_LENGTH: "512" },
	});
	const gate = await spawnGate(bench, { upstreamUrl: ollama.url });
	const sections: Section[] = [];
	for (const streams of [1, 4, most]) {
		const section = await measure(
			() => together(ollama.url, streams, {}),
			() => together(gate.url, streams, bearer(testKeys.worker)),
			streams,
		);
		process.stdout.write(`${renderSection(section)}\n`);
		sections.push(section);
	}
	if (values.docs) {
		const docs = new URL("../docs/", import.meta.url);
		await writeDocuments(fileURLToPath(docs), undefined, sections);
	}
} finally {
	agent.destroy();
	for (const close of closing) await close();
}
