import { readdirSync, readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";

/** The memory that a process has now, in MiB (proc_pid_status(5)). */
export async function memoryMiB(pid: number | undefined): Promise<number> {
	const status = await readFile(`/proc/${pid}/status`, "utf8");
	return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) / 1024;
}

/** How many file descriptors a process has open. */
export async function descriptorsOf(pid: number | undefined): Promise<number> {
	return (await readdir(`/proc/${pid}/fd`)).length;
}

/** What a process has started, by any of its threads (proc_pid_task(5)); nothing of one that has ended. */
export function childrenOf(pid: number | undefined): number[] {
	const threads = `/proc/${pid}/task`;
	const orNothing = <T>(read: () => T[]): T[] => {
		try {
			return read();
		} catch {
			return [];
		}
	};
	return orNothing(() => readdirSync(threads)).flatMap((thread) =>
		orNothing(() =>
			readFileSync(`${threads}/${thread}/children`, "utf8")
				.split(" ")
				.filter(Boolean)
				.map(Number),
		),
	);
}
