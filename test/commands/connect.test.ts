import {
	chmod,
	mkdir,
	readdir,
	readFile,
	readlink,
	stat,
	symlink,
	writeFile,
} from "node:fs/promises";
import { createServer, type Server } from "node:http";
import {
	type AddressInfo,
	createServer as createTcpServer,
	type Server as TcpServer,
} from "node:net";
import path from "node:path";
import { parse } from "jsonc-parser";
import t from "tap";
import { clients } from "../../src/clients/clients.ts";
import {
	mergeProvider,
	UneditableFileError,
	writeOpenClawFile,
} from "../../src/clients/openClawFile.ts";
import { parseServer } from "../../src/clients/server.ts";
import { tryOut } from "../../src/clients/tryOut.ts";
import { connect as command } from "../../src/commands/connect.ts";
import { UsageError } from "../../src/errors.ts";
import { startStandIn } from "../../src/ollama/standIn.ts";
import {
	type RunResult,
	runCli,
	runProgram,
	startGate,
	temporaryFolder,
	testKeys,
} from "../support/gate.ts";
import { requireTool } from "../support/tools.ts";

type Tap = Parameters<typeof temporaryFolder>[0];

const server = "http://box.example.ts.net:11434";

function connect(args: readonly string[], key = ""): Promise<RunResult> {
	return runCli(["connect", ...args], key);
}

/** A call with nobody listening to how it goes. */
function tryQuietly(url: string, key: string, model?: string) {
	const ignore = () => {};
	return tryOut(url, key, model, ignore, ignore);
}

/** How the command refuses its arguments, which is exit code 2. */
async function refusalOf(args: readonly string[]): Promise<UsageError> {
	try {
		await command.run([...args]);
	} catch (error) {
		if (error instanceof UsageError) return error;
		throw error;
	}
	throw new Error(`not refused: ${args.join(" ")}`);
}

interface Report {
	snippets: { lead: string; language: string; text: string }[];
	notes: string[];
	model: string;
	try?: {
		ok: boolean;
		status?: number;
		problem?: string;
		advice?: string;
		tokens?: number;
		arrivals?: number;
	};
	written?: { outcome: string; backup?: string };
}

async function reportOf(args: readonly string[], key = ""): Promise<Report> {
	return JSON.parse((await connect([...args, "--json"], key)).stdout) as Report;
}

/** A server that is no gate, on loopback. */
async function listen<S extends Server | TcpServer>(
	t: Tap,
	other: S,
): Promise<string> {
	await new Promise<void>((resolve) =>
		other.listen(0, "127.0.0.1", () => resolve()),
	);
	t.teardown(() => other.close());
	return `127.0.0.1:${(other.address() as AddressInfo).port}`;
}

t.test(
	"every client is shown with the server, the key and the model in it",
	async (t) => {
		for (const client of clients) {
			const { snippets, notes } = client.render({
				server,
				key: testKeys.user,
				model: "llama3.2:3b",
			});
			const text = [...snippets.map((snippet) => snippet.text), ...notes].join(
				"\n",
			);
			t.ok(text.includes(server), client.name);
			t.equal(text.includes(testKeys.user), client.sendsKey, client.name);
			if (client.name !== "open-webui")
				t.ok(text.includes("llama3.2:3b"), client.name);
			t.notMatch(text.replaceAll(testKeys.user, ""), /lg_[0-9a-f]|sk-/);
			t.not(client.source, "");
		}
	},
);

t.test("snippets are well-formed in their language", async (t) => {
	const bySort = {
		json: [] as string[],
		python: [] as string[],
		sh: [] as string[],
	};
	for (const client of clients)
		for (const { language, text, lead } of client.render({
			server,
			key: testKeys.user,
			model: "qwen3:8b",
		}).snippets) {
			t.match(lead, /:$/);
			if (language in bySort)
				bySort[language as keyof typeof bySort].push(text);
		}
	t.ok(bySort.json.length >= 4);
	for (const text of bySort.json) t.doesNotThrow(() => JSON.parse(text));
	for (const text of bySort.sh)
		t.match(await runProgram(["sh", "-n"], { input: text }), {
			code: 0,
			stderr: "",
		});
	if (!requireTool(t, "python3")) return;
	for (const text of bySort.python)
		t.match(
			await runProgram(
				["python3", "-c", "import ast, sys; ast.parse(sys.stdin.read())"],
				{ input: text },
			),
			{ code: 0, stderr: "" },
		);
});

