import { setTimeout as delay } from "node:timers/promises";
import { type RequestCounts, runLoad, type StreamTimes } from "../native.ts";
import { cpuSeconds } from "../processes.ts";
import { fixed, mebibytes, median, type Section, whole } from "../report.ts";
import {
	type GateOptions,
	key,
	mostParallel,
	type Stage,
	type Target,
	withTargets,
} from "../targets.ts";
import { download, measureBulk, upload } from "./bulk.ts";
import { openStreams } from "./memory.ts";

/** What the gate alone costs as its work grows: each line should be flat, or linear where it is a sum. */
export const scale = {
	"scale-keys": byKeys,
	"scale-streams": byStreams,
	"scale-down": (stage: Stage) => byBodySize(stage, "down"),
	"scale-up": (stage: Stage) => byBodySize(stage, "up"),
	"scale-routes": byRoute,
	"scale-log": byLog,
};

/** Runs work with one gate that has been started for it. */
function withGate<T>(
	stage: Stage,
	label: string,
	gate: GateOptions,
	work: (target: Target) => Promise<T>,
): Promise<T> {
	stage.progress(label);
	return withTargets(
		stage,
		async (targets) => {
			const target = targets.find(({ name }) => name === "gate");
			if (target === undefined) throw new Error("the gate did not start");
			return work(target);
		},
		{ names: ["gate"], gate },
	);
}

/** The same with a gate that has had the way of a small request compiled. */
function withWarmGate<T>(
	stage: Stage,
	label: string,
	gate: GateOptions,
	work: (target: Target) => Promise<T>,
): Promise<T> {
	return withGate(stage, label, gate, async (target) => {
		await runLoad(stage.native, {
			...requestsOf(target, "/api/tags"),
			seconds: stage.quick ? 1 : 3,
		});
		return work(target);
	});
}

/** CPU of a small request. */
async function cpuOfRequest(
	{ native, quick }: Stage,
	target: Target,
	path = "/api/tags",
): Promise<number> {
	const before = cpuSeconds(target.pids);
	const { answered } = await runLoad<RequestCounts>(native, {
		...requestsOf(target, path),
		seconds: quick ? 1 : 2,
	});
	if (answered === 0) throw new Error("no request was answered");
	return (1e6 * (cpuSeconds(target.pids) - before)) / answered;
}

function requestsOf({ port }: Target, path: string) {
	return { mode: "requests", port, key, path, connections: 32 };
}

/** A table and its figures: one row for each size. */
function sectionOf(
	name: string,
	title: string,
	notes: readonly string[],
	head: readonly string[],
	rows: readonly {
		size: string;
		cells: string[];
		figures: Record<string, number>;
	}[],
): Section[] {
	return [
		{
			name,
			title,
			notes,
			head,
			rows: rows.map(({ size, cells }) => [size, ...cells]),
			figures: Object.fromEntries(
				rows.map(({ size, figures }) => [size, figures]),
			),
			data: null,
		},
	];
}

async function byKeys(stage: Stage): Promise<Section[]> {
	const rows = [];
	for (const count of [1, 10, 100, 1_000, 10_000]) {
		const found = await withWarmGate(
			stage,
			`scale: ${count} keys`,
			{ moreKeys: count - 1 },
			async (target) => ({
				cpu: await cpuOfRequest(stage, target),
				startMs: target.readyMs,
			}),
		);
		rows.push({
			size: String(count),
			cells: [fixed(found.cpu), whole(found.startMs)],
			figures: { x: count, ...found },
		});
	}
	return sectionOf(
		"scale, keys",
		"Keys in the file",
		["a request's CPU must not depend on them; a start reads each once"],
		["keys", "CPU µs a request", "start-up ms"],
		rows,
	);
}

