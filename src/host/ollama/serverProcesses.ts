import { readdir, readFile, readlink } from "node:fs/promises";
import { networkOf, processesNamed } from "../../system/processes.ts";
import type { ListeningSocket } from "../../system/sockets.ts";

/** A process that serves as Ollama. */
export interface Server {
	readonly pid: number;
	/** Where it listens, as far as this network's sockets tell. */
	readonly sockets: readonly ListeningSocket[];
	/** Not in this network, as in a container. */
	readonly isElsewhere: boolean;
	/** As it was started; `undefined` where this user may not see it. */
	readonly environment: ReadonlyMap<string, string> | undefined;
}

/** Ollama's servers among the processes of this host. */
export async function findServers(
	sockets: readonly ListeningSocket[],
): Promise<Server[]> {
	const servers: Server[] = [];
	const own = await networkOf("self");
	for (const pid of await processesNamed("ollama")) {
		const held = sockets.filter(({ pids }) => pids.includes(pid));
		const network = await networkOf(pid);
		const isElsewhere =
			network !== undefined && own !== undefined && network !== own;
		// The command listens nowhere.
		if (held.length === 0 && !(isElsewhere && (await isServing(pid)))) continue;
		servers.push({
			pid,
			sockets: held,
			isElsewhere,
			environment: await environmentOf(pid),
		});
	}
	return servers;
}

/** Whether a process holds a TCP socket that listens, in whichever network. */
async function isServing(pid: number): Promise<boolean> {
	const tables = await Promise.all(
		["tcp", "tcp6"].map((table) =>
			readFile(`/proc/${pid}/net/${table}`, "utf8").catch(() => ""),
		),
	);
	const listening = new Set(tables.flatMap(listeningInodes));
	const open = await readdir(`/proc/${pid}/fd`).catch(() => []);
	for (const fd of open) {
		const file = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => "");
		const [, inode = ""] = /^socket:\[(\d+)\]$/.exec(file) ?? [];
		if (listening.has(inode)) return true;
	}
	return false;
}

/** The inodes of the listening sockets in a text of `/proc/net/tcp` (proc_net_tcp.txt: the state is 0A). */
function listeningInodes(table: string): string[] {
	return table.split("\n").flatMap((line) => {
		const columns = line.trim().split(/\s+/);
		return columns[3] === "0A" && columns[9] !== undefined ? [columns[9]] : [];
	});
}

async function environmentOf(
	pid: number,
): Promise<ReadonlyMap<string, string> | undefined> {
	const text = await readFile(`/proc/${pid}/environ`, "utf8").catch(
		() => undefined,
	);
	return text === undefined ? undefined : parseEnvironment(text);
}

/** What is longer tells nothing, and may be there to keep this busy: any user may name a program ollama. */
export const longestValue = 1_024;

/**
 * Reads `/proc/PID/environ`. Of a name that is there twice, the first counts, as it
 * does for getenv(3). Of a value that is too long, one character too many is kept.
 */
export function parseEnvironment(text: string): Map<string, string> {
	const environment = new Map<string, string>();
	for (const word of text.split("\0")) {
		const equals = word.indexOf("=");
		if (equals <= 0) continue;
		const name = word.slice(0, equals);
		if (!environment.has(name))
			environment.set(
				name,
				word.slice(equals + 1, equals + 1 + longestValue + 1),
			);
	}
	return environment;
}