t.test(
	"without a key it says where the key goes, and takes a placeholder",
	async (t) => {
		const { code, stdout } = await connect(["continue"]);
		t.equal(code, 0);
		t.match(stdout, /apiKey: "KEY"/);
		t.match(stdout, /Put the key in place of KEY/);
		t.match(stdout, /apiBase: "http:\/\/SERVER:11434"/);
		t.match(stdout, /in place of SERVER/);
		t.match(stdout, /qwen3:8b is an example/);
		const without = await connect(["open-webui"]);
		t.notMatch(without.stdout, /qwen3:8b/, "no model is in this one's text");
		const told = await connect(
			["continue", "--server", "box", "--key-stdin", "--model", "llama3.2:3b"],
			`${testKeys.user}\n`,
		);
		t.ok(told.stdout.includes(`apiKey: "${testKeys.user}"`));
		t.match(told.stdout, /This text has the key in it/);
		t.notMatch(told.stdout, /in place of|example/);
	},
);

t.test("without a client it lists them", async (t) => {
	const { code, stdout } = await connect([]);
	t.equal(code, 0);
	for (const { name } of clients) t.match(stdout, new RegExp(`^${name} `, "m"));
	const listed = JSON.parse((await connect(["--json"])).stdout) as {
		clients: { name: string }[];
	};
	t.equal(listed.clients.length, clients.length);
});

t.test(
	"an unknown client is exit 2, with the list and the nearest name",
	async (t) => {
		const { code, stderr } = await connect(["opnclaw"]);
		t.equal(code, 2);
		t.match(stderr, /unknown client "opnclaw"; did you mean "openclaw"\?/);
		for (const { name } of clients) t.ok(stderr.includes(name));
	},
);

t.test("the server is taken in every form that people write it", async (t) => {
	for (const [text, url] of [
		["box", "http://box:11434"],
		["box:8080", "http://box:8080"],
		["http://box", "http://box:11434"],
		["http://box:80/", "http://box:80"],
		["HTTP://100.101.102.104:11434", "http://100.101.102.104:11434"],
		["https://box.tail1.ts.net", "https://box.tail1.ts.net"],
		["https://box.tail1.ts.net:8443/", "https://box.tail1.ts.net:8443"],
		["[fd7a:115c:a1e0::104]", "http://[fd7a:115c:a1e0::104]:11434"],
		["fd7a:115c:a1e0::104", "http://[fd7a:115c:a1e0::104]:11434"],
	] as const)
		t.equal(parseServer(text), url, text);
	for (const text of [
		"",
		"http://box/v1",
		"box/api",
		"http://me@box",
		"http://me:secret@box:11434",
		"http://box?key=1",
		"http://box#x",
		"ftp://box",
		"box:0",
		"box:65536",
		"box:",
		"[::x]",
		'box"',
		"box$(id)",
		"box'",
		"two words",
		"box\n",
	])
		t.equal(parseServer(text), undefined, text);
});

t.test(
	"what is on the command line in place of a key is never repeated",
	async (t) => {
		const key = testKeys.user;
		for (const args of [
			[key],
			["curl", key],
			["curl", "--key", key],
			[`--key=${key}`, "curl"],
			["curl", "--api-key", key],
			["curl", "--server", `http://me:${key}@box`],
			["curl", "--server", key, "--model", `${key} x`],
			["curl", "--key-stdin", key],
		]) {
			const { message } = await refusalOf(args);
			t.notOk(message.includes(key), message);
		}
		const { code, stdout, stderr } = await connect(["curl", "--key", key]);
		t.equal(code, 2);
		t.equal(stdout, "");
		t.match(stderr, /--key-stdin/);
		t.notOk(stderr.includes(key));
	},
);