async function byStreams(stage: Stage): Promise<Section[]> {
	const rows = [];
	const counts = stage.quick
		? [1, 100, 500]
		: [1, 10, 100, 500, 1_000, 2_000, 5_000];
	for (const count of counts) {
		const found = await withGate(
			stage,
			`scale: ${count} streams`,
			{ withoutQueue: count > mostParallel },
			async (target) => {
				const { baseBytes, openBytes } = await openStreams(
					stage,
					target,
					count,
				);
				await delay(500);
				const before = cpuSeconds(target.pids);
				const times = await runLoad<StreamTimes>(stage.native, {
					mode: "streams",
					port: target.port,
					key,
					streams: count,
					tokens: 10,
					// 2,000 tokens a second together, however many streams they are.
					intervalUs: Math.max(1_000, count * 500),
					warmUpMs: Math.max(500, count * 5),
					measureMs: 1_000,
				});
				return {
					bytes: openBytes - baseBytes,
					cpu: (1e6 * (cpuSeconds(target.pids) - before)) / times.received,
				};
			},
		);
		rows.push({
			size: String(count),
			cells: [
				mebibytes(found.bytes),
				fixed(found.bytes / 1024 / count),
				fixed(found.cpu),
			],
			figures: { x: count, memory: found.bytes / 2 ** 20, cpu: found.cpu },
		});
	}
	return sectionOf(
		"scale, streams",
		"Open streams",
		[
			"CPU: of a token where all streams together have 2,000 a second; a few streams' is that of a core that sleeps in between",
			`the queue is off where there are more than ${whole(mostParallel)}, the most that it lets run at once`,
		],
		["streams", "memory grown by", "KiB a stream", "CPU µs a token"],
		rows,
	);
}

async function byBodySize(
	stage: Stage,
	direction: "up" | "down",
): Promise<Section[]> {
	const rows = [];
	const sizes = stage.quick
		? [1e3, 1e6, 1e8]
		: [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 2e10];
	for (const bytes of sizes) {
		const found = await withGate(
			stage,
			`scale: ${whole(bytes)} bytes ${direction}`,
			{},
			(target) =>
				measureBulk(stage, target, () =>
					direction === "up"
						? upload(stage, target, bytes)
						: download(stage, target, bytes),
				),
		);
		rows.push({
			size: whole(bytes),
			cells: [
				fixed(found.cpuPerGigabyte, 2),
				mebibytes(found.grownBytes),
				whole(found.megabytesPerSecond),
			],
			figures: {
				x: bytes,
				cpu: found.cpuPerGigabyte * (bytes / 1e9),
				memory: found.grownBytes / 2 ** 20,
			},
		});
	}
	return sectionOf(
		`scale, body ${direction}`,
		direction === "up" ? "Size of a request's body" : "Size of a reply",
		["memory: how much the process's highest residence grew meanwhile"],
		["bytes", "CPU s a GB", "memory grown by", "MB/s"],
		rows,
	);
}

/** Several, so that a machine that slows down meanwhile slows all of them down. */
const turns = 3;

/** The first and the last of the route table, and one that has a name in it. */
async function byRoute(stage: Stage): Promise<Section[]> {
	const costs = new Map<string, number[]>(
		["/api/version", "/api/tags", "/v1/models", "/v1/models/bench"].map(
			(path) => [path, []],
		),
	);
	await withWarmGate(stage, "scale: routes", {}, async (target) => {
		for (let turn = 0; turn < turns; turn++)
			for (const [path, found] of costs)
				found.push(await cpuOfRequest(stage, target, path));
	});
	return costSection(
		"scale, routes",
		"Place in the route table",
		"route",
		"a path is looked up by its text, so its place is no matter; one gate, by turns",
		costs,
	);
}

async function byLog(stage: Stage): Promise<Section[]> {
	const costs = new Map<string, number[]>([
		["none", []],
		["a line a request", []],
	]);
	for (let turn = 0; turn < turns; turn++)
		for (const [log, found] of costs)
			found.push(
				await withWarmGate(
					stage,
					`scale: log, ${log}`,
					{ logLevel: log === "none" ? "error" : "info" },
					(target) => cpuOfRequest(stage, target),
				),
			);
	return costSection(
		"scale, log",
		"Log lines",
		"log",
		"written to a file; gates by turns",
		costs,
	);
}

function costSection(
	name: string,
	title: string,
	what: string,
	note: string,
	costs: ReadonlyMap<string, readonly number[]>,
): Section[] {
	const rows = [...costs].map(([size, found]) => ({
		size,
		cells: [fixed(median(found))],
		figures: { cpu: median(found) },
	}));
	return sectionOf(
		name,
		title,
		[`${note}; median of ${turns}`],
		[what, "CPU µs a request"],
		rows,
	);
}
