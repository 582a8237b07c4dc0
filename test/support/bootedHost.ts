import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import {
	chmod,
	mkdir,
	mkdtemp,
	readFile,
	readlink,
	rm,
	writeFile,
} from "node:fs/promises";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { debianRootTools, pristineDebianRoot } from "./debianRoot.ts";
import { type RunResult, testEntries } from "./gate.ts";
import { layerTools, llamagateLayer, standInLayer } from "./hostLayers.ts";
import { compiledCode } from "./hostPlaces.ts";
import { addStandIns, type StandInOptions } from "./hostStandIns.ts";
import {
	addresses,
	connect,
	joinLan,
	joinTailnet,
	makeNamespace,
	type Namespace,
	namespaceNamed,
	newNamespaceName,
} from "./namespaces.ts";
import { childrenOf } from "./process.ts";
import { cgroupTrees, reap } from "./reaper.ts";
import { isThere } from "./tools.ts";

/** What this module needs of tap. */
interface Test {
	teardown(action: () => unknown): unknown;
	strictSame(found: unknown, wanted: unknown, message: string): boolean;
}

const execute = promisify(execFile);

/** A guard against hanging: a boot takes two or three seconds where nothing else runs. */
const bootPatienceMs = 60_000;

/** What a login as root has. */
const insidePath =
	"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const obstacle = findObstacle();
if (obstacle !== undefined && process.env.CI)
	throw new Error(`in CI the tests of booted hosts must run: ${obstacle}`);

/**
 * Options for a test that boots hosts. It is skipped, with the reason, where
 * that cannot be done; in CI this module throws. A new object each time: tap
 * keeps a running test's state in it.
 */
export function booting(): { skip: string | false } {
	return { skip: obstacle ?? false };
}

function findObstacle(): string | undefined {
	if (process.platform !== "linux") return "booting a Debian needs Linux";
	if (process.getuid?.() !== 0) return "booting a Debian needs root";
	for (const tool of [
		...debianRootTools,
		...layerTools,
		"systemd-nspawn",
		"nsenter",
		"ip",
		"ss",
		"curl",
	])
		if (!isThere(tool)) return `${tool} is missing`;
	if (cgroupTrees().unified === undefined)
		return "no cgroup2 hierarchy is mounted";
	return undefined;
}

/** A server with an init of its own: processes, files, users and network are its own, the kernel is shared. */
export interface BootedHost {
	/** Its files, as seen from outside. What lies on a tmpfs inside, such as /run, is not there. */
	readonly root: string;
	/** Its network. Another object after a reboot. */
	readonly network: Namespace;
	/** Runs a program inside, as root, to its end. */
	run(...command: string[]): Promise<RunResult>;
	/** The same; gives back what it said, and throws if it failed. */
	must(...command: string[]): Promise<string>;
	/** The same for a line of sh. */
	sh(script: string): Promise<string>;
	/** Writes a file inside, with its folders. */
	write(file: string, content: string, mode?: number): Promise<void>;
	read(file: string): Promise<string>;
	/** What a unit has said since this boot, oldest first. */
	journal(unit: string): Promise<string[]>;
	/** Powers it off and boots it again. Links that were plugged are plugged in again before its init starts anything, unless told otherwise. */
	reboot(options?: { replug?: boolean }): Promise<void>;
	/** The internet: the host has 203.0.113.10 on eth1, and a default route. */
	plugPublic(): Promise<Namespace>;
	/** The LAN, as `joinLan` has it: eth0. */
	plugLan(): Promise<Namespace>;
	/** The tailnet: tailscale0, as `joinTailnet` has it, and a peer. */
	plugTailnet(own?: { v4: string; v6: string }): Promise<Namespace>;
	/** tailscale0 goes, as it does when tailscaled stops. */
	unplugTailnet(): Promise<void>;
}

