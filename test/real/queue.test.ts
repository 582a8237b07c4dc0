import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { type IncomingMessage, type RequestOptions, request } from "node:http";
import path from "node:path";
import { createInterface } from "node:readline";
import t from "tap";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import {
	bearer,
	eventually,
	spawnGate,
	temporaryFolder,
	testKeys,
} from "../support/gate.ts";
import { environment, type Invocation, isAnswered } from "./clients/cases.ts";
import { invokeClaudeCode } from "./clients/claudeCode.ts";
import { installClients, pinned } from "./clients/install.ts";
import { invokeLibrary } from "./clients/library.ts";
import { models, start, startStack } from "./clients/stack.ts";
import { counting } from "./models.ts";
import { startOllama } from "./ollama.ts";
import { realParts } from "./parts.ts";
import { record } from "./record.ts";

const version = "0.32.15";

const keyOf = (name: string, key: string): KeyEntry => ({
	...{ name, sha256: digestOf(key), scopes: ["read", "infer"] },
});
const batch = keyOf("batch", testKeys.worker);
const person = keyOf("person", testKeys.user);

interface Chat {
	readonly key: string;
	readonly model: string;
	readonly tokens: number;
	/** Told at the first bytes of the reply. */
	readonly began?: () => void;
	readonly signal?: AbortSignal;
}

let asked = 0;

/** Asks for a reply of so many tokens, and resolves with its last line. */
async function chat(
	url: string,
	{ key, model, tokens, began, signal }: Chat,
): Promise<Record<string, unknown>> {
	const sent = request(new URL("/api/chat", url), {
		...{ method: "POST", headers: bearer(key) },
		...(signal !== undefined && { signal }),
	});
	const messages = [{ role: "user", content: `Count on from ${++asked}.` }];
	const options = { num_predict: tokens, temperature: 0 };
	sent.end(JSON.stringify({ model, messages, options }));
	const [reply] = (await once(sent, "response")) as [IncomingMessage];
	let last = "";
	for await (const line of createInterface({ input: reply })) {
		if (last === "") began?.();
		last = line;
	}
	if (reply.statusCode !== 200) throw new Error(last);
	return JSON.parse(last) as Record<string, unknown>;
}

t.test(
	"a person beside a batch waits for two of its requests at most",
	async (t) => {
		const ollama = await startOllama(t, { version });
		const { url } = await spawnGate(t, {
			upstreamUrl: ollama.url,
			keys: [batch, person],
			config: { queue: { mode: "fair", parallel: 1 } },
		});
		const ask = { model: "smol", tokens: 12 };
		await chat(url, { ...ask, key: testKeys.user });
		let isOver = false;
		let ended = 0;
		const worker = async () => {
			while (!isOver) {
				await chat(url, { ...ask, key: testKeys.worker });
				ended += 1;
			}
		};
		const workers = Array.from({ length: 8 }, worker);
		await eventually(() => ended > 2);
		for (let left = 4; left > 0; left--) {
			const before = ended;
			let passed = Number.NaN;
			await chat(url, {
				...{ ...ask, key: testKeys.user },
				began: () => {
					passed = ended - before;
				},
			});
			t.ok(passed <= 2, `${passed} of eight went before`);
		}
		isOver = true;
		await Promise.all(workers);
	},
);

t.test("users of two models with room for one take turns", async (t) => {
	const ollama = await startOllama(t, {
		version,
		env: { OLLAMA_MAX_LOADED_MODELS: "1" },
	});
	const { url } = await spawnGate(t, {
		upstreamUrl: ollama.url,
		keys: [batch, person],
		// Short turns, so that there are some.
		config: { queue: { mode: "fair", parallel: 1, turnFactor: 2 } },
	});
	const order: string[] = [];
	const changes = () =>
		order.filter((one, at) => at > 0 && one !== order[at - 1]).length;
	const worker = async (key: string, model: string) => {
		while (changes() < 4) {
			await chat(url, { key, model, tokens: 12 });
			order.push(model);
		}
	};
	// It ends only if nobody starves.
	await Promise.all(
		[1, 2, 3].flatMap(() => [
			worker(testKeys.worker, "smol"),
			worker(testKeys.user, "other"),
		]),
	);
	t.ok(
		changes() < order.length / 2,
		`a turn is more than a request: ${order.join(" ")}`,
	);
});

t.test(
	"a client that leaves while its model loads leaves it loaded",
	async (t) => {
		const ollama = await startOllama(t, { version });
		const { url, logged } = await spawnGate(t, {
			upstreamUrl: ollama.url,
			keys: [person],
			config: { queue: { mode: "fair" } },
		});
		const leaving = new AbortController();
		const { signal } = leaving;
		const ask = { key: testKeys.user, model: "smol", tokens: 4 };
		const left = chat(url, { ...ask, signal });
		const runners = () => ollama.log().match(/starting llama-?server/gi) ?? [];
		await ollama.logged(/starting llama-?server/i);
		leaving.abort();
		await t.rejects(left);
		await logged(({ outcome }) => outcome === "client_gone");
		await eventually(async () => {
			const reply = await fetch(new URL("/api/ps", ollama.url));
			const { models } = (await reply.json()) as { models: unknown[] };
			return models.length === 1;
		});
		const { done } = await chat(url, ask);
		t.equal(done, true);
		t.equal(runners().length, 1, "the next request finds it");
	},
);

