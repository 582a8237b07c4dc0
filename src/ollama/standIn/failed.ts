import { errorBody } from "../errors.ts";
import { familyOf } from "../routes.ts";

/** A call that Ollama refuses, with the status and the words that it has for that. */
export class Failed extends Error {
	readonly status: number;
	/**
	 * Who refuses: the handler itself, or what translates a call of another API
	 * before it, whose errors differ a little in form.
	 */
	readonly by: "handler" | "translator";

	constructor(
		status: number,
		message: string,
		by: "handler" | "translator" = "handler",
	) {
		super(message);
		this.status = status;
		this.by = by;
	}
}

/** How an error is written: its type, and its bytes. */
export interface WrittenError {
	readonly contentType: string;
	readonly body: string;
}

/** An error of this path in its family's shape (middleware/openai.go, middleware/anthropic.go). */
export function writeFailure(
	path: string,
	{ status, message, by }: Failed,
): WrittenError {
	const family = familyOf(path);
	const written = errorBody(family, status, message);
	const charset = "application/json; charset=utf-8";
	switch (family) {
		case "native":
			return { contentType: charset, body: written };
		case "openai":
			if (by === "handler")
				return { contentType: "application/json", body: `${written}\n` };
			return {
				contentType: charset,
				// The newer of OpenAI's two APIs repeats the type as its code.
				body: path.startsWith("/v1/responses")
					? written.replace('"code":null', '"code":"invalid_request_error"')
					: written,
			};
		case "anthropic": {
			const body = written.replace(
				/\}$/,
				`,"request_id":"req_${randomHex(24)}"}`,
			);
			return by === "handler"
				? { contentType: "application/json", body: `${body}\n` }
				: { contentType: charset, body };
		}
	}
}

function randomHex(length: number): string {
	return Array.from({ length }, () =>
		Math.floor(Math.random() * 16).toString(16),
	).join("");
}