export interface HostOptions extends StandInOptions {
	/** Whether llamagate is installed, and whether it has the keys of `testKeys` and starts at boot; by default it does. */
	readonly llamagate?: "none" | "installed" | "enabled";
	/**
	 * Whether udev runs, so that systemd has units of network interfaces, as on
	 * any host that is no container; by default it does not.
	 */
	readonly udev?: boolean;
	/** Whether it has /dev/net/tun, for a real tailscaled; by default it does not. */
	readonly tun?: boolean;
	/** Changes its files before it boots. */
	readonly install?: (root: string) => Promise<void>;
}

/** The addresses on the internet. */
export const publicAddresses = {
	server: "203.0.113.10",
	stranger: "203.0.113.66",
} as const;

/** A folder that goes with this process. */
async function makeFolder(kind: string): Promise<string> {
	const store = path.dirname(await pristineDebianRoot());
	const folder = await mkdtemp(path.join(store, `${kind}-`));
	reap("folder", folder);
	return folder;
}

/** Mounts an overlay on read-only layers, the topmost first; what is written goes to `upper`. */
async function mountOverlay(
	folder: string,
	layers: readonly string[],
): Promise<{ upper: string; root: string }> {
	const [upper, work, root] = ["upper", "work", "root"].map((name) =>
		path.join(folder, name),
	) as [string, string, string];
	for (const part of [upper, work, root]) await mkdir(part);
	await execute("mount", [
		...["-t", "overlay", "overlay", "-o"],
		`lowerdir=${layers.join(":")},upperdir=${upper},workdir=${work}`,
		root,
	]);
	return { upper, root };
}

/** Boots a Debian with llamagate, stand-ins for Ollama and Tailscale, and no link to anything. It goes with the test. */
export async function bootHost(
	t: Test,
	options: HostOptions = {},
): Promise<BootedHost> {
	const { llamagate = "enabled", udev = false, tun = false, install } = options;
	const folder = await makeFolder("host");
	const below = [await standInLayer(), await pristineDebianRoot()];
	if (llamagate !== "none") below.unshift(await llamagateLayer());
	const { root } = await mountOverlay(folder, below);
	t.teardown(async () => {
		await execute("umount", ["--recursive", root]);
		await rm(folder, { recursive: true });
	});
	await addStandIns(root, options);
	if (llamagate === "enabled") await enableLlamagate(root);
	await writeFile(path.join(root, "etc/hostname"), "server\n");
	await install?.(root);
	await chmod(path.join(root, "etc/machine-id"), 0o644);
	await writeFile(
		path.join(root, "etc/machine-id"),
		`${randomBytes(16).toString("hex")}\n`,
	);

	if (udev) await holdUdevBack(root);

	let machine = await boot(root, { udev, tun });
	t.teardown(() => machine.kill());
	let network = namespaceNamed(t, machine.name);

	const inside = (command: readonly string[]) => [
		...["-t", String(machine.init), "-m", "-u", "-i", "-n", "-p"],
		...["env", "-i", `PATH=${insidePath}`, "HOME=/root"],
		...[`NODE_COMPILE_CACHE=/${compiledCode}`, ...command],
	];
	const host: BootedHost = {
		root,
		get network() {
			return network;
		},
		run: (...command) => run("nsenter", inside(command)),
		async must(...command) {
			const { code, stdout, stderr } = await host.run(...command);
			if (code !== 0)
				throw new Error(`${command.join(" ")}: ${code}\n${stdout}${stderr}`);
			return stdout;
		},
		sh: (script) => host.must("sh", "-euc", script),
		async write(file, content, mode = 0o644) {
			const target = path.join(root, file);
			await mkdir(path.dirname(target), { recursive: true });
			await writeFile(target, content);
			await chmod(target, mode);
		},
		read: (file) => readFile(path.join(root, file), "utf8"),
		async journal(unit) {
			const text = await host.must("journalctl", "-b", "-o", "cat", "-u", unit);
			return text.split("\n").filter((line) => line !== "");
		},
		async reboot({ replug = true } = {}) {
			await host.run("systemctl", "poweroff");
			await machine.ended;
			// The kernel does so, too, but at its leisure.
			for (const { unplug } of plugs.values()) await unplug();
			await machine.kill();
			machine = await boot(root, {
				...{ udev, tun },
				async plug(name) {
					network = namespaceNamed(t, name);
					if (replug) for (const { join } of plugs.values()) await join();
				},
			});
			if (!replug) plugs.clear();
		},
		plugPublic: () =>
			plug("public", "eth1", async (stranger) => {
				await connect(network, stranger, "eth1");
				await network.ip(`addr add ${publicAddresses.server}/24 dev eth1`);
				await stranger.ip(`addr add ${publicAddresses.stranger}/24 dev eth1`);
				await network.ip(`route add default via ${publicAddresses.stranger}`);
			}),
		plugLan: () =>
			plug("lan", "eth0", (neighbour) => joinLan(network, neighbour)),
		plugTailnet: (own = addresses.server) =>
			plug("tailnet", "tailscale0", (peer) => joinTailnet(network, peer, own)),
		async unplugTailnet() {
			plugs.delete("tailnet");
			await network.ip("link delete tailscale0");
		},
	};

	const neighbours = new Map<string, Namespace>();
	const plugs = new Map<
		string,
		{ join(): Promise<void>; unplug(): Promise<unknown> }
	>();
	async function plug(
		name: string,
		link: string,
		joinWith: (neighbour: Namespace) => Promise<void>,
	): Promise<Namespace> {
		const neighbour = neighbours.get(name) ?? (await makeNamespace(t));
		neighbours.set(name, neighbour);
		const join = () => joinWith(neighbour);
		await join();
		plugs.set(name, {
			join,
			unplug: () => neighbour.run("ip", "link", "delete", link),
		});
		return neighbour;
	}
	return host;
}

