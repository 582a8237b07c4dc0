import { readFile, readlink } from "node:fs/promises";
import path from "node:path";
import { visibleLine } from "../visible.ts";
import { holdersOf, nameOf } from "./sockets.ts";

/**
 * Who listens on a TCP port of this host, without starting a program for it:
 * `another program: ollama (pid 812)`, or where this user may not see that, how
 * to find out.
 */
export async function describePortHolder(port: number): Promise<string> {
	const inodes = new Set<number>();
	for (const table of ["/proc/net/tcp", "/proc/net/tcp6"]) {
		const text = await readFile(table, "utf8").catch(() => "");
		// proc_net_tcp(5): local_address is the second, 0A in the fourth is LISTEN, the tenth is the inode.
		for (const line of text.split("\n").slice(1)) {
			const [, local = "", , state, , , , , , inode] = line.trim().split(/\s+/);
			if (
				state === "0A" &&
				Number.parseInt(local.split(":")[1] ?? "", 16) === port
			)
				inodes.add(Number(inode));
		}
	}
	const holders = await holdersOf(inodes).catch(() => new Map());
	const pids = [...new Set([...holders.values()].flat() as number[])];
	const named = await Promise.all(pids.map(describe));
	return named.length > 0
		? `another program: ${named.join(", ")}`
		: `another program; to see which: sudo ss -ltnp 'sport = :${port}'`;
}

async function describe(pid: number): Promise<string> {
	const [name = "?"] = await nameOf(pid);
	// What every program of Node calls itself unless it says otherwise.
	if (name !== "MainThread") return `${name} (pid ${pid})`;
	const file = await readlink(`/proc/${pid}/exe`).catch(() => name);
	return `${visibleLine(path.basename(file))} (pid ${pid})`;
}
