import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import t, { type Test } from "tap";
import type { GateLive } from "../../src/admin/live.ts";
import type { GateTop, TopRequest } from "../../src/admin/top.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import {
	idleLive,
	runningRequest,
	startDashboard,
} from "../support/dashboard.ts";
import {
	bearer,
	eventually,
	type GateOptions,
	runCli,
	startGate,
	testKeys,
} from "../support/gate.ts";
import { startHost, startWithHosts } from "../support/hosts.ts";
import {
	appKey,
	appSecret,
	claims,
	secretFile,
	sign,
	tokenHeader,
} from "../support/peopleTokens.ts";
import { program } from "../support/program.ts";
import { queueOf, waitUntil } from "../support/queue.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

const main = path.resolve(program);
const secretText = "what nobody but the model is to see";

/** A gate whose Ollama works on one request at a time. */
function start(t: Test, { config, ...options }: GateOptions = {}) {
	return startGate(t, {
		keys: [
			{
				name: "night-run",
				sha256: digestOf(testKeys.user),
				priority: "batch",
			},
			{ name: "laptop", sha256: digestOf(testKeys.worker) },
			{
				name: "chat",
				sha256: digestOf(testKeys.owner),
				priority: "interactive",
			},
		],
		...options,
		standIn: {
			parallel: 1,
			// A stream that says so holds its slot until its client leaves.
			misbehave: ({ headers }) =>
				headers["user-agent"] === "holds" ? "stall-mid-stream" : undefined,
			...options.standIn,
		},
		config: { queue: { mode: "fair", parallel: 1 }, ...config },
	});
}

type Gate = Awaited<ReturnType<typeof start>>;

/** Sends an inference request; it is left at the test's end. */
function send(
	t: Test,
	{ url }: Gate,
	key: string,
	headers: Record<string, string> = {},
	body: object = {},
) {
	const controller = new AbortController();
	const response = fetch(`${url}/api/generate`, {
		method: "POST",
		headers: { ...bearer(key), ...headers },
		body: JSON.stringify({ model: "qwen3:8b", prompt: secretText, ...body }),
		signal: controller.signal,
	});
	// Whoever wants it awaits it. Held until the end: fetch closes what nobody holds.
	response.catch(() => {});
	t.teardown(() => {
		controller.abort();
		return response.catch(() => {});
	});
	return { response, leave: () => controller.abort() };
}

/** Takes the only slot, until its client leaves. */
async function hold(
	t: Test,
	gate: Gate,
	key: string = testKeys.worker,
	headers: Record<string, string> = {},
) {
	const held = send(t, gate, key, { ...headers, "user-agent": "holds" });
	await held.response;
	return held;
}

type Printed = Omit<GateTop, "requests"> & {
	readonly loaded: GateLive["loaded"];
	readonly requests: readonly (TopRequest & {
		tokensPerSecond: number | null;
	})[];
};

async function topJson({
	configFile,
}: Gate): Promise<Printed & { text: string }> {
	const { stdout } = await runCli(["top", "--json", "--config", configFile]);
	return { ...(JSON.parse(stdout) as Printed), text: stdout };
}

t.test("top says who is at work, who waits, and who goes next", async (t) => {
	const gate = await start(t);
	await hold(t, gate);
	for (const [at, key] of [
		testKeys.user,
		testKeys.user,
		testKeys.worker,
		testKeys.owner,
	].entries()) {
		send(t, gate, key);
		await waitUntil(gate, at + 1);
	}
	const { text, ...now } = await topJson(gate);
	t.match(now, {
		atWork: 1,
		waiting: 4,
		queue: {
			waiting: { interactive: 1, normal: 1, batch: 2 },
			running: 1,
			models: [
				{ name: "qwen3:8b", state: "loaded", slots: 1, running: 1, waiting: 4 },
			],
		},
	});
	t.match(now.requests, [
		{ user: "key:laptop", state: "running", priority: "normal", ahead: null },
		{ user: "key:chat", state: "waiting", priority: "interactive", ahead: 0 },
		{ user: "key:laptop", state: "waiting", priority: "normal", ahead: 1 },
		{ user: "key:night-run", state: "waiting", priority: "batch", ahead: 2 },
		{ user: "key:night-run", state: "waiting", priority: "batch", ahead: 3 },
	]);
	for (const { model, route, ageMs, waitedMs, runsMs, state } of now.requests) {
		t.match(
			{ model, route, ageMs, waitedMs },
			{
				model: "qwen3:8b",
				route: "POST /api/generate",
				ageMs: Number,
				waitedMs: Number,
			},
		);
		t.equal(runsMs === null, state === "waiting");
	}
	t.notMatch(text, secretText);
	t.notMatch(text, "holds", "nor what a header says");
	for (const key of Object.values(testKeys)) t.notMatch(text, key);
});

