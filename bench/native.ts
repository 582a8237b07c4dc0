import type { ChildProcess } from "node:child_process";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { start, stop } from "./processes.ts";

/**
 * The load generator and the upstream, in C: written in JavaScript they would
 * be slower than what they measure.
 */
export interface Native {
	readonly client: string;
	readonly upstream: string;
}

/** Compiles both into a folder. @throws with what to install if there is no compiler */
export function compile(folder: string): Native {
	const built = (name: string) => {
		const source = fileURLToPath(new URL(`native/${name}.c`, import.meta.url));
		const program = path.join(folder, name);
		const { error, status, stderr } = spawnSync(
			"cc",
			["-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source],
			{ encoding: "utf8" },
		);
		if (error !== undefined)
			throw new Error(
				"the benchmark's load generator is C: apt-get install gcc libc6-dev",
			);
		if (status !== 0) throw new Error(`${name}.c does not compile:\n${stderr}`);
		return program;
	};
	return { client: built("client"), upstream: built("upstream") };
}

/** Options of the load generator (see native/client.c). */
export type LoadOptions = Readonly<Record<string, string | number>>;

/** Quantiles in nanoseconds; without a sample there are none. */
export interface Times {
	readonly count: number;
	readonly p50?: number;
	readonly p90?: number;
	readonly p99?: number;
	readonly p999?: number;
	readonly max?: number;
}

/** What `mode=streams` reports. */
export interface StreamTimes {
	readonly firstToken: Times;
	readonly chunk: Times;
	readonly received: number;
	readonly tokensPerSecond: number;
	readonly bytesPerSecond: number;
	readonly lost: number;
}

/** What `mode=requests` reports. */
export interface RequestCounts {
	readonly latency: Times;
	readonly answered: number;
	readonly answeredPerSecond: number;
	readonly connects: number;
	readonly errors: number;
	readonly statuses: Readonly<Record<string, number>>;
}

/** A load that has been started and ends by itself. */
export interface RunningLoad {
	readonly child: ChildProcess;
	/** Every line that it prints. @throws if it fails */
	readonly lines: Promise<string[]>;
}

export function startLoad(native: Native, options: LoadOptions): RunningLoad {
	const child = start(
		[
			native.client,
			...Object.entries(options).map(([name, value]) => `${name}=${value}`),
		],
		{ stdio: ["ignore", "pipe", "pipe"] },
	);
	let [out, errors] = ["", ""];
	child.stdout?.setEncoding("utf8").on("data", (text: string) => {
		out += text;
	});
	child.stderr?.setEncoding("utf8").on("data", (text: string) => {
		errors += text;
	});
	const lines = once(child, "close").then(([code]) => {
		if (code !== 0) throw new Error(errors.trim() || `it ended with ${code}`);
		return out.trimEnd().split("\n");
	});
	// Whoever started it may look only later.
	lines.catch(() => {});
	return { child, lines };
}

/** Runs a load to its end and returns the report that it prints last. */
export async function runLoad<T>(
	native: Native,
	options: LoadOptions,
): Promise<T> {
	const lines = await startLoad(native, options).lines;
	return JSON.parse(lines.at(-1) ?? "") as T;
}

/** The stand-in for Ollama. */
export interface Upstream {
	readonly port: number;
	readonly child: ChildProcess;
	/** What it says of requests with `"report":1`, in order: `came NS`, `gone NS`. */
	readonly events: string[];
	stop(): Promise<void>;
}

export async function startUpstream(native: Native): Promise<Upstream> {
	const child = start([native.upstream], {
		stdio: ["pipe", "pipe", "inherit"],
	});
	if (child.stdout === null) throw new Error("the upstream has no output");
	const events: string[] = [];
	const lines = createInterface({ input: child.stdout });
	const [port] = (await once(lines, "line")) as [string];
	lines.on("line", (line) => events.push(line));
	return { port: Number(port), child, events, stop: () => stop(child) };
}
