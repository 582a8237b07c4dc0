import { homedir } from "node:os";
import path from "node:path";
import { styleText } from "node:util";
import { type Client, type Guide, isModelName } from "../clients/client.ts";
import { clients } from "../clients/clients.ts";
import {
	UneditableFileError,
	type Written,
	writeOpenClawFile,
} from "../clients/openClawFile.ts";
import { parseServer } from "../clients/server.ts";
import { type Failure, type Success, tryOut } from "../clients/tryOut.ts";
import { exitCodes, Finding, UsageError } from "../errors.ts";
import { weaknessOf } from "../keys/newKey.ts";
import { loadPeopleSecret, makePeopleSecret } from "../keys/peopleSecret.ts";
import { nearest } from "../nearest.ts";
import { formatJson } from "../report/json.ts";
import { formatTable } from "../report/table.ts";
import type { Command } from "./command.ts";
import {
	promptForKey,
	readArgsWithoutKey,
	readStandardInput,
} from "./keyInput.ts";

const placeholders = {
	server: "http://SERVER:11434",
	key: "KEY",
	model: "qwen3:8b",
};
const openClawPath = path.join(homedir(), ".openclaw", "openclaw.json");

const options = {
	server: { type: "string" },
	"key-stdin": { type: "boolean", default: false },
	model: { type: "string" },
	try: { type: "boolean", default: false },
	write: { type: "boolean", default: false },
	file: { type: "string" },
	"secret-file": { type: "string" },
	json: { type: "boolean", default: false },
} as const;

export const connect: Command = {
	help: `
Usage: llamagate connect
       llamagate connect CLIENT [--server URL] [--key-stdin] [--model NAME]
       llamagate connect [CLIENT] --server URL --key-stdin --try
       llamagate connect openclaw --server URL --key-stdin --model NAME --write
       llamagate connect open-webui --secret-file /etc/llamagate/NAME.secret

Prints what to paste into a client so that it reaches llamagate. Without CLIENT
it lists the clients it knows. Run it on the client's machine or on the server;
it needs no configuration.

  --server URL   host, host:port or http://host:port (default: ${placeholders.server},
                 to be replaced by hand). Without a port: 11434, with https: 443
  --key-stdin    read the key from standard input and put it into the text;
                 a key never goes on the command line, where others can see it
  --model NAME   the model to put into the text, or to try (default: ${placeholders.model},
                 with --try the first that the server has)
  --try          make one short streamed call and say how it went
  --write        openclaw only: put it into OpenClaw's configuration, keeping
                 what else is there and a copy of the file as it was
  --file FILE    where OpenClaw's configuration is (default: ~/.openclaw/openclaw.json)
  --secret-file FILE
                 open-webui only, on the server: put the secret of that file, with
                 which it signs who is asking, into the text; made if missing
  --json         print JSON

With --try, nothing is printed or written for a client unless the call works.

Exit codes: 0 done, 1 the call failed or the file cannot be edited, 2 usage

Example: llamagate connect curl --server my-server
         llamagate connect openclaw --server my-server --key-stdin --try --write < laptop.key
`,
	async run(args) {
		const given = readConnectArgs(args);
		const { client, model } = given;
		if (client === undefined && !given.tries) {
			listClients(given.json);
			return exitCodes.ok;
		}
		const server = given.server ?? placeholders.server;
		const key = given.readsKey ? await readKey() : undefined;

		let tried: Success | undefined;
		if (given.tries && key !== undefined) {
			const outcome = await tryOutLoud(server, key, model, given.json);
			if (!outcome.ok) {
				report(given.json, { client: client?.name, server, try: outcome });
				return exitCodes.finding;
			}
			tried = outcome;
		}
		const connection = {
			server,
			key: key ?? placeholders.key,
			model: tried?.model ?? model ?? placeholders.model,
			...(given.secretFile !== undefined && {
				secret: await readSecret(given.secretFile),
			}),
		};
		const written = given.writes
			? await write(given.file, connection)
			: undefined;
		const guide = client?.render(connection);
		if (given.json)
			report(true, {
				client: client?.name,
				title: client?.title,
				server,
				model: connection.model,
				...guide,
				source: client?.source,
				try: tried,
				written,
			});
		// What was written need not be pasted.
		else if (client && guide && written === undefined)
			process.stdout.write(
				formatGuide(client, guide, toReplace(client, given, guide, tried)),
			);
		return exitCodes.ok;
	},
};

