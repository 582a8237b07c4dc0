import { type ReplyFormat, replyFormatOf } from "../ollama/errors.ts";

/**
 * Headers of a reply that concern Ollama's connection and not the client's
 * (RFC 9110, 7.6.1), and what only the gate may say.
 */
const notForwarded = new Set([
	"connection",
	"keep-alive",
	"proxy-authenticate",
	"proxy-connection",
	"te",
	"trailer",
	"transfer-encoding",
	"upgrade",
	"set-cookie",
	"alt-svc",
	"x-request-id",
	"vary",
	"x-content-type-options",
]);

/** How the body behind these headers is framed. */
export function formatOf(headers: readonly string[]): ReplyFormat {
	return replyFormatOf(firstOf(headers, "content-type"));
}

/** The first value of a header. */
export function firstOf(
	headers: readonly string[],
	wanted: string,
): string | undefined {
	for (let at = 0; at < headers.length; at += 2)
		if (headers[at] === wanted) return headers[at + 1];
	return undefined;
}

/**
 * Ollama's headers as they go to the client.
 *
 * @param length of a body that is not Ollama's own
 */
export function forwardedHeaders(
	headers: readonly string[],
	status: number,
	length: number | undefined,
): string[] {
	const forwarded: string[] = [];
	// RFC 9110, 8.6: a 204 must not have a length.
	const dropsLength = length !== undefined || status === 204;
	let options: Set<string> | undefined;
	for (let at = 0; at < headers.length; at += 2)
		if (headers[at] === "connection") {
			options ??= new Set();
			for (const option of (headers[at + 1] ?? "")
				.toLowerCase()
				.split(/[\s,]+/))
				options.add(option);
		}
	for (let at = 0; at < headers.length; at += 2) {
		const name = headers[at] ?? "";
		if (
			notForwarded.has(name) ||
			options?.has(name) === true ||
			(dropsLength && name === "content-length") ||
			name.startsWith("x-accel-") ||
			name.startsWith("access-control-") ||
			name.startsWith("ratelimit-") ||
			// Of another gate: how long it waited there, and what this gate's key has left.
			name.startsWith("x-llamagate-")
		)
			continue;
		forwarded.push(name, headers[at + 1] ?? "");
	}
	if (length !== undefined) forwarded.push("content-length", String(length));
	return forwarded;
}
