import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import { pinning, ticksPerSecond } from "./processes.ts";
import type { Stage } from "./targets.ts";

/** The most of it in one line. */
export function describeBriefly(
	machine: readonly (readonly [string, string])[],
): string {
	return ["date", "machine", "node"]
		.map((wanted) => machine.find(([name]) => name === wanted)?.[1])
		.join("; ");
}

/** What the figures depend on, as names and values. */
export function describeMachine(stage: Stage): [string, string][] {
	const gib = totalmem() / 2 ** 30;
	return [
		["date", new Date().toISOString()],
		[
			"machine",
			`${cpus()[0]?.model ?? "unknown CPU"}, ${cpus().length} cores, ${gib.toFixed(0)} GiB, Linux ${release()}`,
		],
		["pinning", pinning.description],
		["node", process.version],
		...(["nginx", "haproxy", "caddy"] as const).map(
			(name): [string, string] => [
				name,
				versionOf(name) ?? "not found, so not measured",
			],
		),
		[
			"logs",
			stage.peerLog
				? "the gate and its peers write one line a request to a file"
				: "the gate writes one line a request to a file, its peers none",
		],
		["kind of run", stage.quick ? "quick" : "full"],
		["load average at the start", loadavg()[0]?.toFixed(2) ?? "unknown"],
	];
}

/** The version of an installed program, or `undefined` if there is none. */
export function versionOf(
	name: "nginx" | "haproxy" | "caddy",
): string | undefined {
	const args = { nginx: ["-v"], haproxy: ["-v"], caddy: ["version"] }[name];
	const { error, stdout, stderr } = spawnSync(name, args, { encoding: "utf8" });
	if (error !== undefined) return undefined;
	const [line = ""] = `${stdout}${stderr}`.trim().split("\n");
	return /\d[\w.:+-]*/.exec(line)?.[0] ?? line;
}

interface CpuTimes {
	readonly allTicks: number;
	readonly busyTicks: number;
	readonly ownTicks: number;
}

/** Clock ticks since boot: of the machine, and of this process with the children it has waited for. */
export function readCpuTimes(): CpuTimes {
	const [, ...ticks] = (readFileSync("/proc/stat", "utf8").split("\n")[0] ?? "")
		.split(/\s+/)
		.map(Number);
	// proc(5): user nice system idle iowait irq softirq steal; guest time is in user already.
	const allTicks = ticks.slice(0, 8).reduce((sum, value) => sum + value, 0);
	const idleTicks = (ticks[3] ?? 0) + (ticks[4] ?? 0);
	const own = readFileSync("/proc/self/stat", "utf8");
	const fields = own.slice(own.lastIndexOf(")") + 2).split(" ");
	const ownTicks = fields
		.slice(11, 15)
		.reduce((sum, field) => sum + Number(field), 0);
	return { allTicks, busyTicks: allTicks - idleTicks, ownTicks };
}

/** How much of the machine went to anything but this run, with all its processes stopped by now. */
export function foreignCpuShare(before: CpuTimes): string {
	const after = readCpuTimes();
	// The two are counted apart and do not agree to the tick.
	const foreign = Math.max(
		0,
		after.busyTicks - before.busyTicks - (after.ownTicks - before.ownTicks),
	);
	const share = foreign / (after.allTicks - before.allTicks);
	return `${(100 * share).toFixed(1)} % of all cores (${(foreign / ticksPerSecond).toFixed(0)} CPU seconds; steal and interrupts are among them)`;
}