t.test("without a terminal it prints a table, once", async (t) => {
	const gate = await start(t);
	await hold(t, gate);
	send(t, gate, testKeys.user);
	await waitUntil(gate, 1);
	const args = ["top", "--config", gate.configFile];
	const { code, stdout, stderr } = await runCli(args);
	t.equal(stderr, "");
	t.equal(code, 0);
	const lines = stdout.split("\n");
	t.match(lines[0], /^llamagate \S+: 1 at work, 1 waiting \(batch 1\)$/);
	t.match(lines[2], /^MODEL +STATE +MEMORY +UNLOADS +SLOTS +AT WORK +WAITING$/);
	t.match(lines[3], /^qwen3:8b +loaded +\d.* GiB +in \d+ (s|min) +1 +1 +1$/);
	t.match(lines[5], /^STATE +WHO +CLASS +MODEL +AHEAD +TIME +TOKENS\/S +CALL$/);
	t.match(
		lines[6],
		/^running +key:laptop +normal +qwen3:8b +\d+ s .*POST \/api\/generate$/,
	);
	t.match(lines[7], /^waiting +key:night-run +batch +qwen3:8b +0 +\d+ s +POST/);
	t.equal(lines.length, 9);
});

t.test("a stream's tokens a second are told", async (t) => {
	const gate = await start(t, { standIn: { tokenIntervalMs: 10 } });
	send(t, gate, testKeys.worker, {}, { options: { num_predict: 100_000 } });
	await eventually(async () => {
		const [request] = (await topJson(gate)).requests;
		return (request?.tokensPerSecond ?? 0) > 0;
	});
});

t.test("a load is told from work, and so is a body to come", async (t) => {
	const gate = await start(t, { standIn: { loadMs: 600_000 } });
	const loading = once(gate.standIn.scheduler.events, "loading");
	send(t, gate, testKeys.worker);
	await loading;
	const body = new ReadableStream({
		start: (controller) => controller.enqueue('{"model":"qwen3:8b",'),
	});
	const controller = new AbortController();
	t.teardown(() => controller.abort());
	fetch(`${gate.url}/api/generate`, {
		method: "POST",
		headers: bearer(testKeys.owner),
		body,
		duplex: "half",
		signal: controller.signal,
	} as RequestInit).catch(() => {});
	await eventually(async () => (await topJson(gate)).atWork === 2);
	const { requests } = await topJson(gate);
	t.match(requests, [
		{ user: "key:laptop", state: "loading", model: "qwen3:8b" },
		{ user: "key:chat", state: "receiving", model: null },
	]);
});

t.test("where nobody waits, it says so", async (t) => {
	const gate = await start(t, {
		config: { queue: { mode: "off" } },
		standIn: { tokenIntervalMs: 10 },
	});
	const options = { num_predict: 100_000 };
	await send(t, gate, testKeys.worker, {}, { options }).response;
	// The reply's first line says what the model is.
	await eventually(
		async () => (await topJson(gate)).requests[0]?.model === "qwen3:8b",
	);
	const { text, ...now } = await topJson(gate);
	t.match(now, { atWork: 1, waiting: 0 });
	t.notOk("queue" in now);
	t.match(now.requests, [
		{ user: "key:laptop", priority: null, waitedMs: null },
	]);
	const { stdout } = await runCli(["top", "--config", gate.configFile]);
	t.match(stdout, "1 at work, nobody waits here, queue.mode is off\n");
	t.match(stdout, /^qwen3:8b +loaded +\d.* GiB +in \d+ (s|min)$/m);
});

