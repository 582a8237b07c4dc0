import {
	type ReplyFormat,
	responsesError,
	streamEnd,
	streamError,
} from "../ollama/errors.ts";
import type { Route } from "../ollama/routes.ts";
import type { ReplyScan } from "../ollama/usage.ts";
import type { Exchange } from "./exchange.ts";

/**
 * How long after its error an event stream is cut. Some clients (those on Bun) drop
 * what they have not read yet once they see the cut. For NDJSON the cut itself is
 * the signal, and comes at once.
 */
export const cutDelayMs = 75;

/** How a stream that breaks off ends. */
export interface LastWords {
	/** The error in the stream's own form, or the end of the stream's own; `undefined` where none can be told. */
	readonly text: string | undefined;
	/**
	 * What follows: `whole` ends the reply as if it were complete, as the error itself
	 * says that it is not; `later` closes the connection after `cutDelayMs`, `soon` at once.
	 */
	readonly ending: "whole" | "later" | "soon";
}

/**
 * What a stream that has begun and cannot be finished still says.
 *
 * @param scan what has read the reply along; `undefined` if none of it has come
 * @param mayTell whether an error would not pass for a part of the reply
 */
export function lastWords(
	exchange: Exchange,
	{ path }: Route,
	format: ReplyFormat,
	scan: ReplyScan | undefined,
	message: string,
	mayTell: boolean,
): LastWords {
	if (!mayTell) return { text: undefined, ending: "soon" };
	const isEvents = format === "sse";
	// Another gate that breaks a stream off has told its client of it.
	const isTold = scan?.endsWithError === true;
	if (!isEvents || path !== "/v1/responses") {
		const text = isTold
			? streamEnd(format, scan.lastByte)
			: streamError(exchange.family, format, message, scan?.lastByte);
		return {
			text,
			ending: text !== undefined && isEvents ? "later" : "soon",
		};
	}
	if (isTold)
		return { text: streamEnd(format, scan.lastByte), ending: "whole" };
	const text =
		scan === undefined
			? streamError(exchange.family, format, message, undefined)
			: responsesFailure(exchange, scan, message);
	return { text, ending: text === undefined ? "soon" : "whole" };
}

function responsesFailure(
	{ id }: Exchange,
	scan: ReplyScan,
	message: string,
): string {
	const { id: responseId, nextSequenceNumber } = scan.responseState;
	return responsesError(
		{
			id: responseId ?? `resp_${id}`,
			model: scan.usage().model,
			nextSequenceNumber,
		},
		message,
		scan.lastByte,
	);
}
