import { readFile, stat } from "node:fs/promises";
import { styleText } from "node:util";
import { formatDuration, parseDuration } from "../config/duration.ts";
import { defaultConfigPath, loadConfig } from "../config/load.ts";
import type { Binding } from "../gate/identity.ts";
import type { KeyUse } from "../gate/keyUse.ts";
import {
	changeKeys,
	defaultScopes,
	isForServiceGroup,
	type KeyEntry,
	loadKeys,
	parseTime,
} from "../keys/keyFile.ts";
import { digestOf, generateKey, weaknessOf } from "../keys/newKey.ts";
import { askDaemon } from "../net/sideDoors.ts";
import { parseOllamaKey } from "../ollama/cliSignature.ts";
import { parseModelPattern } from "../ollama/modelName.ts";
import { type Scope, scopes } from "../ollama/routes.ts";
import { visible } from "../visible.ts";
import {
	type Command,
	exitCodes,
	Finding,
	readArgs,
	UsageError,
} from "./command.ts";
import { promptForKey, readStandardInput } from "./keyInput.ts";
import { formatTable } from "./table.ts";

const shared = {
	config: { type: "string", short: "c", default: defaultConfigPath },
	json: { type: "boolean", default: false },
} as const;

const actions = ["add", "list", "rotate", "revoke"];

export const keys: Command = {
	summary: "make, list, rotate and revoke keys",
	help: `
Usage: llamagate keys add NAME [--scopes LIST] [--expires 90d] [--stdin]
       llamagate keys list
       llamagate keys rotate NAME [--overlap 24h] [--expires 90d] [--stdin]
       llamagate keys revoke NAME

A key is shown once, when it is made; the file holds only its digest. A running
daemon is told at once.

  -c, --config FILE  the configuration that names the keys file
                     (default: ${defaultConfigPath})
  --models LIST      patterns of models it may use, such as qwen3:*,llama3.2
                     (default: all)
  --ollama-key FILE  the client's ~/.ollama/id_ed25519.pub, in place of a key:
                     the stock ollama command signs its requests with it
  --bind LIST        devices, people and tags of the tailnet that it may be used
                     from: laptop,me@example.com,tag:client (default: all)
  --canary           a key that lets nobody in and raises an alarm when used:
                     leave it where a thief would look
  --scopes LIST      what the key may do: ${scopes.join(",")}
                     (default: ${defaultScopes.join(",")})
  --expires WHEN     a duration such as 90d, or a time such as 2027-01-01T00:00:00Z
  --overlap DURATION how long the old key goes on working (default: 24h);
                     0 ends it now, and any that still worked before it
  --stdin            take a key made elsewhere from standard input
  --json             print JSON

Exit codes: 0 done, 1 refused, 2 usage, 78 bad configuration or keys file

Example: llamagate keys add laptop --expires 90d
         llamagate keys add laptop --stdin < laptop.key
`,
	async run(given) {
		// Options may stand before the action, too.
		const at = Math.max(
			0,
			given.findIndex((arg) => actions.includes(arg)),
		);
		const action = given[at];
		const args = given.toSpliced(at, 1);
		switch (action) {
			case "add":
				return add(args);
			case "list":
				return list(args);
			case "rotate":
				return rotate(args);
			case "revoke":
				return revoke(args);
			default:
				throw new UsageError(
					action === undefined
						? `say what to do: ${actions.join(", ")}`
						: `unknown action ${JSON.stringify(action)}; known: ${actions.join(", ")}`,
				);
		}
	},
};

const maxOverlapMs = 366 * 86_400_000;

const making = {
	...shared,
	expires: { type: "string" },
	stdin: { type: "boolean", default: false },
} as const;

async function add(args: string[]): Promise<number> {
	const { values, positionals } = readArgs(
		args,
		{
			...making,
			scopes: { type: "string" },
			models: { type: "string" },
			"ollama-key": { type: "string" },
			bind: { type: "string" },
			canary: { type: "boolean", default: false },
		},
		["NAME"],
	);
	const name = readName(positionals[0]);
	const granted = readScopes(values.scopes);
	const expires = readExpires(values.expires);
	const models = readModels(values.models);
	const ollamaKeyFile = values["ollama-key"];
	if (ollamaKeyFile !== undefined && values.stdin)
		throw new UsageError("--ollama-key and --stdin are two keys; give one");
	const settings = await loadConfig(values.config);
	if (values.bind !== undefined && settings.identity.mode === "off")
		throw new Finding(
			`a bound key needs to know who is who: set identity.mode to "log" or "require" in ${values.config} first`,
		);
	const key =
		ollamaKeyFile === undefined ? await obtainKey(values.stdin) : undefined;
	const entry: KeyEntry = {
		name,
		...(key === undefined
			? { ollamaKey: await readOllamaKey(ollamaKeyFile ?? "") }
			: { sha256: digestOf(key) }),
		scopes: granted,
		...(models === undefined ? undefined : { models }),
		...(values.bind === undefined
			? undefined
			: { bind: readBind(values.bind) }),
		...(values.canary ? { canary: true } : undefined),
		created: now(),
		...(expires === undefined ? undefined : { expires }),
	};
	await changeKeys(settings.keysFile, true, (keys) => {
		if (keys.some((known) => known.name === name))
			throw new Finding(
				`there is a key named ${name} already; replace it with: llamagate keys rotate ${name}`,
			);
		refuseKnownKey(keys, entry.sha256 ?? entry.ollamaKey ?? "");
		return [...keys, entry];
	});
	hand(entry, values.stdin ? undefined : key, values.json);
	await warnOfRootOwner(settings.keysFile);
	return tellDaemon(settings.admin.socket);
}