t.test(
	"what is on standard input and is no key is refused without repeating it",
	async (t) => {
		for (const input of ["\n", 'a"b$(id)', "lg_1f1f1f1f1f1f1f1f0123"]) {
			const { code, stdout, stderr } = await connect(
				["curl", "--key-stdin"],
				input,
			);
			t.equal(code, 1, input);
			t.equal(stdout, "");
			if (input.trim() !== "") t.notOk(stderr.includes(input));
		}
	},
);

t.test("options that need others say so", async (t) => {
	for (const [args, message] of [
		[["curl", "--try"], /needs --server and --key-stdin/],
		[["curl", "--try", "--server", "box"], /needs --server and --key-stdin/],
		[["curl", "--write", "--server", "box", "--key-stdin"], /openclaw only/],
		[["--write"], /openclaw only/],
		[["openclaw", "--write"], /needs --server and --key-stdin/],
		[
			["openclaw", "--write", "--server", "box", "--key-stdin"],
			/needs a model/,
		],
		[["openclaw", "--file", "x"], /--write/],
		[["--server", "box"], /say which client: openclaw/],
		[["curl", "--model", "a b"], /--model takes/],
		[["curl", "--modl", "x"], /did you mean --model/],
	] as const) {
		t.match((await refusalOf(args)).message, message, args.join(" "));
	}
});

t.test(
	"the ollama command is told how to sign, since it cannot send a key",
	async (t) => {
		const { stdout } = await connect(
			["ollama-cli", "--server", "box", "--key-stdin"],
			testKeys.user,
		);
		t.match(stdout, /cannot send a llamagate key/);
		t.match(stdout, /OLLAMA_AUTH=1/);
		t.match(stdout, /keys add NAME --ollama-key/);
		t.match(stdout, /The key was not used/);
		t.notOk(stdout.includes(testKeys.user));
	},
);

t.test("the curl snippets stream and list, as they are printed", async (t) => {
	if (!requireTool(t, "curl")) return;
	const gate = await startGate(t);
	const { snippets } = await reportOf(
		["curl", "--server", gate.url, "--key-stdin"],
		testKeys.user,
	);
	const [stream, list] = snippets;
	const streamed = await runProgram(["sh"], { input: stream?.text ?? "" });
	t.equal(streamed.code, 0);
	const lines = streamed.stdout.trim().split("\n");
	t.ok(lines.length > 10);
	t.match(JSON.parse(lines[0] ?? ""), { done: false });
	t.match(JSON.parse(lines.at(-1) ?? ""), { done: true });
	const listed = await runProgram(["sh"], { input: list?.text ?? "" });
	t.match(JSON.parse(listed.stdout), { models: [{ name: "qwen3:8b" }] });
	t.equal(gate.log.filter(({ key }) => key === "user").length, 2);
});

for (const name of ["ollama-js", "openai-js"])
	t.test(`the ${name} snippet streams, as it is printed`, async (t) => {
		const gate = await startGate(t);
		const { snippets } = await reportOf(
			[name, "--server", gate.url, "--key-stdin"],
			testKeys.user,
		);
		const { code, stdout, stderr } = await runProgram(
			[process.execPath, "--input-type=module", "-"],
			{ input: snippets[0]?.text ?? "" },
		);
		t.equal(code, 0, stderr);
		t.match(stdout, /stand-in/);
		t.ok(
			gate.log.some(
				({ key, outcome, route }) =>
					key === "user" &&
					outcome === "ok" &&
					(route === "POST /api/chat" || route === "POST /v1/chat/completions"),
			),
		);
	});

