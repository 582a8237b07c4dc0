import { once } from "node:events";
import { versionOf } from "./machine.ts";
import { cpuSeconds, runHelper, start } from "./processes.ts";
import type { Target } from "./targets.ts";

/** Requests as fast as they are answered. */
export interface Load {
	readonly path: string;
	readonly authorization: string | undefined;
	readonly connections: number;
	readonly seconds: number;
	/** Every reply must have a status of this kind, or nothing was measured. */
	readonly expect: "2xx" | "other";
}

export interface LoadResult {
	readonly requestsPerSecond: number;
	/** Of the target's processes, for each request. */
	readonly cpuMicroseconds: number;
	/** The share of one core that the target used. */
	readonly coreShare: number;
}

interface Counts {
	readonly requests: number;
	readonly seconds: number;
	readonly not2xx: number;
	readonly errors: number;
}

export const generator =
	versionOf("wrk") === undefined ? "helpers/loadGenerator.ts" : "wrk";

/** @throws if the replies were not as expected */
export async function putLoad(target: Target, load: Load): Promise<LoadResult> {
	const cpuBefore = cpuSeconds(target.pids);
	const startedAt = performance.now();
	const counts = await (generator === "wrk" ? runWrk : runOwn)(target, load);
	const elapsedSeconds = (performance.now() - startedAt) / 1000;
	const cpu = cpuSeconds(target.pids) - cpuBefore;
	const { requests, seconds, not2xx, errors } = counts;
	if (requests === 0) throw new Error("no request was answered");
	if (errors > 0) throw new Error(`${errors} connections failed`);
	const unexpected = load.expect === "2xx" ? not2xx : requests - not2xx;
	if (unexpected > 0)
		throw new Error(`${unexpected} of ${requests} replies had another status`);
	return {
		requestsPerSecond: requests / seconds,
		cpuMicroseconds: (1e6 * cpu) / requests,
		coreShare: cpu / elapsedSeconds,
	};
}

function headersOf({ authorization }: Load): string[] {
	return authorization === undefined ? [] : [`Authorization: ${authorization}`];
}

async function runWrk(target: Target, load: Load): Promise<Counts> {
	const child = start(
		[
			"wrk",
			"-t1",
			`-c${load.connections}`,
			`-d${load.seconds}s`,
			...headersOf(load).flatMap((header) => ["-H", header]),
			`http://127.0.0.1:${target.port}${load.path}`,
		],
		{ stdio: ["ignore", "pipe", "inherit"] },
	);
	let output = "";
	child.stdout?.setEncoding("utf8").on("data", (text: string) => {
		output += text;
	});
	await once(child, "close");
	const number = (pattern: RegExp) => Number(pattern.exec(output)?.[1] ?? 0);
	const errors = /Socket errors: connect (\d+), read (\d+), write (\d+)/.exec(
		output,
	);
	const requests = number(/(\d+) requests in /);
	return {
		requests,
		seconds: requests / number(/Requests\/sec:\s*([\d.]+)/),
		not2xx: number(/Non-2xx or 3xx responses: (\d+)/),
		errors: errors?.slice(1).reduce((sum, one) => sum + Number(one), 0) ?? 0,
	};
}

function runOwn(target: Target, load: Load): Promise<Counts> {
	return runHelper<Counts>(
		"loadGenerator.ts",
		{ port: target.port, headers: headersOf(load), ...load },
		(load.seconds + 10) * 1000,
	);
}
