import { type Answer, ask } from "../ask.ts";
import type { UpstreamFault } from "../client.ts";
import {
	type Catalog,
	catalogPaths,
	isVersion,
	readCatalog,
	readLoaded,
} from "./catalog.ts";
import type { HostEvent } from "./health.ts";
import type { Host } from "./host.ts";

/** How long a host may take for each answer, and how much it may say. */
const answerMs = 3_000;
const maxListBytes = 4 * 2 ** 20;
const maxVersionBytes = 64 * 1024;

/** These are the gate's own troubles. */
const ownFaults = new Set(["EMFILE", "ENFILE", "EADDRNOTAVAIL", "ENOBUFS"]);

/** What a fault says of the host; `undefined` for nothing. */
export function eventOf({
	kind,
	detail,
}: UpstreamFault): HostEvent | undefined {
	if (ownFaults.has(detail)) return undefined;
	return { kind: kind === "garbage" ? "nonsense" : kind, why: detail };
}

/**
 * Asks a host how it is and what it has loaded, and notes that. Never rejects.
 *
 * @param anew also which models there are
 * @returns what its answers say of it
 */
export async function lookAt(host: Host, anew: boolean): Promise<HostEvent> {
	if (host.kind === "openai") {
		const catalog = await readModels(host);
		if (!isCatalog(catalog)) return catalog;
		host.learn(catalog, undefined);
		return { kind: "answered" };
	}
	const version = await askHost(host, "/api/version", maxVersionBytes);
	if (version.kind !== "answer") return version.event;
	if (!isVersion(version.text))
		return { kind: "nonsense", why: "answers, but not as Ollama does" };
	if (!host.isLocal && !version.headers.includes("x-request-id"))
		return {
			kind: "nonsense",
			why: "is a bare Ollama, with no llamagate in front of it",
		};
	const catalog = anew ? await readModels(host) : undefined;
	if (catalog !== undefined && !isCatalog(catalog)) return catalog;
	const loaded = await askHost(host, "/api/ps", maxListBytes);
	if (loaded.kind !== "answer") return loaded.event;
	const files = readLoaded(loaded.text);
	if (files === undefined)
		return { kind: "nonsense", why: "says in no list what is loaded" };
	host.learn(catalog, files);
	return { kind: "answered" };
}

async function readModels(host: Host): Promise<Catalog | HostEvent> {
	const { kind } = host;
	const answer = await askHost(host, catalogPaths[kind], maxListBytes);
	if (answer.kind !== "answer") return answer.event;
	return (
		readCatalog(answer.text, kind) ?? {
			kind: "nonsense",
			why: "says in no list which models it has",
		}
	);
}

/** A good answer, or what else it says of the host. */
async function askHost(
	host: Host,
	path: string,
	maxBytes: number,
): Promise<
	| Extract<Answer, { kind: "answer" }>
	| { readonly kind: "event"; readonly event: HostEvent }
> {
	const { asking, settings } = host;
	const { target } = settings;
	const answer = await ask(asking, path, { timeoutMs: answerMs, maxBytes });
	if (answer.kind === "answer") host.perMinute = limitIn(answer.headers);
	if (answer.kind === "answer" && answer.status === 200) return answer;
	const isBridged = target.kind === "tcp" && target.bridge !== undefined;
	return {
		kind: "event",
		event: describe(isBridged ? acrossBridge(answer) : answer, path),
	};
}

/** What a gate says of each request that it counts. */
function limitIn(headers: readonly string[]): number | undefined {
	const at = headers.indexOf("ratelimit-limit");
	const limit = at === -1 ? Number.NaN : Number(headers[at + 1]);
	return Number.isSafeInteger(limit) ? limit : undefined;
}

/** A bridge takes every connection, and closes those that come to nothing at its other end. */
function acrossBridge(answer: Answer): Answer {
	if (answer.kind !== "failed") return answer;
	const { kind, detail } = answer.fault;
	const why =
		kind === "died"
			? "its bridge finds nobody there"
			: ["ENOENT", "ECONNREFUSED"].includes(detail)
				? "no bridge leads there; run: sudo llamagate setup --only bridges"
				: undefined;
	return why === undefined
		? answer
		: { kind: "failed", fault: { kind: "unreachable", detail: why } };
}

function isCatalog(read: Catalog | HostEvent): read is Catalog {
	return !("kind" in read);
}

function describe(answer: Answer, path: string): HostEvent {
	switch (answer.kind) {
		case "silent":
			return { kind: "silent" };
		case "too long":
			return { kind: "nonsense", why: `its answer to ${path} has no end` };
		case "failed":
			return eventOf(answer.fault) ?? { kind: "silent" };
		case "answer":
			// The gate there is well and takes the key, which has made too many requests.
			return answer.status === 429 && limitIn(answer.headers) !== undefined
				? { kind: "answered" }
				: describeStatus(answer.status, path);
	}
}

function describeStatus(status: number, path: string): HostEvent {
	if (status === 401)
		return { kind: "nonsense", why: "does not take this gate's key (401)" };
	if (status === 403)
		return {
			kind: "nonsense",
			why: "refuses this gate's key to read (403); it needs the scopes read and infer",
		};
	// The gate there is well, and what is behind it is not.
	if (status === 502 || status === 504)
		return { kind: "unreachable", why: `its Ollama is away (${status})` };
	// It loads, has too much to do, or has locked this gate out.
	if (status === 429 || status >= 500) return { kind: "silent" };
	return { kind: "nonsense", why: `answers ${path} with ${status}` };
}
