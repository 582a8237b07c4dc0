import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { askDaemon } from "../../../src/admin/client.ts";
import type { KeyEntry } from "../../../src/keys/keyFile.ts";
import { digestOf } from "../../../src/keys/newKey.ts";
import {
	eventually,
	type LogLine,
	spawnGate,
	testKeys,
} from "../../support/gate.ts";
import { makeNamespace } from "../../support/namespaces.ts";
import { counting } from "../models.ts";
import { startOllama } from "../ollama.ts";

type Test = Parameters<typeof makeNamespace>[0];

/** The models that the key may use; each is made from `smol`. */
export const models = {
	/** Answers what the person asks, in a few words. Takes tools, and never calls one. */
	short: "short",
	/** Counts on and on, whatever it is asked. */
	endless: "endless",
	/** There, and not among the key's. */
	forbidden: "other",
} as const;

/** The user's own words are all that these templates show the model: agents send tens of kilobytes besides. */
const takesTools = "{{- if .Tools }}{{ end }}";
const recipes = [
	{
		model: models.short,
		template: `${takesTools}{{ range .Messages }}{{ if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n{{ end }}{{ end }}<|im_start|>assistant\n`,
		parameters: {
			num_ctx: 2048,
			temperature: 0,
			num_predict: 40,
			// Where a client sets its own num_predict: a sentence.
			stop: ["<|im_end|>", "<|im_start|>", ".", "?"],
		},
	},
	{
		model: models.endless,
		template: `${takesTools}{{ range .Messages }}{{ end }}${counting}`,
		parameters: { num_ctx: 2048, temperature: 0, stop: ["never"] },
	},
];

/** The real gate in front of a real Ollama, and a network of nothing but loopback for clients. */
export interface Stack {
	/** The gate as clients see it, in their network. */
	readonly server: string;
	/** Where Ollama is, as the gate names it. */
	readonly ollama: string;
	/** The gate's lines on requests, so far. */
	requests(): LogLine[];
	/** The first line, past or to come, that satisfies the condition. */
	logged(condition: (line: LogLine) => boolean): Promise<LogLine>;
	/** How many requests are with Ollama now. */
	streams(): Promise<number>;
	/** Resolves once none is with Ollama, and the line of each has been read. */
	settled(): Promise<void>;
	/** A command line that runs a command in the clients' network. */
	inClientNetwork(command: readonly string[]): string[];
	/** Processes that clients have left running. */
	leftBehind(): number[];
	/** Asks the endless model for one token, which takes a runner that is free. */
	isRunnerFree(): Promise<boolean>;
	/** Leaves the key these models and no others. */
	allow(models: readonly string[]): Promise<void>;
	stopOllama(): Promise<void>;
}

/** What a gate has besides. */
export interface Besides {
	readonly config?: Record<string, unknown>;
	/** Keys of others. */
	readonly keys?: readonly KeyEntry[];
	/** Files beside the keys file, by name; each is its owner's alone. */
	readonly files?: Readonly<Record<string, string>>;
}

/**
 * Starts it; the test's end takes all of it down.
 *
 * @param rules of the key, over those that it has: read, infer, and two models
 */
