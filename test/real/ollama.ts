import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, readdir, symlink, utimes } from "node:fs/promises";
import path from "node:path";
import { freePort } from "../support/freePort.ts";
import { childrenOf } from "../support/process.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";
import { newestOllama, type OllamaVersion, realParts } from "./parts.ts";

/** What this needs of tap: a place to say what must be closed at a test's end. */
interface Teardown {
	teardown(action: () => unknown): unknown;
}

export interface OllamaOptions {
	/** The newest by itself. */
	readonly version?: OllamaVersion;
	/** Ollama's own settings, over those that let it answer on a free port of 127.0.0.1. */
	readonly env?: Readonly<Record<string, string>>;
	/** Where it listens; on 127.0.0.1 at any free port by itself. */
	readonly host?: string;
	/** A command that runs the command that follows it: `ip netns exec NAME`. */
	readonly launcher?: readonly string[];
}

export interface RealOllama {
	readonly url: string;
	readonly port: number;
	/** Of the server; its runners are children of it. */
	readonly pid: number;
	readonly child: ChildProcess;
	/** Its store, which goes with the test: what is pulled, created and deleted stays in it. */
	readonly models: string;
	/** Resolves at the server's end. */
	readonly exited: Promise<unknown>;
	/** What it has written so far. */
	log(): string;
	/** Resolves once it has written what matches; rejects when it ends before. */
	logged(pattern: RegExp): Promise<void>;
	/** Ends it, and waits for the end. */
	stop(signal?: NodeJS.Signals): Promise<void>;
}

/**
 * The real Ollama with the models `smol` and `other` in a store of its own. It
 * answers when this returns, and ends with the test.
 *
 * @throws an error of one line where it does not come to listen
 */
export async function startOllama(
	t: Teardown,
	options: OllamaOptions = {},
): Promise<RealOllama> {
	if (options.host !== undefined) return startAt(t, options.host, options);
	// Another program may take the port before Ollama does.
	for (let left = 4; ; left--)
		try {
			return await startAt(t, `127.0.0.1:${await freePort()}`, options);
		} catch (error) {
			const isTaken = /address already in use/.test(String(error));
			if (!isTaken || left === 0) throw error;
		}
}

async function startAt(
	t: Teardown,
	host: string,
	options: OllamaOptions,
): Promise<RealOllama> {
	const parts = realParts();
	const folder = await temporaryFolder(t);
	const models = path.join(folder, "models");
	await linkModels(parts.models, models);
	const [program = "", ...args] = [
		...(options.launcher ?? []),
		// Should the test end without a word, Ollama gets the signal that has it end its runners.
		...["setpriv", "--pdeathsig", "TERM"],
		...[parts.program(`ollama-${options.version ?? newestOllama}`), "serve"],
	];
	const child = spawn(program, args, {
		stdio: ["ignore", "pipe", "pipe"],
		env: {
			PATH: process.env.PATH,
			// It makes a key in there.
			HOME: folder,
			OLLAMA_HOST: host,
			OLLAMA_MODELS: models,
			...options.env,
		},
	});
	const exited = once(child, "close");
	const { log, logged } = collect(child, exited);
	const stop = async (signal: NodeJS.Signals = "SIGTERM") => {
		// Killed, it ends none of its runners.
		const runners = signal === "SIGKILL" ? childrenOf(child.pid) : [];
		child.kill(signal);
		for (const runner of runners)
			try {
				process.kill(runner, signal);
			} catch {
				// It has ended by itself.
			}
		const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
		await exited;
		clearTimeout(timer);
	};
	t.teardown(() => stop());
	// The socket listens from then on; a connection waits until it is served.
	await logged(/msg="Listening on /).catch(() => {
		const reason = /^Error: (.*)$/m.exec(log())?.[1] ?? log().trim();
		throw new Error(`Ollama did not start at ${host}: ${reason}`);
	});
	return {
		...{ child, exited, models, log, logged, stop },
		url: `http://${host}`,
		port: Number(host.split(":").at(-1)),
		// It has a pid, as it has written something.
		pid: child.pid as number,
	};
}

/** Where a store has what it knows of its models. */
const library = "manifests/registry.ollama.ai/library";

/** A store with the same models, whose blobs are links: deleting them there leaves the cache as it is. */
async function linkModels(from: string, to: string): Promise<void> {
	await cp(path.join(from, "manifests"), path.join(to, "manifests"), {
		recursive: true,
	});
	// Ollama lists by these times, and copies made within one tick of the clock have the same.
	const names = await readdir(path.join(to, library));
	for (const [age, name] of names.sort().entries()) {
		const time = new Date(2026, 0, 1 + age);
		await utimes(path.join(to, library, name, "latest"), time, time);
	}
	await mkdir(path.join(to, "blobs"));
	for (const blob of await readdir(path.join(from, "blobs")))
		await symlink(path.join(from, "blobs", blob), path.join(to, "blobs", blob));
}

/** Keeps what a program writes, and lets a test wait for it. */
function collect(child: ChildProcess, exited: Promise<unknown>) {
	let text = "";
	const waiting = new Set<() => void>();
	for (const stream of [child.stdout, child.stderr])
		stream?.setEncoding("utf8").on("data", (piece: string) => {
			text += piece;
			for (const look of waiting) look();
		});
	const logged = (pattern: RegExp) =>
		new Promise<void>((resolve, reject) => {
			const look = () => {
				if (!pattern.test(text)) return;
				waiting.delete(look);
				resolve();
			};
			waiting.add(look);
			look();
			void exited.then(() => reject(new Error(`ended without ${pattern}`)));
		});
	return { log: () => text, logged };
}
