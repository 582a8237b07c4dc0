import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readFileSync } from "node:fs";
import { rename, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Daemon } from "../../src/gate/daemon.ts";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import { type Scope, scopes } from "../../src/ollama/routes.ts";
import {
	type StandIn,
	type StandInOptions,
	startStandIn,
} from "../../src/ollama/standIn.ts";
import type { Clock } from "../../src/tls/clock.ts";
import { program } from "./program.ts";
import { temporaryFolder } from "./temporaryFolder.ts";
import { commonPair, startTlsRelay, tlsVariable } from "./tlsRelay.ts";

export { temporaryFolder } from "./temporaryFolder.ts";

/** What a test needs of tap: a place to say what must be closed at its end. */
interface Teardown {
	teardown(action: () => unknown): unknown;
}

/** A line of the gate's log. */
export type LogLine = Record<string, unknown>;

/** Keys for tests, one for each set of scopes that matters; each is 256 bits. */
export const testKeys = {
	/** read and infer, as new keys are. */
	user: `lg_${"1f".repeat(8)}${"0123456789abcdef".repeat(3)}`,
	/** every scope. */
	owner: `lg_${"2e".repeat(8)}${"0123456789abcdef".repeat(3)}`,
	/** read only. */
	reader: `lg_${"3d".repeat(8)}${"0123456789abcdef".repeat(3)}`,
	/** infer only. */
	worker: `lg_${"4c".repeat(8)}${"0123456789abcdef".repeat(3)}`,
	/** well formed and unknown to the gate. */
	wrong: `lg_${"5b".repeat(8)}${"0123456789abcdef".repeat(3)}`,
} as const;

function entry(name: string, key: string, granted: readonly Scope[]): KeyEntry {
	return { name, sha256: digestOf(key), scopes: granted };
}

export const testEntries: readonly KeyEntry[] = [
	entry("user", testKeys.user, ["read", "infer"]),
	entry("owner", testKeys.owner, scopes),
	entry("reader", testKeys.reader, ["read"]),
	entry("worker", testKeys.worker, ["infer"]),
];

/** A header object that shows a key. */
export function bearer(key: string): { authorization: string } {
	return { authorization: `Bearer ${key}` };
}

export interface GateOptions {
	/** Merged over a configuration that listens on 127.0.0.1, any free port, for loopback sources. */
	readonly config?: Record<string, unknown>;
	readonly keys?: readonly KeyEntry[];
	/** More files beside the configuration, of mode 0600, by name. */
	readonly files?: Readonly<Record<string, string>>;
	readonly standIn?: StandInOptions;
	/** Of `spawnGate`: the file that is run; by default the published program's. */
	readonly program?: string;
	/** Of `spawnGate`: another Node than the one that runs the tests. */
	readonly node?: string;
	/** Given to Node when the daemon runs in a process of its own. */
	readonly nodeArgs?: readonly string[];
	/** Where its log goes when it runs in a process of its own: a file, in place of a pipe. */
	readonly logFile?: string;
	/** A command that runs the command that follows it, for a process of its own. */
	readonly launcher?: readonly string[];
	/** The folder of the bridges by which it reaches what its configuration names, of `startGate`; by default it has a network. */
	readonly bridges?: string;
	/** By which `startGate`'s looks at certificates; by default real time. */
	readonly clock?: Clock;
	/** Put this upstream behind the gate instead of a stand-in of its own. */
	readonly upstreamUrl?: string;
}

export interface TestGate {
	readonly url: string;
	readonly port: number;
	readonly standIn: StandIn;
	readonly folder: string;
	readonly configFile: string;
	readonly keysFile: string;
	/** Log lines so far, parsed. */
	readonly log: LogLine[];
	/** The first log line, past or to come, that satisfies the condition. */
	logged(condition: (line: LogLine) => boolean): Promise<LogLine>;
	writeConfig(config: Record<string, unknown>): Promise<void>;
	writeKeys(keys: readonly KeyEntry[]): Promise<void>;
}

