import { isModelName } from "../clients/client.ts";
import { parseServer } from "../clients/server.ts";
import { parseDuration } from "../duration.ts";
import { UsageError } from "../errors.ts";
import { isTailscaleAddress, parseAddress } from "../net/ranges.ts";
import { publicPorts } from "../probe/ports.ts";
import { parseWebUi, type WebUi } from "../probe/webUi.ts";
import { readArgsWithoutKey } from "./keyInput.ts";

export const keyVariable = "LLAMAGATE_KEY";
export const maxPorts = 20;

const options = {
	"key-stdin": { type: "boolean", default: false },
	model: { type: "string" },
	timeout: { type: "string", default: "5m" },
	lockout: { type: "boolean", default: false },
	yes: { type: "boolean", default: false },
	public: { type: "string" },
	ports: { type: "string" },
	"allow-private": { type: "boolean", default: false },
	webui: { type: "string" },
	html: { type: "string" },
	json: { type: "boolean", default: false },
} as const;

export interface Given {
	readonly server: string | undefined;
	readonly readsKey: boolean;
	readonly model: string | undefined;
	readonly waitMs: number;
	readonly lockout: boolean;
	readonly agreed: boolean;
	readonly publicHost: string | undefined;
	readonly ports: readonly number[];
	readonly allowPrivate: boolean;
	readonly webUi: WebUi | undefined;
	readonly html: string | undefined;
	readonly json: boolean;
}

/**
 * Reads the command line. No message of it repeats what could be a key.
 *
 * @throws {UsageError}
 */
export function readProbeArgs(args: string[]): Given {
	const { values, positionals } = readArgsWithoutKey(
		args,
		options,
		"URL",
		`, or ${keyVariable}`,
	);
	const [url] = positionals;
	if (
		[url, values.public, values.webui, values.model].some(isKey) ||
		[url, values.public].some(isNoName)
	)
		throw new UsageError(
			"that looks like a key, not like an address or a model: a key goes on standard input, with --key-stdin",
		);
	const server = url === undefined ? undefined : parseServer(url);
	if (url !== undefined && server === undefined)
		throw new UsageError(
			"URL is host, host:port or http://host:port (or https), without a path, a user or a query",
		);
	if (
		server === undefined &&
		values.public === undefined &&
		values.webui === undefined
	)
		throw new UsageError("say what to probe: a URL, --public or --webui");
	if (server === undefined)
		for (const option of ["lockout", "key-stdin", "model"] as const)
			if (values[option] !== undefined && values[option] !== false)
				throw new UsageError(`--${option} needs the URL of a gate`);
	if (values.model !== undefined && !isModelName(values.model))
		throw new UsageError(
			"--model takes a model's name as ollama list shows it, such as qwen3:8b",
		);
	const waitMs = parseDuration(values.timeout);
	if (waitMs === undefined || waitMs < 1_000)
		throw new UsageError(
			"--timeout takes a time of 1s or more, such as 90s or 15m",
		);
	if (
		values.public === undefined &&
		(values.ports !== undefined || values["allow-private"])
	)
		throw new UsageError("--ports and --allow-private go with --public");
	if (values.public !== undefined && !/^[A-Za-z0-9_.:-]+$/.test(values.public))
		throw new UsageError(
			"--public takes one address or one name, without a port",
		);
	const webUi =
		values.webui === undefined ? undefined : parseWebUi(values.webui);
	if (values.webui !== undefined && webUi === undefined)
		throw new UsageError(
			"--webui takes an https:// address, such as https://HOST.TAILNET.ts.net",
		);
	return {
		server,
		readsKey: values["key-stdin"],
		model: values.model,
		waitMs,
		lockout: values.lockout,
		agreed: values.yes,
		publicHost: values.public,
		ports: values.ports === undefined ? publicPorts : readPorts(values.ports),
		allowPrivate: values["allow-private"],
		webUi,
		html: values.html,
		json: values.json,
	};
}

/** Keys of llamagate begin so. */
function isKey(text: string | undefined): boolean {
	return /^(\w+:\/\/)?([^/]*@)?lg_/i.test(text ?? "");
}

/** No part of a name is that long (RFC 1035, 2.3.4), but 256 random bits in hex are. */
function isNoName(text: string | undefined): boolean {
	return /[^./:]{64}/.test(text ?? "");
}

/** @throws {UsageError} */
function readPorts(list: string): number[] {
	const ports = [...new Set(list.split(",").map((part) => part.trim()))].map(
		(part) => (/^\d{1,5}$/.test(part) ? Number(part) : 0),
	);
	if (ports.some((port) => port < 1 || port > 65_535))
		throw new UsageError("--ports takes numbers with commas, such as 22,11434");
	if (ports.length > maxPorts)
		throw new UsageError(
			`--ports takes ${maxPorts} at the most: this looks at a host's few doors, and does not scan`,
		);
	return ports;
}

export function isPrivateAddress(text: string): boolean {
	const range = parseAddress(text)?.range();
	return (
		!isTailscaleAddress(text) &&
		(range === "private" || range === "uniqueLocal")
	);
}

/** What kind of address it is, and why it is not tested. */
export function kindOf(text: string): string {
	if (isTailscaleAddress(text))
		return "an address of the tailnet, where the gate is meant to answer; probe it as URL, and name the public address for --public";
	if (isPrivateAddress(text))
		return "an address of a private network: what is shut there may be open on the internet. Name the public address, or say --allow-private to see what is shown in this network";
	if (parseAddress(text)?.range() === "loopback")
		return "this device itself, which proves nothing about the server";
	return "no address that the internet can reach; name the server's public address";
}
