import type { BootedHost } from "./bootedHost.ts";
import type { RunResult } from "./gate.ts";
import type { Namespace } from "./namespaces.ts";

/** What `llamagate setup --json` prints. */
export interface SetupReport {
	readonly applied: boolean;
	readonly ok: boolean;
	/** The first key, where this run made one. */
	readonly key?: string;
	readonly steps: readonly {
		readonly id: string;
		readonly state: string;
		readonly says: string;
		readonly actions: readonly string[];
		readonly notes: readonly string[];
		readonly proofs: readonly { readonly ok: boolean; readonly says: string }[];
	}[];
}

/** Runs `llamagate setup --json` on a host. */
export async function runSetup(
	host: BootedHost,
	...options: string[]
): Promise<RunResult & { report: SetupReport }> {
	const result = await host.run(
		...["llamagate", "setup", "--json", ...options],
	);
	if (!result.stdout.startsWith("{"))
		throw new Error(
			`setup printed no report: ${result.stdout}${result.stderr}`,
		);
	return { ...result, report: JSON.parse(result.stdout) as SetupReport };
}

/** The state of every step, by its id. */
export function statesOf({ steps }: SetupReport): Record<string, string> {
	return Object.fromEntries(steps.map(({ id, state }) => [id, state]));
}

/** A person's public key, as ssh-copy-id leaves it. */
export async function installSshKey(host: BootedHost): Promise<void> {
	await host.sh(`mkdir -p -m 0700 /root/.ssh
		ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
		cat /root/.ssh/id_ed25519.pub >>/root/.ssh/authorized_keys
		chmod 0600 /root/.ssh/authorized_keys`);
}

/**
 * Every file, directory and link of a host that belongs to its configuration or
 * its programs, with its owner, mode and the digest of its bytes. Logs, caches
 * and what services keep for themselves are no part of it.
 */
export function fingerprint(host: BootedHost): Promise<string> {
	return host.sh(
		`find /etc /root /home /opt /srv /usr/lib/llamagate /usr/lib/systemd /lib/systemd /var/lib/llamagate -xdev \
			\\( -path /opt/stand-ins -o -path '/usr/lib/llamagate/app' \\) -prune -o \
			-printf '%p %y %m %u:%g %l\\n' 2>/dev/null | sort || :
		find /etc /root /home /usr/lib/systemd -xdev -type f -exec sha256sum {} + | sort -k 2`,
	);
}

/** Of a TCP port: `closed` is refused, and from one that is `filtered` nothing comes back. */
type Answer = "open" | "closed" | "filtered";

/** Whether a TCP port answers. */
export async function probePort(
	from: Namespace,
	address: string,
	port: number,
	source?: string,
): Promise<Answer> {
	const answers = await probePorts(from, address, [port], source);
	return answers.get(port) ?? "filtered";
}

/** The same for several ports, with one program that tries them all at once. */
export async function probePorts(
	from: Namespace,
	address: string,
	ports: readonly number[],
	source?: string,
): Promise<ReadonlyMap<number, Answer>> {
	const host = address.includes(":") ? `[${address}]` : address;
	const { stdout, stderr } = await from.run(
		...["curl", "--silent", "--show-error"],
		...["--parallel", "--parallel-immediate"],
		...["--globoff", "--connect-timeout", "1.5", "--max-time", "3"],
		...(source === undefined ? [] : ["--interface", source]),
		...["--write-out", "%{url} %{time_connect} %{exitcode}\\n"],
		...ports.flatMap((port) => [
			...["--output", "/dev/null", `http://${host}:${port}/`],
		]),
	);
	const answers = new Map(
		[...stdout.matchAll(/:(\d+)\/ (\S+) (\d+)$/gm)].map(
			([, port, connected, code]): [number, Answer] => [
				Number(port),
				Number(connected) > 0 ? "open" : code === "7" ? "closed" : "filtered",
			],
		),
	);
	if (answers.size !== ports.length)
		throw new Error(`curl does not tell of each port: ${stdout}${stderr}`);
	return answers;
}
