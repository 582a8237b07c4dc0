import { testKeys } from "../support/gate.ts";
import { chunk, head, shows } from "../support/raw.ts";
import type { Case, Label } from "./judge.ts";

/**
 * What the tests of nginx, HAProxy and llhttp and the write-ups of request
 * smuggling go through, made anew from what they are about; what
 * test/attack has is not repeated. Each has a good key, so that
 * nothing but its framing keeps it from Ollama.
 */
const key = shows(testKeys.owner);
const json = '{"model":"qwen3:8b","stream":false}';
/** What would run if the gate or Ollama ended the request in front of it too early. */
const hidden = head("GET /api/ps HTTP/1.1", "Host: gate", key);
const last = "0\r\n\r\n";

function get(...lines: string[]): string {
	return head("GET /api/tags HTTP/1.1", "Host: gate", key, ...lines);
}

function embed(
	lines: readonly string[],
	rest: string,
	version = "1.1",
): string {
	return `${head(`POST /api/embed HTTP/${version}`, "Host: gate", key, ...lines)}${rest}`;
}

const length = `Content-Length: ${json.length}`;
const chunked = "Transfer-Encoding: chunked";

/** Two framings at once, and headers that a reader takes for a framing. */
const framings: Record<string, [Label, string]> = {
	"CL.TE: a length that covers a whole chunked body and more": [
		"invalid",
		embed(
			[`Content-Length: ${last.length + hidden.length}`, chunked],
			last + hidden,
		),
	],
	"TE.CL: a length that ends within the first chunk": [
		"invalid",
		embed([chunked, "Content-Length: 4"], chunk(hidden) + last),
	],
	"TE.TE: chunked and an unknown coding": [
		"invalid",
		embed([chunked, "Transfer-Encoding: x"], last + hidden),
	],
	"TE.0: a chunked body whose length says there is none": [
		"invalid",
		embed(["Content-Length: 0", chunked], chunk(hidden) + last),
	],
	"0.CL: a length on a request that takes no body": [
		"invalid",
		get(`Content-Length: ${hidden.length}`) + hidden + hidden,
	],
	"a length on HEAD": [
		"invalid",
		`${head("HEAD /api/tags HTTP/1.1", "Host: gate", key, `Content-Length: ${hidden.length}`)}${hidden}`,
	],
	"a chunked body on GET": ["invalid", get(chunked) + chunk(hidden) + last],
	"a length of nothing on GET": ["valid", get("Content-Length: 0") + hidden],
	"a body on DELETE": [
		"valid",
		`${head("DELETE /api/delete HTTP/1.1", "Host: gate", key, length)}${json}${hidden}`,
	],
	"Content_Length is no length": [
		"doubtful",
		embed([`Content_Length: ${hidden.length}`, length], json + hidden),
	],
	"Transfer_Encoding is no coding": [
		"doubtful",
		embed(["Transfer_Encoding: chunked", length], json + hidden),
	],
	"a coding under a prefix": [
		"doubtful",
		embed(["X-Transfer-Encoding: chunked", length], json + hidden),
	],
	"Connection names the length": [
		"doubtful",
		embed(["Connection: content-length", length], json + hidden),
	],
	"Connection names the coding": [
		"doubtful",
		embed(
			["Connection: transfer-encoding", chunked],
			chunk(json) + last + hidden,
		),
	],
	"Connection names Host": [
		"doubtful",
		get("Connection: host, authorization") + hidden,
	],
	"Keep-Alive, Proxy-Connection and TE are not passed on": [
		"valid",
		embed(
			["Keep-Alive: 1", "Proxy-Connection: keep-alive", "TE: trailers", length],
			json + hidden,
		),
	],
	"a length in HTTP/1.0": ["valid", embed([length], json, "1.0")],
	"HTTP/1.0 that goes on": [
		"valid",
		embed([length, "Connection: keep-alive"], json + hidden, "1.0"),
	],
	"HTTP/1.0 that does not go on": [
		"doubtful",
		embed([length], json + hidden, "1.0"),
	],
	"a chunked body in HTTP/1.0 that goes on": [
		"invalid",
		embed(
			[chunked, "Connection: keep-alive"],
			chunk(json) + last + hidden,
			"1.0",
		),
	],
	"bytes behind Connection: close": [
		"doubtful",
		embed(["Connection: close", length], json + hidden),
	],
	"bytes behind close among other options": [
		"doubtful",
		embed(["Connection: keep-alive, CLOSE", length], json + hidden),
	],
	"a length far past what comes": [
		"unfinished",
		embed(["Content-Length: 9007199254740993"], json + hidden),
	],
	"a length of 2^63": [
		"invalid",
		embed(["Content-Length: 9223372036854775808"], json + hidden),
	],
	"a length of 2^64 and the body's": [
		"invalid",
		embed(
			[`Content-Length: ${2n ** 64n + BigInt(json.length)}`],
			json + hidden,
		),
	],
};