export async function startStack(
	t: Test,
	rules: Partial<KeyEntry> = {},
	{ config, keys = [], files }: Besides = {},
): Promise<Stack> {
	const ollama = await startOllama(t);
	for (const recipe of recipes)
		await post(ollama.url, "/api/create", { ...recipe, from: "smol" });
	const entry: KeyEntry = {
		name: "person",
		...(rules.ollamaKey === undefined && { sha256: digestOf(testKeys.user) }),
		scopes: ["read", "infer"],
		models: [models.short, models.endless],
		...rules,
	};

	const network = await makeNamespace(t);
	const enter = [`nsenter`, `--net=/run/netns/${network.name}`];
	const leave = [`nsenter`, `--net=/proc/${process.pid}/ns/net`];
	const pidsInside = () =>
		spawnSync("ip", ["netns", "pids", network.name], { encoding: "utf8" })
			.stdout.split("\n")
			.filter((pid) => pid !== "")
			.map(Number);
	t.teardown(() => {
		for (const pid of pidsInside()) kill(pid, "SIGKILL");
	});
	// Its socket is in the clients' network, and the gate itself where Ollama is.
	const gate = await spawnGate(t, {
		upstreamUrl: ollama.url,
		keys: [entry, ...keys],
		...(config !== undefined && { config }),
		...(files !== undefined && { files }),
		launcher: [
			...enter,
			...["python3", "test/support/inheritSocket.py"],
			...["--address", "127.0.0.1", "--port", "11434"],
			...leave,
		],
	});
	const admin = path.join(gate.folder, "admin.sock");
	const streams = async () => {
		const { body } = await askDaemon(admin, "GET /status");
		return (JSON.parse(body) as { streams: number }).streams;
	};
	const reload = async () => {
		const reloads = () => gate.log.filter(({ msg }) => msg === "reloaded");
		const before = reloads().length;
		await askDaemon(admin, "POST /reload");
		await eventually(() => reloads().length > before);
	};
	// The first load is behind us before a client waits for one.
	await post(ollama.url, "/api/chat", {
		model: models.short,
		messages: [{ role: "user", content: "Hello!" }],
		stream: false,
	});
	return {
		server: gate.url,
		ollama: new URL(ollama.url).host,
		requests: () => gate.log.filter(({ msg }) => msg === "request"),
		logged: gate.logged,
		streams,
		async settled() {
			await eventually(async () => (await streams()) === 0);
			// Its line comes behind those of the requests before it.
			await reload();
		},
		async allow(models) {
			await gate.writeKeys([{ ...entry, models }, ...keys]);
			await reload();
		},
		inClientNetwork: (command) => [...enter, ...command],
		leftBehind: pidsInside,
		async isRunnerFree() {
			const reply = post(ollama.url, "/api/chat", {
				model: models.endless,
				messages: [{ role: "user", content: "Hello!" }],
				stream: false,
				options: { num_predict: 1 },
			});
			return (await reply).includes('"done":true');
		},
		async stopOllama() {
			await ollama.stop();
		},
	};
}

async function post(url: string, route: string, body: object): Promise<string> {
	const reply = await fetch(`${url}${route}`, {
		method: "POST",
		body: JSON.stringify(body),
	});
	const text = await reply.text();
	if (!reply.ok || text.includes('"error"'))
		throw new Error(`Ollama answers ${route} with ${reply.status}: ${text}`);
	return text;
}

function kill(pid: number, name: NodeJS.Signals): void {
	try {
		process.kill(pid, name);
	} catch (error) {
		if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
	}
}

/** What a person sees of a program, as it comes. */
export interface Running {
	/** Everything so far, standard output and standard error as they came. */
	shown(): string;
	/** Sends what Ctrl-C sends. */
	interrupt(): void;
	kill(): void;
	hasEnded(): boolean;
	/** Its exit code, or the signal that ended it. */
	readonly ended: Promise<number | string>;
}

/** Starts a program with nothing of this process's environment. */
export function start(
	[file = "", ...args]: readonly string[],
	options: {
		readonly env: Record<string, string>;
		readonly cwd: string;
		readonly input: string;
	},
): Running {
	const child = spawn(file, args, {
		cwd: options.cwd,
		env: options.env,
		// A group of its own, as a shell gives it, so that Ctrl-C reaches all of it.
		detached: true,
	});
	const signal = (name: NodeJS.Signals) => {
		if (child.pid !== undefined) kill(-child.pid, name);
	};
	let shown = "";
	child.stdout.setEncoding("utf8").on("data", (text: string) => {
		shown += text;
	});
	child.stderr.setEncoding("utf8").on("data", (text: string) => {
		shown += text;
	});
	child.stdin.on("error", () => {});
	child.stdin.end(options.input);
	return {
		shown: () => shown,
		interrupt: () => signal("SIGINT"),
		kill: () => signal("SIGKILL"),
		hasEnded: () => child.exitCode !== null || child.signalCode !== null,
		ended: once(child, "close").then(
			([code, signal]) => (code ?? signal) as number | string,
		),
	};
}
