import { readdir, readFile, readlink } from "node:fs/promises";
import { runsProgram } from "./sockets.ts";

/** The processes that call themselves so, or are of a program with this file name. */
export async function processesNamed(name: string): Promise<number[]> {
	const found: number[] = [];
	for (const entry of await readdir("/proc")) {
		if (!/^\d+$/.test(entry)) continue;
		const pid = Number(entry);
		const comm = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "");
		if (comm.trim() === name || (await runsProgram(pid, name))) found.push(pid);
	}
	return found;
}

/** The network of a process, as the kernel names it; `undefined` where this user may not see it. */
export function networkOf(pid: number | "self"): Promise<string | undefined> {
	return readlink(`/proc/${pid}/ns/net`).catch(() => undefined);
}
