import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { styleText } from "node:util";
import { listedModels } from "../clients/listedModels.ts";
import { parseConfig } from "../config/load.ts";
import { exitCodes, Finding, UsageError } from "../errors.ts";
import { startDaemon } from "../gate/daemon.ts";
import { type KeyEntry, loadKeys } from "../keys/keyFile.ts";
import { Keyring } from "../keys/keyring.ts";
import { digestOf, generateKey } from "../keys/newKey.ts";
import { openLedger } from "../ledger/server.ts";
import { createLog, type LogSink } from "../log.ts";
import { ListenError } from "../net/listener.ts";
import { startStandIn } from "../ollama/standIn.ts";
import { describeRequest, parseLogLine } from "../report/logLine.ts";
import { noStateAccess } from "../valkey/access.ts";
import { excerpt } from "../visible.ts";
import { type Command, readArgs } from "./command.ts";
import { explainListenError } from "./serve.ts";

const ollamaUrl = "http://127.0.0.1:11434";
const defaultPort = 11435;

export const demo: Command = {
	help: `
Usage: llamagate demo [--port PORT] [--json]

Runs the real gate on loopback, in front of the Ollama on this machine if one
answers at ${ollamaUrl}, else of a built-in stand-in. It makes a
throw-away key, prints commands to try, and shows each request. It has a ledger
too, in memory. All that it writes to disk is a folder in ${tmpdir()} with two
sockets, a configuration that names them and a keys file; Ctrl-C ends it, and
the folder goes with it, however it ends.

  --port PORT  the gate's port (default: ${defaultPort}, or a free one if that is taken)
  --json       print what it started as one JSON line, then log lines

Exit codes: 0 stopped as told, 1 cannot listen, 2 usage

Example: llamagate demo
`,
	async run(args) {
		const { values } = readArgs(args, {
			port: { type: "string" },
			json: { type: "boolean", default: false },
		});
		if (
			values.port !== undefined &&
			(!/^\d{1,5}$/.test(values.port) || Number(values.port) > 65_535)
		)
			throw new UsageError(
				`--port ${values.port} is not a port: 1 to 65535, or 0 for a free one`,
			);

		const found = await findOllama();
		// Before there is a folder to leave behind.
		const stopped = untilStopped();
		const standIn =
			found === undefined
				? await startStandIn({
						firstTokenMs: 400,
						tokenIntervalMs: 60,
						remember: false,
					})
				: undefined;
		const upstreamUrl = standIn?.url ?? ollamaUrl;
		const key = generateKey();
		const entry = { name: "demo", sha256: digestOf(key) };
		const book = await openDemoLedger(entry);
		const configFor = (port: number) =>
			parseConfig(
				JSON.stringify({
					...(book && { ledger: book.section }),
					listen: { address: "127.0.0.1", port },
					sources: ["127.0.0.1/32"],
					upstream: { url: upstreamUrl },
					admin: { socket: book?.adminSocket ?? "off", metrics: "off" },
					drainTimeout: "1s",
				}),
				"demo",
			);
		// What it started comes first; the log follows.
		let introduced = false;
		const print = values.json
			? (line: string) => process.stdout.write(line)
			: show;
		const sink: LogSink = { write: (line) => introduced && print(line) };
		const start = (port: number) =>
			startDaemon(
				async () => ({
					settings: configFor(port),
					keyring: new Keyring(
						book === undefined ? [entry] : await loadKeys(book.keysFile),
					),
					stateAccess: noStateAccess,
					tokenJudges: new Map(),
					hostKeys: new Map(),
					certificate: undefined,
				}),
				sink,
			);
		const daemon = await start(Number(values.port ?? defaultPort)).catch(
			async (error: unknown) => {
				if (!(error instanceof ListenError)) throw error;
				// A port that was named is meant.
				if (values.port !== undefined)
					throw new Finding(await explainListenError(error));
				return start(0);
			},
		);
		const url = `http://${daemon.bound()[0]}`;
		const model = found?.model ?? "qwen3:8b";
		if (values.json)
			process.stdout.write(
				`${JSON.stringify({ url, key, model, upstream: upstreamUrl, standIn: standIn !== undefined, config: book?.configFile ?? null })}\n`,
			);
		else introduce(url, key, model, found?.version, book?.configFile);
		if (
			!values.json &&
			values.port === undefined &&
			!url.endsWith(`:${defaultPort}`)
		)
			process.stdout.write(
				`Port ${defaultPort} is taken, so it listens on a free one.\n\n`,
			);
		introduced = true;

		await stopped();
		await daemon.stop();
		await standIn?.close();
		await book?.close();
		process.exit(exitCodes.ok);
	},
};

