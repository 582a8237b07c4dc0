import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFile, chmod, rename, writeFile } from "node:fs/promises";
import path from "node:path";
import { stripVTControlCharacters } from "node:util";
import t from "tap";
import { describeLogLine } from "../../src/report/logLine.ts";
import {
	bearer,
	eventually,
	runCli,
	startGate,
	temporaryFolder,
	testKeys,
} from "../support/gate.ts";
import { program } from "../support/program.ts";

const lines = [
	{
		level: "info",
		time: "2026-11-23T14:58:00.000Z",
		version: "1",
		msg: "started",
	},
	{
		level: "info",
		time: "2026-11-23T14:58:13.620Z",
		key: "laptop",
		node: "mini",
		route: "POST /api/chat",
		model: "qwen3:8b",
		status: 200,
		ttftMs: 402.9,
		durationMs: 3842.9,
		tokensOut: 57,
		outcome: "ok",
		ip: "100.101.102.105",
		msg: "request",
	},
	{
		level: "info",
		time: "2026-11-23T14:59:13.624Z",
		key: null,
		node: null,
		route: "GET /api/tags",
		model: null,
		status: 401,
		ttftMs: null,
		durationMs: 0.5,
		tokensOut: null,
		outcome: "refused",
		ip: "100.101.102.106",
		reason: "no_key",
		msg: "request",
	},
	{
		level: "info",
		time: "2026-11-23T15:00:13.624Z",
		key: "phone",
		node: null,
		route: "POST /api/chat",
		model: "gemma3:latest\u001b[2J",
		status: 200,
		ttftMs: 1,
		durationMs: 2,
		tokensOut: 3,
		outcome: "client_gone",
		ip: "100.101.102.107",
		msg: "request",
	},
];
const text = lines.map((line) => `${JSON.stringify(line)}\n`).join("");

t.test(
	"logs shows one line a request, and what else the gate says",
	async (t) => {
		const shown = await runCli(
			["logs", "-"],
			`{"url":"http://127.0.0.1:11435","key":"lg_0"}\nnull\n${text}no line of the gate's\n`,
		);
		t.equal(shown.stderr, "");
		t.equal(shown.code, 0);
		t.strictSame(shown.stdout.split("\n"), [
			"2026-11-23 14:58:00Z info started version=1",
			"2026-11-23 14:58:13Z 200 POST /api/chat: ok in 3842.9 ms, first byte after 402.9 ms, 57 tokens (laptop mini qwen3:8b)",
			"2026-11-23 14:59:13Z 401 GET /api/tags: no_key in 0.5 ms (no key 100.101.102.106)",
			"2026-11-23 15:00:13Z 200 POST /api/chat: client_gone in 2 ms, first byte after 1 ms, 3 tokens (phone 100.101.102.107 gemma3:latest<U+001B>[2J)",
			"",
		]);
		t.equal(stripVTControlCharacters(shown.stdout), shown.stdout);
	},
);

t.test("logs filters by key, model, outcome and time", async (t) => {
	for (const [args, times] of [
		[["--key", "laptop"], ["14:58:13"]],
		[["--key", "-"], ["14:59:13"]],
		[["--model", "qwen3:*"], ["14:58:13"]],
		[["--model", "QWEN3:8b"], ["14:58:13"]],
		[
			["--outcome", "refused,client_gone"],
			["14:59:13", "15:00:13"],
		],
		[["--outcome", "ok", "--key", "phone"], []],
		[
			["--since", "2026-11-23T14:59:00Z"],
			["14:59:13", "15:00:13"],
		],
	] as const) {
		const shown = await runCli(["logs", ...args, "-"], text);
		t.equal(shown.code, 0, shown.stderr);
		const seen = [...shown.stdout.matchAll(/^\S+ ([\d:]+)Z/gm)];
		t.strictSame(
			seen.map(([, time]) => time),
			times,
			args.join(" "),
		);
	}
	const json = await runCli(["logs", "--json", "--key", "laptop", "-"], text);
	t.strictSame(JSON.parse(json.stdout), lines[1]);
	const odd = { ...lines[1], model: "qwen3\u009b2J\u202e" };
	const shown = await runCli(["logs", "--json", "-"], JSON.stringify(odd));
	t.strictSame(JSON.parse(shown.stdout), odd);
	t.notMatch(shown.stdout, /[\u009b\u202e]/, "nothing in it steers a terminal");
});

t.test("logs says why it shows nothing", async (t) => {
	const folder = await temporaryFolder(t);
	for (const [args, input, says] of [
		[["-"], "", /^Standard input is empty\.\n$/],
		[
			["-"],
			"{}\nno\n",
			/^Standard input has no line of a gate's log, .*docs\/logs/,
		],
		[["--key", "nobody", "-"], text, /^None of the 4 lines of the log is one/],
		[["--key", "laptop", "-"], text, /^$/],
	] as const) {
		const shown = await runCli(["logs", ...args], input);
		t.equal(shown.code, 0);
		t.match(shown.stderr, says);
	}
	const file = path.join(folder, "empty.log");
	await writeFile(file, "");
	t.equal((await runCli(["logs", file])).stderr, `${file} is empty.\n`);
});

