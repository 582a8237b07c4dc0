import type { ServerResponse } from "node:http";
import { STATUS_CODES } from "../net/http.ts";

let latestS = 0;
let latestDate = "";

/** The `Date` of a reply, made once for each second (RFC 9110, 6.6.1). */
function httpDate(epochMs: number): string {
	const seconds = Math.floor(epochMs / 1000);
	if (seconds !== latestS) {
		latestS = seconds;
		latestDate = new Date(epochMs).toUTCString();
	}
	return latestDate;
}

/** What tells a field's value from the next line; Node refuses it, too (RFC 9110, 5.5). */
const oddValue = /[^\t\x20-\x7e\x80-\xff]/;

/**
 * Sends a whole reply as one string past Node's response object, which costs more
 * than all else that a refusal takes: it checks each header's name, looks for
 * those that it has an opinion of, and gathers pieces. Node hears of it as it
 * would: by `finish`, once the system has taken the bytes.
 *
 * The connection must stay open behind it, and the request have no body.
 *
 * @param headers names, which are the gate's own, and values in turn, with those about length and connection
 * @param body of ASCII alone
 * @returns false where Node has to send it; then nothing was sent
 */
export function sendPlain(
	res: ServerResponse,
	status: number,
	headers: readonly string[],
	body: string,
): boolean {
	const { socket } = res;
	// A pipelined reply has no socket before its turn; one that is not taken has to wait.
	if (socket === null || !socket.writable || socket.writableLength > 0)
		return false;
	let text = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? "Refused"}\r\n`;
	for (let at = 0; at < headers.length; at += 2) {
		const value = headers[at + 1] ?? "";
		if (oddValue.test(value)) return false;
		text += `${headers[at]}: ${value}\r\n`;
	}
	text += `date: ${httpDate(Date.now())}\r\n\r\n${body}`;
	socket.write(text, "latin1", (error) => {
		if (!error) res.emit("finish");
	});
	return true;
}
