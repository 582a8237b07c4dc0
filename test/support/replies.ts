import {
	BrokenReply,
	type ReplyHead,
	ReplyReader,
} from "../../src/upstream/responseParser.ts";

/** What came of a reply: broken, waiting for more, or ended; and what there was of it. */
function describe(
	state: "broken" | "waiting" | "ended",
	head: ReplyHead | undefined,
	body: string,
	reusable: boolean,
): string {
	return JSON.stringify({
		state,
		head,
		body,
		// Of one that is not whole nobody asks.
		reusable: state === "ended" && reusable,
	});
}

/** What a sink hears that wants no more once it has the head, of a reply that is read in one piece. */
export function stopAtHead(text: string): readonly string[] {
	const heard: string[] = [];
	const reader = new ReplyReader(false, {
		head() {
			heard.push("head");
			reader.stop();
		},
		data: () => heard.push("data") > 0,
		end: () => void heard.push("end"),
	});
	const bytes = Buffer.from(text, "latin1");
	reader.read(bytes, bytes.length);
	return heard;
}

/** Reads a reply as the gate does, in pieces of a size; text in Latin-1, a character a byte. */
export function readReply(
	text: string,
	answersHead: boolean,
	pieceBytes: number,
): string {
	let head: ReplyHead | undefined;
	let body = "";
	let ends = 0;
	const reader = new ReplyReader(answersHead, {
		head(found) {
			if (head !== undefined) throw new Error("a second head");
			head = found;
		},
		data(buffer, start, end) {
			if (head === undefined || ends > 0 || end <= start)
				throw new Error("data out of turn");
			body += buffer.toString("latin1", start, end);
			return true;
		},
		end() {
			if (++ends > 1) throw new Error("a second end");
		},
	});
	const bytes = Buffer.from(text, "latin1");
	// Larger than a piece, as the gate's is: what was read before stands behind it.
	const buffer = Buffer.alloc(pieceBytes + 64, "\r\n\r\n");
	let at = 0;
	try {
		for (; at < bytes.length && !reader.ended; at += pieceBytes)
			reader.read(buffer, bytes.copy(buffer, 0, at, at + pieceBytes));
	} catch (error) {
		if (!(error instanceof BrokenReply)) throw error;
		return describe("broken", head, body, false);
	}
	if (reader.ended !== (ends === 1))
		throw new Error("an end that nobody heard of");
	return describe(
		reader.ended ? "ended" : "waiting",
		head,
		body,
		// A connection on which something comes unasked is closed.
		reader.reusable && at >= bytes.length,
	);
}

/**
 * The same by RFC 9112's grammar, as expressions over the whole text, where it is
 * read in one piece: what the gate's reader is held against.
 */
export function readReplySlowly(text: string, answersHead: boolean): string {
	let rest = text;
	for (let interim = 0; ; interim++) {
		const [whole = "", lines = ""] =
			/^((?:(?!\r\n\r\n)[\s\S])*)\r\n\r\n/.exec(rest) ?? [];
		if (whole === "")
			return describe(
				rest.length > 16_384 + 3 ? "broken" : "waiting",
				undefined,
				"",
				false,
			);
		const [, minor, status] =
			/^HTTP\/1\.([01]) ([1-9][0-9]{2})(?: [\t -~\x80-\xff]*)?(?:\r\n|$)/.exec(
				lines,
			) ?? [];
		const fields = lines.split("\r\n").slice(1);
		const parsed = fields.map((field) =>
			/^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t ]*((?:[\x21-~\x80-\xff](?:[\t -~\x80-\xff]*[\x21-~\x80-\xff])?)?)[\t ]*$/.exec(
				field,
			),
		);
		const broken = () => describe("broken", undefined, "", false);
		if (
			status === undefined ||
			lines.length > 16_384 ||
			parsed.some((field) => field === null)
		)
			return broken();
		const headers = parsed.map((field): [string, string] => [
			(field?.[1] ?? "").toLowerCase(),
			field?.[2] ?? "",
		]);
		const all = (name: string) =>
			headers.filter((one) => one[0] === name).map((one) => one[1]);
		const lengths = all("content-length");
		const codings = all("transfer-encoding");
		if (
			status === "101" ||
			lengths.length > 1 ||
			!lengths.every((length) => /^[0-9]{1,15}$/.test(length)) ||
			codings.length + lengths.length > 1 ||
			!codings.every((coding) => /^chunked$/i.test(coding)) ||
			(codings.length > 0 && minor === "0")
		)
			return broken();
		rest = rest.slice(whole.length);
		if (status.startsWith("1")) {
			if (interim === 32) return broken();
			continue;
		}
		const head = { status: Number(status), headers: headers.flat() };
		const keeps =
			minor === "1" &&
			!all("connection").some((value) =>
				value.split(/[\s,]+/).some((option) => /^close$/i.test(option)),
			);
		const ended = (body: string, behind: string) =>
			describe("ended", head, body, keeps && behind === "");
		if (answersHead || status === "204" || status === "304")
			return ended("", rest);
		const [length] = lengths;
		if (length !== undefined)
			return rest.length < Number(length)
				? describe("waiting", head, rest, false)
				: ended(rest.slice(0, Number(length)), rest.slice(Number(length)));
		if (codings.length === 0) return describe("waiting", head, rest, false);
		return readChunks(rest, head, ended);
	}
}

function readChunks(
	text: string,
	head: ReplyHead,
	ended: (body: string, behind: string) => string,
): string {
	let body = "";
	let rest = text;
	for (;;) {
		const [line, digits = ""] = /^([0-9a-f]{1,12})\r\n/i.exec(rest) ?? [];
		if (line === undefined)
			return describe(
				/^(?:[0-9a-f]{0,12}|[0-9a-f]{1,12}\r)$/i.test(rest)
					? "waiting"
					: "broken",
				head,
				body,
				false,
			);
		rest = rest.slice(line.length);
		const size = Number.parseInt(digits, 16);
		body += rest.slice(0, size);
		rest = rest.slice(size);
		if (rest.length < 2)
			return describe(
				rest === "" || rest === "\r" ? "waiting" : "broken",
				head,
				body,
				false,
			);
		if (!rest.startsWith("\r\n")) return describe("broken", head, body, false);
		rest = rest.slice(2);
		if (size === 0) return ended(body, rest);
	}
}
