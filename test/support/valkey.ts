import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { freePort } from "./freePort.ts";
import { temporaryFolder } from "./temporaryFolder.ts";
import { isThere, requireTool } from "./tools.ts";

interface Test {
	teardown(action: () => unknown): unknown;
	fail(message: string): unknown;
	plan(count: number, reason: string): unknown;
}

/** Debian 13 has Valkey; Debian 12 has the Redis that it comes from. LLAMAGATE_VALKEY names another. */
export const valkeyProgram =
	process.env.LLAMAGATE_VALKEY ??
	(isThere("valkey-server") ? "valkey-server" : "redis-server");

/** Whether a Valkey, or a Redis, can be started. */
export function requireValkey(t: Test): boolean {
	return requireTool(t, valkeyProgram);
}

/** A Valkey that a test has to itself. */
export interface TestValkey {
	readonly port: number;
	readonly socketPath: string;
	readonly url: string;
	readonly child: ChildProcess;
	/** Runs a command, and returns the reply as it came. */
	command(...words: string[]): Promise<string>;
	/** Has the process stand still, or go on. */
	signal(name: "SIGSTOP" | "SIGCONT"): void;
	kill(): Promise<void>;
}

export interface ValkeyOptions {
	readonly port?: number;
	/** More of its command line. */
	readonly args?: readonly string[];
	/** What `command` logs in with. */
	readonly auth?: readonly string[];
}

/** Starts a Valkey on loopback and on a Unix socket, that keeps nothing on disk. */
export async function startValkey(
	t: Test,
	{ port: wanted, args = [], auth }: ValkeyOptions = {},
): Promise<TestValkey> {
	const folder = await temporaryFolder(t);
	const port = wanted ?? (await freePort());
	const socketPath = path.join(folder, "valkey.sock");
	const child = spawn(
		valkeyProgram,
		[
			...["--port", String(port), "--bind", "127.0.0.1"],
			...["--unixsocket", socketPath, "--unixsocketperm", "700"],
			...["--save", "", "--appendonly", "no", "--dir", folder],
			// It would wait for other replicas.
			...["--repl-diskless-sync-delay", "0"],
			...args,
		],
		{ stdio: "ignore" },
	);
	const exited = once(child, "exit");
	const kill = async () => {
		// One that stands still does not hear of anything else.
		child.kill("SIGKILL");
		await exited;
	};
	t.teardown(kill);
	const command = (...words: string[]) =>
		ask(port, [...(auth ? [["AUTH", ...auth]] : []), words]);
	for (;;) {
		const reply = await command("PING").catch(() => "");
		if (reply.startsWith("+PONG")) break;
		if (child.exitCode !== null)
			throw new Error(`${valkeyProgram} ended with ${child.exitCode}`);
		await delay(10);
	}
	return {
		...{ port, socketPath, child, command, kill },
		url: `valkey://127.0.0.1:${port}`,
		signal: (name) => void child.kill(name),
	};
}

/** Sends commands, and returns the last one's reply as it came. */
async function ask(port: number, commands: string[][]): Promise<string> {
	const socket = connect(port, "127.0.0.1");
	socket.setEncoding("utf8");
	const failed = once(socket, "error").then(([error]) => {
		throw error;
	});
	failed.catch(() => {});
	let reply = "";
	for (const words of commands) {
		socket.write(
			`*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`,
		);
		reply = String((await Promise.race([once(socket, "data"), failed]))[0]);
	}
	socket.destroy();
	return reply;
}

/** Something between a gate and a Valkey, as a network is, or an address that moves. */
export interface Proxy {
	readonly url: string;
	readonly port: number;
	/** How long each piece waits on its way, in each direction half of it. */
	delayMs: number;
	/** Where new connections lead. */
	target: number;
	/** Ends all connections that are open. */
	cut(): void;
}

/** Starts a proxy on loopback that leads to a port there. */
export async function startProxy(t: Test, target: number): Promise<Proxy> {
	const open = new Set<Socket>();
	const server = createServer((client) => {
		const upstream = connect(proxy.target, "127.0.0.1");
		const carry = (from: Socket, to: Socket) => {
			open.add(from);
			let way = Promise.resolve();
			from.on("data", (piece: Buffer) => {
				const lateMs = proxy.delayMs / 2;
				if (lateMs === 0) {
					to.write(piece);
					return;
				}
				const arrives = delay(lateMs);
				way = way.then(() => arrives).then(() => void to.write(piece));
			});
			from.on("error", () => {});
			from.on("close", () => {
				open.delete(from);
				to.destroy();
			});
		};
		carry(client, upstream);
		carry(upstream, client);
	}).listen(0, "127.0.0.1");
	await once(server, "listening");
	const { port } = server.address() as { port: number };
	const proxy: Proxy = {
		...{ port, target, delayMs: 0 },
		url: `valkey://127.0.0.1:${port}`,
		cut() {
			for (const socket of open) socket.destroy();
		},
	};
	t.teardown(() => {
		proxy.cut();
		server.close();
	});
	return proxy;
}