async function rotate(args: string[]): Promise<number> {
	const options = {
		...making,
		overlap: { type: "string", default: "24h" },
	} as const;
	const { values, positionals } = readArgs(args, options, ["NAME"]);
	const name = readName(positionals[0]);
	const overlapMs = values.overlap === "0" ? 0 : parseDuration(values.overlap);
	if (overlapMs === undefined)
		throw new UsageError(
			`--overlap ${values.overlap} is no duration; write one such as 24h, or 0`,
		);
	if (overlapMs > maxOverlapMs)
		throw new UsageError(
			`--overlap ${values.overlap} is longer than a year; an old key should end sooner`,
		);
	const newExpires = readExpires(values.expires);
	const settings = await loadConfig(values.config);
	const key = await obtainKey(values.stdin);
	const nowMs = Date.now();
	let rotated: KeyEntry | undefined;
	await changeKeys(settings.keysFile, false, (keys) => {
		const old =
			keys.find((known) => known.name === name) ?? noSuchKey(name, keys);
		if (old.sha256 === undefined)
			throw new Finding(
				`${name} is a key of Ollama's, made on the client; revoke it and add the new one with --ollama-key`,
			);
		refuseKnownKey(keys, digestOf(key));
		const expires = newExpires ?? old.expires;
		if (expires !== undefined && (parseTime(expires) ?? 0) <= nowMs)
			throw new Finding(
				`the key ${name} has expired; say how long the new one is good for, such as --expires 90d`,
			);
		// The old key never gains time, and what has run out is forgotten.
		const until = Math.min(
			nowMs + overlapMs,
			parseTime(old.expires ?? "") ?? Number.POSITIVE_INFINITY,
		);
		const previous = [
			...(overlapMs === 0 ? [] : (old.previous ?? [])),
			{ sha256: old.sha256, expires: new Date(until).toISOString() },
		].filter((held) => (parseTime(held.expires) ?? 0) > nowMs);
		const { previous: _replaced, expires: _old, ...rest } = old;
		rotated = {
			...rest,
			sha256: digestOf(key),
			created: now(),
			...(expires === undefined ? undefined : { expires }),
			...(previous.length === 0 ? undefined : { previous }),
		};
		return keys.map((known) =>
			known === old && rotated !== undefined ? rotated : known,
		);
	});
	if (rotated !== undefined)
		hand(rotated, values.stdin ? undefined : key, values.json);
	if (!values.json)
		say(
			overlapMs === 0
				? "The old key and any before it have stopped working."
				: `The old key works for another ${formatDuration(overlapMs)} at the most.`,
		);
	return tellDaemon(settings.admin.socket);
}

async function revoke(args: string[]): Promise<number> {
	const { values, positionals } = readArgs(args, shared, ["NAME"]);
	const name = readName(positionals[0]);
	const settings = await loadConfig(values.config);
	await changeKeys(settings.keysFile, false, (keys) => {
		const old =
			keys.find((known) => known.name === name) ?? noSuchKey(name, keys);
		return keys.filter((known) => known !== old);
	});
	if (values.json)
		process.stdout.write(`${JSON.stringify({ revoked: name })}\n`);
	else say(`The key ${name} is revoked.`);
	return tellDaemon(settings.admin.socket);
}

