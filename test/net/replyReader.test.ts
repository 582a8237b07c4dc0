import t from "tap";
import { readReply, readReplySlowly, stopAtHead } from "../support/replies.ts";

const ok = (...lines: string[]) =>
	`${["HTTP/1.1 200 OK", ...lines].join("\r\n")}\r\n\r\n`;
const chunked = ok("Transfer-Encoding: chunked");

/** What a reader must make of a reply, and what is told of it. */
const cases: Record<
	"ended" | "waiting" | "broken",
	Record<string, { text: string; body?: string; reusable?: boolean }>
> = {
	ended: {
		"a length": { text: `${ok("Content-Length: 2")}{}`, body: "{}" },
		"a length of 0": { text: ok("Content-Length: 0"), body: "" },
		chunks: {
			text: `${chunked}2\r\n{}\r\nA\r\n0123456789\r\n0\r\n\r\n`,
			body: "{}0123456789",
		},
		"chunked in capitals": {
			text: `${ok("TRANSFER-ENCODING: Chunked")}0\r\n\r\n`,
			body: "",
		},
		"a reply without a reason": {
			text: "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
		},
		"interim replies before it": {
			text: `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n${ok("Content-Length: 1")}x`,
			body: "x",
		},
		"no content": { text: "HTTP/1.1 204 No Content\r\n\r\n" },
		"a connection that closes": {
			text: ok("Content-Length: 0", "Connection: keep-alive, Close"),
			reusable: false,
		},
		"a word that only ends like close": {
			text: ok("Content-Length: 0", "Connection: disclose"),
		},
		"HTTP/1.0": {
			text: "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
			reusable: false,
		},
		"bytes that nobody asked for": {
			text: `${ok("Content-Length: 1")}xHTTP/1.1 200 OK\r\n\r\n`,
			body: "x",
			reusable: false,
		},
	},
	waiting: {
		"a head that has not come whole": { text: "HTTP/1.1 200 OK\r\nConte" },
		"a length that has not come whole": {
			text: `${ok("Content-Length: 3")}{}`,
			body: "{}",
		},
		"chunks without the last": { text: `${chunked}2\r\n{}\r\n`, body: "{}" },
		"the last chunk without its end": { text: `${chunked}0\r\n`, body: "" },
		"a body to the connection's end": { text: `${ok()}so far`, body: "so far" },
		"an interim reply alone": { text: "HTTP/1.1 102 Processing\r\n\r\n" },
	},
	broken: {
		"no reply at all": { text: "SSH-2.0-OpenSSH_9.6\r\n\r\n" },
		"HTTP/2": { text: "HTTP/2.0 200 OK\r\n\r\n" },
		"bare line feeds": {
			text: "HTTP/1.1 200 OK\nContent-Length: 0\n\n\r\n\r\n",
		},
		"a folded header": { text: ok("X: a", " b", "Content-Length: 0") },
		"a blank before the colon": { text: ok("Content-Length : 0") },
		"a header without a name": { text: ok(": x") },
		"a NUL in a value": { text: ok("X: a\0b", "Content-Length: 0") },
		"two lengths": { text: ok("Content-Length: 1", "Content-Length: 1") },
		"a length with a sign": { text: ok("Content-Length: +1") },
		"a list of lengths": { text: ok("Content-Length: 1, 1") },
		"an endless length": { text: ok(`Content-Length: ${"9".repeat(16)}`) },
		"a length beside chunks": {
			text: ok("Content-Length: 1", "Transfer-Encoding: chunked"),
		},
		"another coding": { text: ok("Transfer-Encoding: gzip, chunked") },
		"chunked twice": {
			text: ok("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
		},
		"chunks in HTTP/1.0": {
			text: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		},
		"a chunk's extension": { text: `${chunked}2;x=y\r\n{}\r\n`, body: "" },
		"a chunk without a size": { text: `${chunked}\r\n`, body: "" },
		"a size in decimal with a blank": { text: `${chunked}2 \r\n`, body: "" },
		"a size beyond all bounds": {
			text: `${chunked}${"f".repeat(13)}`,
			body: "",
		},
		"a chunk that is longer than it says": {
			text: `${chunked}1\r\n{}\r\n`,
			body: "{",
		},
		"a chunk that ends with a line feed": {
			text: `${chunked}2\r\n{}\n`,
			body: "{}",
		},
		trailers: { text: `${chunked}0\r\nX: y\r\n\r\n`, body: "" },
		"another protocol": {
			text: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
		},
		"interim replies without end": {
			text: "HTTP/1.1 102 Processing\r\n\r\n".repeat(33),
		},
		"a head of more than 16 KiB": { text: ok(`X: ${"x".repeat(17_000)}`) },
		"a head that goes on and on": {
			text: `HTTP/1.1 200 OK\r\nX: ${"x".repeat(17_000)}`,
		},
	},
};

for (const [state, some] of Object.entries(cases))
	for (const [what, { text, body, reusable }] of Object.entries(some))
		t.test(`${what}: ${state}, in whatever pieces it comes`, async (t) => {
			const whole = JSON.parse(readReply(text, false, 65_536));
			t.match(whole, { state, ...(body === undefined ? {} : { body }) });
			if (state === "ended") t.equal(whole.reusable, reusable ?? true);
			for (const pieceBytes of [1, 2, 3, 5, 1000])
				t.same(JSON.parse(readReply(text, false, pieceBytes)), whole);
			t.same(
				JSON.parse(readReplySlowly(text, false)),
				whole,
				"read by the grammar",
			);
		});

t.test("the reply to HEAD has no body, whatever its headers say", async (t) => {
	for (const text of [ok("Content-Length: 5"), chunked, ok()])
		t.match(JSON.parse(readReply(text, true, 65_536)), {
			state: "ended",
			body: "",
		});
});

t.test("who wants no more once the head is there hears no more", async (t) => {
	for (const rest of [
		`${ok("Content-Length: 2")}{}`,
		`${chunked}2\r\n{}\r\n0\r\n\r\n`,
		`${chunked}no size`,
		ok("Content-Length: 0"),
		`${ok()}so far`,
	])
		t.strictSame(stopAtHead(rest), ["head"]);
});
