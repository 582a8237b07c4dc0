import path from "node:path";
import type { Listen } from "../net/listener.ts";
import {
	formatHostPort,
	isLoopbackAddress,
	isTailscaleAddress,
	parseAddress,
} from "../net/ranges.ts";
import { parseModelPattern } from "../ollama/modelName.ts";
import { modelsSchema } from "./ruleSchema.ts";
import { got, quote } from "./strictJson.ts";

/** Where a server of models is reached. `host` is what its Host header must say. */
export type Upstream =
	| {
			readonly kind: "tcp";
			readonly host: string;
			readonly port: number;
			/** The socket that leads there, where the network is out of reach; see bridges.ts. */
			readonly bridge?: string;
	  }
	| { readonly kind: "unix"; readonly socketPath: string };

/** What a host speaks: all of Ollama's calls, or those below /v1 alone. */
export type HostKind = "ollama" | "openai";

/** One of several hosts behind the gate. */
export interface HostSettings {
	/** As in the log, in metrics and in `x-llamagate-upstream`. */
	readonly name: string;
	readonly kind: HostKind;
	readonly target: Upstream;
	/** Absolute; `undefined` for one of this machine that asks for no key. */
	readonly keyFile: string | undefined;
	/** Patterns; `undefined` for whatever it has. */
	readonly models: readonly string[] | undefined;
	/** One of 2 gets twice the work of one of 1. */
	readonly weight: number;
	/** Of its entry in the configuration, for messages. */
	readonly line: number | undefined;
}

/** An entry as the file has it. */
interface HostEntry {
	readonly name: string;
	readonly url: string;
	readonly keyFile?: string;
	readonly models?: readonly string[];
	readonly weight?: number;
	readonly kind?: HostKind;
}

/** Each is asked every few seconds, and has a queue of its own. */
const maxHosts = 16;

/** The setting `upstreams`. */
export const upstreamsSchema = {
	type: "array",
	minItems: 1,
	maxItems: maxHosts,
	"x-expected": `a list of at least one and at most ${maxHosts} hosts`,
	items: {
		type: "object",
		additionalProperties: false,
		required: ["name", "url"],
		"x-expected": "a host: { name, url, … }",
		properties: {
			name: {
				type: "string",
				pattern: "^[a-z0-9][a-z0-9._-]{0,31}$",
				"x-expected":
					"a name of lower-case letters, digits, dots, dashes and underscores, at most 32",
			},
			url: {
				type: "string",
				"x-expected":
					"http:// on a loopback address or on the tailnet, or unix:/path of a socket",
			},
			keyFile: {
				type: "string",
				minLength: 1,
				"x-expected": "the path of a file that holds a key",
				examples: ["minipc.key"],
			},
			models: { ...modelsSchema, examples: [["qwen3:*"]] },
			weight: {
				type: "number",
				minimum: 0.01,
				maximum: 100,
				"x-expected": "a number from 0.01 to 100",
				examples: [1],
			},
			kind: {
				type: "string",
				enum: ["ollama", "openai"],
				"x-expected": '"ollama" or "openai" (vLLM, llama.cpp, LM Studio)',
				examples: ["ollama"],
			},
		},
	},
	examples: [
		[
			{ name: "workstation", url: "http://127.0.0.1:11434" },
			{ name: "minipc", url: "http://minipc:11434", keyFile: "minipc.key" },
		],
	],
	description:
		"Several hosts behind this gate, in place of `upstream.url`; the time limits of `upstream` hold for each of them. A host off this machine is reached in the tailnet, through the llamagate that runs there: `url` names it, and `keyFile` (relative to the configuration) holds a key that it has given this gate. `models` leaves to a host the models that fit a pattern, `weight` (default 1) says how much faster it is than others, and `kind` is `openai` for one that speaks the calls below /v1 alone: llama.cpp's server, vLLM, LM Studio. docs/hosts.md has the whole story.",
} as const;

type Refuse = (where: (string | number)[], message: string) => void;

/** Checks the entries and completes them; what is refused is left out. */
export function readHosts(
	entries: readonly HostEntry[],
	configFile: string,
	listen: Listen | undefined,
	refuse: Refuse,
	lineOf: (where: readonly (string | number)[]) => number | undefined,
): HostSettings[] {
	const byName = new Map<string, number>();
	const byTarget = new Map<string, string>();
	return entries.flatMap((entry, index) => {
		const at = (member: string) => ["upstreams", index, member];
		if (byName.has(entry.name))
			refuse(
				at("name"),
				`${quote(entry.name)} is the name of another host already; give each a name of its own`,
			);
		byName.set(entry.name, index);
		for (const [turn, pattern] of (entry.models ?? []).entries())
			if (parseModelPattern(pattern) === undefined)
				refuse(
					[...at("models"), turn],
					"expected a pattern such as qwen3:*, hf.co/*/*:* or *",
				);
		const target = readTarget(entry, listen, (message) =>
			refuse(at("url"), message),
		);
		if (target === undefined) return [];
		const spelled = JSON.stringify(target).toLowerCase();
		const twin = byTarget.get(spelled);
		if (twin !== undefined)
			refuse(
				at("url"),
				`is where ${quote(twin)} is already; name each host once`,
			);
		byTarget.set(spelled, entry.name);
		// What a file is missing or open for is told with its path.
		if (/lg_[0-9a-f]{32}/i.test(entry.keyFile ?? ""))
			refuse(at("keyFile"), "is a key, and is to name a file that holds it");
		const { name, keyFile, models, weight = 1, kind = "ollama" } = entry;
		return {
			name,
			kind,
			target,
			keyFile: keyFile && path.resolve(path.dirname(configFile), keyFile),
			models,
			weight,
			line: lineOf(["upstreams", index]),
		};
	});
}

