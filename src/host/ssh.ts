import { readFile } from "node:fs/promises";
import { listeningSockets } from "./listeningSockets.ts";
import { outputOf } from "./program.ts";

/** The ports that sshd has open, or would open; by its sockets, its configuration and its socket unit. */
export async function sshPorts(): Promise<number[]> {
	const ports = new Set<number>();
	// Any user may call a program so, and would have a port opened for it.
	const roots = await portsOfRoot();
	// Any user may call a program so, and would have a port opened for it.
	for (const { port, programs } of await listeningSockets())
		if (programs.includes("sshd") && roots.has(port)) ports.add(port);
	const settings = await outputOf("sshd", "-T");
	for (const [, port] of settings?.matchAll(/^port (\d+)$/gm) ?? [])
		ports.add(Number(port));
	// Where systemd listens for sshd, its configuration has no say.
	for (const name of ["ssh.socket", "sshd.socket"]) {
		const shown = await outputOf(
			"systemctl",
			"show",
			name,
			"--property=Listen",
		);
		const active = await outputOf("systemctl", "is-active", name);
		if (active?.trim() !== "active") continue;
		for (const [, port] of shown?.matchAll(/:(\d+) \(Stream\)/g) ?? [])
			ports.add(Number(port));
	}
	return [...ports].sort((a, b) => a - b);
}

async function portsOfRoot(): Promise<Set<number>> {
	const tables = await Promise.all(
		["/proc/net/tcp", "/proc/net/tcp6"].map((file) =>
			// A kernel without IPv6 has no second one.
			readFile(file, "latin1").catch(() => ""),
		),
	);
	return new Set(tables.flatMap(parsePortsOfRoot));
}

/** Reads from /proc/net/tcp the ports on which root listens; proc_pid_net(5) has its columns. */
export function parsePortsOfRoot(table: string): number[] {
	return table.split("\n").flatMap((line) => {
		const [, local, , state, , , , user] = line.trim().split(/\s+/);
		return state === "0A" && user === "0"
			? Number.parseInt(local?.split(":")[1] ?? "", 16)
			: [];
	});
}

/** The SSH connection that a person sits on. */
export interface SshConnection {
	readonly clientAddress: string;
	/** The port of this host. */
	readonly serverPort: number;
}

/** The connection over which this command was started; sudo takes it out of the environment, so its ancestors are asked. */
export async function currentSshConnection(): Promise<
	SshConnection | undefined
> {
	let pid = String(process.pid);
	while (pid !== "0" && pid !== "1") {
		const environ = await readFile(`/proc/${pid}/environ`, "latin1").catch(
			() => "",
		);
		const value = environ
			.split("\0")
			.find((entry) => entry.startsWith("SSH_CONNECTION="));
		const [clientAddress, , , serverPort] =
			value?.slice("SSH_CONNECTION=".length).split(" ") ?? [];
		if (clientAddress !== undefined && serverPort !== undefined)
			return { clientAddress, serverPort: Number(serverPort) };
		const stat = await readFile(`/proc/${pid}/stat`, "latin1").catch(() => "");
		// The name in the second field may hold anything, brackets too.
		const parent = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1];
		if (parent === undefined) return undefined;
		pid = parent;
	}
	return undefined;
}

/** The person behind sudo, or root itself. */
export function loginUser(): string {
	return process.env.SUDO_USER ?? "root";
}