async function list(args: string[]): Promise<number> {
	const { values } = readArgs(args, shared);
	const settings = await loadConfig(values.config);
	const entries = await loadKeys(settings.keysFile);
	const nowMs = Date.now();
	const uses = await askForUses(settings.admin.socket);
	const rows = entries.map((entry) => ({
		name: entry.name,
		kind: kindOf(entry),
		state: stateOf(entry, nowMs),
		scopes: entry.scopes ?? defaultScopes,
		models: entry.models ?? null,
		bind: entry.bind ?? null,
		created: entry.created ?? null,
		expires: entry.expires ?? null,
		oldKeysUntil:
			entry.previous
				?.map(({ expires }) => expires)
				.filter((text) => (parseTime(text) ?? 0) > nowMs) ?? [],
		/** `null` while no daemon runs that could tell. */
		use: uses === undefined ? null : (uses[entry.name] ?? ("not yet" as const)),
	}));
	if (values.json) {
		process.stdout.write(`${JSON.stringify({ keys: rows }, undefined, 2)}\n`);
		return exitCodes.ok;
	}
	if (rows.length === 0) {
		say("There is no key yet. Make one with: llamagate keys add NAME");
		return exitCodes.ok;
	}
	const table = rows.map((row) => [
		row.name,
		styleText(row.state === "expired" ? "red" : "green", row.state),
		row.kind,
		row.scopes.join(","),
		row.models?.join(",") ?? "all",
		Object.values(row.bind ?? { everywhere: ["anywhere"] })
			.flat()
			.join(","),
		row.created?.slice(0, 10) ?? "-",
		row.expires === null ? "never" : shortTime(row.expires),
		row.oldKeysUntil.map(shortTime).join(" ") || "-",
		...describeUse(row.use),
	]);
	const head = [
		"NAME",
		"STATE",
		"KIND",
		"SCOPES",
		"MODELS",
		"FROM",
		"CREATED",
		"EXPIRES",
		"OLD KEY UNTIL",
		"LAST USED",
		"BY",
		"24 H",
	];
	process.stdout.write(formatTable(head, table));
	if (uses === undefined)
		say("No daemon answered, so when each was last used is not known.");
	return exitCodes.ok;
}

function shortTime(text: string): string {
	return text.slice(0, 16).replace("T", " ");
}

function kindOf({ canary, ollamaKey }: KeyEntry): "key" | "ollama" | "canary" {
	if (canary === true) return "canary";
	return ollamaKey === undefined ? "key" : "ollama";
}

/** What the running daemon knows of the keys' use; `undefined` if none runs. */
async function askForUses(
	socket: string | undefined,
): Promise<Record<string, KeyUse> | undefined> {
	if (socket === undefined) return undefined;
	const { status, body } = await askDaemon(socket, "GET /status");
	if (status !== 200) return undefined;
	return (JSON.parse(body) as { keyUse: Record<string, KeyUse> }).keyUse;
}

/** The daemon counts from its start. */
function describeUse(use: KeyUse | "not yet" | null): string[] {
	if (use === null) return ["?", "?", "?"];
	if (use === "not yet") return [use, "-", "0"];
	return [
		shortTime(use.lastUsed),
		String(use.lastFrom),
		String(use.lastDay),
	].map(visible);
}

function stateOf({ expires }: KeyEntry, nowMs: number): "active" | "expired" {
	return expires !== undefined && (parseTime(expires) ?? 0) <= nowMs
		? "expired"
		: "active";
}

function say(text: string): void {
	process.stderr.write(`${text}\n`);
}

function now(): string {
	return new Date().toISOString();
}

function readName(name: string | undefined): string {
	if (name === undefined || !/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name))
		throw new UsageError(
			`${JSON.stringify(name)} is no name for a key; use at most 64 letters, digits, dots, dashes and underscores`,
		);
	return name;
}

function readScopes(text: string | undefined): readonly Scope[] {
	if (text === undefined) return defaultScopes;
	const wanted = text.split(",").map((scope) => scope.trim());
	const known: readonly string[] = scopes;
	const wrong = wanted.find((scope) => !known.includes(scope));
	if (wrong !== undefined)
		throw new UsageError(
			`${JSON.stringify(wrong)} is no scope; known: ${scopes.join(", ")}`,
		);
	return scopes.filter((scope) => wanted.includes(scope));
}

function readExpires(text: string | undefined): string | undefined {
	if (text === undefined) return undefined;
	const durationMs = parseDuration(text);
	const timeMs =
		durationMs === undefined ? parseTime(text) : Date.now() + durationMs;
	if (timeMs === undefined)
		throw new UsageError(
			`--expires ${text} is neither a duration such as 90d nor a time such as 2027-01-01T00:00:00Z`,
		);
	if (timeMs <= Date.now())
		throw new UsageError(`--expires ${text} is in the past`);
	if (timeMs > 253_402_300_799_000)
		throw new UsageError(`--expires ${text} is further off than the year 9999`);
	return new Date(timeMs).toISOString();
}

async function obtainKey(fromStdin: boolean): Promise<string> {
	if (!fromStdin) return generateKey();
	promptForKey();
	const key = await readStandardInput();
	const weakness = weaknessOf(key);
	if (weakness !== undefined) throw new Finding(weakness);
	return key;
}