t.test("a person is named as far as the log names one", async (t) => {
	const gate = await start(t, {
		keys: [appKey({})],
		files: { [secretFile]: `${appSecret}\n` },
	});
	const token = sign(claims({}), { secret: appSecret });
	await hold(t, gate, testKeys.user, { [tokenHeader]: token });
	const seen = async () => {
		const [request] = (await topJson(gate)).requests;
		return request;
	};
	const hidden = await seen();
	t.equal(hidden?.user, "jwt:app");
	t.notOk(hidden !== undefined && "person" in hidden);
	await gate.writeConfig({
		queue: { mode: "fair", parallel: 1 },
		log: { people: "hash" },
	});
	await gate.daemon.reload();
	const hashed = await seen();
	t.match(hashed?.person, /^[0-9a-f]{16}$/);
	t.equal(hashed?.user, `jwt:app:${hashed?.person}`);
	await gate.writeConfig({
		queue: { mode: "fair", parallel: 1 },
		log: { people: "on" },
	});
	await gate.daemon.reload();
	const { email } = claims({}) as { email: string };
	t.equal((await seen())?.person, email);
});

t.test("many are counted, and two hundred listed", async (t) => {
	const gate = await start(t, {
		config: {
			queue: { mode: "fair", parallel: 1, maxWaitingPerUser: 1000 },
			limits: { perKey: { requestsPerMinute: 10_000, concurrent: 1000 } },
		},
	});
	await hold(t, gate);
	for (let at = 0; at < 230; at += 1) send(t, gate, testKeys.user);
	await waitUntil(gate, 230);
	const { requests, atWork, waiting } = await topJson(gate);
	t.match({ atWork, waiting }, { atWork: 1, waiting: 230 });
	t.equal(requests.length, 200);
	t.same(
		requests.slice(1).map(({ ahead }) => ahead),
		Array.from({ length: 199 }, (_, at) => at),
	);
	const { stdout } = await runCli(["top", "--config", gate.configFile]);
	t.match(stdout, /\nand 31 more\n$/);
});

/** Runs it in a terminal, which `script` makes. */
function inTerminal(t: Test, { configFile }: Gate) {
	const command = `'${process.execPath}' '${main}' top --interval 200ms --config '${configFile}'`;
	const child = spawn("script", ["-qec", command, "/dev/null"], {
		env: { ...process.env, TERM: "xterm" },
	});
	t.teardown(() => child.kill());
	let shown = "";
	child.stdout.setEncoding("utf8").on("data", (text: string) => {
		shown += text;
	});
	return {
		shown: () => shown,
		type: (keys: string) => child.stdin.write(keys),
		exited: once(child, "close"),
	};
}

const esc = "\x1b";
const entered = `${esc}[?1049h`;
const left = `${esc}[?1049l`;

t.test("in a terminal it goes on, and leaves it as it was", async (t) => {
	for (const key of ["\x03", "q"]) {
		const gate = await start(t);
		await hold(t, gate);
		const terminal = inTerminal(t, gate);
		await eventually(() => terminal.shown().includes("0 waiting"));
		send(t, gate, testKeys.owner);
		// It is drawn anew without being asked.
		await eventually(() =>
			terminal.shown().includes("1 waiting (interactive 1)"),
		);
		terminal.type(key);
		const [code] = await terminal.exited;
		t.equal(code, 0);
		const shown = terminal.shown();
		t.equal(shown.split(entered).length, 2);
		t.ok(shown.trimEnd().endsWith(left), "the page of before is back");
		t.ok(shown.includes(`${esc}[?25h`), "and so is the cursor");
		t.ok(shown.includes(`${esc}[?7h`), "and wrapping");
	}
});

t.test("a gate that goes away is told of, and waited for", async (t) => {
	const gate = await start(t);
	const terminal = inTerminal(t, gate);
	await eventually(() => terminal.shown().includes("0 at work"));
	await gate.daemon.stop();
	await eventually(() => terminal.shown().includes("no gate answers on"));
	terminal.type("q");
	const [code] = await terminal.exited;
	t.equal(code, 0);
});

/** What it prints while a daemon gives this answer; `undefined` for none. */
async function answered(
	t: Test,
	answer: { status?: number; body: unknown } | undefined,
	...options: string[]
) {
	const folder = await temporaryFolder(t);
	const socket = path.join(folder, "admin.sock");
	const config = path.join(folder, "config.json");
	await writeFile(config, JSON.stringify({ admin: { socket } }));
	if (answer !== undefined) {
		const server = createServer((_, res) => {
			res.statusCode = answer.status ?? 200;
			res.end(JSON.stringify(answer.body));
		});
		t.teardown(() => server.close());
		await once(server.listen(socket), "listening");
	}
	return runCli(["top", "--config", config, ...options]);
}

