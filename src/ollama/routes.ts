/**
 * Every call of Ollama that the gate knows (server/routes.go:GenerateRoutes).
 * What is not here never reaches Ollama.
 */

/** What a key may be allowed to do. */
export const scopes = ["read", "infer", "manage", "account"] as const;
export type Scope = (typeof scopes)[number];

/** Whose error shape a route speaks. */
export type Family = "native" | "openai" | "anthropic";

/**
 * What a request may carry: nothing, JSON up to 1 MiB, an inference body up to
 * `limits.body`, or a model file of any size.
 */
export type BodyKind = "none" | "small" | "inference" | "blob";

export type Method = "GET" | "HEAD" | "POST" | "DELETE";

export interface Route {
	/** As logged, counted and documented: `POST /api/chat`. */
	readonly id: string;
	readonly method: Method;
	/** The literal path, or with one `:parameter` as its last segment. */
	readonly path: string;
	/** What the parameter must look like, whole. */
	readonly parameter?: RegExp;
	readonly scope: Scope;
	readonly family: Family;
	readonly body: BodyKind;
	/** Ollama unpacks a body with `Content-Encoding: zstd` (server/cloud_proxy.go). */
	readonly unpacksZstd?: boolean;
	/** Ollama runs the tools `web_search…` of a request itself, at ollama.com. */
	readonly searches?: boolean;
}

/** The route whose body is a form; everything else is JSON to Ollama, whatever its Content-Type. */
export const multipartRoute = "/v1/audio/transcriptions";

/** Below what the body of `small` routes may weigh. */
export const smallBodyBytes = 2 ** 20;

// A model's name as a path segment: no percent sign, no slash, not only dots.
const modelSegment = /^(?!\.+$)[A-Za-z0-9._:@-]{1,256}$/;
const digestSegment = /^sha256[:-][0-9a-f]{64}$/;
const keySegment = /^[A-Za-z0-9_-]{1,512}={0,2}$/;

type Rest = Partial<
	Pick<Route, "parameter" | "family" | "unpacksZstd" | "searches">
>;
const zstd: Rest = { unpacksZstd: true };
const zstdAndSearches: Rest = { ...zstd, searches: true };

function on(
	methods: Method[],
	path: string,
	scope: Scope,
	body: BodyKind,
	rest: Rest = {},
): Route[] {
	const family = rest.family ?? familyOf(path);
	return methods.map((method) => ({
		...rest,
		id: `${method} ${path}`,
		method,
		path,
		scope,
		family,
		body,
	}));
}

export const routes: readonly Route[] = [
	on(["HEAD", "GET"], "/", "read", "none"),
	on(["HEAD", "GET"], "/api/version", "read", "none"),
	on(["HEAD", "GET"], "/api/tags", "read", "none"),
	on(["POST"], "/api/show", "read", "small"),
	on(["GET"], "/api/ps", "read", "none"),
	on(["GET"], "/api/status", "read", "none"),
	on(["GET"], "/v1/models", "read", "none"),
	on(["GET"], "/v1/models/:model", "read", "none", { parameter: modelSegment }),
	on(["GET"], "/api/experimental/model-recommendations", "read", "none"),

	on(["POST"], "/api/generate", "infer", "inference"),
	on(["POST"], "/api/chat", "infer", "inference"),
	on(["POST"], "/api/embed", "infer", "inference"),
	on(["POST"], "/api/embeddings", "infer", "inference"),
	on(["POST"], "/v1/chat/completions", "infer", "inference", zstd),
	on(["POST"], "/v1/completions", "infer", "inference", zstd),
	on(["POST"], "/v1/embeddings", "infer", "inference", zstd),
	on(["POST"], "/v1/responses", "infer", "inference", zstdAndSearches),
	// Sums a conversation up for Codex; it hands no tools on (openai/responses_compact.go).
	on(["POST"], "/v1/responses/compact", "infer", "inference", zstd),
	on(["POST"], "/v1/messages", "infer", "inference", zstdAndSearches),
	on(["POST"], "/v1/audio/transcriptions", "infer", "inference"),

	on(["POST"], "/api/pull", "manage", "small"),
	on(["POST"], "/api/push", "manage", "small"),
	on(["POST"], "/api/create", "manage", "small"),
	on(["POST"], "/api/copy", "manage", "small"),
	on(["DELETE"], "/api/delete", "manage", "small"),
	on(["HEAD"], "/api/blobs/:digest", "manage", "none", {
		parameter: digestSegment,
	}),
	on(["POST"], "/api/blobs/:digest", "manage", "blob", {
		parameter: digestSegment,
	}),

	// These act as the server's owner at ollama.com, and the searches spend the owner's quota.
	on(["POST"], "/api/me", "account", "small"),
	on(["POST"], "/api/signout", "account", "small"),
	on(["DELETE"], "/api/user/keys/:key", "account", "small", {
		parameter: keySegment,
	}),
	on(["POST"], "/api/experimental/web_search", "account", "small"),
	on(["POST"], "/api/experimental/web_fetch", "account", "small"),
].flat();

