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
