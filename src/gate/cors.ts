import type { Head } from "./requestHead.ts";

const nothing: readonly string[] = [];

/** The header lines that let a page of a configured origin read a reply. */
export function corsHeaders(
	origin: string | undefined,
	allowed: ReadonlySet<string>,
): readonly string[] {
	if (origin === undefined || !allowed.has(origin)) return nothing;
	return [
		"access-control-allow-origin",
		origin,
		"access-control-expose-headers",
		"x-request-id, retry-after, x-should-retry, ratelimit-limit, ratelimit-remaining, ratelimit-reset",
		"vary",
		"origin",
	];
}

/**
 * The answer to a preflight of a configured origin (Fetch standard, 4.8), or
 * `undefined` if the request is none. Browsers send no key with it; it is the
 * same for every path and says nothing about any of them.
 */
export function preflightHeaders(
	method: string | undefined,
	head: Head,
	rawHeaders: readonly string[],
	allowed: ReadonlySet<string>,
): readonly string[] | undefined {
	const [origin] = head.origin;
	if (
		method !== "OPTIONS" ||
		head.origin.length !== 1 ||
		origin === undefined ||
		!allowed.has(origin)
	)
		return undefined;
	let asksForMethod = false;
	let asksForPrivateNetwork = false;
	let requested = "";
	for (let i = 0; i < rawHeaders.length; i += 2) {
		const name = rawHeaders[i]?.toLowerCase();
		if (name === "access-control-request-method") asksForMethod = true;
		if (name === "access-control-request-private-network")
			asksForPrivateNetwork = true;
		if (name === "access-control-request-headers")
			requested = rawHeaders[i + 1] ?? "";
	}
	if (!asksForMethod) return undefined;
	// SDKs send a dozen headers of their own. The origin is trusted, and the gate drops what it does not know.
	const headers = /^[A-Za-z0-9_, -]{0,2048}$/.test(requested) ? requested : "";
	return [
		...corsHeaders(origin, allowed),
		"access-control-allow-methods",
		"GET, HEAD, POST, DELETE",
		"access-control-allow-headers",
		headers === "" ? "authorization, content-type, x-api-key" : headers,
		// A page from the internet that asks a host of a private network (Private Network Access, 2.2).
		...(asksForPrivateNetwork
			? ["access-control-allow-private-network", "true"]
			: nothing),
		"access-control-max-age",
		"600",
	];
}