/** Calls of Ollama's that no key may make, whatever its scopes, and why. */
export const refusedPaths: readonly {
	/** As documented. */
	readonly path: string;
	readonly prefix: string;
	readonly why: string;
}[] = [
	{
		path: "/api/codex/*",
		prefix: "/api/codex/",
		why: "Ollama passes these calls, which are a desktop program's on its own host, on to chatgpt.com and api.openai.com; llamagate lets none of them through",
	},
];

/** Why a path is refused by name; `undefined` for one that is just unknown. */
export function whyRefused(path: string): string | undefined {
	return refusedPaths.find(({ prefix }) => path.startsWith(prefix))?.why;
}

/** The newest Ollama whose routes this table was compared with: `npm run routes`. */
export const comparedOllama = "0.34.0";

/** A request's place in the table. `path` is what goes upstream: the raw path without its query. */
export type Match =
	| { readonly kind: "route"; readonly route: Route; readonly path: string }
	| {
			readonly kind: "wrong-method";
			readonly family: Family;
			readonly allow: readonly Method[];
	  }
	| {
			readonly kind: "unknown";
			readonly family: Family;
			/** As sent, without its query. */
			readonly path: string;
	  };

const literal = new Map<string, Route[]>();
const parametric: { readonly prefix: string; readonly routes: Route[] }[] = [];
for (const route of routes) {
	if (route.parameter === undefined) {
		const known = literal.get(route.path);
		if (known === undefined) literal.set(route.path, [route]);
		else known.push(route);
	} else {
		const prefix = route.path.slice(0, route.path.indexOf(":"));
		const known = parametric.find((entry) => entry.prefix === prefix);
		if (known === undefined) parametric.push({ prefix, routes: [route] });
		else known.routes.push(route);
	}
}

/**
 * Finds the route of a request line, by exact bytes: Ollama's own router
 * decodes `%63` and cleans `//`, so anything that is not literally in the
 * table is unknown. The query is cut off and never looked at.
 */
export function matchRoute(method: string, target: string): Match {
	const queryAt = target.indexOf("?");
	const path = queryAt === -1 ? target : target.slice(0, queryAt);
	const candidates = literal.get(path) ?? candidatesByParameter(path);
	if (candidates === undefined)
		return { kind: "unknown", family: familyOf(path), path };
	const route = candidates.find((candidate) => candidate.method === method);
	if (route !== undefined) return { kind: "route", route, path };
	return {
		kind: "wrong-method",
		family: familyOf(path),
		allow: candidates.map((candidate) => candidate.method),
	};
}

function candidatesByParameter(path: string): Route[] | undefined {
	const entry = parametric.find(({ prefix }) => path.startsWith(prefix));
	if (entry === undefined) return undefined;
	const value = path.slice(entry.prefix.length);
	return entry.routes[0]?.parameter?.test(value) === true
		? entry.routes
		: undefined;
}

/** Whether a path is in the table, with some method. */
export function isKnownPath(path: string): boolean {
	return literal.has(path) || candidatesByParameter(path) !== undefined;
}

/**
 * The error shape that a client of this path can read, known route or not: with
 * a wrong base URL its end still says what the client is.
 */
export function familyOf(path: string): Family {
	if (
		path.startsWith("/v1/messages") ||
		/\/messages(?:\/count_tokens)?\/*$/.test(path)
	)
		return "anthropic";
	// What only OpenAI's API has, whatever is before it.
	if (/\/(?:completions|responses|models)\/*$/.test(path)) return "openai";
	const openaiAt = path.lastIndexOf("/v1/");
	const nativeAt = path.lastIndexOf("/api/");
	if (openaiAt !== nativeAt) return openaiAt > nativeAt ? "openai" : "native";
	return /^\/(?:v1|embeddings)\/*$/.test(path) ? "openai" : "native";
}