interface Given {
	readonly client: Client | undefined;
	readonly server: string | undefined;
	readonly model: string | undefined;
	readonly readsKey: boolean;
	readonly tries: boolean;
	readonly writes: boolean;
	readonly file: string;
	readonly secretFile: string | undefined;
	readonly json: boolean;
}

/**
 * Reads the command line. No message of it repeats what could be a key: people
 * do put them there.
 *
 * @throws {UsageError}
 */
function readConnectArgs(args: string[]): Given {
	const { values, positionals } = readArgsWithoutKey(args, options, "CLIENT");
	const [name] = positionals;
	const client = name === undefined ? undefined : findClient(name);
	const server =
		values.server === undefined ? undefined : parseServer(values.server);
	if (values.server !== undefined && server === undefined)
		throw new UsageError(
			"--server takes host, host:port or http://host:port (or https), without a path, a user or a query",
		);
	if (values.model !== undefined && !isModelName(values.model))
		throw new UsageError(
			"--model takes a model's name as ollama list shows it, such as qwen3:8b",
		);
	const needs = (option: string) => {
		if (server === undefined || !values["key-stdin"])
			throw new UsageError(
				`${option} needs --server and --key-stdin, with the key on standard input`,
			);
	};
	if (values.try) needs("--try");
	if (values.write) {
		if (client?.name !== "openclaw")
			throw new UsageError(
				"--write is for openclaw only; for another client, paste what is printed without it",
			);
		needs("--write");
		if (values.model === undefined && !values.try)
			throw new UsageError(
				"--write needs a model: name one with --model, or take the first that the server has with --try",
			);
	}
	if (values.file !== undefined && !values.write)
		throw new UsageError("--file says where --write writes, and needs it");
	if (values["secret-file"] !== undefined && client?.name !== "open-webui")
		throw new UsageError(
			"--secret-file is for open-webui, which signs who is asking",
		);
	if (client === undefined && !values.try) {
		const lost = (["server", "model"] as const).find(
			(option) => values[option] !== undefined,
		);
		if (lost !== undefined || values["key-stdin"])
			throw new UsageError(
				`say which client: ${clients.map((known) => known.name).join(", ")}`,
			);
	}
	return {
		client,
		server,
		model: values.model,
		readsKey: values["key-stdin"],
		tries: values.try,
		writes: values.write,
		file: values.file ?? openClawPath,
		secretFile: values["secret-file"],
		json: values.json,
	};
}

/** @throws {UsageError} with the list and the nearest name */
function findClient(name: string): Client {
	const names = clients.map((client) => client.name);
	const found = clients.find((client) => client.name === name.toLowerCase());
	if (found !== undefined) return found;
	// Nothing of 20 characters is a key (128 bits take 22), so this much may be repeated.
	const shown =
		name.length <= 20 ? ` ${JSON.stringify(name)}` : " of that name";
	const near = name.length <= 20 ? nearest(name, names) : undefined;
	throw new UsageError(
		`unknown client${shown}${near === undefined ? "" : `; did you mean "${near}"?`}\nKnown: ${names.join(", ")}`,
	);
}

/** @throws {Finding} that does not repeat it */
async function readKey(): Promise<string> {
	promptForKey();
	const key = await readStandardInput();
	if (key === "")
		throw new Finding(
			"standard input is empty; put the key there, such as with: --key-stdin < laptop.key",
		);
	const weakness = weaknessOf(key);
	if (weakness !== undefined)
		throw new Finding(
			`what is on standard input is not a key of llamagate: ${weakness.split(";")[0]}. Paste the key whole and alone, as llamagate keys add printed it`,
		);
	return key;
}

/** @throws {BadFileError} if it cannot be had, or is too weak */
async function readSecret(file: string): Promise<string> {
	if ((await makePeopleSecret(file, file)) === "made")
		say(`${file} is made, with a new secret.`);
	return new TextDecoder().decode(await loadPeopleSecret(file));
}

function listClients(asJson: boolean): void {
	const known = clients.map(({ name, title, source }) => {
		return { name, title, source };
	});
	report(asJson, { clients: known });
	if (!asJson)
		process.stdout.write(
			`${formatTable(
				["CLIENT", "WHAT IT IS"],
				known.map(({ name, title }) => [name, title]),
			)}\nShow how to connect one: llamagate connect CLIENT --server YOUR-SERVER\n`,
		);
}