/**
 * Takes over the signals by which a person or a closed terminal ends the demo:
 * while it waits for one, that is all it does, so that what runs can be closed;
 * before and after, it ends the process at once.
 */
function untilStopped(): () => Promise<void> {
	const exit = () => process.exit(exitCodes.ok);
	let onSignal: () => void = exit;
	for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
		process.on(signal, () => onSignal());
	return () =>
		new Promise((resolve) => {
			onSignal = () => {
				onSignal = exit;
				resolve();
			};
		});
}

/** A folder that the end of this process takes away; `undefined` where none can be made. */
function makeFolder(): string | undefined {
	try {
		// At once, or a signal could come between the folder and its name.
		const folder = mkdtempSync(path.join(tmpdir(), "llamagate-demo-"));
		process.once("exit", () =>
			rmSync(folder, { recursive: true, force: true }),
		);
		return folder;
	} catch {
		return undefined;
	}
}

/** A ledger whose file is in memory, beside a keys file that `keys add` can change; `undefined` where its socket has no place. */
async function openDemoLedger(entry: KeyEntry) {
	const folder = makeFolder();
	if (folder === undefined) return undefined;
	const section = { socket: path.join(folder, "ledger.sock") };
	const adminSocket = path.join(folder, "admin.sock");
	const configFile = path.join(folder, "config.json");
	const keysFile = path.join(folder, "keys.json");
	writeFileSync(keysFile, JSON.stringify({ keys: [entry] }), { mode: 0o600 });
	writeFileSync(
		configFile,
		JSON.stringify({ ledger: section, admin: { socket: adminSocket } }),
		{ mode: 0o600 },
	);
	const ledger = await openLedger(
		{ file: ":memory:", ...section, retentionMs: 86_400_000 },
		createLog("silent", { write() {} }),
	);
	return {
		section,
		adminSocket,
		configFile,
		keysFile,
		close: () => ledger.close(),
	};
}

/**
 * The Ollama on this machine, and a model of it to try. Any user can listen
 * there, so both are fit to be printed.
 */
async function findOllama(): Promise<
	{ version: string; model: string | undefined } | undefined
> {
	const get = async (path: string): Promise<unknown> => {
		const response = await fetch(`${ollamaUrl}${path}`, {
			signal: AbortSignal.timeout(1_000),
		});
		return response.ok ? response.json() : {};
	};
	try {
		const { version } = Object(await get("/api/version")) as {
			version?: unknown;
		};
		if (typeof version !== "string") return undefined;
		const [model] = listedModels(await get("/api/tags")) ?? [];
		return { version: excerpt(version), model };
	} catch {
		return undefined;
	}
}

function introduce(
	url: string,
	key: string,
	model: string,
	ollamaVersion: string | undefined,
	configFile: string | undefined,
): void {
	const bold = (text: string) => styleText("bold", text);
	// npm does not put the program on the path; npx finds it in the checkout.
	const program =
		process.env.npm_command === undefined ? "llamagate" : "npx llamagate";
	const upstream =
		ollamaVersion === undefined
			? `a built-in stand-in, because no Ollama answers at
${ollamaUrl}. Its words are canned; the gate is real.`
			: `the Ollama ${ollamaVersion} on this machine (${ollamaUrl}).`;
	process.stdout.write(`
${bold("llamagate")} listens on ${bold(url)}
in front of ${upstream}

Try it in another terminal, with the key of this run:

  KEY=${key}

  ${bold("1. refused, without a key")}
  curl ${url}/api/tags

  ${bold("2. the models, with the key")}
  curl -H "Authorization: Bearer $KEY" ${url}/api/tags

  ${bold("3. a stream")}
  curl -N -H "Authorization: Bearer $KEY" ${url}/api/generate \\
    -d '{"model":"${model}","prompt":"Hello!"}'
${
	configFile === undefined
		? ""
		: `
  ${bold("4. who used what")}
  ${program} usage --config ${configFile}

  ${bold("5. a page that shows all of it, live")}
  ${program} dashboard --config ${configFile}

  ${bold("6. a key more")}
  ${program} keys add phone --config ${configFile}

status, top, keys list and others take the same --config.
check, doctor and logs look at this host, and not at the demo.
`
}
Requests show up here. Ctrl-C stops.

`);
}

/** One line for people from one line of the log. */
function show(line: string): void {
	const entry = parseLogLine(line);
	if (entry?.msg === "request")
		process.stdout.write(`${describeRequest(entry)}\n`);
}