/** Gives an installed gate its keys, and has it start at boot. */
async function enableLlamagate(root: string): Promise<void> {
	const keys = path.join(root, "etc/llamagate/keys.json");
	await writeFile(keys, `${JSON.stringify({ keys: testEntries })}\n`);
	await chmod(keys, 0o640);
	await execute("chroot", [
		...[root, "chown", "root:llamagate", "/etc/llamagate/keys.json"],
	]);
	await execute("systemctl", [
		...[`--root=${root}`, "--quiet", "enable", "llamagate.service"],
		...["llamagate.socket", "llamagate-listen.service"],
		"llamagate-ollama.socket",
	]);
}

/** What comes to a host is for its udev. What was there before is this machine's, which those would go through. */
async function holdUdevBack(root: string): Promise<void> {
	await execute("systemctl", [
		...[`--root=${root}`, "--quiet", "mask"],
		...["systemd-udev-trigger.service", "systemd-udev-settle.service"],
	]);
}

interface Machine {
	/** Of its network namespace and its cgroup. */
	readonly name: string;
	/** The process id of its init, as seen from outside. */
	readonly init: number;
	/** Settles when its processes have ended. */
	readonly ended: Promise<unknown>;
	/** Ends what is left of it, if anything. */
	kill(): Promise<void>;
}

interface BootOptions {
	readonly udev: boolean;
	readonly tun: boolean;
	/** Called as soon as there is a network, long before a service starts. */
	readonly plug?: (name: string) => Promise<void>;
}