/** The folder, the files and the stand-in that every test gate has. */
async function prepare(t: Teardown, options: GateOptions) {
	const folder = await temporaryFolder(t);
	const standIn = await startStandIn(options.standIn ?? {});
	t.teardown(() => standIn.close());
	const configFile = path.join(folder, "config.json");
	const keysFile = path.join(folder, "keys.json");
	const isTls = process.env[tlsVariable] !== undefined;
	const baseFor = (config: Record<string, unknown>) => ({
		listen: {
			...{ address: "127.0.0.1", port: 0 },
			...(isTls && { tls: { certFile: "gate.crt", keyFile: "gate.key" } }),
		},
		sources: ["127.0.0.0/8", "::1/128"],
		upstream:
			config.upstreams === undefined
				? { url: options.upstreamUrl ?? standIn.url }
				: {},
		admin: { socket: path.join(folder, "admin.sock"), metrics: "off" },
		drainTimeout: "2s",
		// Tests of the queue turn it on; the others see what Ollama gets and when.
		queue: { mode: "off" },
		limits: {
			perKey: { requestsPerMinute: 1_000_000, concurrent: 10_000 },
			perSource: { requestsPerMinute: 1_000_000 },
		},
	});
	// As the keys command does it: whoever reads meanwhile reads a whole file.
	const replace = async (file: string, text: string) => {
		await writeFile(`${file}.new`, text, { mode: 0o600 });
		await rename(`${file}.new`, file);
	};
	const writeConfig = (config: Record<string, unknown>) =>
		replace(
			configFile,
			JSON.stringify(merge(baseFor(config), config) as object, undefined, 2),
		);
	const writeKeys = (keys: readonly KeyEntry[]) =>
		replace(keysFile, JSON.stringify({ keys }));
	if (isTls) {
		const { cert, key } = await commonPair(t);
		await replace(path.join(folder, "gate.crt"), cert);
		await replace(path.join(folder, "gate.key"), key);
	}
	for (const [name, text] of Object.entries(options.files ?? {}))
		await replace(path.join(folder, name), text);
	await writeConfig(options.config ?? {});
	await writeKeys(options.keys ?? testEntries);
	return { folder, standIn, configFile, keysFile, writeConfig, writeKeys };
}

function merge(base: unknown, over: unknown): unknown {
	const isObject = (value: unknown): value is Record<string, unknown> =>
		typeof value === "object" && value !== null && !Array.isArray(value);
	if (!isObject(base) || !isObject(over))
		return over === undefined ? base : over;
	const merged: Record<string, unknown> = { ...base };
	for (const [name, value] of Object.entries(over))
		merged[name] = merge(base[name], value);
	return merged;
}

/** Collects log lines and lets a test wait for one. */
function collectLog() {
	const log: LogLine[] = [];
	const waiting = new Set<() => void>();
	let rest = "";
	const write = (text: string) => {
		const lines = (rest + text).split("\n");
		rest = lines.pop() ?? "";
		for (const line of lines)
			if (line !== "") log.push(JSON.parse(line) as LogLine);
		for (const look of waiting) look();
	};
	const logged = (condition: (line: LogLine) => boolean) =>
		new Promise<LogLine>((resolve) => {
			const look = () => {
				const found = log.find(condition);
				if (found === undefined) return;
				waiting.delete(look);
				resolve(found);
			};
			waiting.add(look);
			look();
		});
	return { log, write, logged };
}

/** The real daemon in this process, on real sockets, in front of a stand-in. */
export async function startGate(
	t: Teardown,
	options: GateOptions = {},
): Promise<TestGate & { daemon: Daemon }> {
	const files = await prepare(t, options);
	const { log, write, logged } = collectLog();
	// Half of the tests that import this file start none in their own process.
	const [{ startDaemon }, { loadRules }] = await Promise.all([
		import("../../src/gate/daemon.ts"),
		import("../../src/gate/rules.ts"),
	]);
	const daemon = await startDaemon(
		() => loadRules(files.configFile, options.bridges),
		{ write },
		options.clock,
	);
	t.teardown(() => daemon.stop());
	const [address = ""] = daemon.bound();
	return {
		...files,
		log,
		logged,
		daemon,
		...(await placeOf(t, address)),
	};
}

/** Where tests meet a gate. */
async function placeOf(
	t: Teardown,
	address: string,
): Promise<Pick<TestGate, "url" | "port">> {
	const port = Number(address.split(":").at(-1));
	if (process.env[tlsVariable] === undefined)
		return { url: `http://${address}`, port };
	const { ca } = await commonPair(t);
	const relay = await startTlsRelay(t, port, ca);
	return { url: `http://127.0.0.1:${relay}`, port: relay };
}