const quiet: GateTop = {
	version: "0.1.0",
	atWork: 0,
	waiting: 0,
	requests: [],
};
const quietLive: GateLive = { ...idleLive(), top: quiet };
const request = runningRequest({
	node: "mini",
	runsMs: 3_000,
	repliesMs: 2_000,
	pieces: 101,
});

t.test("whoever cannot be asked is named", async (t) => {
	for (const [answer, says] of [
		[undefined, /no gate answers on .*ENOENT/],
		[{ status: 404, body: {} }, /is older than this program; restart it/],
		[
			{ body: { ...quietLive, top: { ...quiet, requests: [{}] } } },
			/is not a gate of this version/,
		],
		[
			{ body: { ...quietLive, top: { ...quiet, queue: { waiting: {} } } } },
			/is not a gate of this/,
		],
		[{ body: { ...quietLive, loaded: [{}] } }, /is not a gate of this version/],
		[{ body: null }, /is not a gate of this version/],
	] as const) {
		const { code, stderr } = await answered(t, answer);
		t.equal(code, 1);
		t.match(stderr, says);
	}
	for (const interval of ["1", "10ms", "2h"]) {
		const wrong = await answered(t, undefined, "--interval", interval);
		t.equal(wrong.code, 2);
		t.match(wrong.stderr, "is not a duration from 200ms to 60s");
	}
});

t.test("what a daemon says steers no terminal", async (t) => {
	const requests = [
		{
			...request,
			...{ user: `${esc}[2Jx`, host: `${esc}[2Jh` },
			model: "a\nwaiting  key:nobody",
		},
	];
	const loaded = [
		{
			name: `${esc}[2Jm`,
			host: `${esc}[2Jh`,
			...{ sizeBytes: 1, vramBytes: 1, expiresAt: null },
		},
	];
	const top = { ...quiet, version: `${esc}[2J`, atWork: 1, requests };
	const body = { ...quietLive, top, loaded };
	const { stdout, code } = await answered(t, { body });
	t.equal(code, 0);
	t.notMatch(stdout, esc);
	t.notMatch(stdout, /^waiting {2}key:nobody/m);
	t.match(stdout, /^STATE +WHO +DEVICE +CLASS/m);
	t.match(stdout, / 3 s +50\.0 +POST \/api\/chat$/m);
	const json = await answered(t, { body }, "--json");
	t.notMatch(json.stdout, esc);
});

t.test("a model's memory and its end are told as they are", async (t) => {
	const gib = 2 ** 30;
	const inMs = (ms: number) => new Date(Date.now() + ms).toISOString();
	const loaded: GateLive["loaded"] = (
		[
			["whole", 5 * gib, 5 * gib, inMs(299_900)],
			["part", 40 * gib, 10 * gib, "2318-01-01T00:00:00Z"],
			["cpu", 300 * 2 ** 20, 0, inMs(-5)],
			["untold", 0, 0, null],
		] as const
	).map(([name, sizeBytes, vramBytes, expiresAt]) => ({
		...{ name, sizeBytes, vramBytes, expiresAt },
	}));
	const { stdout } = await answered(t, { body: { ...quietLive, loaded } });
	t.match(stdout, /^MODEL +STATE +MEMORY +UNLOADS/m);
	t.match(stdout, /^whole +loaded +5\.0 GiB +in 5 min$/m);
	t.match(stdout, /^part +loaded +40 GiB, 25 % on the GPU +never$/m);
	t.match(stdout, /^cpu +loaded +300 MiB, on the CPU +now$/m);
	t.match(stdout, /^untold +loaded$/m);
	const silent = await answered(t, { body: { ...quietLive, loaded: null } });
	t.match(silent.stdout, "\nOllama does not say what is loaded\n");
});

