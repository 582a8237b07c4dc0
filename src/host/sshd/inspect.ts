import { readFile, stat } from "node:fs/promises";
import { formatHostPort } from "../../net/ranges.ts";
import { type Ended, outputOf, runProgram } from "../../system/run.ts";
import {
	type ListeningSocket,
	listeningSockets,
	runsProgram,
} from "../../system/sockets.ts";
import { lookUpUnits } from "../../system/units.ts";

/** The ports that sshd has open, or would open; by its sockets, its configuration and its socket unit. */
export async function sshPorts(): Promise<number[]> {
	const open = await sshSockets(await listeningSockets());
	const ports = new Set(open.map(({ port }) => port));
	const { stdout: settings } = await askSshd({ user: "root" });
	for (const [, port] of settings.matchAll(/^port (\d+)$/gm))
		ports.add(Number(port));
	// Where systemd listens for sshd, its configuration has no say.
	for (const place of await socketUnitPlaces())
		ports.add(Number(place.slice(place.lastIndexOf(":") + 1)));
	// Whatever is named so there: a rule that lets SSH in must never open Ollama's port.
	ports.delete(11434);
	return [...ports].sort((a, b) => a - b);
}

/** A connection that sshd is asked about; the rest is that of a stranger from far away. */
export interface Asked {
	readonly user: string;
	readonly host?: string;
	readonly addr?: string;
	readonly laddr?: string;
	readonly lport?: number;
}

/** Has sshd print its settings for a connection. All of it is told: it prints nothing where a Match block looks at what is not. */
export function askSshd({
	user,
	host = "elsewhere.example",
	addr = "203.0.113.1",
	laddr = "192.0.2.1",
	lport = 22,
}: Asked): Promise<Ended> {
	return runProgram([
		"sshd",
		"-T",
		"-C",
		`user=${user},host=${host},addr=${addr},laddr=${laddr},lport=${lport}`,
	]);
}

/**
 * Those of some sockets that take connections for root's sshd: it holds them
 * itself, or systemd does by a unit for it. Any user may call a program so, and
 * listen beside it on another address of the same port.
 */
export async function sshSockets(
	sockets: readonly ListeningSocket[],
): Promise<ListeningSocket[]> {
	const places = await socketUnitPlaces();
	const found: ListeningSocket[] = [];
	for (const socket of sockets) {
		if (socket.uid !== 0 || socket.protocol !== "tcp") continue;
		const { address, port, pids } = socket;
		// The kernel has `*` where systemd opened [::].
		const place = formatHostPort(address === "*" ? "::" : address, port);
		const isSystemds = pids.includes(1) && places.includes(place);
		if (isSystemds || (await Promise.all(pids.map(isRootsSshd))).includes(true))
			found.push(socket);
	}
	return found;
}

/** Where systemd listens for sshd: `[::]:22`. */
async function socketUnitPlaces(): Promise<string[]> {
	const units = await lookUpUnits(["ssh.socket", "sshd.socket"], "Listen");
	return (units ?? []).flatMap(({ isActive, properties }) =>
		isActive
			? [
					...(properties.get("Listen") ?? "").matchAll(/(\S+:\d+) \(Stream\)/g),
				].flatMap(([, place]) => place ?? [])
			: [],
	);
}

/** Whether a process of root's runs an sshd that nobody but root may change. */
async function isRootsSshd(pid: number): Promise<boolean> {
	const folder = `/proc/${pid}`;
	const [owner, program, isNamedSo] = await Promise.all([
		stat(folder).catch(() => undefined),
		stat(`${folder}/exe`).catch(() => undefined),
		runsProgram(pid, "sshd"),
	]);
	return (
		isNamedSo &&
		owner?.uid === 0 &&
		program?.uid === 0 &&
		(program.mode & 0o022) === 0
	);
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
		"ss",
		"-H",
		"-O",
		"-n",
		"-t",
		"state",
		"established",
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
