import { readFile } from "node:fs/promises";
import { type Container, openPorts } from "../../system/docker.ts";
import { isWildcard } from "../../system/httpProbe.ts";
import { type ListeningSocket, runsProgram } from "../../system/sockets.ts";
import { isHeldByGate } from "../gate/inspect.ts";

/** Sockets of the port that neither the unit's processes, nor a container, nor the gate hold. */
export async function foreignAmong(
	sockets: readonly ListeningSocket[],
	{
		gate,
		ports,
		running,
		mainPid,
		hasUnit,
	}: {
		readonly ports: readonly number[];
		readonly gate: Parameters<typeof isHeldByGate>[1];
		readonly running: readonly Container[];
		readonly mainPid: number | undefined;
		readonly hasUnit: boolean;
	},
): Promise<ListeningSocket[]> {
	const mains = [mainPid, ...running.map(({ State }) => State.Pid)];
	const groups = new Set(
		(await Promise.all(mains.map(controlGroupOf))).filter(Boolean),
	);
	const foreign: ListeningSocket[] = [];
	for (const socket of sockets) {
		// systemd may have opened it for another.
		const holders = socket.pids.filter((pid) => pid !== 1);
		if (
			!ports.includes(socket.port) ||
			socket.pids.length === 0 ||
			isHeldByGate(socket, gate) ||
			running.some((container) => isPublishedAt(container, socket))
		)
			continue;
		const areKnown = await Promise.all(
			holders.map(async (pid) =>
				hasUnit
					? groups.has(await controlGroupOf(pid))
					: groups.has(await controlGroupOf(pid)) ||
						socket.programs.includes("ollama") ||
						runsProgram(pid, "ollama"),
			),
		);
		if (holders.length === 0 || areKnown.includes(false)) foreign.push(socket);
	}
	return foreign;
}

function isPublishedAt(container: Container, socket: ListeningSocket): boolean {
	return openPorts(container).some(
		({ hostAddress, hostPort }) =>
			hostPort === socket.port &&
			(["0.0.0.0", "::"].includes(hostAddress)
				? isWildcard(socket)
				: hostAddress === socket.address),
	);
}

/** The control groups that systemd or Docker put a process into, as the kernel lists them; no user's program leaves them for another's. */
async function controlGroupOf(
	pid: number | undefined,
): Promise<string | undefined> {
	if (pid === undefined || pid <= 0) return undefined;
	return readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => undefined);
}