/** Tries the server, and tells how it goes unless JSON is wanted. */
async function tryOutLoud(
	server: string,
	key: string,
	model: string | undefined,
	quiet: boolean,
): Promise<Success | Failure> {
	let shown = false;
	const tried = await tryOut(
		server,
		key,
		model,
		(asked) => {
			if (!quiet)
				say(
					`Asking ${asked} at ${server}. If it has to be loaded first, that can take minutes.`,
				);
		},
		(text) => {
			if (quiet) return;
			process.stdout.write(styleText("dim", text));
			shown = true;
		},
	);
	if (quiet) return tried;
	if (shown) process.stdout.write("\n\n");
	if (!tried.ok) {
		say(
			`${styleText("red", "failed", { stream: process.stderr })}  ${tried.problem}\n${tried.advice}`,
		);
		return tried;
	}
	const ok = styleText("green", "ok");
	const { firstTokenMs, streamMs, tokens, arrivals } = tried;
	process.stdout.write(
		`${ok}    first token after ${firstTokenMs} ms, from ${tried.model}\n`,
	);
	if (tokens < 3)
		process.stdout.write(
			`${ok}    ${tokens === 1 ? "1 token" : `${tokens} tokens`}: too few to tell whether they come one by one\n\n`,
		);
	else if (arrivals * 2 >= tokens)
		process.stdout.write(
			`${ok}    ${tokens} tokens came one by one, over ${streamMs} ms\n\n`,
		);
	else
		process.stdout.write(
			`${styleText("yellow", "note")}  ${tokens} tokens came in ${arrivals} pieces, over ${streamMs} ms: either they are made that fast, or a proxy between here and llamagate collects them\n\n`,
		);
	return tried;
}

/** @throws {Finding} if the file cannot be edited */
async function write(
	file: string,
	connection: { server: string; key: string; model: string },
): Promise<Written> {
	const written = await writeOpenClawFile(file, connection, new Date()).catch(
		(error: unknown) => {
			if (error instanceof UneditableFileError)
				throw new Finding(error.message);
			const { code, syscall } = error as NodeJS.ErrnoException;
			if (syscall === undefined) throw error;
			throw new Finding(`${file} cannot be written (${code})`);
		},
	);
	switch (written.outcome) {
		case "unchanged":
			say(`${file} has it already; nothing was written.`);
			break;
		case "created":
			say(`${file} is made, for its owner alone.`);
			break;
		case "changed":
			say(`${file} is changed; it is as it was in ${written.backup}`);
	}
	if (written.keptPrimary !== undefined)
		say(
			`Agents go on using ${written.keptPrimary}. To change that: openclaw config set agents.defaults.model.primary ollama/${connection.model}`,
		);
	if (written.outcome !== "unchanged")
		say("Check it with: openclaw config validate");
	return written;
}

/** What the reader must still put in by hand, or take care of. */
function toReplace(
	client: Client,
	given: Given,
	{ snippets }: Guide,
	tried: Success | undefined,
): string[] {
	const lines: string[] = [];
	if (given.server === undefined)
		lines.push(
			"Put the server's name or its 100.… address in place of SERVER (or give it with --server).",
		);
	if (!client.sendsKey) {
		if (given.readsKey)
			lines.push("The key was not used: this client cannot send one.");
	} else
		lines.push(
			given.readsKey
				? "This text has the key in it. Keep it out of chats, screenshots and version control."
				: "Put the key in place of KEY. On the server, sudo llamagate keys add NAME makes one and prints it once.",
		);
	if (given.secretFile !== undefined)
		lines.push(
			"So does the secret, with which anyone who has the key could name anybody. Keep it as you keep the key.",
		);
	if (
		given.model === undefined &&
		tried === undefined &&
		snippets.some(({ text }) => text.includes(placeholders.model))
	)
		lines.push(
			`${placeholders.model} is an example; give one that the server has with --model.`,
		);
	return lines;
}

function formatGuide(
	client: Client,
	{ snippets, notes }: Guide,
	more: readonly string[],
): string {
	const parts = snippets.map(
		({ lead, text }) => `${styleText("bold", lead)}\n\n${text}`,
	);
	return `${[
		styleText("bold", client.title),
		...parts,
		[...more, ...notes].map((note) => `- ${note}`).join("\n"),
	].join("\n\n")}\n`;
}

function report(asJson: boolean, value: object): void {
	if (asJson) process.stdout.write(formatJson(value));
}

function say(text: string): void {
	process.stderr.write(`${text}\n`);
}
