import type { ReplySink } from "./responseParser.ts";

/** Why a request came to nothing. */
export interface UpstreamFault {
	readonly kind: "unreachable" | "garbage" | "died";
	/** The system's code, or what is wrong with the reply. */
	readonly detail: string;
}

/** Takes what becomes of a request. */
export interface UpstreamSink extends ReplySink {
	/** A body that is written later may be written now, or on after `write` returned false. */
	ready(): void;
	/** Instead of `end`. Nothing follows. */
	failed(fault: UpstreamFault): void;
}

/** Something in a request would be read as another line of it. */
export class OddRequest extends Error {
	readonly code = "ODD_REQUEST";
}

/** What is asked of Ollama. */
export interface UpstreamCall {
	readonly method: string;
	readonly path: string;
	/** Names and values in turn; `Host` and the body's framing are added. */
	readonly headers: readonly string[];
	/** The body; `undefined` if there is none, a length or "chunked" if it is written later. */
	readonly body: Buffer | undefined | { readonly length: string | "chunked" };
	/** Called when the memory of a large body given whole is in no use any more, also after `abort`. */
	readonly written?: () => void;
}

/** Neither a line's end nor any other control character may come out of a request's headers. */
const plainValue = /^[\t\x20-\x7e\x80-\xff]*$/;
const plainPath = /^\/[\x21-\x7e]*$/;

/** The head of a request as it is written. @throws OddRequest */
export function headOf(
	{ method, path, headers, body }: UpstreamCall,
	firstLines: string,
): string {
	if (!plainPath.test(path))
		throw new OddRequest("the path has odd characters");
	let head = `${method} ${path} HTTP/1.1\r\n${firstLines}${linesOf(headers)}`;
	if (body?.length === "chunked") head += "transfer-encoding: chunked\r\n";
	else if (body !== undefined) head += `content-length: ${body.length}\r\n`;
	else if (method === "POST") head += "content-length: 0\r\n";
	return `${head}\r\n`;
}

/** Lines of a head, from names and values in turn. @throws OddRequest */
export function linesOf(headers: readonly string[]): string {
	let lines = "";
	for (let at = 0; at < headers.length; at += 2) {
		const value = headers[at + 1] ?? "";
		if (!plainValue.test(value))
			throw new OddRequest(`the header ${headers[at]} has odd characters`);
		lines += `${headers[at]}: ${value}\r\n`;
	}
	return lines;
}
