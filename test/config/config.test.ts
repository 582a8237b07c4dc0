import { chmod, readFile, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import path from "node:path";
import t from "tap";
import { parseConfig } from "../../src/config/load.ts";
import { configSchema } from "../../src/config/schema.ts";
import {
	formatDuration,
	formatSize,
	parseDuration,
	parseSize,
} from "../../src/duration.ts";
import { BadFileError, type Mistake } from "../../src/errors.ts";
import { keyFileSchema } from "../../src/keys/keyFile.ts";
import { runCli, temporaryFolder } from "../support/gate.ts";

const parse = (value: unknown) =>
	parseConfig(JSON.stringify(value), "/etc/llamagate/config.json");

t.test(
	"an empty configuration is the example, which is all defaults",
	async (t) => {
		const example = await readFile("config.example.json", "utf8");
		t.strictSame(parse({}), parseConfig(example, "/etc/llamagate/config.json"));
		t.match(parse({}), {
			listen: { kind: "interface", name: "tailscale0", port: 11434 },
			upstream: {
				target: { kind: "tcp", host: "127.0.0.1", port: 11434 },
				firstByteTimeoutMs: 900_000,
			},
			keysFile: "/etc/llamagate/keys.json",
			limits: { bodyBytes: 64 * 2 ** 20 },
		});
		t.strictSame(parse({}).queue, {
			mode: "fair",
			parallel: "auto",
			maxWaiting: 512,
			maxWaitingPerUser: 64,
			maxWaitMs: { interactive: 120_000, normal: 600_000, batch: 21_600_000 },
			turnFactor: 8,
			loadGraceMs: 600_000,
			announceAfterMs: 15_000,
		});
	},
);

t.test("a Valkey is read from its address", (t) => {
	const read = (state: object) => parse({ state }).state;
	const tcp = { kind: "tcp", host: "127.0.0.1", port: 6379, tls: false };
	t.match(read({ url: "valkey://127.0.0.1" }), {
		target: tcp,
		passwordFile: undefined,
		prefix: "llamagate",
		gates: 2,
	});
	t.match(read({ url: "redis://localhost:7000/" })?.target, {
		...tcp,
		port: 7000,
	});
	t.match(read({ url: "valkey://[::1]:80" })?.target, {
		...tcp,
		host: "::1",
		port: 80,
	});
	t.match(
		read({ url: "rediss://db.example", passwordFile: "p", caFile: "/ca.pem" }),
		{
			target: { kind: "tcp", host: "db.example", port: 6379, tls: true },
			passwordFile: "/etc/llamagate/p",
			caFile: "/ca.pem",
		},
	);
	t.match(read({ url: "unix:///run/valkey.sock" })?.target, {
		kind: "unix",
		socketPath: "/run/valkey.sock",
	});
	t.equal(parse({}).state, undefined);
	t.end();
});

t.test("hosts have what they leave out filled in", async (t) => {
	const { hosts, upstream } = parse({
		upstreams: [
			{ name: "minipc", url: "http://minipc:11434", keyFile: "minipc.key" },
			{ name: "own", url: "http://localhost:11434", models: ["qwen3:*"] },
			{ name: "vllm", url: "unix:/run/vllm.sock", kind: "openai", weight: 2 },
		],
	});
	const rest = { models: undefined, weight: 1, kind: "ollama", line: 1 };
	t.strictSame(hosts, [
		{
			...rest,
			name: "minipc",
			target: { kind: "tcp", host: "minipc", port: 11434 },
			keyFile: "/etc/llamagate/minipc.key",
		},
		{
			...rest,
			name: "own",
			target: { kind: "tcp", host: "127.0.0.1", port: 11434 },
			keyFile: undefined,
			models: ["qwen3:*"],
		},
		{
			...rest,
			name: "vllm",
			target: { kind: "unix", socketPath: "/run/vllm.sock" },
			keyFile: undefined,
			weight: 2,
			kind: "openai",
		},
	]);
	t.equal(upstream.target, hosts?.[1]?.target, "what is this machine's is");
	t.equal(parse({}).hosts, undefined);
});

function mistakesIn(text: string): readonly Mistake[] {
	try {
		parseConfig(text, "config.json");
	} catch (error) {
		if (error instanceof BadFileError) return error.mistakes;
		throw error;
	}
	return [];
}

const mistakes: [string, unknown, RegExp][] = [
	[
		"a misspelt section",
		{ lissten: {} },
		/line 1: lissten: unknown setting; did you mean "listen"\?/,
	],
	[
		"a misspelt setting",
		{ limits: { perKey: { concurent: 1 } } },
		/limits\.perKey\.concurent: unknown setting; did you mean "concurrent"\?/,
	],
	[
		"a setting in the wrong place",
		{ port: 1 },
		/port: unknown setting; did you mean "listen\.port"\?/,
	],
	[
		"a duration without a unit",
		{ drainTimeout: 30 },
		/drainTimeout: expected a duration such as "30s".*got 30/,
	],
	[
		"a duration of zero",
		{ drainTimeout: "0s" },
		/drainTimeout: expected a duration of at least "1s", got "0s"$/,
	],
	[
		"a duration of zero in a list",
		{ ledger: { retention: "00d" } },
		/ledger\.retention: expected a duration of at least "1d", got "00d"$/,
	],
	[
		"zero without a unit",
		{ drainTimeout: "0" },
		/drainTimeout: expected a duration such as "30s".*got "0"/,
	],
	[
		"a Valkey on a network without a password",
		{ state: { url: "valkey://valkey:6379" } },
		/line 1: state\.url: is on a network and has no password.*chmod 600.*state\.passwordFile/,
	],
	[
		"a section without Valkey's address",
		{ state: {} },
		/state\.url: is missing/,
	],
	[
		"a password in the address",
		{ state: { url: "valkey://:secret@127.0.0.1" } },
		/state\.url: has a user or a password in it.*state\.passwordFile/,
	],
	[
		"an address of something else",
		{ state: { url: "http://127.0.0.1:6379" } },
		/state\.url: expected valkey:\/\/HOST:PORT/,
	],
	[
		"a number behind Valkey's address",
		{ state: { url: "redis://127.0.0.1:6379/2" } },
		/state\.url: expected valkey:/,
	],
	[
		"a user without a password",
		{ state: { url: "unix:/run/valkey.sock", user: "gate" } },
		/state\.user: has no password/,
	],
	[
		"a certificate without TLS",
		{ state: { url: "valkey://127.0.0.1", caFile: "ca.pem" } },
		/state\.caFile: is for valkeys:\/\/ alone/,
	],
	[
		"a duration of nothing",
		{ drainTimeout: "0s" },
		/drainTimeout: expected a duration/,
	],
	[
		"a size without a unit",
		{ limits: { body: "64" } },
		/limits\.body: expected a size/,
	],
	[
		"a port out of range",
		{ listen: { port: 70000 } },
		/listen\.port: expected a port number/,
	],
	[
		"interface and address",
		{ listen: { interface: "tailscale0", address: "127.0.0.1" } },
		/listen: has both/,
	],
	[
		"all addresses",
		{ listen: { address: "0.0.0.0" } },
		/listen\.address: expected one loopback or Tailscale address/,
	],
	[
		"all IPv6 addresses",
		{ listen: { address: "::" } },
		/listen\.address: expected/,
	],
	[
		"a LAN address",
		{ listen: { address: "192.168.1.5" } },
		/listen\.address: expected/,
	],
	[
		"a public address",
		{ listen: { address: "203.0.113.7" } },
		/listen\.address: expected/,
	],
	[
		"a public address behind a mapped prefix",
		{ listen: { address: "::ffff:0.0.0.0" } },
		/listen\.address: expected/,
	],
	[
		"an address just outside the range",
		{ listen: { address: "100.128.0.1" } },
		/listen\.address: expected/,
	],
	[
		"an address of ChromeOS's",
		{ listen: { address: "100.115.92.1" } },
		/listen\.address: expected/,
	],
	["a name", { listen: { address: "localhost" } }, /listen\.address: expected/],
	[
		"an octal trick",
		{ listen: { address: "0177.0.0.1" } },
		/listen\.address: expected/,
	],
	[
		"an upstream elsewhere",
		{ upstream: { url: "http://192.168.1.5:11434" } },
		/upstream\.url: expected http:\/\/ on a loopback/,
	],
	[
		"an upstream over TLS",
		{ upstream: { url: "https://127.0.0.1:11434" } },
		/upstream\.url: expected/,
	],
	[
		"an upstream with a path",
		{ upstream: { url: "http://127.0.0.1:11434/v1" } },
		/upstream\.url: expected .*: take its path "\/v1" away\. Ollama must/,
	],
	...["localhost:11434", "127.0.0.1:11434", "[::1]:11434/"].map(
		(url): [string, unknown, RegExp] => [
			`an upstream without http://: ${url}`,
			{ upstream: { url } },
			/upstream\.url: expected .*: http:\/\/ is missing before it\. Ollama must/,
		],
	),
	[
		"an upstream with a user",
		{ upstream: { url: "http://u:p@127.0.0.1:11434" } },
		/upstream\.url: expected/,
	],
	[
		"a relative socket",
		{ upstream: { url: "unix:ollama.sock" } },
		/upstream\.url: expected .*got "unix:ollama.sock": its path .*\. Ollama/,
	],
	[
		"an upstream that is the gate",
		{ listen: { address: "127.0.0.1", port: 11434 } },
		/upstream\.url: is the gate's own address/,
	],
	[
		"an upstream beside upstreams",
		{
			upstream: { url: "http://127.0.0.1:11434" },
			upstreams: [{ name: "a", url: "http://127.0.0.1:11435" }],
		},
		/line 1: upstream\.url: is there beside upstreams; keep one/,
	],
	["no hosts", { upstreams: [] }, /upstreams: expected a list of at least one/],
	[
		"more hosts than are asked every few seconds",
		{
			upstreams: Array.from({ length: 17 }, (_, at) => ({
				name: `h${at}`,
				url: `http://127.0.0.1:${20_000 + at}`,
			})),
		},
		/upstreams: expected a list of at least one and at most 16 hosts/,
	],
	...(
		[
			[
				"two hosts of one name",
				[
					{ name: "a", url: "http://127.0.0.1:1" },
					{ name: "a", url: "http://127.0.0.1:2" },
				],
				/upstreams\[1\]\.name: "a" is the name of another host already/,
			],
			[
				"a host twice",
				[
					{ name: "a", url: "http://127.0.0.1:1" },
					{ name: "b", url: "http://localhost:1/" },
				],
				/upstreams\[1\]\.url: is where "a" is already/,
			],
			[
				"a bare Ollama in the tailnet",
				[{ name: "a", url: "http://100.64.0.7:11434" }],
				/upstreams\[0\]\.url: .*keyFile is missing.*keys add/,
			],
			[
				"a bare Ollama by its name",
				[{ name: "a", url: "http://minipc:11434" }],
				/upstreams\[0\]\.url: .*keyFile is missing/,
			],
			...["192.168.1.5", "203.0.113.7", "[fd00::1]", "[::ffff:10.0.0.1]"].map(
				(host): [string, object[], RegExp] => [
					`a host at ${host}`,
					[{ name: "a", url: `http://${host}:11434`, keyFile: "a.key" }],
					/upstreams\[0\]\.url: .*lies outside the tailnet/,
				],
			),
			[
				"a host over TLS",
				[{ name: "a", url: "https://minipc:11434", keyFile: "a.key" }],
				/upstreams\[0\]\.url: expected http:\/\//,
			],
			[
				"a host with a path",
				[{ name: "a", url: "http://127.0.0.1:8000/v1" }],
				/upstreams\[0\]\.url: expected .*without a path/,
			],
			[
				"a kind of host that is none",
				[{ name: "a", url: "http://127.0.0.1:1", kind: "vllm" }],
				/upstreams\[0\]\.kind: expected "ollama" or "openai" \(vLLM, .*\), got "vllm"/,
			],
			[
				"a host of no weight",
				[{ name: "a", url: "http://127.0.0.1:1", weight: 0 }],
				/upstreams\[0\]\.weight: expected a number from 0\.01 to 100/,
			],
			[
				"a host's name that a log could be forged with",
				[{ name: 'a"b', url: "http://127.0.0.1:1" }],
				/upstreams\[0\]\.name: expected a name of lower-case letters/,
			],
			[
				"a host's pattern that fits nothing",
				[{ name: "a", url: "http://127.0.0.1:1", models: ["a b"] }],
				/upstreams\[0\]\.models\[0\]: expected a pattern/,
			],
		] as [string, object[], RegExp][]
	).map(([name, upstreams, says]): [string, unknown, RegExp] => [
		name,
		{ upstreams },
		new RegExp(`line 1: ${says.source}`),
	]),
	[
		"a host that is the gate",
		{
			listen: { address: "127.0.0.1", port: 9000 },
			upstreams: [{ name: "a", url: "http://127.0.0.1:9000" }],
		},
		/upstreams\[0\]\.url: is the gate's own address/,
	],
	[
		"no range",
		{ sources: ["everybody"] },
		/sources\[0\]: expected an address range/,
	],
	["no sources", { sources: [] }, /sources: expected a list of at least one/],
	[
		"any origin",
		{ cors: { origins: ["*"] } },
		/cors\.origins\[0\]: expected an origin/,
	],
	[
		"an origin with a path",
		{ cors: { origins: ["https://a.example/"] } },
		/cors\.origins\[0\]: expected an origin/,
	],
	[
		"metrics on the LAN",
		{ admin: { metrics: "0.0.0.0:9464" } },
		/admin\.metrics: expected a loopback address/,
	],
	[
		"an identity that is none",
		{ identity: { mode: "maybe" } },
		/identity\.mode: expected "off", "log", "require" or "login"/,
	],
	[
		"a queue that is none",
		{ queue: { mode: "fifo" } },
		/line 1: queue\.mode: expected "fair" or "off", got "fifo"/,
	],
	...["many", "4", 0, 1.5, 1025].map((parallel): [string, unknown, RegExp] => [
		`${JSON.stringify(parallel)} places of a model`,
		{ queue: { parallel } },
		/line 1: queue\.parallel: expected "auto" or a whole number from 1 to 1024, got/,
	]),
	[
		"nobody who waits",
		{ queue: { maxWaiting: 0 } },
		/queue\.maxWaiting: expected a whole number of at least 1/,
	],
	[
		"a wait of a class that is none",
		{ queue: { maxWait: { urgent: "1m" } } },
		/queue\.maxWait\.urgent: unknown setting/,
	],
	[
		"a wait that no timer holds",
		{ queue: { maxWait: { batch: "25d" } } },
		/queue\.maxWait\.batch: expected at most "24d"/,
	],
	[
		"a grace that no timer holds",
		{ queue: { loadGrace: "25d", announceAfter: "25d" } },
		/queue\.loadGrace: expected at most "24d".*\n.*queue\.announceAfter: expected/,
	],
	[
		"a turn of nothing",
		{ queue: { turnFactor: 0 } },
		/queue\.turnFactor: expected a whole number from 1 to 1000/,
	],
	[
		"a list in place of an object",
		{ listen: [] },
		/listen: expected an object/,
	],
	["no object at all", [], /expected/],
];
for (const [name, value, message] of mistakes)
	t.test(`refused: ${name}`, async (t) => {
		t.throws(() => parse(value), { name: "BadFileError", message });
	});

t.test(
	"every mistake is listed at once, each with its line, in their order",
	async (t) => {
		const text =
			'{\n  "listen": { "port": "x" },\n  "limts": {},\n  "log": { "level": "loud" }\n}';
		t.match(mistakesIn(text), [
			{ path: "listen.port", line: 2 },
			{ path: "limts", line: 3, message: /did you mean "limits"/ },
			{ path: "log.level", line: 4 },
		]);
		t.throws(
			() => parseConfig('{\n"sources": ["::/0"],\n"sources": []}', "c.json"),
			{ message: /line 3: sources: is here twice/ },
		);
		t.throws(() => parseConfig('{\n"sources": [\n}', "c.json"), {
			message: /line 3: a value is missing here/,
		});
		t.throws(() => parseConfig("", "c.json"), {
			message: /c\.json is not usable/,
		});
		t.throws(() => parseConfig('{"__proto__": {"a": 1}}', "c.json"), {
			message: /__proto__: unknown setting/,
		});
	},
);

t.test("a queue may be off, and as wide as Ollama is", async (t) => {
	t.match(parse({ queue: { mode: "off", parallel: 4 } }).queue, {
		mode: "off",
		parallel: 4,
	});
	t.match(
		parse({
			queue: { maxWait: { batch: "1h" }, loadGrace: "1m", announceAfter: "5s" },
		}).queue,
		{
			maxWaitMs: { interactive: 120_000, batch: 3_600_000 },
			loadGraceMs: 60_000,
			announceAfterMs: 5_000,
		},
	);
});

t.test("loopback, Tailscale addresses and sockets are taken", async (t) => {
	for (const address of [
		"127.0.0.1",
		"::1",
		"100.64.0.1",
		"100.101.102.104",
		"100.127.255.254",
		"fd7a:115c:a1e0::1",
	])
		t.match(parse({ listen: { address, port: 1 } }).listen, {
			kind: "address",
			address,
		});
	t.match(parse({ upstream: { url: "unix:/run/o.sock" } }).upstream.target, {
		kind: "unix",
		socketPath: "/run/o.sock",
	});
	t.match(parse({ upstream: { url: "unix:///run/o.sock" } }).upstream.target, {
		kind: "unix",
		socketPath: "/run/o.sock",
	});
	t.match(
		parse({ upstream: { url: "http://localhost:11434" } }).upstream.target,
		{ kind: "tcp", host: "127.0.0.1" },
	);
	t.match(parse({ upstream: { url: "http://[::1]:11434/" } }).upstream.target, {
		kind: "tcp",
		host: "::1",
		port: 11434,
	});
	t.ok(
		parse({
			cors: { origins: ["https://a.example:8443", "app://obsidian.md"] },
		}).corsOrigins.has("app://obsidian.md"),
	);
});

t.test(
	"serve and check exit 78 on a wrong file, with its mistakes and no stack trace",
	async (t) => {
		const folder = await temporaryFolder(t);
		const file = path.join(folder, "config.json");
		for (const command of ["serve", "check"]) {
			const missing = await runCli([
				command,
				"--config",
				file.replace("config", "none"),
			]);
			t.equal(missing.code, 78);
			t.match(
				missing.stderr,
				/none\.json does not exist\. Make one with sudo llamagate setup/,
			);
			await writeFile(file, '{"lisen": {}, "drainTimeout": "1y"}');
			const wrong = await runCli([command, "--config", file]);
			t.equal(wrong.code, 78);
			t.match(wrong.stderr, /lisen: unknown setting; did you mean "listen"/);
			t.match(wrong.stderr, /drainTimeout: expected a duration/);
			t.notMatch(wrong.stderr, /\.ts:\d+/);
			await writeFile(file, "{}");
			const noKeys = await runCli([command, "--config", file]);
			t.equal(noKeys.code, 78);
			t.match(
				noKeys.stderr,
				/keys\.json does not exist\. Make the first key with: llamagate keys add/,
			);
			const keys = path.join(folder, "keys.json");
			await writeFile(keys, '{"keys":[]}');
			await chmod(keys, 0o666);
			t.match(
				(await runCli([command, "--config", file])).stderr,
				/others than its owner may write to it \(mode 0666\)/,
			);
			await chmod(keys, 0o600);
			await writeFile(keys, "");
			t.equal((await runCli([command, "--config", file])).code, 78);
			await import("node:fs/promises").then(({ rm }) => rm(keys));
		}
	},
);

t.test("durations and sizes are read and written the same way", async (t) => {
	for (const text of ["250ms", "30s", "15m", "1h", "90d"])
		t.equal(formatDuration(parseDuration(text) ?? 0), text);
	for (const text of ["1B", "512KiB", "64MiB", "20GiB", "1TiB"])
		t.equal(formatSize(parseSize(text) ?? 0), text);
	for (const text of [
		"",
		"15",
		"m",
		"1.5h",
		"-1s",
		"1 s",
		"1S",
		"9999999999s",
		"0s",
	])
		t.equal(parseDuration(text), undefined, text);
	for (const text of ["64mib", "64MB", "64", "MiB"])
		t.equal(parseSize(text), undefined, text);
});

t.test("no duration is longer than a timer can be", async (t) => {
	const withDuration = (text: string) => ({
		upstream: {
			connectTimeout: text,
			firstByteTimeout: text,
			idleTimeout: text,
		},
		limits: { authFailures: { window: text, lockout: text } },
		drainTimeout: text,
	});
	t.equal(
		parse(withDuration("24d")).upstream.connectTimeoutMs,
		24 * 86_400_000,
	);
	const mistakes = mistakesIn(JSON.stringify(withDuration("25d")));
	t.strictSame(mistakes.map(({ path }) => path).sort(), [
		"drainTimeout",
		"limits.authFailures.lockout",
		"limits.authFailures.window",
		"upstream.connectTimeout",
		"upstream.firstByteTimeout",
		"upstream.idleTimeout",
	]);
	t.match(mistakes[0]?.message, /at most "24d"/);
});

t.test("what is made from the code agrees with it", async (t) => {
	const { spawnSync } = await import("node:child_process");
	const run = spawnSync(
		process.execPath,
		["scripts/docs/settings.ts", "--check"],
		{ encoding: "utf8" },
	);
	t.equal(run.status, 0, run.stderr);
});

t.test("the schemas that files are checked with are good ones", async (t) => {
	const { Ajv } = await import("ajv");
	for (const [name, schema] of Object.entries({ configSchema, keyFileSchema }))
		t.ok(new Ajv({ strict: false }).validateSchema(schema), name);
});

t.test("a ledger is there where its section is, and else not", async (t) => {
	t.equal(parseConfig("{}", "/etc/x/config.json").ledger, undefined);
	t.strictSame(parseConfig('{"ledger":{}}', "/etc/x/config.json").ledger, {
		file: "/etc/x/ledger.sqlite",
		socket: "/run/llamagate-ledger/ledger.sock",
		retentionMs: 90 * 86_400_000,
		gate: hostname(),
		database: undefined,
	});
	const text = '{"ledger":{\n"retention":"9 weeks"}}';
	t.throws(
		() => parseConfig(text, "config.json"),
		/line 2: ledger\.retention: expected a duration such as "90d"/,
	);
});
