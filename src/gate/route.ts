import { type Match, whyRefused } from "../ollama/routes.ts";
import type { Refusal } from "./refusal.ts";
import type { Head } from "./requestHead.ts";
import { explainPath } from "./wrongPath.ts";

const bad = (message: string): Refusal => ({
	status: 400,
	reason: "bad_request",
	message,
});

/**
 * Whether a request's end can be told in one way only. Node's parser has
 * refused broken framing before; what it lets through and another reader could
 * take differently is refused here, and nothing behind it on the connection is
 * looked at.
 */
export function checkFraming(
	head: Head,
	httpVersion: string,
): Refusal | undefined {
	const { host, contentType, contentLength, transferEncoding } = head;
	if (httpVersion !== "1.1" && httpVersion !== "1.0")
		return bad("llamagate speaks HTTP/1.1");
	if (host.length > 1 || (host.length === 0 && httpVersion === "1.1"))
		return bad("a request has exactly one Host header");
	if (
		contentType.length > 1 ||
		contentLength.length > 1 ||
		transferEncoding.length > 1
	)
		return bad("a header that describes the body is there twice");
	// Past this, two readers may count differently, or overflow.
	if (Number(contentLength[0] ?? 0) > Number.MAX_SAFE_INTEGER)
		return bad("the Content-Length is too large to be one");
	const [coding] = transferEncoding;
	if (
		coding !== undefined &&
		(coding.toLowerCase() !== "chunked" ||
			httpVersion !== "1.1" ||
			contentLength.length > 0)
	)
		return bad(
			"the only Transfer-Encoding is chunked, with HTTP/1.1 and without Content-Length",
		);
	return undefined;
}

/**
 * Whether a request has a body that its method gives no meaning to. To a reader
 * that does not expect one it is the next request (RFC 9110, 9.3.1).
 */
export function hasMeaninglessBody(
	method: string | undefined,
	head: Head,
): boolean {
	return (method === "GET" || method === "HEAD") && bodyLengthOf(head) !== 0;
}

/**
 * Whether a request leaves its connection open for the next. HTTP/1.0 has to ask
 * for that, may ask for both, and a `Proxy-Connection` that Node's parser heeds is
 * not asking.
 */
export function keepsConnection(httpVersion: string, head: Head): boolean {
	const { connectionOptions } = head;
	if (connectionOptions.has("close")) return false;
	return httpVersion === "1.1" || connectionOptions.has("keep-alive");
}

/** Step 3: a request must be one entry of the route table, written the plain way. */
export function checkRoute(
	match: Match,
	target: string,
	head: Head,
): Refusal | undefined {
	const { contentEncoding, expect } = head;
	if (
		expect.length > 1 ||
		(expect[0] !== undefined && expect[0].toLowerCase() !== "100-continue")
	)
		return {
			status: 417,
			reason: "bad_request",
			message: "the only Expect is 100-continue",
		};

	if (match.kind === "unknown")
		return {
			status: 404,
			reason: "unknown_route",
			message: whyRefused(match.path) ?? explainPath(target),
		};
	if (match.kind === "wrong-method")
		return {
			status: 405,
			reason: "wrong_method",
			message: `this path takes ${match.allow.join(" or ")}`,
			headers: ["allow", match.allow.join(", ")],
		};

	const [encoding, ...more] = contentEncoding;
	const isPlain = encoding === undefined || /^identity$/i.test(encoding);
	const isUnpacked = match.route.unpacksZstd === true && encoding === "zstd";
	if (more.length > 0 || !(isPlain || isUnpacked))
		return {
			status: 415,
			reason: "content_encoding",
			message: `${match.route.id} takes a body ${match.route.unpacksZstd === true ? "as it is, or with Content-Encoding: zstd" : "without a Content-Encoding"}, as Ollama does`,
		};
	if (match.route.body === "none" && bodyLengthOf(head) !== 0)
		return bad(`${match.route.id} takes no body`);
	return undefined;
}

/** The announced length of the body in bytes, or Infinity when it comes in chunks. */
export function bodyLengthOf(head: Head): number {
	if (head.transferEncoding.length > 0) return Number.POSITIVE_INFINITY;
	const [length] = head.contentLength;
	return length === undefined ? 0 : Number(length);
}