/** Chunks. */
const chunks: Record<string, [Label, string]> = {
	"a chunk's size that wraps round 64 bits": [
		"invalid",
		embed([chunked], `10000000000000005\r\nhello\r\n${last}${hidden}`),
	],
	"a chunk's size that wraps round 32 bits": [
		"unfinished",
		embed([chunked], `100000005\r\nhello\r\n${last}${hidden}`),
	],
	"a chunk's size of 2^63": [
		"unfinished",
		embed([chunked], `8000000000000000\r\nhello\r\n${last}${hidden}`),
	],
	"a wall of zeros in front of a chunk's size": [
		"doubtful",
		embed([chunked], `${"0".repeat(30)}${chunk(json)}${last}${hidden}`),
	],
	"an extension with a quoted line end": [
		"invalid",
		embed([chunked], `5;a="\r\nhello"\r\n${last}${hidden}`),
	],
	"an extension with LF alone, as the TERM.EXT attacks have it": [
		"invalid",
		embed([chunked], `2;\nxx\r\n4c\r\n${last}${hidden}`),
	],
	"a chunk ended by what is not CR LF, as the TERM.SPILL attacks have it": [
		"invalid",
		embed([chunked], `5\r\nhelloXX${last}${hidden}`),
	],
	"a last chunk that is not the last": [
		"doubtful",
		embed([chunked], `${last}${chunk(json)}${last}`),
	],
	"a trailer that names a length": [
		"doubtful",
		embed([chunked], `${chunk(json)}0\r\nContent-Length: 500\r\n\r\n${hidden}`),
	],
	"a trailer that names a coding": [
		"doubtful",
		embed(
			[chunked],
			`${chunk(json)}0\r\nTransfer-Encoding: x\r\n\r\n${hidden}`,
		),
	],
	"a trailer with a request in it": [
		"doubtful",
		embed(
			[chunked, "Trailer: X"],
			`${chunk(json)}0\r\nX: GET /api/ps HTTP/1.1\r\n\r\n${hidden}`,
		),
	],
	"a trailer that is folded": [
		"invalid",
		embed([chunked], `${chunk(json)}0\r\nX: a\r\n b\r\n\r\n${hidden}`),
	],
	"a chunked body that only begins": [
		"unfinished",
		embed([chunked], chunk("{")),
	],
	"capital letters in the coding": [
		"valid",
		embed(["TRANSFER-ENCODING: CHUNKED"], chunk(json) + last + hidden),
	],
	"spaces around the coding": [
		"valid",
		embed(["Transfer-Encoding: \t chunked \t "], chunk(json) + last + hidden),
	],
};