/** Boots what lies in a folder. */
async function boot(
	root: string,
	{ udev, tun, plug }: BootOptions,
): Promise<Machine> {
	const name = newNamespaceName();
	const { all, unified = "" } = cgroupTrees();
	reap("cgroup", name);
	for (const tree of all) await mkdir(path.join(tree, name));

	// In a cgroup of its own: two inits in one would end each other's services.
	const child = spawn(
		"sh",
		[
			"-euc",
			`for tree in ${all.join(" ")}; do echo $$ >"$tree/${name}/cgroup.procs"; done
			exec "$@"`,
			"sh",
			...["systemd-nspawn", "--quiet", "--directory", root],
			...["--private-network", "--register=no", "--keep-unit"],
			// What systemd inside needs to filter addresses (IPAddressDeny=), as on a real host.
			"--capability=CAP_BPF,CAP_NET_ADMIN,CAP_SYS_ADMIN,CAP_PERFMON",
			"--system-call-filter=bpf",
			...(tun ? ["--bind=/dev/net/tun"] : []),
			...["--console=pipe", "--boot"],
		],
		{
			env: {
				...{ PATH: insidePath, SYSTEMD_NSPAWN_UNIFIED_HIERARCHY: "1" },
				// udev does not start, nor has systemd units of devices, where /sys is read-only.
				...(udev && { SYSTEMD_NSPAWN_API_VFS_WRITABLE: "yes" }),
			},
			stdio: ["ignore", "pipe", "pipe"],
		},
	);
	let said = "";
	for (const stream of [child.stdout, child.stderr])
		stream.setEncoding("utf8").on("data", (text: string) => {
			said = (said + text).slice(-4_000);
		});
	const ended = once(child, "close");
	let killed = false;
	const machine = {
		name,
		ended,
		async kill() {
			if (killed) return;
			killed = true;
			await writeFile(path.join(unified, name, "cgroup.kill"), "1");
			await ended;
			await execute("ip", ["netns", "delete", name]).catch(() => {});
			for (const tree of all) await removeCgroup(path.join(tree, name));
		},
	};
	try {
		const init = await initOf(child);
		await execute("ip", ["netns", "attach", name, String(init)]);
		await plug?.(name);
		await untilUp(child, init);
		// systemd listens to udev if that is there when it starts, which on other hosts the initial RAM disk has seen to.
		if (udev)
			for (const command of [
				["systemctl", "daemon-reexec"],
				...[["udevadm", "trigger", "--subsystem-match=net", "--action=add"]],
			])
				await run("nsenter", [
					...["-t", String(init), "-m", "-u", "-i", "-n", "-p"],
					...command,
				]);
		return { ...machine, init };
	} catch (error) {
		await machine.kill();
		throw new Error(`the host did not boot; it said: ${said}`, {
			cause: error,
		});
	}
}

/** Removes a cgroup and those in it, as soon as the kernel is done with the processes that were killed. */
async function removeCgroup(folder: string): Promise<void> {
	const deadline = performance.now() + bootPatienceMs;
	for (;;) {
		try {
			await execute("find", [
				...[folder, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"],
			]);
			return;
		} catch (error) {
			if (performance.now() > deadline) throw error;
			await delay(20);
		}
	}
}

/** The process id of the init of a systemd-nspawn: once it has a network of its own, that is. */
async function initOf(nspawn: ChildProcess): Promise<number> {
	const deadline = performance.now() + bootPatienceMs;
	const { pid } = nspawn;
	const networkOf = (id: number | string | undefined) =>
		readlink(`/proc/${id}/ns/net`).catch(() => undefined);
	const own = await networkOf("self");
	while (nspawn.exitCode === null && performance.now() < deadline) {
		for (const child of childrenOf(pid)) {
			const comm = await readFile(`/proc/${child}/comm`, "utf8").catch(
				() => "",
			);
			const network = await networkOf(child);
			if (comm.trim() === "systemd" && network !== undefined && network !== own)
				return child;
		}
		await delay(20);
	}
	throw new Error("there is no init");
}

/** Waits until an init has started all that it is going to start. */
async function untilUp(nspawn: ChildProcess, init: number): Promise<void> {
	const deadline = performance.now() + bootPatienceMs;
	while (nspawn.exitCode === null && performance.now() < deadline) {
		const { stdout } = await run("nsenter", [
			...["-t", String(init), "-m", "-u", "-i", "-n", "-p"],
			...["systemctl", "is-system-running", "--wait"],
		]);
		if (["running", "degraded"].includes(stdout.trim())) return;
		await delay(50);
	}
	throw new Error("its init never came to rest");
}

function run(file: string, args: readonly string[]): Promise<RunResult> {
	return new Promise((resolve, reject) => {
		execFile(
			file,
			args,
			{ env: { PATH: insidePath }, maxBuffer: 64 * 2 ** 20 },
			(error, stdout, stderr) => {
				const code = error === null ? 0 : error.code;
				if (typeof code !== "number") reject(error);
				else resolve({ code, stdout, stderr });
			},
		);
	});
}
