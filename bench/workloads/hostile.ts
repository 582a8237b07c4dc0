import type { ChildProcess } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import {
	type HostileLoad,
	hostileLoads,
	judgedBytes,
} from "../hostile/loads.ts";
import { type StreamTimes, startLoad } from "../native.ts";
import {
	cpuSeconds,
	resetPeak,
	residentBytes,
	start,
	stop,
} from "../processes.ts";
import { fixed, median, quantile, type Section } from "../report.ts";
import {
	failureNotes,
	figuresOf,
	freshStarts,
	measureEach,
	toData,
} from "../rounds.ts";
import {
	honestKey,
	key,
	ruledKey,
	type Stage,
	type Target,
	withTargets,
	wrongKey,
} from "../targets.ts";

/** What others feel for a while. */
interface Felt {
	/** A token's way from the upstream to a client of a running stream. */
	readonly chunk99Ms: number;
	/** From the connecting of a new client with a good key to its reply. */
	readonly new95Ms: number;
	readonly newWorstMs: number;
	readonly newFailed: number;
	/** The share of its core that the gate used: what others on the machine do hardly shows in it. */
	readonly coreShare: number;
	/** What the gate's memory has grown by, at its most. */
	readonly grownBytes: number;
}

interface Sample {
	readonly calm: Felt;
	readonly attacked: Felt;
}

const streamCount = 40;

/** What others feel of each hostile load, and what it takes of the gate's memory. */
export async function hostile(stage: Stage): Promise<Section[]> {
	const starts = stage.quick ? 1 : 3;
	const sections: Section[] = [];
	for (const load of hostileLoads) {
		if (!(stage.hostileOnly?.test(load.name) ?? true)) continue;
		const results = await freshStarts(starts, (round) =>
			withTargets(
				stage,
				(targets) =>
					measureEach(
						stage,
						targets.filter(({ pids }) => pids.length > 0),
						round,
						load.name,
						(target) => measure(stage, target, load),
					),
				{
					names: ["gate", "against"],
					gate: { ruledKeys: true, defaultLockout: true },
				},
			),
		);
		const figures = figuresOf(results, (samples) => {
			const middle = (value: (one: Sample) => number) =>
				median(samples.map(value));
			return {
				calm99: middle(({ calm }) => calm.chunk99Ms),
				attacked99: middle(({ attacked }) => attacked.chunk99Ms),
				moved99: middle(
					({ calm, attacked }) => attacked.chunk99Ms - calm.chunk99Ms,
				),
				new95: middle(({ attacked }) => attacked.new95Ms),
				newWorst: middle(({ attacked }) => attacked.newWorstMs),
				calmCore: middle(({ calm }) => calm.coreShare),
				attackedCore: middle(({ attacked }) => attacked.coreShare),
				newFailed: middle(({ attacked }) => attacked.newFailed),
				grown: middle(({ attacked }) => attacked.grownBytes) / 2 ** 20,
				beyondBodies:
					middle(({ attacked }) => attacked.grownBytes - judgedBytes(load)) /
					2 ** 20,
			};
		});
		sections.push({
			name: `hostile, ${load.name}`,
			title: `Hostile load: ${load.name}, ${load.connections} connections from one address`,
			notes: [
				`${streamCount} streams of 20 tokens/s, and 40 new requests a second with a key that has rules about models, each on a connection of its own; median of ${starts} fresh start(s)`,
				...failureNotes(results),
			],
			head: [
				"",
				"stream p99 calm, ms",
				"attacked",
				"new request p95, ms",
				"worst",
				"not served",
				"core used calm",
				"attacked",
				"memory grown, MiB",
				"beyond a body that is judged",
			],
			rows: results.map((result) => {
				const { name } = result.target;
				if ("failure" in result) return [name, result.failure];
				const figure = figures[name] ?? {};
				return [
					name,
					...["calm99", "attacked99", "new95", "newWorst"].map((column) =>
						fixed(figure[column] ?? 0, 1),
					),
					fixed(figure.newFailed ?? 0, 0),
					fixed(figure.calmCore ?? 0, 2),
					fixed(figure.attackedCore ?? 0, 2),
					fixed(figure.grown ?? 0, 0),
					fixed(Math.max(0, figure.beyondBodies ?? 0), 0),
				];
			}),
			figures,
			data: toData(results),
		});
	}
	return sections;
}

async function measure(
	stage: Stage,
	target: Target,
	load: HostileLoad,
): Promise<Sample> {
	// What is compiled or filled the first time is no part of it.
	await feel(stage, target, 1_000);
	const calm = await feel(stage, target, stage.quick ? 1_500 : 2_500);
	const shown = { none: "", wrong: wrongKey, ruled: ruledKey }[load.key];
	const attack = startScript("attack.ts", [
		load.name,
		String(target.port),
		shown,
		"127.0.3.1",
	]);
	try {
		resetPeak(target.pids);
		await delay(300);
		const attacked = await feel(
			stage,
			target,
			stage.quick ? 2_500 : 4_000,
			residentBytes(target.pids, "VmRSS"),
		);
		return { calm, attacked };
	} finally {
		await stop(attack);
	}
}

/** Running streams and new requests at the same time, each from a process of its own. */
async function feel(
	{ native }: Stage,
	{ port, pids }: Target,
	lastsMs: number,
	residentBefore = residentBytes(pids, "VmRSS"),
): Promise<Felt> {
	const cpuBefore = cpuSeconds(pids);
	const startedAtMs = performance.now();
	const streams = startLoad(native, {
		mode: "streams",
		port,
		key,
		from: "127.0.2.1",
		streams: streamCount,
		tokens: 10,
		intervalUs: 50_000,
		warmUpMs: 600,
		measureMs: lastsMs,
	});
	const requests = startScript("newRequests.ts", [
		String(port),
		honestKey,
		"127.0.4.1",
		String(lastsMs),
	]);
	let text = "";
	requests.stdout?.setEncoding("utf8").on("data", (more: string) => {
		text += more;
	});
	const ended = new Promise((resolve) => requests.once("close", resolve));
	const { chunk, lost } = JSON.parse(
		(await streams.lines).at(-1) ?? "",
	) as StreamTimes;
	await ended;
	const coreShare =
		(cpuSeconds(pids) - cpuBefore) / ((performance.now() - startedAtMs) / 1000);
	if (lost > 0) throw new Error(`${lost} streams were cut`);
	const { tookMs, failed } = JSON.parse(text) as {
		tookMs: number[];
		failed: number;
	};
	return {
		chunk99Ms: (chunk.p99 ?? Number.NaN) / 1e6,
		new95Ms: quantile(tookMs, 0.95),
		newWorstMs: quantile(tookMs, 1),
		newFailed: failed,
		coreShare,
		grownBytes: residentBytes(pids, "VmHWM") - residentBefore,
	};
}

function startScript(file: string, args: readonly string[]): ChildProcess {
	const script = fileURLToPath(new URL(`../hostile/${file}`, import.meta.url));
	// The attacker shares a core with those who measure: they come first.
	const nice = file === "attack.ts" ? ["nice", "-n", "10"] : [];
	return start([...nice, process.execPath, script, ...args], {
		stdio: ["ignore", "pipe", "inherit"],
	});
}