t.test("logs says what is wrong with its command line", async (t) => {
	for (const [args, code, says] of [
		[["--outcome", "fine"], 2, /"fine" is not an outcome; known: ok, rejected/],
		[["--since", "yesterday"], 2, /neither a duration such as 2h/],
		[["--model", ""], 2, /not a pattern of models/],
		[["a", "b"], 2, /unexpected argument "b"/],
		[["/no/such/file"], 1, /cannot be read \(ENOENT\)/],
		[
			["/tmp"],
			1,
			/^llamagate logs: \/tmp cannot be read \(EISDIR\): it is a folder; name a file in it\n$/,
		],
	] as const) {
		const refused = await runCli(["logs", ...args]);
		t.equal(refused.code, code, args.join(" "));
		t.match(refused.stderr, says);
	}
});

t.test("logs follows a file, also where it is rotated", async (t) => {
	const file = path.join(await temporaryFolder(t), "gate.log");
	await writeFile(file, text);
	const child = spawn(process.execPath, [
		...[program, "logs", "--follow", "--outcome", "ok,cut", file],
	]);
	t.teardown(() => child.kill("SIGKILL"));
	let shown = "";
	child.stdout.setEncoding("utf8").on("data", (part: string) => {
		shown += part;
	});
	await eventually(() => shown.includes("(laptop mini qwen3:8b)"));
	const cut = { ...lines[1], key: "cut-off", outcome: "cut" };
	await appendFile(file, `${JSON.stringify(cut)}\n`);
	await eventually(() => shown.includes("(cut-off mini"));
	await rename(file, `${file}.1`);
	await writeFile(file, `${JSON.stringify({ ...cut, key: "rotated" })}\n`);
	await eventually(() => shown.includes("(rotated mini"));
	t.equal(shown.trim().split("\n").length, 3);
	// Its standard output is closed once nobody has it any more: tail has gone, too.
	const closed = once(child, "close");
	child.kill("SIGINT");
	t.strictSame(await closed, [0, null]);
});

t.test("logs reads the journal, and says so where there is none", async (t) => {
	const folder = await temporaryFolder(t);
	const journalctl = path.join(folder, "journalctl");
	await writeFile(
		journalctl,
		`#!/bin/sh\nprintf '%s\\n' "$*" >"${folder}/args"\ncat <<'END'\n${JSON.stringify({ ...lines[1], time: new Date().toISOString() })}\nEND\n`,
	);
	await chmod(journalctl, 0o755);
	const run = async (env: NodeJS.ProcessEnv) => {
		const child = spawn(process.execPath, [program, "logs"], { env });
		let out = "";
		child.stdout.setEncoding("utf8").on("data", (part: string) => {
			out += part;
		});
		child.stderr.setEncoding("utf8").on("data", (part: string) => {
			out += part;
		});
		const [code] = await once(child, "close");
		return { code, out };
	};
	const read = await run({ PATH: `${folder}:/usr/bin:/bin` });
	t.equal(read.code, 0, read.out);
	t.match(read.out, /200 POST \/api\/chat: ok/);
	await writeFile(journalctl, "#!/bin/sh\n");
	const empty = await run({ PATH: `${folder}:/usr/bin:/bin` });
	t.equal(empty.code, 0);
	t.match(
		empty.out,
		/^The journal has no line of llamagate\.service .*--since 24h\. .*--since 30d.* docker logs NAME \| llamagate logs -\n$/,
	);
	const none = await run({ PATH: await temporaryFolder(t) });
	t.equal(none.code, 1);
	t.match(none.out, /found no journalctl here; give the file/);
});

t.test("logs shows what a real gate writes", async (t) => {
	const gate = await startGate(t);
	await (
		await fetch(`${gate.url}/api/tags`, { headers: bearer(testKeys.user) })
	).text();
	await eventually(() => gate.log.some(({ msg }) => msg === "request"));
	const shown = await runCli(
		["logs", "--key", "user", "-"],
		gate.log.map((line) => `${JSON.stringify(line)}\n`).join(""),
	);
	t.match(shown.stdout, /Z 200 GET \/api\/tags: ok in [\d.]+ ms.*\(user 127/);
});

t.test(
	"who is named in a line is shown in one, whatever their name",
	async (t) => {
		const line = {
			...lines[1],
			userBy: "jwt",
			person: "me\u001b[2J\n@example.com",
		};
		const shown = stripVTControlCharacters(describeLogLine(line));
		t.match(shown, /\(laptop me.*@example\.com mini qwen3:8b\)$/);
		t.notMatch(describeLogLine(line), "\u001b[2J");
		t.notMatch(shown, "\n");
	},
);
