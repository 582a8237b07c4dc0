import type { ChildProcess } from "node:child_process";
import { existsSync, openSync, readFileSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { digestOf, generateKey } from "../src/keys/newKey.ts";
import { freePort } from "../test/support/freePort.ts";
import { installedProgram, scriptOf } from "./installed.ts";
import { versionOf } from "./machine.ts";
import { type Native, startUpstream, type Upstream } from "./native.ts";
import { pinning, start, stop, withChildren } from "./processes.ts";

/** What every workload needs to know of this run. */
export interface Stage {
	readonly quick: boolean;
	/** Temporary, gone at the end of the run. */
	readonly folder: string;
	readonly native: Native;
	/** Another llamagate tree to measure. */
	readonly against: string | undefined;
	readonly peerLog: boolean;
	/** Which hostile loads are measured; all if nothing is said. */
	readonly hostileOnly?: { test(name: string): boolean } | undefined;
	progress(text: string): void;
}

/** One way to the upstream: straight, or through the gate or a peer of it. */
export interface Target {
	readonly name: string;
	readonly port: number;
	/** The processes whose CPU time and memory count; none for `direct`. */
	readonly pids: readonly number[];
	/** From the start of its process until it listened. */
	readonly readyMs: number;
}

/** A key of 256 bits, known to the gate and its peers while the bench runs. */
export const key = `lg_${"0123456789abcdef".repeat(4)}`;
/** Keys that may name one model, `bench`: an attacker's, and another's. */
export const ruledKey = `lg_${"02468ace13579bdf".repeat(4)}`;
export const honestKey = `lg_${"13579bdf02468ace".repeat(4)}`;
export const wrongKey = `lg_${"fedcba9876543210".repeat(4)}`;

/** Loopback addresses that may use what is measured; its clients come from 127.0.1.1 and on. */
export const sources = "127.0.0.0/16";
/** A client's address that is not among them. */
export const foreignSource = "127.1.0.1";

/** An origin of the gate's `cors.origins`. */
export const listedOrigin = "https://chat.example";

/** As in systemd/llamagate.service. */
export const nodeOptions = ["--max-semi-space-size=4", "--single-threaded-gc"];

const startTimeoutMs = 15_000;
let opened = 0;

/**
 * Starts the upstream and every way to it, and stops them all when the work is
 * done or has failed. `notes` names what would not start.
 */
export async function withTargets<T>(
	stage: Stage,
	work: (
		targets: readonly Target[],
		notes: readonly string[],
		upstream: Upstream,
	) => Promise<T>,
	{ names = everyName, gate = {}, tls, olla }: Wanted = {},
): Promise<T> {
	const children: ChildProcess[] = [];
	try {
		const upstream = await startUpstream(stage.native);
		children.push(upstream.child);
		const { port } = upstream;
		const targets: Target[] = [{ name: "direct", port, pids: [], readyMs: 0 }];
		const notes: string[] = [];
		for (const { name, open } of ways(stage, gate, tls, olla)) {
			if (!names.includes(name)) continue;
			const folder = path.join(stage.folder, `${name}-${++opened}`);
			await mkdir(folder);
			try {
				targets.push({ name, ...(await open(folder, port, children)) });
			} catch (error) {
				notes.push(
					`${name}: not measured: ${error instanceof Error ? error.message : error}`,
				);
			}
		}
		return await work(targets, notes, upstream);
	} finally {
		await Promise.all(children.map(stop));
	}
}

const peers = ["nginx", "haproxy", "caddy"] as const;
type Peer = (typeof peers)[number] | "olla";
const everyName = ["gate", "against", ...peers];

type Open = (
	folder: string,
	upstreamPort: number,
	children: ChildProcess[],
) => Promise<Omit<Target, "name">>;

interface Wanted {
	/** The ways that are measured; all if nothing is said. */
	readonly names?: readonly string[];
	readonly gate?: GateOptions;
	/** The gate and Caddy speak TLS with this certificate and key. */
	readonly tls?: TlsFiles;
	/** The program of Olla, where it is among the ways. */
	readonly olla?: string;
}

interface TlsFiles {
	readonly certFile: string;
	readonly keyFile: string;
}

/** What a workload wants of the gate's configuration. */
export interface GateOptions {
	/** Its lockout as it comes; all other limits are always out of reach. */
	readonly defaultLockout?: boolean;
	/** Keys in the file beside the one that is used. */
	readonly moreKeys?: number;
	readonly logLevel?: "info" | "error";
	/** The most that V8 may take for what has survived; by default what it finds right. */
	readonly oldHeapMiB?: number;
	/** The key that is used may name one model alone, `bench`. */
	readonly modelRule?: boolean;
	/** Two keys beside the one that is used, with rules about models and the limits as they come. */
	readonly ruledKeys?: boolean;
	/** The Node that runs it; by default the one of the bench, whose pages they share. */
	readonly node?: string;
	/** More requests run at once than `mostParallel`: no queue stands in their way. */
	readonly withoutQueue?: boolean;
}

/** Requests of one model that the gate's queue can be told to let run at once. */
export const mostParallel = 1024;

/**
 * The queue asked for each request and holding none back, as the upstream has no
 * slots: to learn how many it has takes longer than what is measured.
 */
export const roomyQueue = {
	parallel: mostParallel,
	// While a fresh gate waits for the first reply of all.
	maxWaiting: 100_000,
	maxWaitingPerUser: 100_000,
};

function ways(
	stage: Stage,
	gate: GateOptions,
	tls: TlsFiles | undefined,
	olla: string | undefined,
): { name: string; open: Open }[] {
	const gateAt = (root: string): Open => {
		return (...args) => openGate(root, { ...gate, tls }, ...args);
	};
	const found: { name: string; open: Open }[] = [
		{
			name: "gate",
			open: gateAt(fileURLToPath(new URL("..", import.meta.url))),
		},
	];
	if (stage.against !== undefined)
		found.push({ name: "against", open: gateAt(path.resolve(stage.against)) });
	for (const name of peers)
		if (versionOf(name) !== undefined)
			found.push({
				name,
				open: (...args) => openPeer(name, name, stage.peerLog, tls, ...args),
			});
	if (olla !== undefined)
		found.push({
			name: "olla",
			open: (...args) => openPeer("olla", olla, stage.peerLog, tls, ...args),
		});
	return found;
}

/** The real program as it is published; its log goes to a file. */
async function openGate(
	root: string,
	options: GateOptions & { readonly tls?: TlsFiles | undefined },
	folder: string,
	upstreamPort: number,
	children: ChildProcess[],
): Promise<Omit<Target, "name">> {
	const unlimited = 1_000_000_000;
	const port = await freePort();
	const configFile = path.join(folder, "config.json");
	await writeFile(
		configFile,
		JSON.stringify({
			listen: {
				...{ address: "127.0.0.1", port },
				...(options.tls && { tls: options.tls }),
			},
			sources: [sources],
			upstream: {
				url: `http://127.0.0.1:${upstreamPort}`,
				maxConnections: 8192,
			},
			limits: {
				...(options.ruledKeys === true
					? undefined
					: {
							perKey: { requestsPerMinute: unlimited, concurrent: unlimited },
						}),
				perSource: { requestsPerMinute: unlimited },
				...(options.defaultLockout === true
					? undefined
					: { authFailures: { max: unlimited } }),
			},
			// Trees from before the queue do not know its settings.
			...(existsSync(path.join(root, "src/queue")) && {
				queue: options.withoutQueue === true ? { mode: "off" } : roomyQueue,
			}),
			cors: { origins: [listedOrigin] },
			admin: { socket: "off", metrics: "off" },
			drainTimeout: "1s",
			log: { level: options.logLevel ?? "info" },
		}),
	);
	await writeFile(
		path.join(folder, "keys.json"),
		JSON.stringify({
			keys: [
				{
					name: "bench",
					sha256: digestOf(key),
					scopes: ["read", "infer", "manage"],
					...(options.modelRule === true && { models: ["bench"] }),
					limits: { requestsPerMinute: unlimited, concurrent: unlimited },
				},
				...(options.ruledKeys === true
					? [
							{ name: "ruled", sha256: digestOf(ruledKey), models: ["bench"] },
							{
								name: "honest",
								sha256: digestOf(honestKey),
								models: ["bench"],
								limits: { requestsPerMinute: unlimited },
							},
						]
					: []),
				...Array.from({ length: options.moreKeys ?? 0 }, (_, index) => ({
					name: `other-${index}`,
					sha256: digestOf(generateKey()),
					scopes: ["read"],
				})),
			],
		}),
		{ mode: 0o600 },
	);
	const logFile = path.join(folder, "log");
	const log = openSync(logFile, "a");
	const startedAtMs = performance.now();
	const child = start(
		[
			...pinning.measured,
			options.node ?? process.execPath,
			...nodeOptions,
			...(options.oldHeapMiB === undefined
				? []
				: [`--max-old-space-size=${options.oldHeapMiB}`]),
			scriptOf(installedProgram(root)),
			"serve",
			"--config",
			configFile,
		],
		{ stdio: ["ignore", log, log], cwd: root },
	);
	children.push(child);
	await started(child, logFile, port);
	return {
		port,
		readyMs: performance.now() - startedAtMs,
		pids: withChildren(pidOf(child)),
	};
}

/** A peer configured for the same job by its file in peers/. */
async function openPeer(
	name: Peer,
	program: string,
	log: boolean,
	tls: TlsFiles | undefined,
	folder: string,
	upstreamPort: number,
	children: ChildProcess[],
): Promise<Omit<Target, "name">> {
	const port = await freePort();
	const values: Record<string, string> = {
		folder,
		port: String(port),
		upstreamPort: String(upstreamPort),
		key,
		sources,
		log: log ? "on" : "off",
		certFile: tls?.certFile ?? "",
		keyFile: tls?.keyFile ?? "",
		user: process.getuid?.() === 0 ? "user root;" : "",
	};
	const templateName = {
		nginx: "nginx.conf",
		haproxy: "haproxy.cfg",
		caddy: "Caddyfile",
		olla: "olla.yaml",
	}[name];
	const template = await readFile(
		new URL(`peers/${templateName}`, import.meta.url),
		"utf8",
	);
	const configFile = path.join(folder, templateName);
	await writeFile(
		configFile,
		template
			// Lines for one of the two cases only.
			.replace(/^.*#log=(on|off)$\n/gm, (line, when) =>
				when === values.log ? line.replace(/ *#log=.*$/m, "") : "",
			)
			.replace(/^.*#tls=(on|off)$\n/gm, (line, when) =>
				(when === "on") === (tls !== undefined)
					? line.replace(/ *#tls=.*$/m, "")
					: "",
			)
			.replace(/\{\{(\w+)\}\}/g, (_, word: string) => values[word] ?? ""),
	);
	const errorFile = path.join(folder, "stderr");
	const errors = openSync(errorFile, "a");
	const command = {
		nginx: [program, "-p", folder, "-e", "stderr", "-c", configFile],
		haproxy: [program, "-db", "-f", configFile],
		caddy: [program, "run", "--adapter", "caddyfile", "--config", configFile],
		olla: [program, "-config", configFile],
	}[name];
	const startedAtMs = performance.now();
	const child = start([...pinning.measured, ...command], {
		stdio: ["ignore", errors, errors],
		cwd: folder,
		env: {
			...process.env,
			HOME: folder,
			XDG_DATA_HOME: folder,
			XDG_CONFIG_HOME: folder,
		},
	});
	children.push(child);
	await started(child, errorFile, port);
	const readyMs = performance.now() - startedAtMs;
	return { port, readyMs, pids: withChildren(pidOf(child)) };
}

/** Waits until it listens; a log may be told to hold its tongue. @throws with the end of the output file when it does not */
async function started(
	child: ChildProcess,
	outputFile: string,
	port: number,
): Promise<void> {
	const deadline = performance.now() + startTimeoutMs;
	while (performance.now() < deadline && child.exitCode === null) {
		if (await accepts(port)) return;
		await delay(5);
	}
	const output = readFileSync(outputFile, "utf8").trim().split("\n").at(-1);
	throw new Error(
		child.exitCode === null
			? `it did not listen within ${startTimeoutMs / 1000} s`
			: `it exited with ${child.exitCode}: ${output}`,
	);
}

function pidOf(child: ChildProcess): number {
	if (child.pid === undefined) throw new Error("it could not be started");
	return child.pid;
}

function accepts(port: number): Promise<boolean> {
	return new Promise((resolve) => {
		const socket = connect(port, "127.0.0.1");
		socket.on("connect", () => {
			socket.destroy();
			resolve(true);
		});
		socket.on("error", () => resolve(false));
	});
}