/** The real program in a process of its own, for what concerns signals and exit codes. */
export async function spawnGate(
	t: Teardown,
	options: GateOptions = {},
): Promise<TestGate & { child: ChildProcess; exited: Promise<number | null> }> {
	const files = await prepare(t, options);
	const { log, write, logged } = collectLog();
	const { logFile } = options;
	const [command = "", ...args] = [
		...(options.launcher ?? []),
		options.node ?? process.execPath,
		...(options.nodeArgs ?? []),
		options.program ?? program,
		...["serve", "--config", files.configFile],
	];
	const output = logFile === undefined ? "pipe" : openSync(logFile, "a");
	const child = spawn(command, args, { stdio: ["ignore", output, "inherit"] });
	if (typeof output === "number") closeSync(output);
	if (logFile !== undefined) followFile(t, logFile, write);
	const exited = once(child, "exit").then(([code]) => code as number | null);
	t.teardown(async () => {
		child.kill("SIGKILL");
		await exited;
	});
	child.stdout?.setEncoding("utf8").on("data", write);
	const started = await logged(({ msg }) => msg === "started");
	// What it inherits it listens on from the start.
	const [inherited] = (started.listening ?? []) as string[];
	const address =
		inherited ??
		String((await logged(({ msg }) => msg === "listening")).address);
	return {
		...files,
		log,
		logged,
		child,
		exited,
		...(await placeOf(t, address)),
	};
}

/** Hands on what is written to a file as it grows. */
function followFile(
	t: Teardown,
	file: string,
	write: (text: string) => void,
): void {
	let seen = 0;
	const timer = setInterval(() => {
		const text = readFileSync(file).subarray(seen);
		seen += text.length;
		write(text.toString());
	}, 20);
	t.teardown(() => clearInterval(timer));
}

export interface RunResult {
	readonly code: number | null;
	readonly stdout: string;
	readonly stderr: string;
}

/** Runs any program to its end, with `input` as what it reads. */
export async function runProgram(
	[program = "", ...args]: readonly string[],
	{
		input = "",
		...options
	}: { input?: string; cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<RunResult> {
	const child = spawn(program, args, { ...options, stdio: "pipe" });
	let stdout = "";
	let stderr = "";
	child.stdout.setEncoding("utf8").on("data", (text: string) => {
		stdout += text;
	});
	child.stderr.setEncoding("utf8").on("data", (text: string) => {
		stderr += text;
	});
	child.stdin.on("error", () => {});
	child.stdin.end(input);
	const [code] = (await once(child, "close")) as [number | null];
	return { code, stdout, stderr };
}

/** Runs the program to its end. */
export function runCli(
	args: readonly string[],
	input = "",
): Promise<RunResult> {
	return runProgram([process.execPath, program, ...args], {
		input,
		// A person who runs the tests may have files of clients in theirs.
		env: { ...process.env, HOME: "/nonexistent" },
	});
}

/**
 * Sends raw bytes and collects what comes back until the gate closes the
 * connection, or until `enough` is satisfied.
 */
export async function sendRaw(
	port: number,
	bytes: string | Buffer,
	enough: (reply: string) => boolean = () => false,
	host = "127.0.0.1",
): Promise<string> {
	const socket = connect(port, host);
	let reply = "";
	const { promise, resolve } = Promise.withResolvers<void>();
	socket.setEncoding("latin1");
	socket.on("data", (text: string) => {
		reply += text;
		if (enough(reply)) resolve();
	});
	socket.on("error", () => resolve());
	socket.on("close", () => resolve());
	socket.write(bytes);
	await promise;
	socket.destroy();
	return reply;
}

/** True once a whole response head and as much body as its Content-Length says are there. */
export function isWholeReply(reply: string): boolean {
	const end = reply.indexOf("\r\n\r\n");
	if (end === -1) return false;
	const length = /^content-length: (\d+)/im.exec(reply.slice(0, end))?.[1];
	return length === undefined || reply.length >= end + 4 + Number(length);
}

/**
 * Waits for something that has no event of its own.
 *
 * @throws after five minutes, with the condition: a test that hung until the file's own
 *   timeout would keep all that follow from running, and say nothing
 */
export async function eventually(
	condition: () => boolean | Promise<boolean>,
): Promise<void> {
	// The clocks that tests move are others.
	const givenUpAt = process.uptime() + 300;
	while (!(await condition())) {
		if (process.uptime() > givenUpAt)
			throw new Error(`it did not come to this: ${condition}`);
		await delay(5);
	}
}