t.test("--try makes a call and says how it went", async (t) => {
	// A client that has to wait for the processor for longer finds several at once.
	const gate = await startGate(t, { standIn: { tokenIntervalMs: 50 } });
	const args = ["--server", gate.url, "--key-stdin", "--try"];
	const tried = await connect(args, testKeys.user);
	t.equal(tried.code, 0);
	t.match(tried.stdout, /first token after \d+ ms, from qwen3:8b/);
	t.match(tried.stdout, /tokens came one by one, over \d+ ms/);
	t.match(tried.stdout, /stand-in/);
	const report = await reportOf(
		["continue", "--model", "llama3.2:3b", ...args],
		testKeys.user,
	);
	t.match(report, { model: "llama3.2:3b", try: { ok: true } });
	t.ok((report.try?.tokens ?? 0) > 10);
	t.match(report.snippets[0]?.text, /llama3\.2:3b/);
});

t.test(
	"--try explains each refusal of the gate, and never shows the key",
	async (t) => {
		const gate = await startGate(t, {
			standIn: {
				misbehave: ({ target }) =>
					target === "/api/chat" ? "die-mid-stream" : undefined,
			},
		});
		for (const [key, model, status, problem, advice] of [
			[testKeys.wrong, undefined, 401, /does not know this key/, /keys list/],
			[testKeys.reader, undefined, 403, /may not do/, /--scopes read,infer/],
			[testKeys.worker, undefined, 403, /may not do/, /one with --model/],
			[testKeys.user, "gone:1b", 404, /no model gone:1b/, /pull gone:1b/],
			[testKeys.user, undefined, 200, /broke off after \d+ tok/, /journalctl/],
		] as const) {
			const failure = await tryQuietly(gate.url, key, model);
			t.match(failure, { ok: false, status, problem, advice });
			t.notOk(JSON.stringify(failure).includes(key));
		}
		const args = ["curl", "--server", gate.url, "--key-stdin", "--try"];
		const { code, stdout, stderr } = await connect(args, testKeys.wrong);
		t.equal(code, 1);
		t.match(
			stderr,
			/failed {2}the server does not know this key \(401: .*\)\n/,
		);
		t.equal(stdout, "");
		t.notOk(stderr.includes(testKeys.wrong));
		const report = await reportOf(args, testKeys.wrong);
		t.match(report, { try: { ok: false, status: 401 } });
		t.equal(report.snippets, undefined);
	},
);