function readTarget(
	{ url, keyFile }: HostEntry,
	listen: Listen | undefined,
	refuse: (message: string) => void,
): Upstream | undefined {
	const target = readUrl(url);
	if (target === undefined) {
		refuse(
			`expected http:// on a loopback address, on a tailnet address or on a device's name, without a path, or unix:/path of a socket${got(url)}${mistakeOfUrl(url)}. In the tailnet it is WireGuard that encrypts`,
		);
		return undefined;
	}
	if (target.kind === "unix") return target;
	const isLocal = isLoopbackAddress(target.host);
	if (!isLocal && parseAddress(target.host) !== undefined)
		if (!isTailscaleAddress(target.host)) {
			refuse(
				`${quote(url)} lies outside the tailnet (100.64.0.0/10, fd7a:115c:a1e0::/48), where keys and prompts could be read on their way; use that host's tailnet address, or its name in the tailnet`,
			);
			return undefined;
		}
	if (!isLocal && keyFile === undefined) {
		refuse(
			`${quote(url)} is on a network, and keyFile is missing: an Ollama that asks for no key is anybody's who reaches it. Set llamagate up on that host, make a key there (llamagate keys add this-gate --requests-per-minute 6000 --concurrent 256), and name a file that holds it in keyFile`,
		);
		return undefined;
	}
	if (isGateItself(target, listen)) {
		refuse("is the gate's own address and port, so the gate would call itself");
		return undefined;
	}
	return target;
}

/** Whether a gate that listens there would call itself. */
export function isGateItself(
	target: Upstream,
	listen: Listen | undefined,
): boolean {
	return (
		listen?.kind === "address" &&
		target.kind === "tcp" &&
		listen.port === target.port &&
		listen.port !== 0 &&
		listen.address === target.host
	);
}

/** Reads where a server is; `undefined` for anything but such a URL. @param url `http://HOST:PORT` or `unix:/PATH` */
export function readUrl(url: string): Upstream | undefined {
	if (url.startsWith("unix:")) {
		const socketPath = url.slice("unix:".length).replace(/^\/\/(?=\/)/, "");
		return path.isAbsolute(socketPath)
			? { kind: "unix", socketPath }
			: undefined;
	}
	if (!URL.canParse(url)) return undefined;
	const {
		protocol,
		hostname,
		port,
		pathname,
		search,
		hash,
		username,
		password,
	} = new URL(url);
	if (
		protocol !== "http:" ||
		pathname !== "/" ||
		`${search}${hash}${username}${password}` !== ""
	)
		return undefined;
	// Ollama's own default is 127.0.0.1; the name "localhost" could be answered by a stranger.
	const host =
		hostname === "localhost" ? "127.0.0.1" : hostname.replace(/^\[|\]$/g, "");
	return host === ""
		? undefined
		: { kind: "tcp", host, port: port === "" ? 80 : Number(port) };
}

/** What is wrong with a URL that {@link readUrl} refuses, as the end of a sentence; empty where it is another mistake than these. */
export function mistakeOfUrl(url: string): string {
	if (url.startsWith("unix:@"))
		return ": a socket of the abstract kind has no path; let its server listen on one that has";
	if (url.startsWith("unix:"))
		return ": its path must be whole, from the first / on";
	if (url.includes("@")) return ": take what is before the @ away";
	if (!url.includes(":/") && URL.canParse(`http://${url}`))
		return `: http:// is missing before it`;
	if (!URL.canParse(url)) return "";
	const { protocol, pathname } = new URL(url);
	return protocol === "http:" && pathname !== "/"
		? `: take its path ${quote(pathname)} away`
		: "";
}

/** Whether it is on this machine. */
export function isOnThisMachine(target: Upstream): boolean {
	return target.kind === "unix" || isLoopbackAddress(target.host);
}

/** Where a server is, for people. */
export function formatUpstream(target: Upstream): string {
	return target.kind === "tcp"
		? `http://${formatHostPort(target.host, target.port)}`
		: `unix:${target.socketPath}`;
}
