import {
	type ChildProcess,
	type SpawnOptions,
	spawn,
	spawnSync,
} from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

const running = new Set<ChildProcess>();
process.on("exit", () => {
	for (const child of running) child.kill("SIGTERM");
});

/** Which core is whose: what is measured has one to itself, all else runs on another. */
export const pinning = pin();

function pin(): { measured: readonly string[]; description: string } {
	const [first, second] = allowedCores();
	if (first === undefined || second === undefined)
		return {
			measured: [],
			description:
				"none: there is one core, so load and gate get in each other's way",
		};
	// The helpers inherit it.
	const { status } = spawnSync("taskset", [
		"-acp",
		String(second),
		String(process.pid),
	]);
	if (status !== 0)
		return { measured: [], description: "none: taskset was not found" };
	return {
		measured: ["taskset", "-c", String(first)],
		description: `what is measured on core ${first}, load and upstream on core ${second}`,
	};
}

function allowedCores(): number[] {
	const status = readFileSync("/proc/self/status", "utf8");
	const list = /^Cpus_allowed_list:\s*(\S+)/m.exec(status)?.[1] ?? "";
	return list.split(",").flatMap((range) => {
		const [from = 0, to = from] = range.split("-").map(Number);
		return Array.from({ length: to - from + 1 }, (_, index) => from + index);
	});
}

/** Starts a program; it is stopped at the end of the run at the latest. */
export function start(
	command: readonly string[],
	options: SpawnOptions,
): ChildProcess {
	const [program = "", ...args] = command;
	const child = spawn(program, args, options);
	running.add(child);
	child.on("exit", () => running.delete(child));
	// It could not be started: whoever waits for it sees no message and no port.
	child.on("error", () => running.delete(child));
	return child;
}

/** Ends a process that was started here. */
export async function stop(child: ChildProcess): Promise<void> {
	if (!running.has(child)) return;
	const exited = once(child, "exit");
	child.kill("SIGTERM");
	const timer = setTimeout(() => child.kill("SIGKILL"), 3_000);
	await exited;
	clearTimeout(timer);
}

export async function stopAll(): Promise<void> {
	await Promise.all([...running].map(stop));
}

/** Has Ctrl-C, or SIGTERM, end all of it. */
export function stopAllOnSignals(): void {
	for (const signal of ["SIGINT", "SIGTERM"] as const)
		process.once(signal, () => void stopAll().then(() => process.exit(1)));
}

/** A process and its children (nginx's workers) as they are now. */
export function withChildren(pid: number): number[] {
	const children = readdirSync("/proc").filter(
		(name) => /^\d+$/.test(name) && statFields(Number(name))?.[1] === `${pid}`,
	);
	return [pid, ...children.map(Number)];
}

/** The fields of /proc/PID/stat from `state` on (proc(5)); `undefined` if it has gone. */
function statFields(pid: number): string[] | undefined {
	try {
		const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
		return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
	} catch {
		return undefined;
	}
}

export const ticksPerSecond =
	Number(spawnSync("getconf", ["CLK_TCK"], { encoding: "utf8" }).stdout) || 100;

/** Time on a core that processes have used so far, from the scheduler's own account (ns). */
export function cpuSeconds(pids: readonly number[]): number {
	let nanoseconds = 0;
	for (const pid of pids)
		for (const thread of readdirSync(`/proc/${pid}/task`))
			try {
				const account = readFileSync(
					`/proc/${pid}/task/${thread}/schedstat`,
					"latin1",
				);
				nanoseconds += Number(account.split(" ")[0]);
			} catch {
				// The thread has just ended.
			}
	return nanoseconds / 1e9;
}

/** `VmRSS` (now) or `VmHWM` (peak) of processes together, in bytes. */
export function residentBytes(
	pids: readonly number[],
	field: "VmRSS" | "VmHWM",
): number {
	let kibibytes = 0;
	for (const pid of pids) {
		const status = readFileSync(`/proc/${pid}/status`, "latin1");
		const value = new RegExp(`^${field}:\\s*(\\d+) kB`, "m").exec(status)?.[1];
		if (value === undefined) throw new Error(`process ${pid} has no ${field}`);
		kibibytes += Number(value);
	}
	return kibibytes * 1024;
}

/** Makes `VmHWM` start anew from what is resident now (proc(5), clear_refs). */
export function resetPeak(pids: readonly number[]): void {
	for (const pid of pids) writeFileSync(`/proc/${pid}/clear_refs`, "5");
}

/**
 * The memory that a process would give back if it ended now: what it shares with
 * others counts for its part (Linux, `smaps_rollup`: Pss).
 */
export function proportionalBytes(pid: number): number {
	const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "latin1");
	return 1024 * Number(/^Pss:\s+(\d+) kB$/m.exec(rollup)?.[1]);
}
