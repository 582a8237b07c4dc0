/**
 * A model's name as Ollama understands it (types/model/name.go:ParseNameBare,
 * internal/modelref/modelref.go:ParseRef), in lower case and with its defaults
 * filled in. The scheme is left out: it says how to pull, not what.
 */
export interface ModelName {
	readonly host: string;
	readonly namespace: string;
	readonly model: string;
	readonly tag: string;
	/** Runs at ollama.com on the server owner's account (`:cloud`, `…-cloud`). */
	readonly cloud: boolean;
}

const defaults = {
	host: "registry.ollama.ai",
	namespace: "library",
	tag: "latest",
};

// What Ollama lets through in names (isValidPart), and `*` for patterns. No
// letter here has a second form that folds to it, so lower case is canonical.
const hostPart = /^[a-z0-9_*][a-z0-9_.:*-]{0,349}$/;
const namespacePart = /^[a-z0-9_*][a-z0-9_*-]{0,79}$/;
const namePart = /^[a-z0-9_*][a-z0-9_.*-]{0,79}$/;
const nameCharacters = /^[A-Za-z0-9_.:/-]+$/;
const patternCharacters = /^[A-Za-z0-9_.:/*-]+$/;
const maxNameLength = 512;

/** Reads a name; `undefined` for what Ollama could read in a way of its own, or not at all. */
export function parseModelName(text: string): ModelName | undefined {
	const trimmed = text.trim();
	if (trimmed.length > maxNameLength || !nameCharacters.test(trimmed))
		return undefined;
	return parseParts(trimmed.toLowerCase(), defaults.tag);
}

function parseParts(text: string, missingTag: string): ModelName | undefined {
	const source = cutSource(text);
	// Ollama refuses `x:cloud:local`; whatever it might do with it is not for the gate to guess.
	if (source.kind !== undefined && cutSource(source.base).kind !== undefined)
		return undefined;
	let rest = source.base;
	let tag = missingTag;
	if (rest.lastIndexOf(":") > rest.lastIndexOf("/")) {
		tag = rest.slice(rest.lastIndexOf(":") + 1);
		rest = rest.slice(0, rest.lastIndexOf(":"));
	}
	const schemeAt = rest.indexOf("://");
	const parts = rest.slice(schemeAt === -1 ? 0 : schemeAt + 3).split("/");
	// To Ollama `http://x/y` is a host without a model, and four parts are none of these.
	if (parts.length > 3 || (schemeAt !== -1 && parts.length < 3))
		return undefined;
	const model = parts.pop() ?? "";
	const namespace = parts.pop() ?? defaults.namespace;
	const host = parts.pop() ?? defaults.host;
	if (
		!hostPart.test(host) ||
		!namespacePart.test(namespace) ||
		!namePart.test(model) ||
		!namePart.test(tag)
	)
		return undefined;
	return { host, namespace, model, tag, cloud: source.kind === "cloud" };
}

/** `20b:cloud`, `20b-cloud` and `20b:local` at a name's end say where it runs. */
function cutSource(text: string): {
	base: string;
	kind: "cloud" | "local" | undefined;
} {
	const colonAt = text.lastIndexOf(":");
	const suffix = text.slice(colonAt + 1);
	if (colonAt === -1 || suffix.includes("/"))
		return { base: text, kind: undefined };
	if (suffix === "cloud" || suffix === "local")
		return { base: text.slice(0, colonAt), kind: suffix };
	if (suffix.endsWith("-cloud"))
		return { base: text.slice(0, -"-cloud".length), kind: "cloud" };
	return { base: text, kind: undefined };
}

/** `registry.ollama.ai/library/qwen3:8b` as people write it: `qwen3:8b`. */
export function formatModelName({
	host,
	namespace,
	model,
	tag,
	cloud,
}: ModelName): string {
	const place =
		host !== defaults.host
			? `${host}/${namespace}/`
			: namespace !== defaults.namespace
				? `${namespace}/`
				: "";
	return `${place}${model}:${tag}${cloud ? "-cloud" : ""}`;
}

/** Whether a name matches; made once from a pattern, asked for every request. */
export type ModelPattern = (name: ModelName) => boolean;

/**
 * Reads a pattern of a key's `models`: a name in which `*` matches any
 * characters within its part. `*` alone is every model that runs here; a
 * pattern reaches cloud models only if it ends in `:cloud` or `-cloud` itself.
 * Without a tag it means `latest`, unless it ends in `*`.
 */
export function parseModelPattern(text: string): ModelPattern | undefined {
	const known = knownPatterns.get(text);
	if (known !== undefined) return known;
	const pattern = readModelPattern(text);
	if (pattern === undefined) return undefined;
	if (knownPatterns.size >= maxKnownPatterns) knownPatterns.clear();
	knownPatterns.set(text, pattern);
	return pattern;
}

/** A pattern with the tag that it means where it names none: `qwen3` is `qwen3:latest`. */
export function spellPattern(text: string): string {
	const isWhole =
		text.endsWith("*") || text.slice(text.lastIndexOf("/") + 1).includes(":");
	return isWhole ? text : `${text}:${defaults.tag}`;
}

/** Thousands of keys have few patterns between them, and each is read twice at a reload. */
const knownPatterns = new Map<string, ModelPattern>();
const maxKnownPatterns = 1_000;

function readModelPattern(text: string): ModelPattern | undefined {
	if (text.length > maxNameLength || !patternCharacters.test(text))
		return undefined;
	if (text === "*") return (name) => !name.cloud;
	if (text === "*:cloud") return (name) => name.cloud;
	const lower = text.toLowerCase();
	const wanted = parseParts(
		lower,
		cutSource(lower).base.endsWith("*") ? "*" : defaults.tag,
	);
	if (wanted === undefined) return undefined;
	// `*-cloud` without a colon is a model's name to Ollama, and surely meant otherwise.
	if (!wanted.cloud && lower.includes("*") && lower.endsWith("cloud"))
		return undefined;
	const [host, namespace, model, tag] = [
		wanted.host,
		wanted.namespace,
		wanted.model,
		wanted.tag,
	].map(toExpression);
	return (name) =>
		name.cloud === wanted.cloud &&
		host?.test(name.host) === true &&
		namespace?.test(name.namespace) === true &&
		model?.test(name.model) === true &&
		tag?.test(name.tag) === true;
}

function toExpression(part: string): RegExp {
	const literals = part
		.split(/\*+/)
		.map((literal) => literal.replace(/[.\\+?^${}()|[\]]/g, "\\$&"));
	return new RegExp(`^${literals.join(".*")}$`);
}