function refuseKnownKey(keys: readonly KeyEntry[], id: string): void {
	const holder = keys.find(
		(known) =>
			known.sha256 === id ||
			known.ollamaKey === id ||
			known.previous?.some((held) => held.sha256 === id),
	);
	if (holder !== undefined)
		throw new Finding(`that key is in use already, by ${holder.name}`);
}

function readModels(text: string | undefined): string[] | undefined {
	if (text === undefined) return undefined;
	const patterns = text.split(",").map((pattern) => pattern.trim());
	const wrong = patterns.find(
		(pattern) => parseModelPattern(pattern) === undefined,
	);
	if (wrong !== undefined)
		throw new UsageError(
			`${JSON.stringify(wrong)} is no pattern of models; write one such as qwen3:*, hf.co/*/*:* or *`,
		);
	return patterns;
}

function readBind(text: string): Binding {
	const given = text.split(",").map((name) => name.trim());
	if (given.includes("")) throw new UsageError("--bind has an empty name");
	const tags = given.filter((name) => name.startsWith("tag:"));
	const users = given.filter((name) => name.includes("@"));
	const nodes = given.filter(
		(name) => !tags.includes(name) && !users.includes(name),
	);
	return {
		...(nodes.length > 0 ? { nodes } : undefined),
		...(users.length > 0 ? { users } : undefined),
		...(tags.length > 0 ? { tags } : undefined),
	};
}

/** The public half of a client's key, from its file: `ssh-ed25519 AAAA… comment`. */
async function readOllamaKey(file: string): Promise<string> {
	const text = await readFile(file, "utf8").catch((error: unknown) => {
		throw new Finding(
			`${file} cannot be read (${(error as NodeJS.ErrnoException).code})`,
		);
	});
	const [type, publicKey = ""] = text.trim().split(/\s+/);
	if (type !== "ssh-ed25519" || parseOllamaKey(publicKey) === undefined)
		throw new Finding(
			`${file} is no ed25519 public key; it is the client's ~/.ollama/id_ed25519.pub that is needed`,
		);
	return publicKey;
}

function noSuchKey(name: string, keys: readonly KeyEntry[]): never {
	const known = keys.map((key) => key.name).join(", ");
	throw new Finding(
		`there is no key named ${name}${known === "" ? "" : `; known: ${known}`}`,
	);
}

/**
 * Says what was made, and shows a made key, the only time it is seen. Only the
 * key goes to standard output, so that it can be piped.
 */
function hand(entry: KeyEntry, key: string | undefined, json: boolean): void {
	const { name } = entry;
	const facts = {
		name,
		scopes: entry.scopes ?? defaultScopes,
		models: entry.models ?? null,
		expires: entry.expires ?? null,
	};
	if (json) {
		process.stdout.write(
			`${JSON.stringify(key === undefined ? facts : { ...facts, key })}\n`,
		);
		return;
	}
	const may = [
		facts.scopes.join(", "),
		...(facts.models === null ? [] : [`models ${facts.models.join(", ")}`]),
		...(facts.expires === null ? [] : [`until ${facts.expires}`]),
	].join("; ");
	if (key === undefined) say(`The key ${name} is stored (${may}).`);
	else {
		process.stdout.write(`${key}\n`);
		say(
			`The key ${name} is made (${may}). Store it now: it is not shown again.`,
		);
	}
}

/** The file is its owner's alone, and the daemon should not run as root. */
async function warnOfRootOwner(file: string): Promise<void> {
	const stats = await stat(file);
	if (stats.uid === 0 && !isForServiceGroup(stats))
		say(
			`${file} belongs to root. If the daemon runs as another user, give it to that one: sudo chown USER ${file}`,
		);
}

/** Tells the running daemon, if there is one, and the user how that went. */
async function tellDaemon(socket: string | undefined): Promise<number> {
	if (socket === undefined) {
		say(
			"The daemon has no admin socket; tell it: sudo systemctl reload llamagate",
		);
		return exitCodes.ok;
	}
	const answer = await askDaemon(socket, "POST /reload");
	if (answer.code !== undefined) {
		const none = answer.code === "ENOENT" || answer.code === "ECONNREFUSED";
		say(
			none
				? "No daemon is running, so there is none to tell."
				: `The running daemon could not be told (${answer.code}); tell it: sudo systemctl reload llamagate`,
		);
		return none ? exitCodes.ok : exitCodes.finding;
	}
	if (answer.status === 200) {
		say("The running daemon has taken it over.");
		return exitCodes.ok;
	}
	say(
		`The running daemon refused to reload and keeps its old keys: ${answer.body.trim()}\nMend that, then: sudo systemctl reload llamagate`,
	);
	return exitCodes.finding;
}
