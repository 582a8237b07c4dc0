import type { HostKind } from "../../config/upstreams.ts";
import { parseModelName } from "../../ollama/modelName.ts";

/**
 * What a host says that it has, and what of that is loaded. It is read strictly:
 * anything but such a list is not a reason to send anything there.
 */

/** More models than anybody has. */
const maxModels = 10_000;
const maxNameLength = 512;

/** Names that were asked for lately: each request asks for one of each host. */
const keys = new Map<string, string>();
const maxKeys = 1_000;

/** A model's name as two hosts would both understand it; any other text as it is. */
export function modelKey(name: string): string {
	let key = keys.get(name);
	if (key === undefined) {
		key = makeKey(name);
		if (keys.size >= maxKeys) keys.clear();
		if (name.length <= maxNameLength) keys.set(name, key);
	}
	return key;
}

/** Under which a catalog has a model. A server other than Ollama knows its models by one spelling alone. */
export function catalogKey(name: string, kind: HostKind): string {
	return kind === "openai" ? name : modelKey(name);
}

function makeKey(name: string): string {
	const parsed = parseModelName(name);
	if (parsed === undefined) return name;
	const { host, namespace, model, tag, cloud } = parsed;
	return `${host}/${namespace}/${model}:${tag}${cloud ? "-cloud" : ""}`;
}

/** A model's file by its name; the name itself where it has no digest. */
export type Catalog = ReadonlyMap<string, string>;

interface List {
	/** The member that holds the entries, and the one of an entry that is its name. */
	readonly list: "models" | "data";
	readonly name: "name" | "id";
}

const lists: Readonly<Record<HostKind, List>> = {
	ollama: { list: "models", name: "name" },
	openai: { list: "data", name: "id" },
};

/** Where a host of this kind lists its models. */
export const catalogPaths: Readonly<Record<HostKind, string>> = {
	ollama: "/api/tags",
	openai: "/v1/models",
};

/** Reads a list of models; `undefined` for what is none. */
export function readCatalog(text: string, kind: HostKind): Catalog | undefined {
	const entries = readEntries(text, lists[kind]);
	if (entries === undefined) return undefined;
	const catalog = new Map<string, string>();
	for (const entry of entries) {
		const key = catalogKey(entry.name, kind);
		catalog.set(key, entry.digest ?? key);
	}
	return catalog;
}

/** Reads `/api/ps`: the files that are loaded. */
export function readLoaded(text: string): ReadonlySet<string> | undefined {
	const entries = readEntries(text, lists.ollama);
	return (
		entries &&
		new Set(entries.map(({ name, digest }) => digest ?? modelKey(name)))
	);
}

/** Whether a reply to `/api/version` is an Ollama's. */
export function isVersion(text: string): boolean {
	const { version } = (parse(text) ?? {}) as { version?: unknown };
	return typeof version === "string" && /^[\w.+-]{1,64}$/.test(version);
}

function readEntries(
	text: string,
	{ list, name }: List,
): { readonly name: string; readonly digest?: string }[] | undefined {
	const reply = parse(text);
	// Go writes an empty list as null in places.
	const entries = reply?.[list] === null ? [] : reply?.[list];
	if (!Array.isArray(entries) || entries.length > maxModels) return undefined;
	const read: { name: string; digest?: string }[] = [];
	for (const entry of entries as unknown[]) {
		if (typeof entry !== "object" || entry === null) return undefined;
		const { [name]: called, digest } = entry as Record<string, unknown>;
		if (!isName(called)) return undefined;
		read.push(isName(digest) ? { name: called, digest } : { name: called });
	}
	return read;
}

function isName(value: unknown): value is string {
	return (
		typeof value === "string" && value !== "" && value.length <= maxNameLength
	);
}

function parse(text: string): Record<string, unknown> | undefined {
	try {
		const value: unknown = JSON.parse(text);
		return typeof value === "object" && value !== null
			? (value as Record<string, unknown>)
			: undefined;
	} catch {
		return undefined;
	}
}
