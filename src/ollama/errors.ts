import type { Family } from "./routes.ts";

const openaiTypes: Record<number, string> = {
	400: "invalid_request_error",
	404: "not_found_error",
};

const anthropicTypes: Record<number, string> = {
	400: "invalid_request_error",
	401: "authentication_error",
	403: "permission_error",
	404: "not_found_error",
	413: "request_too_large",
	429: "rate_limit_error",
	503: "overloaded_error",
	529: "overloaded_error",
};

/**
 * The error as Ollama would write it for that family (openai/openai.go:NewError,
 * anthropic/anthropic.go:NewError): one line of JSON, never empty, because the
 * stock CLI takes an empty error body for success.
 */
export function errorBody(
	family: Family,
	status: number,
	message: string,
): string {
	switch (family) {
		case "native":
			return JSON.stringify({ error: message });
		case "openai":
			return JSON.stringify({
				error: {
					message,
					type: openaiTypes[status] ?? "api_error",
					param: null,
					code: null,
				},
			});
		case "anthropic":
			return JSON.stringify({
				type: "error",
				error: { type: anthropicTypes[status] ?? "api_error", message },
			});
	}
}

/** How a reply's bytes are framed, which decides how an error can be told inside it. */
export type ReplyFormat = "ndjson" | "sse" | "opaque";

/** The framing that a Content-Type announces. */
export function replyFormatOf(contentType: string | undefined): ReplyFormat {
	const type = contentType?.split(";", 1)[0]?.trim().toLowerCase();
	if (type === "application/x-ndjson") return "ndjson";
	return type === "text/event-stream" ? "sse" : "opaque";
}

/**
 * An error to write into a stream that has begun, in the stream's own form;
 * `undefined` where there is none (a JSON document, a file).
 *
 * @param lastByte the last byte sent, so that a broken-off line is ended first
 */
export function streamError(
	family: Family,
	format: ReplyFormat,
	message: string,
	lastByte: number | undefined,
): string | undefined {
	const atLineStart = lastByte === undefined || lastByte === 0x0a;
	const body = errorBody(family, 500, message);
	if (format === "ndjson") return `${atLineStart ? "" : "\n"}${body}\n`;
	// A blank line ends whatever event was broken off; a second one is harmless.
	if (format === "sse")
		return `${atLineStart ? "" : "\n"}\nevent: error\ndata: ${body}\n\n`;
	return undefined;
}
