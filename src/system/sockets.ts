import { readlinkSync } from "node:fs";
import { readdir, readFile, readlink } from "node:fs/promises";
import path from "node:path";
import { isLoopbackAddress } from "../net/ranges.ts";
import { visibleLine } from "../visible.ts";

import { readGuard } from "./guard.ts";
import { missingProgram, runProgram } from "./run.ts";

/** A socket as `ss` shows it. */
export interface KernelSocket {
	readonly protocol: "tcp" | "udp";
	/** `*` where it takes any address of either family. */
	readonly address: string;
	/** The interface that it is bound to. Of a {@link ListeningSocket}: or that the gate's guard holds it to. */
	readonly device: string | undefined;
	readonly port: number;
	/** Whose process made it. */
	readonly uid: number;
	/** Its number, by which a process holds it; 0 for one of the kernel's own. */
	readonly inode: number;
}

/** A socket of this host that waits for others, and who holds it. */
export interface ListeningSocket extends KernelSocket {
	/** The processes that hold it; empty where that cannot be seen, as without root. */
	readonly pids: readonly number[];
	/** What those call themselves, for people: any user may give a program any name. */
	readonly programs: readonly string[];
}

/** Every TCP socket that listens. @throws if `ss` does not run, or who holds them takes too long to see */
export async function listeningSockets(): Promise<ListeningSocket[]> {
	return (await waitingSockets()).filter(({ protocol }) => protocol === "tcp");
}

/** The same, and every UDP socket that takes packets from anybody. */
export async function waitingSockets(): Promise<ListeningSocket[]> {
	// Not -p: there the names stand among the fields, as their programs chose them.
	const { code, stdout, stderr } = await runProgram(
		"ss -H -O -l -n -t -u -e".split(" "),
	);
	if (code !== 0)
		throw new Error(
			code === 127
				? missingProgram("ss")
				: `ss does not run: ${stderr.trim() || `exit ${code}`}`,
		);
	const sockets = parseSockets(stdout);
	const holders = await holdersOf(new Set(sockets.map(({ inode }) => inode)));
	const guard = await readGuard();
	return Promise.all(
		sockets.map(async (socket) => {
			const pids = holders.get(socket.inode) ?? [];
			const names = await Promise.all(pids.map(nameOf));
			return {
				...socket,
				device: socket.device ?? guard.holding(socket)[0]?.device,
				pids,
				programs: [...new Set(names.flat())],
			};
		}),
	);
}

/**
 * Reads what `ss -H -O -l -n -t -u -e` prints:
 * `tcp LISTEN 0 128 [fd7a::1]%tailscale0:22 [::]:* uid:1000 ino:7 sk:1 cgroup:/a v6only:1 <->`.
 *
 * @throws if a line is not of its form
 */
export function parseSockets(output: string): KernelSocket[] {
	return output
		.split("\n")
		.filter((line) => line.trim() !== "")
		.map((line) => {
			const [, protocol, host, port, rest = ""] =
				/^(tcp|udp)\s+\S+\s+\d+\s+\d+\s+(\S+):(\d+)\s+\S+(.*)$/.exec(line) ??
				[];
			// The first of each: a cgroup's name, which follows, may hold anything.
			const [, uid = "0", inode] =
				/^.*?(?: uid:(\d+))? ino:(\d+)/.exec(rest) ?? [];
			if (host === undefined || inode === undefined)
				throw new Error(`ss printed a line that cannot be read: ${line}`);
			const [address = "", device] = host.replace(/[[\]]/g, "").split("%");
			return {
				protocol: protocol === "udp" ? "udp" : "tcp",
				address,
				device,
				port: Number(port),
				uid: Number(uid),
				inode: Number(inode),
			};
		});
}

/** So many are looked at in a few seconds; a host has some thousands. */
const mostOpenFiles = 1_000_000;

/** The processes that hold some sockets, by their inodes and the kernel's account of open files. @throws if there are too many of those */
export async function holdersOf(
	inodes: ReadonlySet<number>,
): Promise<Map<number, number[]>> {
	const holders = new Map<number, number[]>();
	let count = 0;
	for (const pid of await readdir("/proc")) {
		if (!/^\d+$/.test(pid)) continue;
		const folder = `/proc/${pid}/fd`;
		// Another user's, or of one that has ended.
		const files = await readdir(folder).catch(() => []);
		count += files.length;
		if (count > mostOpenFiles)
			throw new Error(
				`there are more than ${mostOpenFiles} open files here, too many to see who holds which socket`,
			);
		for (const inode of new Set(
			files.map((file) => socketAt(`${folder}/${file}`)),
		))
			if (inode !== 0 && inodes.has(inode))
				holders.set(inode, [...(holders.get(inode) ?? []), Number(pid)]);
	}
	return holders;
}

/** A socket's number from `socket:[7]`; 0 for an open file of another kind. */
function socketAt(link: string): number {
	try {
		// At once: by way of the thread pool thousands take a second.
		return Number(/^socket:\[(\d+)\]$/.exec(readlinkSync(link))?.[1] ?? 0);
	} catch {
		return 0;
	}
}

/** What a process calls itself, on one line; nothing where it has ended. */
export async function nameOf(pid: number): Promise<string[]> {
	const name = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "");
	return name === "" ? [] : [visibleLine(name.replace(/\n$/, ""))];
}

/** Whether a process is of a program with this file name; false where that cannot be seen. */
export async function runsProgram(pid: number, name: string): Promise<boolean> {
	const file = await readlink(`/proc/${pid}/exe`).catch(() => "");
	return path.basename(file.replace(/ \(deleted\)$/, "")) === name;
}

/** Whether only this host itself can reach it. */
export function isLocalOnly({
	address,
}: Pick<KernelSocket, "address">): boolean {
	return isLoopbackAddress(address);
}

/** `0.0.0.0:11434 (ollama)`, or `0.0.0.0:68/udp (dhclient)`, for people. */
export function formatSocket({
	protocol,
	address,
	device,
	port,
	programs,
}: Omit<ListeningSocket, "uid" | "inode" | "pids">): string {
	const host = address.includes(":") ? `[${address}]` : address;
	const by = programs.length > 0 ? ` (${programs.join(", ")})` : "";
	return `${host}${device === undefined ? "" : `%${device}`}:${port}${protocol === "udp" ? "/udp" : ""}${by}`;
}