t.test("a model that waits and is loaded is one line", async (t) => {
	const body: GateLive = {
		...quietLive,
		top: {
			...quiet,
			queue: {
				waiting: { interactive: 0, normal: 0, batch: 0 },
				running: 1,
				models: [
					{ name: "qwen3", state: "loaded", slots: 2, running: 1, waiting: 0 },
				],
			},
		},
		loaded: [
			{
				name: "qwen3:latest",
				...{ sizeBytes: 2 ** 30, vramBytes: 2 ** 30 },
				expiresAt: "2318-01-01T00:00:00Z",
			},
		],
	};
	const { stdout } = await answered(t, { body });
	t.match(stdout, /^qwen3 +loaded +1\.0 GiB +never +2 +1 +0$/m);
	t.notMatch(stdout, "qwen3:latest");
});

t.test("a model that somebody else has loaded has its name", async (t) => {
	const gate = await start(t);
	const response = await fetch(`${gate.standIn.url}/api/generate`, {
		method: "POST",
		body: JSON.stringify({ model: "llama3.2:3b", prompt: "a", stream: false }),
	});
	t.equal(response.status, 200);
	await hold(t, gate);
	// While somebody waits the gate looks what is loaded.
	send(t, gate, testKeys.user);
	await eventually(
		async () =>
			(await queueOf(gate))?.models.filter(({ state }) => state === "loaded")
				.length === 2,
	);
	const { stdout } = await runCli(["top", "--config", gate.configFile]);
	t.match(stdout, /^qwen3:8b +loaded .* 1 +1 +1$/m);
	t.equal(stdout.match(/^llama3\.2:3b +loaded +\d.* GiB /gm)?.length, 1);
	t.notMatch(stdout, "?");
	const status = await runCli(["status", "--config", gate.configFile]);
	t.notMatch(status.stdout, "?");
});

t.test(
	"of several hosts, each request and each model has its own",
	async (t) => {
		const misbehave = () => "stall-mid-stream" as const;
		const a = await startHost(t, "a", { models: ["qwen3:8b"], misbehave });
		const b = await startHost(t, "b", { models: ["llama3.2:3b"], misbehave });
		const gate = await startWithHosts(
			t,
			[
				{ name: "a", url: a.url },
				{ name: "b", url: b.url },
			],
			{ config: { queue: { mode: "fair" } } },
		);
		for (const model of ["qwen3:8b", "llama3.2:3b"])
			await send(t, gate, testKeys.owner, {}, { model }).response;
		const { requests, loaded } = await topJson(gate);
		t.match(requests, [
			{ model: "qwen3:8b", host: "a" },
			{ model: "llama3.2:3b", host: "b" },
		]);
		t.same(
			loaded?.map(({ name, host }) => `${name} ${host}`),
			["qwen3:8b a", "llama3.2:3b b"],
		);
		const { stdout } = await runCli(["top", "--config", gate.configFile]);
		t.match(stdout, /^MODEL +HOST +STATE +MEMORY/m);
		t.match(stdout, /^qwen3:8b +a +loaded +\d.* GiB +in /m);
		t.match(stdout, /^llama3\.2:3b +b +loaded +\d.* GiB +in /m);
		t.match(stdout, /^running .* qwen3:8b +a +\d+ s /m);
		t.match(stdout, /^running .* llama3\.2:3b +b +\d+ s /m);
		const page = await startDashboard(t, gate);
		const text = await (await fetch(page.url)).text();
		t.match(text, /<bdi>qwen3:8b<\/bdi><\/td><td[^>]*><bdi>a</);
		t.equal(text.match(/<th [^>]*>Host</g)?.length, 2);
		t.match(text, /<bdi>llama3\.2:3b<\/bdi><\/th><td[^>]*><bdi>b</);
		const status = await runCli(["status", "--config", gate.configFile]);
		t.match(status.stdout, "qwen3:8b is loaded on a; ");
	},
);

t.test("a model that two hosts have loaded is told of both", async (t) => {
	const a = await startHost(t, "a");
	const b = await startHost(t, "b");
	const hosts = [a, b].map(({ name, url }) => ({ name, url }));
	const gate = await startWithHosts(t, hosts, {
		config: { queue: { mode: "off" } },
	});
	for (const { url } of [a, b])
		await fetch(`${url}/api/generate`, {
			method: "POST",
			body: JSON.stringify({ model: "qwen3:8b", prompt: "a", stream: false }),
		}).then((reply) => reply.text());
	const { loaded } = await topJson(gate);
	t.same(
		loaded?.map(({ name, host }) => `${name} ${host}`),
		["qwen3:8b a", "qwen3:8b b"],
	);
});