/** Request lines, versions and Host. */
const lines: Record<string, [Label, string]> = {
	"the target as a whole address": [
		"doubtful",
		head("GET http://gate/api/tags HTTP/1.1", "Host: gate", key) + hidden,
	],
	"a whole address of another host": [
		"doubtful",
		head("GET http://other/api/tags HTTP/1.1", "Host: gate", key) + hidden,
	],
	"a whole address without Host": [
		"invalid",
		head("GET http://gate/api/tags HTTP/1.1", key) + hidden,
	],
	"a target without a slash": [
		"invalid",
		head("GET api/tags HTTP/1.1", "Host: gate", key) + hidden,
	],
	"a target with a fragment": [
		"doubtful",
		head("GET /api/tags#x HTTP/1.1", "Host: gate", key) + hidden,
	],
	"a space in the target": [
		"invalid",
		head("GET /api/tags x HTTP/1.1", "Host: gate", key) + hidden,
	],
	"a tab in the request line": [
		"invalid",
		head("GET\t/api/tags\tHTTP/1.1", "Host: gate", key) + hidden,
	],
	"two spaces in the request line": [
		"doubtful",
		head("GET  /api/tags HTTP/1.1", "Host: gate", key) + hidden,
	],
	"a space behind the version": [
		"invalid",
		head("GET /api/tags HTTP/1.1 ", "Host: gate", key) + hidden,
	],
	"a NUL in the target": [
		"invalid",
		head("GET /api/tags\0 HTTP/1.1", "Host: gate", key) + hidden,
	],
	"a CR in the target": [
		"invalid",
		head("GET /api/\rtags HTTP/1.1", "Host: gate", key) + hidden,
	],
	"HTTP/0.9": ["invalid", `GET /api/tags\r\n\r\n${hidden}`],
	"a version in small letters": [
		"invalid",
		head("GET /api/tags http/1.1", "Host: gate", key) + hidden,
	],
	"a version of two digits": [
		"invalid",
		head("GET /api/tags HTTP/1.10", "Host: gate", key) + hidden,
	],
	"a version with a zero in front": [
		"invalid",
		head("GET /api/tags HTTP/01.1", "Host: gate", key) + hidden,
	],
	"HTTP/1.2": [
		"invalid",
		head("GET /api/tags HTTP/1.2", "Host: gate", key) + hidden,
	],
	"the preface of HTTP/2": [
		"invalid",
		`PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${hidden}`,
	],
	"a method in small letters": [
		"invalid",
		head("get /api/tags HTTP/1.1", "Host: gate", key) + hidden,
	],
	"a method nobody knows": [
		"invalid",
		head("GETS /api/tags HTTP/1.1", "Host: gate", key) + hidden,
	],
	"OPTIONS *": [
		"doubtful",
		head("OPTIONS * HTTP/1.1", "Host: gate", key) + hidden,
	],
	"no Host": ["invalid", head("GET /api/tags HTTP/1.1", key) + hidden],
	"two Hosts": ["invalid", get("Host: other") + hidden],
	"two Hosts, one folded into a name": [
		"invalid",
		head("GET /api/tags HTTP/1.1", "Host: gate", " other", key) + hidden,
	],
	"a Host with a space before the colon": [
		"invalid",
		head("GET /api/tags HTTP/1.1", "Host : gate", key) + hidden,
	],
	"a method that another one hides": [
		"valid",
		get("X-HTTP-Method-Override: DELETE", "X-Original-URL: /api/delete") +
			hidden,
	],
	"a line with only a colon": ["invalid", get(":") + hidden],
	"a name with a byte beyond ASCII": ["invalid", get("X\xe4: y") + hidden],
	"a name in parentheses": ["invalid", get("(X): y") + hidden],
	"a value with DEL": ["invalid", get("X: \x7f") + hidden],
	"a value with bytes beyond ASCII": ["valid", get("X: \xe4\xff") + hidden],
	"an empty value": ["valid", get("X:") + hidden],
	"a value of spaces": ["valid", get("X: \t ") + hidden],
	"Upgrade with a length": [
		"valid",
		embed(["Connection: Upgrade", "Upgrade: h2c", length], json + hidden),
	],
	"Expect with the body at once": [
		"valid",
		embed(["Expect: 100-continue", length], json + hidden),
	],
	"Expect on a request without a body": [
		"valid",
		get("Expect: 100-continue") + hidden,
	],
	"Expect with a chunked body at once": [
		"valid",
		embed(["Expect: 100-continue", chunked], chunk(json) + last + hidden),
	],
};

export const scenarios: readonly Case[] = Object.entries({
	...framings,
	...chunks,
	...lines,
}).map(([id, [label, bytes]]) => ({ id, label, bytes }));

const oddBytes = [
	0x00, 0x01, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x1f, 0x20, 0x22, 0x27, 0x2c,
	0x2d, 0x30, 0x3a, 0x3b, 0x5f, 0x7f, 0x80, 0x85, 0xa0, 0xff,
].map((byte) => String.fromCharCode(byte));

/**
 * One odd byte at every joint of the line that frames a body. Whether it still
 * frames it is for the two readers to agree on; a case only has to be taken in
 * one way, so all of them are doubtful.
 */
export const oddJoints: readonly Case[] = (
	[
		["Content-Length", String(json.length), json],
		["Transfer-Encoding", "chunked", chunk(json) + last],
	] as const
).flatMap(([name, value, body]) =>
	oddBytes.flatMap((byte) => {
		const joints: Record<string, string> = {
			"before the name": `${byte}${name}: ${value}`,
			"in the name": `${name.slice(0, 7)}${byte}${name.slice(7)}: ${value}`,
			"before the colon": `${name}${byte}: ${value}`,
			"behind the colon": `${name}:${byte}${value}`,
			"in the value": `${name}: ${value.slice(0, 1)}${byte}${value.slice(1)}`,
			"behind the value": `${name}: ${value}${byte}`,
		};
		return Object.entries(joints).map(([where, line]) => ({
			id: `${name}, byte ${byte.charCodeAt(0).toString(16)} ${where}`,
			label: "doubtful" as const,
			bytes: embed([line], body + hidden),
		}));
	}),
);
