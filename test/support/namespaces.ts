import {
	type ChildProcessByStdio,
	execFile,
	spawn,
	spawnSync,
} from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import type { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { type Authority, ownName } from "./certificates.ts";
import {
	type LogLine,
	type RunResult,
	temporaryFolder,
	testEntries,
} from "./gate.ts";
import { program } from "./program.ts";
import { reap } from "./reaper.ts";
import { isThere } from "./tools.ts";

/** What these tests need of tap. */
interface Test {
	teardown(action: () => unknown): unknown;
	strictSame(found: unknown, wanted: unknown, message: string): boolean;
}

/** A guard against hanging and nothing else: what is waited for takes a second or two. */
const patienceMs = 60_000;
const root = path.join(import.meta.dirname, "../..");
/** Without anybody's proxy. */
const { PATH = "", NODE_COMPILE_CACHE } = process.env;
const environment = { PATH, ...(NODE_COMPILE_CACHE && { NODE_COMPILE_CACHE }) };

let namespaceCount = 0;

const obstacle = findObstacle();
if (obstacle !== undefined && process.env.CI)
	throw new Error(`in CI the network tests must run: ${obstacle}`);

/**
 * Options for a test that makes networks of its own. It is skipped, with the
 * reason, where that cannot be done; in CI, where nobody would notice, this
 * module throws. A new object each time: tap keeps a running test's state in it.
 */
export function network(): { skip: string | false } {
	return { skip: obstacle ?? false };
}

function findObstacle(): string | undefined {
	if (process.platform !== "linux") return "network namespaces need Linux";
	if (process.getuid?.() !== 0) return "network namespaces need root";
	for (const tool of ["ip", "ss", "curl", "python3"])
		if (!isThere(tool)) return `${tool} is missing`;
	const name = nextName();
	const { status, stderr } = spawnSync("ip", ["netns", "add", name], {
		encoding: "utf8",
	});
	if (status !== 0) return `no network namespace can be made: ${stderr}`;
	spawnSync("ip", ["netns", "delete", name]);
	return undefined;
}

function nextName(): string {
	return `llamagate-${process.pid}-${++namespaceCount}`;
}

/** A name for a namespace, which this process's end takes away if nobody has. */
export function newNamespaceName(): string {
	const name = nextName();
	reap("namespace", name);
	return name;
}

type Child = ChildProcessByStdio<null, Readable, Readable>;

/** A Linux network namespace: a machine of its own, as far as the network goes. */
export interface Namespace {
	readonly name: string;
	/** Runs `ip` commands in it, one after the other. */
	ip(...commands: string[]): Promise<void>;
	/** Runs a program in it to its end. */
	run(...command: string[]): Promise<RunResult>;
	/** Starts a program in it; the test's end kills it. */
	start(...command: string[]): Child;
	/** `100.101.102.104:11434` and so on: every TCP socket that listens in it, sorted. */
	listeners(): Promise<string[]>;
}

/** Makes a namespace with nothing up but loopback. */
export async function makeNamespace(
	t: Test,
	{ loopback = true } = {},
): Promise<Namespace> {
	const name = newNamespaceName();
	await mustRun(["ip", "netns", "add", name]);
	t.teardown(() => mustRun(["ip", "netns", "delete", name]));
	if (loopback) await mustRun(["ip", "-n", name, "link", "set", "lo", "up"]);
	return namespaceNamed(t, name);
}

/** A namespace that somebody else has made and will take away. */
export function namespaceNamed(t: Test, name: string): Namespace {
	const enter = ["ip", "netns", "exec", name];
	return {
		name,
		async ip(...commands) {
			await mustRun(["ip", "-n", name, "-batch", "-"], commands.join("\n"));
		},
		run: (...command) => run([...enter, ...command]),
		start(...command) {
			const [file = "", ...args] = [...enter, ...command];
			// `ip netns exec` turns into the program, so killing the child kills that.
			const child = spawn(file, args, {
				cwd: root,
				env: environment,
				stdio: ["ignore", "pipe", "pipe"],
			});
			child.stdout.setEncoding("utf8");
			child.stderr.setEncoding("utf8");
			const closed = once(child, "close");
			t.teardown(async () => {
				child.kill("SIGKILL");
				await closed;
			});
			return child;
		},
		async listeners() {
			const { stdout } = await run([...enter, "ss", "-H", "-l", "-t", "-n"]);
			return stdout
				.split("\n")
				.flatMap((line) => line.split(/\s+/)[3] ?? [])
				.sort();
		},
	};
}

function run(
	[file = "", ...args]: readonly string[],
	input = "",
): Promise<RunResult> {
	return new Promise((resolve, reject) => {
		const child = execFile(
			file,
			args,
			{ env: environment },
			(error, stdout, stderr) => {
				const code = error === null ? 0 : error.code;
				if (typeof code !== "number") reject(error);
				else resolve({ code, stdout, stderr });
			},
		);
		if (input !== "") child.stdin?.end(input);
	});
}

async function mustRun(
	command: readonly string[],
	input?: string,
): Promise<void> {
	const { code, stderr } = await run(command, input);
	if (code !== 0) throw new Error(`${command.join(" ")}: ${stderr}`);
}

/** Who has which address. 100.101.102.103 is Tailscale's own. */
export const addresses = {
	server: { v4: "100.101.102.104", v6: "fd7a:115c:a1e0::104" },
	peer: { v4: "100.101.102.105", v6: "fd7a:115c:a1e0::105" },
	lanServer: { v4: "192.168.77.1", v6: "2001:db8:77::1" },
	lanNeighbour: { v4: "192.168.77.2", v6: "2001:db8:77::2" },
} as const;
/** Where the gate listens. */
export const gateV4 = `${addresses.server.v4}:11434`;
export const gateV6 = `[${addresses.server.v6}]:11434`;
/** Where Ollama does. */
export const ollama = "127.0.0.1:11434";

/** Gives two machines a `tailscale0` each, which lead to each other, and their tailnet addresses. */
export async function joinTailnet(
	server: Namespace,
	peer: Namespace,
	serverAddresses: { v4: string; v6: string } = addresses.server,
): Promise<void> {
	await connect(server, peer, "tailscale0");
	for (const [machine, { v4, v6 }] of [
		[server, serverAddresses],
		[peer, addresses.peer],
	] as const)
		await machine.ip(
			`addr add ${v4}/10 dev tailscale0`,
			`addr add ${v6}/64 dev tailscale0 nodad`,
		);
}

/**
 * Gives two machines an `eth0` each, which lead to each other. The neighbour
 * sends over the LAN what is meant for the server's tailnet addresses too, and
 * the server takes it: to Linux any address of the host is good on any of its
 * interfaces.
 */
export async function joinLan(
	server: Namespace,
	neighbour: Namespace,
): Promise<void> {
	await connect(server, neighbour, "eth0");
	for (const [machine, { v4, v6 }] of [
		[server, addresses.lanServer],
		[neighbour, addresses.lanNeighbour],
	] as const)
		await machine.ip(
			`addr add ${v4}/24 dev eth0`,
			`addr add ${v6}/64 dev eth0 nodad`,
		);
	await neighbour.ip(
		`route add ${addresses.server.v4}/32 via ${addresses.lanServer.v4}`,
		`route add ${addresses.server.v6}/128 via ${addresses.lanServer.v6}`,
	);
}

/** A veth pair, made inside the two machines so that no name is taken outside. */
export async function connect(
	one: Namespace,
	other: Namespace,
	name: string,
): Promise<void> {
	await one.ip(
		`link add ${name} type veth peer name ${name} netns ${other.name}`,
		`link set ${name} up`,
	);
	await other.ip(`link set ${name} up`);
}

/** A command that serves HTTP. Python's own, `-m http.server`, first asks DNS for its name, which takes five seconds where nobody answers. */
export function listener(address: string, port: number): string[] {
	return [
		...["python3", "-c"],
		`import http.server, socket, socketserver
class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET${address.includes(":") ? "6" : ""}
    allow_reuse_address = daemon_threads = True
Server(("${address}", ${port}), http.server.SimpleHTTPRequestHandler).serve_forever()`,
	];
}

/** A daemon in a namespace. */
export interface Daemon {
	readonly log: Lines<LogLine>;
	/** Gives it another configuration, and has it read that. */
	reconfigure(config: Record<string, unknown>): Promise<void>;
	/** Once it has ended by itself: its exit code and what it said on stderr. */
	ended(): Promise<{ code: number | null; stderr: string }>;
}

/**
 * Starts the real program in a namespace. Where the configuration says nothing
 * else it listens on tailscale0, and Ollama is at 127.0.0.1:11434.
 *
 * @param launcher a command that runs the command that follows it
 */
export async function startDaemon(
	t: Test,
	namespace: Namespace,
	config: Record<string, unknown> = {},
	launcher: readonly string[] = [],
): Promise<Daemon> {
	const folder = await temporaryFolder(t);
	const configFile = path.join(folder, "config.json");
	const admin = { socket: path.join(folder, "admin.sock"), metrics: "off" };
	const configure = (config: Record<string, unknown>) =>
		writeFile(configFile, JSON.stringify({ admin, ...config }));
	await configure(config);
	await writeFile(
		path.join(folder, "keys.json"),
		JSON.stringify({ keys: testEntries }),
		{ mode: 0o600 },
	);
	const child = namespace.start(
		...launcher,
		...[process.execPath, program, "serve", "--config", configFile],
	);
	const closed = once(child, "close");
	let stderr = "";
	child.stderr.on("data", (text: string) => {
		stderr += text;
	});
	return {
		log: linesOf(child, (line) => JSON.parse(line) as LogLine),
		async reconfigure(config) {
			await configure(config);
			child.kill("SIGHUP");
		},
		ended: () =>
			inTime(
				closed.then(([code]) => ({ code: code as number | null, stderr })),
				() => `the program goes on; it said: ${stderr}`,
			),
	};
}

/** A stand-in for Ollama in a namespace. */
export interface StandInProcess {
	/** `GET /api/tags` and so on: the calls that have arrived. */
	calls(): string[];
	/** Resolves once such a call's client has left before its end. */
	aborted(call: string): Promise<void>;
}

/** Starts a stand-in where Ollama would be, at 127.0.0.1:11434. */
export async function startStandInProcess(
	namespace: Namespace,
	options: { readonly tokenIntervalMs?: number } = {},
): Promise<StandInProcess> {
	const child = namespace.start(
		...[process.execPath, "test/support/standInProcess.ts"],
		JSON.stringify({ port: Number(ollama.split(":")[1]), ...options }),
	);
	const { all, seen } = linesOf(
		child,
		(line) =>
			JSON.parse(line) as { url?: string; call?: string; abort?: string },
	);
	await seen(({ url }) => url !== undefined);
	return {
		calls: () => all.flatMap(({ call }) => call ?? []),
		async aborted(call) {
			await seen(({ abort }) => abort === call);
		},
	};
}

/** What came of a request, as curl tells it. */
export interface Answer {
	/** 0 if there was none. */
	readonly status: number;
	readonly body: string;
	/** Everything that came, head and body. */
	readonly bytes: number;
	/** 0, or why there was no answer. */
	readonly curlExit: number;
}

/** Exit codes of curl(1). */
export const curlExits = {
	refused: 7,
	timeout: 28,
	emptyReply: 52,
	reset: 56,
} as const;

/**
 * Asks a gate for the list of models.
 *
 * @param source which of the namespace's addresses it comes from
 * @param authority asks by HTTPS, as who trusts it, for `ownName` at an IPv4 address
 */
export async function ask(
	from: Namespace,
	hostPort: string,
	{
		key,
		source,
		authority,
	}: {
		readonly key?: string;
		readonly source?: string;
		readonly authority?: Authority | undefined;
	} = {},
): Promise<Answer> {
	const { code, stdout, stderr } = await from.run(
		"curl",
		...["--silent", "--max-time", String(patienceMs / 1_000)],
		...["--write-out", "%{stderr}%{http_code} %{size_header} %{size_download}"],
		...(source === undefined ? [] : ["--interface", source]),
		...keyOptions(key),
		...placeOptions(hostPort, "/api/tags", authority),
	);
	const [status = 0, head = 0, body = 0] = stderr.split(" ").map(Number);
	return { status, body: stdout, bytes: head + body, curlExit: code ?? 0 };
}

/** Starts a reply of many tokens; the lines are what has come of it. A gate that stops waits for one that has not ended. */
export function startStream(
	from: Namespace,
	hostPort: string,
	key: string,
	authority?: Authority,
): Lines<Record<string, unknown>> & { readonly end: () => void } {
	const request = {
		model: "qwen3:8b",
		messages: [{ role: "user", content: "a" }],
		options: { num_predict: 1_000_000 },
	};
	const child = from.start(
		"curl",
		...["--silent", "--no-buffer", "--data", JSON.stringify(request)],
		...keyOptions(key),
		...placeOptions(hostPort, "/api/chat", authority),
	);
	return {
		...linesOf(child, (line) => JSON.parse(line) as Record<string, unknown>),
		end: () => child.kill(),
	};
}

function placeOptions(
	hostPort: string,
	path: string,
	authority: Authority | undefined,
): string[] {
	if (authority === undefined) return [`http://${hostPort}${path}`];
	const [host, port] = hostPort.split(":");
	return [
		...["--cacert", authority.caFile],
		...["--resolve", `${ownName}:${port}:${host}`],
		`https://${ownName}:${port}${path}`,
	];
}

function keyOptions(key: string | undefined): string[] {
	if (key === undefined) return [];
	return ["--header", `authorization: Bearer ${key}`];
}

/** What a process says on stdout, line by line. */
export interface Lines<T> {
	readonly all: readonly T[];
	/** The first line, past or to come, that satisfies the condition. */
	seen(condition: (line: T, index: number) => boolean): Promise<T>;
}

/** Reads what a process says, from its first line on. */
export function linesOf<T>(child: Child, parse: (line: string) => T): Lines<T> {
	const all: T[] = [];
	const { promise: closed, resolve: close } = Promise.withResolvers<void>();
	const looks = new Set<() => void>();
	let rest = "";
	child.stdout.on("data", (text: string) => {
		const lines = (rest + text).split("\n");
		rest = lines.pop() ?? "";
		all.push(...lines.filter((line) => line !== "").map(parse));
		for (const look of looks) look();
	});
	child.once("close", () => close());
	const said = () =>
		all
			.slice(-20)
			.map((line) => JSON.stringify(line))
			.join("\n");

	return {
		all,
		seen(condition) {
			const found = new Promise<T>((resolve, reject) => {
				const look = () => {
					const line = all.find(condition);
					if (line === undefined) return;
					looks.delete(look);
					resolve(line);
				};
				looks.add(look);
				look();
				void closed.then(() =>
					reject(new Error(`the program has ended; it said:\n${said()}`)),
				);
			});
			return inTime(
				found,
				() => `there is no such line; there are:\n${said()}`,
			);
		},
	};
}

/**
 * Waits until a value is as wanted; the assertion shows the last one if it never is.
 * What takes longer is looked at more seldom: most looks start programs.
 */
export async function becomes<T>(
	t: Test,
	read: () => T | Promise<T>,
	wanted: T,
	message: string,
): Promise<void> {
	const begun = performance.now();
	const waited = () => performance.now() - begun;
	let found = await read();
	while (!isDeepStrictEqual(found, wanted) && waited() < patienceMs) {
		await delay(Math.min(Math.max(50, waited() / 10), 250));
		found = await read();
	}
	t.strictSame(found, wanted, message);
}

async function inTime<T>(
	promise: Promise<T>,
	describe: () => string,
): Promise<T> {
	const guard = new AbortController();
	const late = delay(patienceMs, undefined, { signal: guard.signal }).then(
		() => {
			throw new Error(describe());
		},
	);
	try {
		return await Promise.race([promise, late]);
	} finally {
		guard.abort();
	}
}
