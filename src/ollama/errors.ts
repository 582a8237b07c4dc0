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
 *
 * @param code a word for programs, which Ollama itself has none of
 */
export function errorBody(
	family: Family,
	status: number,
	message: string,
	code?: string,
): string {
	switch (family) {
		case "native":
			return JSON.stringify({ error: message, code });
		case "openai":
			return JSON.stringify({
				error: {
					message,
					type: openaiTypes[status] ?? "api_error",
					param: null,
					code: code ?? null,
				},
			});
		case "anthropic":
			return JSON.stringify({
				type: "error",
				error: { type: anthropicTypes[status] ?? "api_error", message, code },
			});
	}
}

/** What an error's body says, in whatever family's shape; `undefined` for what is none. */
export function errorIn(body: Buffer): string | undefined {
	try {
		const { error } = JSON.parse(body.toString("utf8"));
		const message = typeof error === "object" ? error?.message : error;
		return typeof message === "string" && message !== "" ? message : undefined;
	} catch {
		return undefined;
	}
}

/** How a reply's bytes are framed, which decides how an error can be told inside it. */
export type ReplyFormat = "ndjson" | "sse" | "opaque";

/** The framing that a Content-Type announces. */
export function replyFormatOf(contentType: string | undefined): ReplyFormat {
	// As Ollama writes the most common ones.
	if (contentType === "application/x-ndjson") return "ndjson";
	if (contentType === "application/json; charset=utf-8") return "opaque";
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
	const body = errorBody(family, 500, message);
	if (format === "ndjson") return `${endOfLine(lastByte)}${body}\n`;
	if (format === "sse")
		return `${endOfEvent(lastByte)}event: error\ndata: ${body}\n\n`;
	return undefined;
}

/**
 * What ends the error that a stream has told itself, so that its readers have it.
 *
 * @param lastByte the last byte sent
 */
export function streamEnd(
	format: ReplyFormat,
	lastByte: number | undefined,
): string | undefined {
	if (format === "ndjson") return endOfLine(lastByte);
	return format === "sse" ? endOfEvent(lastByte) : undefined;
}

/** What is known of a stream of `/v1/responses` that breaks off. */
export interface BrokenResponse {
	readonly id: string;
	readonly model: string | undefined;
	readonly nextSequenceNumber: number;
}

/**
 * The same for a stream of `/v1/responses`, with a clean end to follow it: some of
 * its clients read the error from `response.failed` alone, and only if the stream
 * then ends (codex), others from `error` alone (OpenAI's libraries). They are sent
 * in this order, as the second kind stops reading there. The libraries refuse a
 * `response.failed` whose id is not that of `response.created`.
 */
export function responsesError(
	{ id, model, nextSequenceNumber }: BrokenResponse,
	message: string,
	lastByte: number | undefined,
): string {
	const code = "server_error";
	const failed = {
		type: "response.failed",
		sequence_number: nextSequenceNumber,
		response: {
			id,
			object: "response",
			status: "failed",
			model,
			error: { code, message },
			incomplete_details: null,
			output: [],
			usage: null,
		},
	};
	const error = {
		type: "error",
		sequence_number: nextSequenceNumber + 1,
		code,
		message,
		param: null,
		error: { message, type: "api_error", param: null, code },
	};
	return (
		`${endOfEvent(lastByte)}event: response.failed\ndata: ${JSON.stringify(failed)}\n\n` +
		`event: error\ndata: ${JSON.stringify(error)}\n\n`
	);
}

function endOfLine(lastByte: number | undefined): string {
	return lastByte === undefined || lastByte === 0x0a ? "" : "\n";
}

/** A blank line ends whatever event was broken off; a second one is harmless. */
function endOfEvent(lastByte: number | undefined): string {
	return `${endOfLine(lastByte)}\n`;
}