t.test(
	"clients that wait are told so in their stream, and take no harm",
	async (t) => {
		const cache = realParts().folder;
		const names = ["openai-js", "ollama-js", "claude-code"];
		await installClients(cache, t.comment, names.map(pinned));
		const stack = await startStack(
			t,
			{},
			{
				keys: [{ ...batch, models: [models.short] }],
				config: {
					queue: { mode: "fair", parallel: 1, announceAfter: "100ms" },
				},
			},
		);

		const folder = await temporaryFolder(t);
		const socketPath = path.join(folder, "gate.sock");
		const portOf = {
			"openai-js": 11435,
			"ollama-js": 11436,
			"claude-code": 11437,
		};
		const [program = "", ...args] = stack.inClientNetwork([
			process.execPath,
			path.join(import.meta.dirname, "clients/overhear.ts"),
			"11434",
			`open-webui=${socketPath}`,
			...Object.entries(portOf).map(([name, port]) => `${name}=${port}`),
		]);
		const between = spawn(program, args, {
			stdio: ["ignore", "pipe", "inherit"],
		});
		t.teardown(() => between.kill());
		const seen = new Map<string, string[]>();
		createInterface({ input: between.stdout }).on("line", (line) => {
			const { name, saw } = JSON.parse(line) as { name: string; saw: string };
			seen.set(name, [...(seen.get(name) ?? []), saw]);
		});
		await eventually(() => seen.size === 4);

		const post = async (route: string, key: string, body: object) => {
			const options: RequestOptions = {
				...{ socketPath, path: route, method: "POST" },
				headers: { ...bearer(key), "content-type": "application/json" },
			};
			const sent = request(options);
			sent.end(JSON.stringify(body));
			// Whoever keeps the model busy is cut off in the end.
			sent.on("error", () => {});
			const [reply] = (await once(sent, "response")) as [IncomingMessage];
			return { sent, reply };
		};
		// Goes on until its client leaves.
		const busy = await post("/api/generate", testKeys.worker, {
			...{ model: models.short, raw: true },
			prompt: counting,
			options: { num_predict: -1, temperature: 0, stop: ["never"] },
		});
		await once(busy.reply, "data");
		busy.reply.on("error", () => {}).resume();
		seen.clear();

		const run = async (
			name: keyof typeof portOf,
			{ command, ...how }: Invocation,
		) => {
			const home = path.join(folder, name);
			await mkdir(home);
			for (const [file, text] of Object.entries(how.files ?? {})) {
				await mkdir(path.dirname(path.join(home, file)), { recursive: true });
				await writeFile(path.join(home, file), text);
			}
			const running = start(stack.inClientNetwork(command), {
				...{ cwd: how.cwd ?? home, input: how.input ?? "" },
				env: { ...environment(home), ...how.env },
			});
			t.teardown(() => running.kill());
			return running;
		};
		const attempt = (name: keyof typeof portOf) => ({
			...{ task: "stream" as const, home: path.join(folder, name) },
			...{ key: testKeys.user, model: models.short },
			server: `http://127.0.0.1:${portOf[name]}`,
		});
		const running = {
			"openai-js": await run(
				"openai-js",
				await invokeLibrary("openai-js", "openai-js", attempt("openai-js")),
			),
			"ollama-js": await run(
				"ollama-js",
				await invokeLibrary("ollama-js", "ollama-js", attempt("ollama-js")),
			),
			"claude-code": await run(
				"claude-code",
				invokeClaudeCode(attempt("claude-code")),
			),
		};
		// As its backend does for a connection to an OpenAI API.
		const openWebUi = post("/v1/chat/completions", testKeys.user, {
			...{ stream: true, model: models.short },
			messages: [{ role: "user", content: "Hello!" }],
		});

		const told = ["openai-js", "claude-code", "open-webui"];
		await eventually(
			() =>
				told.every((name) => seen.get(name)?.includes("comment")) ||
				Object.values(running).some((one) => one.hasEnded()),
		);
		t.strictSame(
			[...seen.keys()].sort(),
			told.toSorted(),
			"lines of JSON have no comments, so their client still waits for a head",
		);
		busy.sent.destroy();

		for (const [name, one] of Object.entries(running)) {
			t.equal(await one.ended, 0, name);
			t.match(one.shown(), /\S/);
			t.notMatch(one.shown(), /waiting, \d/);
		}
		t.match(await readAsOpenWebUi((await openWebUi).reply), /\S/);
		await stack.settled();
		const lines = stack.requests().filter(({ key }) => key === "person");
		t.ok(lines.length >= 4);
		t.strictSame(
			lines.filter((line) => !isAnswered(line)),
			[],
		);
		t.ok(lines.filter(({ queueMs }) => Number(queueMs) >= 100).length >= 4);
		t.strictSame(
			stack.leftBehind(),
			[between.pid],
			"nothing else is left running",
		);
		record("ollama", "Ollama, behind the gate's queue", {
			version,
			ran: [
				"a person beside a batch",
				"two models with room for one",
				"a client that leaves while its model loads",
				"openai and ollama of npm, claude-code and a call as of Open WebUI's, each told that it waits",
			],
			differs: [],
		});
	},
);

/**
 * The text of a reply, read as Open WebUI's backend reads it (utils/middleware.py,
 * stream_body_handler): lines that begin with `data:` count, all others are
 * passed over; the reply has to say that it is a stream of events.
 */
async function readAsOpenWebUi(reply: IncomingMessage): Promise<string> {
	if (!String(reply.headers["content-type"]).includes("text/event-stream"))
		throw new Error("no stream of events");
	let text = "";
	for await (const line of createInterface({ input: reply })) {
		const data = /^data:\s*(\{.*)/.exec(line)?.[1];
		if (data === undefined) continue;
		const { choices } = JSON.parse(data) as {
			choices: { delta?: { content?: string } }[];
		};
		text += choices[0]?.delta?.content ?? "";
	}
	return text;
}
