import { readFile, stat } from "node:fs/promises";
import { listeningSockets } from "./listeningSockets.ts";
import { outputOf } from "./program.ts";

/** The ports that sshd has open, or would open; by its sockets, its configuration and its socket unit. */
export async function sshPorts(): Promise<number[]> {
	const ports = new Set<number>();
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
	// Whatever is named so there: a rule that lets SSH in must never open Ollama's port.
	ports.delete(11434);
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

/** This process, its parent, and so on, but for the first of all. */
async function* lineage(): AsyncGenerator<string> {
	let pid = String(process.pid);
	while (pid !== "0" && pid !== "1") {
		yield pid;
		const status = await readFile(`/proc/${pid}/stat`, "latin1").catch(
			() => "",
		);
		// The name in the second field may hold anything, brackets too.
		const parent = status.slice(status.lastIndexOf(")") + 2).split(" ")[1];
		if (parent === undefined) return;
		pid = parent;
	}
}

/** The connection over which this command was started; sudo takes it out of the environment, so its ancestors are asked. */
export async function currentSshConnection(): Promise<
	SshConnection | undefined
> {
	for await (const pid of lineage()) {
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
	}
	return undefined;
}

/**
 * Every SSH connection that is open on one of these ports. In tmux or screen, and
 * after "sudo su -" in some of them, nothing tells which is the person's own.
 */
export async function openSshConnections(
	ports: readonly number[],
): Promise<SshConnection[]> {
	const output = await outputOf(
		...["ss", "-H", "-O", "-n", "-t", "state", "established"],
	);
	return parseConnections(output ?? "").filter(({ serverPort }) =>
		ports.includes(serverPort),
	);
}

/** Reads what `ss -H -O -n -t state established` prints: `0 0 [::ffff:192.0.2.1]:22 [::ffff:192.0.2.9]:5022`. */
export function parseConnections(output: string): SshConnection[] {
	return output.split("\n").flatMap((line) => {
		const [, , local, peer] = line.trim().split(/\s+/);
		if (local === undefined || peer === undefined) return [];
		return {
			clientAddress: peer
				.slice(0, peer.lastIndexOf(":"))
				.replace(/[[\]]/g, "")
				.replace(/^::ffff:(?=\d+\.)/, ""),
			serverPort: Number(local.slice(local.lastIndexOf(":") + 1)),
		};
	});
}

/**
 * The person who logged in and then became root, or root itself. `su -` and
 * `sudo su -` take SUDO_USER away; the kernel's own note of who logged in, and
 * whose shell it was that this came from, stay.
 */
export async function loginUser(): Promise<string> {
	const { SUDO_USER } = process.env;
	if (SUDO_USER !== undefined && SUDO_USER !== "root") return SUDO_USER;
	const nameOf = async (uid: number) =>
		(await outputOf("getent", "passwd", String(uid)))?.split(":")[0];
	const noted = Number(
		await readFile("/proc/self/loginuid", "latin1").catch(() => "0"),
	);
	// -1 as an unsigned number: nobody has logged in.
	const uids = noted > 0 && noted < 2 ** 32 - 1 ? [noted] : [];
	for await (const pid of lineage()) {
		const owner = await stat(`/proc/${pid}`).catch(() => undefined);
		if (owner !== undefined && owner.uid !== 0) uids.push(owner.uid);
	}
	for (const uid of uids) {
		const name = await nameOf(uid);
		if (name !== undefined) return name;
	}
	return "root";
}