t.test(
	"--try explains a gate whose Ollama is gone, or that has no time",
	async (t) => {
		const away = await startGate(t, { upstreamUrl: "http://127.0.0.1:9" });
		t.match(await tryQuietly(away.url, testKeys.user, "qwen3:8b"), {
			status: 502,
			problem: /Ollama behind it does not answer \(502: /,
			advice: /systemctl status ollama/,
		});
		const strict = await startGate(t, {
			config: { limits: { perKey: { requestsPerMinute: 1 } } },
		});
		await tryQuietly(strict.url, testKeys.user, "qwen3:8b");
		t.match(await tryQuietly(strict.url, testKeys.user, "qwen3:8b"), {
			status: 429,
			problem: /too many requests.*\(429: /,
			advice: /Wait \d+ s/,
		});
	},
);

t.test("--try does not call an Ollama without a gate well", async (t) => {
	const standIn = await startStandIn();
	t.teardown(() => standIn.close());
	const led = await listen(
		t,
		// As one on loopback answers whoever calls it by another name.
		createServer((req, res) => {
			t.equal(req.headers.authorization, undefined);
			if (req.headers.host === "127.0.0.1:11434") res.end('{"models":[]}');
			else res.writeHead(403).end();
		}),
	);
	for (const url of [standIn.url, parseServer(led) ?? ""]) {
		const failure = await tryQuietly(url, testKeys.user, "qwen3:8b");
		t.match(failure, {
			ok: false,
			problem: /without a key.*The key was not sent/,
			advice: /llamagate setup/,
		});
	}
	for (const { headers } of standIn.calls)
		t.equal(headers.authorization, undefined);
	const { code, stdout } = await connect(
		["--server", standIn.url, "--key-stdin", "--try"],
		testKeys.user,
	);
	t.equal(code, 1);
	t.notMatch(stdout, /^ok/m);
});

/** Names by which a server would write into a shell, a file or a terminal. */
const hostileNames = [
	'qwen3:8b"; touch /tmp/owned; : "',
	"$(id)",
	"a`id`",
	"a\nb",
	"\u001b[2Jqwen3:8b",
	"--model",
	"",
	"x".repeat(257),
	8,
	null,
];

/** Asks for a key, and lists these models; each of them says "hi". */
function listing(t: Tap, names: readonly unknown[]) {
	return listen(
		t,
		createServer((req, res) => {
			if (req.headers.authorization === undefined) res.writeHead(401).end();
			else if (req.url === "/api/tags")
				res.end(JSON.stringify({ models: names.map((name) => ({ name })) }));
			else
				res.end(
					`${JSON.stringify({ message: { content: "hi" }, done: true })}\n`,
				);
		}),
	);
}

t.test(
	"--try passes over names that are more than a name, and prints none of them",
	async (t) => {
		const where = await listing(t, [...hostileNames, "llama3.2:3b"]);
		const args = ["--server", where, "--key-stdin", "--try"];
		const { code, stdout, stderr } = await connect(
			["claude-code", ...args],
			testKeys.user,
		);
		t.equal(code, 0);
		t.match(stdout, /export ANTHROPIC_MODEL="llama3\.2:3b"/);
		t.match(stderr, /Asking llama3\.2:3b at/);
		t.notMatch(stdout + stderr, /touch|id\)|`id|\[2J/);

		const only = await listing(t, hostileNames);
		const failure = await tryQuietly(`http://${only}`, testKeys.user);
		t.match(failure, {
			ok: false,
			problem: /no model that the server lists has a name of Ollama's form/,
			advice: /--model/,
		});
		t.notMatch(JSON.stringify(failure), /touch|\[2J/);
		const none = await listing(t, []);
		t.match(await tryQuietly(`http://${none}`, testKeys.user), {
			problem: /the server has no model$/,
			advice: /ollama pull/,
		});
	},
);

t.test(
	"--try explains where there is no server, no HTTP, no TLS or no Ollama",
	async (t) => {
		const free = createTcpServer();
		const nobody = await listen(t, free);
		await new Promise((resolve) => free.close(resolve));
		const garbage = await listen(
			t,
			createTcpServer((socket) => socket.end("SSH-2.0-x\r\n")),
		);
		const echo = await listen(
			t,
			createServer((req, res) => {
				res.writeHead(418);
				// A server that is not friendly.
				res.end(
					JSON.stringify({ error: `\u001b[2J${req.headers.authorization}` }),
				);
			}),
		);
		const page = await listen(
			t,
			createServer((_req, res) => res.end("<html>welcome</html>")),
		);
		for (const [where, problem, advice = /./] of [
			[nobody, /no connection to .* \(ECONNREFUSED\)/],
			[garbage, /no HTTP|no connection/],
			[
				`https://${page}`,
				/no TLS connection/,
				/speaks https:.* has listen\.tls, .*otherwise write http:/,
			],
			[page, /not as llamagate or Ollama do/],
			[echo, /did not do it \(418: \[2JBearer KEY\)/],
		] as const) {
			const url = parseServer(where) ?? "";
			const failure = await tryQuietly(url, testKeys.user);
			t.match(failure, { ok: false, problem, advice }, where);
			t.notOk(JSON.stringify(failure).includes(testKeys.user));
			t.notOk(JSON.stringify(failure).includes("\\u001b"));
		}
	},
);

/** What --write makes of a file, as OpenClaw would read it. */
interface OpenClawConfig {
	gateway?: unknown;
	models: {
		providers: Record<
			string,
			{ baseUrl: string; apiKey: string; models: { id: string }[] }
		>;
	};
	agents: {
		defaults: {
			model: { primary: string } | string;
			models?: Record<string, object>;
		};
	};
}

async function freshOpenClaw(t: Tap, text?: string) {
	const folder = path.join(await temporaryFolder(t), ".openclaw");
	const file = path.join(folder, "openclaw.json");
	if (text !== undefined) {
		await mkdir(folder);
		await writeFile(file, text, { mode: 0o640 });
		await chmod(file, 0o640);
	}
	return {
		folder,
		file,
		write: (...more: string[]) =>
			connect(
				[
					"openclaw",
					...["--server", "box", "--model", "qwen3:8b"],
					...["--key-stdin", "--write", "--file", file],
					...more,
				],
				testKeys.user,
			),
		read: async () => readFile(file, "utf8"),
		config: async () =>
			parse(await readFile(file, "utf8"), [], {
				allowTrailingComma: true,
			}) as OpenClawConfig,
	};
}

const commented = `// my agents
{
    /* never to be lost */
    "gateway": { "port": 18789, }, // trailing commas, too
    "models": {
        "providers": {
            "anthropic": { "apiKey": "other-secret" }, // keep
        },
    },
    "agents": {
        "defaults": {
            "model": { "primary": "anthropic/claude-sonnet-5" },
            "models": { "anthropic/claude-sonnet-5": {} },
        },
    },
}
`;

t.test(
	"--write makes the file where there is none, for its owner alone",
	async (t) => {
		const { folder, file, write, config } = await freshOpenClaw(t);
		const { code, stdout, stderr } = await write();
		t.equal(code, 0);
		t.equal(stdout, "");
		t.match(stderr, /is made/);
		t.notOk(stderr.includes(testKeys.user));
		t.equal((await stat(file)).mode & 0o777, 0o600);
		t.equal((await stat(folder)).mode & 0o777, 0o700);
		t.strictSame(await config(), {
			models: {
				providers: {
					ollama: {
						baseUrl: "http://box:11434",
						apiKey: testKeys.user,
						api: "ollama",
						timeoutSeconds: 900,
						models: [{ id: "qwen3:8b", name: "qwen3:8b" }],
					},
				},
			},
			agents: { defaults: { model: { primary: "ollama/qwen3:8b" } } },
		});
		t.strictSame(await readdir(folder), ["openclaw.json"]);
	},
);

t.test(
	"--write keeps comments, order, other providers and the model that agents use",
	async (t) => {
		const { folder, file, write, read, config } = await freshOpenClaw(
			t,
			commented,
		);
		const { code, stderr } = await write();
		t.equal(code, 0);
		t.match(stderr, /Agents go on using anthropic\/claude-sonnet-5/);
		t.notOk(/other-secret/.test(stderr));
		const text = await read();
		// Each line is there as it was; only the list in one line has grown.
		const lines = commented
			.replace('sonnet-5": {} }', 'sonnet-5": {}, "ollama/qwen3:8b": {} }')
			.split("\n");
		t.strictSame(
			lines.filter((line) => !text.split("\n").includes(line)),
			[],
		);
		t.ok(text.indexOf("// keep") < text.indexOf('"ollama": {'));
		const written = await config();
		t.match(written.models.providers, {
			anthropic: { apiKey: "other-secret" },
			ollama: { baseUrl: "http://box:11434", apiKey: testKeys.user },
		});
		t.strictSame(written.gateway, { port: 18789 });
		t.strictSame(written.agents.defaults.model, {
			primary: "anthropic/claude-sonnet-5",
		});
		t.ok(written.agents.defaults.models?.["ollama/qwen3:8b"]);
		t.equal((await stat(file)).mode & 0o777, 0o600);

		const names = await readdir(folder);
		const backup = names.find((name) =>
			/^openclaw\.json\.bak-\d{14}$/.test(name),
		);
		t.equal(names.length, 2);
		t.ok(stderr.includes(String(backup)));
		const kept = path.join(folder, String(backup));
		t.equal(await readFile(kept, "utf8"), commented);
		t.equal((await stat(kept)).mode & 0o777, 0o640);
	},
);

t.test(
	"--write a second time changes nothing and makes no second backup",
	async (t) => {
		const { folder, write, read } = await freshOpenClaw(t, commented);
		await write();
		const once = await read();
		const { code, stderr } = await write();
		t.equal(code, 0);
		t.match(stderr, /nothing was written/);
		t.equal(await read(), once);
		t.equal((await readdir(folder)).length, 2);
	},
);

t.test(
	"--write replaces a key and a server that have changed, and adds a model",
	async (t) => {
		const { write, config, folder } = await freshOpenClaw(t);
		await write();
		await write("--server", "other", "--model", "llama3.2:3b");
		const { providers } = (await config()).models;
		t.equal(providers.ollama?.baseUrl, "http://other:11434");
		t.strictSame(
			providers.ollama?.models.map(({ id }) => id),
			["qwen3:8b", "llama3.2:3b"],
		);
		t.equal((await readdir(folder)).length, 2);
	},
);

t.test(
	"--write leaves a file alone that it cannot edit, and does not quote it",
	async (t) => {
		for (const broken of [
			'{ "models": { "providers": "secret-text" ',
			"{ models: { providers: 'secret-text' } }",
			'["secret-text"]',
			'{ "models": ["secret-text"] }',
			'{ "models": { "providers": { "ollama": "secret-text" } } }',
			'{ "models": { "providers": { "ollama": { "models": "secret-text" } } } }',
			'{ "agents": { "defaults": "secret-text" } }',
			'{ "models": { "a": 1 }, "models": { "providers": { "b": "secret-text" } } }',
		]) {
			const { folder, file, read } = await freshOpenClaw(t, broken);
			const connection = { server, key: testKeys.user, model: "qwen3:8b" };
			const message = await writeOpenClawFile(
				file,
				connection,
				new Date(),
			).then(
				() => "it was written",
				(error) => (error instanceof UneditableFileError ? error.message : ""),
			);
			t.match(message, /is left as it is/, broken);
			t.notMatch(message, /secret-text/);
			t.notOk(message.includes(testKeys.user));
			t.equal(await read(), broken);
			t.equal((await stat(file)).mode & 0o777, 0o640);
			t.strictSame(await readdir(folder), ["openclaw.json"]);
		}
		const { write, read } = await freshOpenClaw(t, '{ "models": ');
		const { code, stderr } = await write();
		t.equal(code, 1);
		t.match(stderr, /line 1 is not JSON with comments/);
		t.equal(await read(), '{ "models": ');
	},
);

t.test(
	"--write leaves a file alone that is not UTF-8, and keeps a byte order mark",
	async (t) => {
		const { folder, file, write } = await freshOpenClaw(t, "");
		const latin1 = Buffer.from(
			'{ "gateway": { "name": "Zo\u00eb" } }',
			"latin1",
		);
		await writeFile(file, latin1);
		const { code, stderr } = await write();
		t.equal(code, 1);
		t.match(stderr, /is left as it is: it is not UTF-8/);
		t.strictSame(await readFile(file), latin1);
		t.strictSame(await readdir(folder), ["openclaw.json"]);

		await writeFile(file, '\uFEFF{ "gateway": { "name": "Zo\u00eb" } }');
		t.equal((await write()).code, 0);
		const text = await readFile(file, "utf8");
		t.ok(text.startsWith("\uFEFF{"));
		t.ok(text.includes('"Zo\u00eb"'));
	},
);

t.test(
	"--write keeps a symbolic link, tabs, line ends and comments wherever they stand",
	async (t) => {
		const { folder, file, write, read } = await freshOpenClaw(t);
		await mkdir(folder);
		const real = path.join(folder, "real.json");
		await writeFile(real, '{\r\n\t"gateway": {}\r\n}\r\n');
		await symlink(real, file);
		t.equal((await write()).code, 0);
		t.equal(await readlink(file), real);
		const text = await read();
		t.match(text, /\r\n\t"models": \{\r\n\t\t"providers"/);
		t.notMatch(text, /[^\r]\n/);

		const connection = { server, key: testKeys.user, model: "qwen3:8b" };
		for (const empty of ["", "\n", "{}", "\uFEFF{}"])
			t.match(
				parse(mergeProvider(empty, connection, "x").text.replace("\uFEFF", "")),
				{
					models: { providers: { ollama: { baseUrl: server } } },
				},
			);
		for (const compact of [
			'{"a":1}',
			'{"a":1,}',
			'{ "a": 1 // why\n}',
			'{ "a": 1 /* why */ }',
			'{\n  "a": 1 // why\n  , "b": 2 // what\n  // end\n}',
			"{ // why\n}",
			'{"models":{"providers":{"ollama":{"models":[]}}},"agents":{"defaults":{"models":{}}}}',
		]) {
			const { text } = mergeProvider(compact, connection, "x");
			const comments = (of: string) =>
				of.replaceAll(server, "").match(/\/\/.*|\/\*.*\*\//g);
			t.strictSame(comments(text), comments(compact), compact);
			t.equal(mergeProvider(text, connection, "x").text, text);
		}
		const plain = mergeProvider(
			'{ "agents": { "defaults": { "model": "openai/gpt" } } }',
			connection,
			"x",
		);
		t.equal(plain.keptPrimary, "openai/gpt");
	},
);

t.test(
	"--write leaves a symbolic link alone that leads to no file",
	async (t) => {
		const { folder, file, write } = await freshOpenClaw(t);
		await mkdir(folder, { recursive: true });
		await symlink("elsewhere/openclaw.json", file);
		const { code, stderr } = await write();
		t.equal(code, 1);
		t.ok(
			stderr.includes(path.join(folder, "elsewhere", "openclaw.json")),
			stderr,
		);
		t.equal(await readlink(file), "elsewhere/openclaw.json");
		t.strictSame(await readdir(folder), ["openclaw.json"]);
	},
);

t.test(
	"--write puts the model on OpenClaw's list of allowed ones, where there is one",
	async (t) => {
		const connection = {
			server: "http://box:11434",
			key: "lg_1",
			model: "qwen3:8b",
		};
		const model = "ollama/qwen3:8b";
		const defaultsOf = (defaults: object, more: object = {}) => {
			const before = JSON.stringify({ ...more, agents: { defaults } });
			const { text } = mergeProvider(before, connection, "x");
			const written = JSON.parse(text) as {
				agents: { defaults: Record<string, unknown> };
			};
			const { model: _chosen, ...rest } = written.agents.defaults;
			return rest;
		};
		const list = (...allow: string[]) => ({ modelPolicy: { allow } });
		t.strictSame(
			defaultsOf(list("anthropic/*")),
			list("anthropic/*", model),
			"an entry is added",
		);
		for (const fits of [model, "ollama/*"])
			t.strictSame(defaultsOf(list(fits)), list(fits), fits);
		t.strictSame(
			defaultsOf(list("ollama/hf.co/*")),
			list("ollama/hf.co/*", model),
		);
		for (const anyModel of [list(), { modelPolicy: {} }, { models: {} }])
			t.strictSame(defaultsOf(anyModel), anyModel, "any model is allowed");
		const models = { "anthropic/claude-sonnet-5": { alias: "S" } };
		t.strictSame(
			defaultsOf({ models, ...list("anthropic/*") }),
			{ models, ...list("anthropic/*", model) },
			"names beside a policy restrict nothing",
		);
		t.strictSame(defaultsOf({ models, modelPolicy: {} }), {
			models,
			modelPolicy: {},
		});
		t.strictSame(
			defaultsOf({ models }),
			{ models: { ...models, [model]: {} } },
			"names alone are the list of an OpenClaw before 2026.8.1",
		);
		const moved = { meta: { migrations: { modelPolicyAllowlist: true } } };
		t.strictSame(defaultsOf({ models }, moved), { models });
	},
);

t.test("--try with --write writes only if the call works", async (t) => {
	const gate = await startGate(t);
	const { file, folder, config } = await freshOpenClaw(t);
	const args = ["openclaw", "--server", gate.url, "--key-stdin"];
	const more = ["--try", "--write", "--file", file];
	t.equal((await connect([...args, ...more], testKeys.wrong)).code, 1);
	await t.rejects(readdir(folder), { code: "ENOENT" });
	t.equal((await connect([...args, ...more], testKeys.user)).code, 0);
	const written = await config();
	t.equal(written.models.providers.ollama?.baseUrl, gate.url);
	t.strictSame(written.agents.defaults.model, { primary: "ollama/qwen3:8b" });
});
