import {
	type ChildProcess,
	type SpawnOptions,
	spawn,
	spawnSync,
} from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

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

/** Starts a file of helpers/ with one argument, as a process that talks by messages. */
export function startHelper(file: string, argument: unknown): ChildProcess {
	const script = fileURLToPath(new URL(`helpers/${file}`, import.meta.url));
	return start([process.execPath, script, JSON.stringify(argument)], {
		stdio: ["ignore", "inherit", "inherit", "ipc"],
	});
}

/** The next message of a helper. @throws if it ends without one, or none comes in time */
export async function nextMessage<T>(
	helper: ChildProcess,
	timeoutMs: number,
): Promise<T> {
	const { promise, resolve, reject } = Promise.withResolvers<T>();
	const onExit = () => reject(new Error("a helper process ended early"));
	const timer = setTimeout(
		() => reject(new Error(`nothing was heard for ${timeoutMs} ms`)),
		timeoutMs,
	);
	helper.once("message", resolve);
	helper.once("exit", onExit);
	return promise.finally(() => {
		clearTimeout(timer);
		helper.off("message", resolve);
		helper.off("exit", onExit);
	});
}

/** Runs a helper that does one thing and reports once. */
export async function runHelper<T>(
	file: string,
	argument: unknown,
	timeoutMs: number,
): Promise<T> {
	const helper = startHelper(file, argument);
	try {
		return await nextMessage<T>(helper, timeoutMs);
	} finally {
		await stop(helper);
	}
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

/** User and system time that processes have used so far. */
export function cpuSeconds(pids: readonly number[]): number {
	let ticks = 0;
	for (const pid of pids) {
		const fields = statFields(pid);
		ticks += Number(fields?.[11] ?? 0) + Number(fields?.[12] ?? 0);
	}
	return ticks / ticksPerSecond;
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
