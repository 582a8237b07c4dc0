import { isKnownPath, routes } from "../ollama/routes.ts";

/** Longer paths are not looked into: each of Ollama's is a tenth of this, but for a model's name. */
const maxJudgedLength = 400;
const maxShownLength = 120;
const maxLoggedSegments = 10;
/** Letters of words unknown here that are logged: far from a key, which needs 27 of them. */
const maxUnknownLetters = 16;

/** What base URLs end in. */
const prefixes = ["/v1", "/api"] as const;

/** Words of paths that clients of other APIs ask for. */
const words = new Set([
	...routes.flatMap(({ path }) => path.split("/")),
	..."v1beta v1alpha v2 v3 openai anthropic ollama proxy llm count_tokens batches".split(
		" ",
	),
	..."rerank tokenize detokenize metrics health healthz usage props slots completion".split(
		" ",
	),
	..."images generations edits files moderations assistants threads realtime speech".split(
		" ",
	),
	..."translations fine_tuning codex compact aliases organizations favicon.ico".split(
		" ",
	),
]);

/** A request line's target without its query, which may hold a key. */
function pathOf(target: string): string {
	const queryAt = target.indexOf("?");
	return queryAt === -1 ? target : target.slice(0, queryAt);
}

/** A path that neither Ollama nor a gate has; who asks for it learns which of them answers. */
export const nobodysPath = "/api/llamagate-probe";
const noPath = "llamagate knows no path";

/**
 * Whether this is what a gate answers at `nobodysPath` to one whom it lets in;
 * Ollama's router says `404 page not found` there, in plain text.
 */
export function isGatesNoPath(status: number, body: string): boolean {
	return status === 404 && body.startsWith(`{"error":"${noPath} `);
}

/** What a client is told whose path is none of Ollama's: the path, and which setting of its own may be wrong. */
export function explainPath(target: string): string {
	const path = pathOf(target);
	const advice = path.length > maxJudgedLength ? undefined : adviceOn(path);
	return `${noPath} "${printable(path)}" of Ollama's API${advice === undefined ? "" : `; ${advice}`}`;
}

/** One short line of ASCII, whatever the bytes are. */
function printable(path: string): string {
	const shown = path
		.slice(0, maxShownLength + 1)
		.replace(
			/[^\x21-\x7e]/g,
			(character) =>
				`%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`,
		);
	return shown.length > maxShownLength
		? `${shown.slice(0, maxShownLength)}...`
		: shown;
}

function adviceOn(path: string): string | undefined {
	if (/\/count_tokens\/*$/.test(path))
		return "Ollama counts no tokens ahead of a call, and clients can do without";
	if (/^\/v1(?:beta|alpha)\//.test(path))
		return "Ollama does not speak Gemini's API; have the client speak OpenAI's, with a base URL that ends in /v1";
	const [, origin, rest = "/"] =
		/^(https?:\/\/[^/]*)(\/.*)?$/i.exec(path) ?? [];
	if (origin !== undefined)
		return `ask for ${isKnownPath(rest) ? rest : "the path"} alone: llamagate is not an HTTP proxy`;
	const plain = decoded(path)
		.replace(/\/{2,}/g, "/")
		.replace(/(?<=.)\/$/, "");
	const cleaned = isKnownPath(plain) ? plain : plain.toLowerCase();
	if (cleaned !== path && isKnownPath(cleaned))
		return `the path is ${cleaned}: ${oddityOf(path)}`;
	return adviceOnBaseUrl(cleaned);
}

/** Why a path is not in the table although its plain form is. */
function oddityOf(path: string): string {
	if (path.startsWith("//"))
		return "take the slash off the end of the base URL";
	if (path.includes("%")) return "write it without percent signs";
	if (path.includes("//")) return "write each slash once";
	return path.endsWith("/")
		? "take the slash off its end"
		: "write it in lower case";
}

function adviceOnBaseUrl(path: string): string | undefined {
	for (let at = 0; at !== -1; at = path.indexOf("/", at + 1)) {
		const base = path.slice(0, at);
		const rest = path.slice(at);
		if (rest === "/") continue;
		if (isKnownPath(rest))
			return `the path is ${rest}: take ${printable(base)} off the base URL`;
		for (const prefix of prefixes) {
			if (!isKnownPath(prefix + rest)) continue;
			return base === ""
				? `the path is ${prefix}${rest}: add ${prefix} to the base URL`
				: `the path is ${prefix}${rest}: end the base URL in ${prefix} and not in ${printable(base)}`;
		}
	}
	return undefined;
}

function decoded(path: string): string {
	try {
		return decodeURIComponent(path);
	} catch {
		return path;
	}
}

/**
 * A path for the log: words that are known from such APIs, a few letters of
 * others, and a star for everything else, since a path may hold a key or a name.
 */
export function loggablePath(target: string): string {
	const path = pathOf(target);
	let lettersLeft = maxUnknownLetters;
	const segments = path.slice(0, maxJudgedLength).split("/");
	const shown = segments.slice(0, maxLoggedSegments).map((segment) => {
		if (segment === "" || words.has(segment.toLowerCase())) return segment;
		if (segment.length > lettersLeft || !/^(?:[a-z_-]+|[A-Z]+)$/.test(segment))
			return "*";
		lettersLeft -= segment.length;
		return segment;
	});
	return segments.length > maxLoggedSegments || path.length > maxJudgedLength
		? `${shown.join("/")}/…`
		: shown.join("/");
}
