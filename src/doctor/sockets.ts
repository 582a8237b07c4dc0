import { readlink } from "node:fs/promises";
import path from "node:path";
import {
	type ListeningSocket,
	parseListeningSockets,
} from "../host/listeningSockets.ts";
import { runProgram } from "../host/program.ts";

/** A TCP socket that listens, and the processes that hold it. */
export interface OwnedSocket extends ListeningSocket {
	/** Empty without root. */
	readonly pids: readonly number[];
}

/** Every TCP socket of this network that listens, by the kernel's account. @throws if `ss` does not run */
export async function ownedSockets(): Promise<OwnedSocket[]> {
	const { code, stdout, stderr } = await runProgram(
		"ss -H -O -l -n -t -p".split(" "),
	);
	if (code !== 0)
		throw new Error(
			`ss does not run (${stderr.trim() || `exit ${code}`}); install iproute2`,
		);
	return parseOwnedSockets(stdout);
}

/**
 * Reads what `ss -H -O -l -n -t -p` prints. A program's name is printed as it is,
 * so what goes on behind a line break in one is passed over.
 *
 * @throws if no line is of its form
 */
export function parseOwnedSockets(output: string): OwnedSocket[] {
	const lines = output.split("\n").filter((line) => line.trim() !== "");
	const sockets = lines.flatMap((line) => {
		const [socket] = line.startsWith("LISTEN ")
			? parseListeningSockets(line)
			: [];
		if (
			socket === undefined ||
			!Number.isInteger(socket.port) ||
			socket.address === ""
		)
			return [];
		const pids = [...line.matchAll(/,pid=(\d+),/g)].map(([, pid]) =>
			Number(pid),
		);
		return { ...socket, pids: [...new Set(pids)] };
	});
	if (lines.length > 0 && sockets.length === 0)
		throw new Error(`ss printed a line that cannot be read: ${lines[0]}`);
	return sockets;
}

/** Whether a process is of a program with this file name; false where that cannot be seen. */
export async function runsProgram(pid: number, name: string): Promise<boolean> {
	const file = await readlink(`/proc/${pid}/exe`).catch(() => "");
	return path.basename(file.replace(/ \(deleted\)$/, "")) === name;
}
