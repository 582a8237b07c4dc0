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

/** Reads what `ss -H -O -l -n -t -p` prints. @throws if a line is not of its form */
export function parseOwnedSockets(output: string): OwnedSocket[] {
	return output
		.split("\n")
		.filter((line) => line.trim() !== "")
		.map((line) => {
			const [socket] = parseListeningSockets(line);
			if (
				socket === undefined ||
				!Number.isInteger(socket.port) ||
				socket.address === ""
			)
				throw new Error(`ss printed a line that cannot be read: ${line}`);
			const pids = [...line.matchAll(/,pid=(\d+),/g)].map(([, pid]) =>
				Number(pid),
			);
			return { ...socket, pids: [...new Set(pids)] };
		});
}

/** Whether a process is of a program with this file name; false where that cannot be seen. */
export async function runsProgram(pid: number, name: string): Promise<boolean> {
	const file = await readlink(`/proc/${pid}/exe`).catch(() => "");
	return path.basename(file.replace(/ \(deleted\)$/, "")) === name;
}
