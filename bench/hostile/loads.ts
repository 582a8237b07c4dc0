/** What a connection of an attacker's sends: its head, and then this over and over for as long as it is taken. */
export interface HostileLoad {
	readonly name: string;
	/** Whose key it shows: nobody's, one that the gate does not know, or the one with rules. */
	readonly key: "none" | "wrong" | "ruled";
	readonly connections: number;
	readonly method?: string;
	readonly path?: string;
	readonly headers?: readonly string[];
	/** What follows the head; without it a connection asks again when it has had its answer. */
	readonly body?: {
		/** Sent once. */
		readonly first?: string;
		/** Sent again and again. */
		readonly again: string;
		/** The body's length, told in its head; without it the body comes in chunks of its own making. */
		readonly length?: number;
		/** Bytes after which only one is sent every 100 ms. */
		readonly trickleAfter?: number;
		/** Each write goes out as a packet of its own. */
		readonly tiny?: boolean;
		/** It is made once, of that length, and sent packed with zstd; after so many milliseconds its client leaves. */
		readonly packedAndLeftAfterMs?: number;
	};
}

/** Of such a load one body at a time is held until it has been judged whole: no other has room beside it. */
export function judgedBytes({ key, body }: HostileLoad): number {
	// What a packed one becomes is not held.
	const isHeld = key === "ruled" && body?.packedAndLeftAfterMs === undefined;
	return isHeld ? (body?.length ?? 0) : 0;
}

const mebibyte = 2 ** 20;
const form = ["Content-Type: multipart/form-data; boundary=x"];
const transcriptions = "/v1/audio/transcriptions";
const oneByteChunk = "1\r\nx\r\n";

/** A body of the most that the gate takes, which is judged when it is whole. */
function whole(first: string, again: string) {
	return { first, again, length: 60 * mebibyte };
}

/** One at a time; each is bounded by the run that it is part of. */
export const hostileLoads: readonly HostileLoad[] = [
	{
		name: "no key, chunks of one byte",
		key: "none",
		connections: 40,
		headers: ["Transfer-Encoding: chunked"],
		body: { again: oneByteChunk },
	},
	{
		name: "no key, a long body in packets of one byte",
		key: "none",
		connections: 40,
		body: { again: "x", length: 2 ** 40, tiny: true },
	},
	{
		name: "no key, forms",
		key: "none",
		connections: 40,
		path: transcriptions,
		headers: form,
		body: { again: "--x", length: 60 * mebibyte },
	},
	{ name: "flood, no key", key: "none", connections: 64 },
	{ name: "flood, wrong key", key: "wrong", connections: 64 },
	{
		name: "flood, foreign path",
		key: "none",
		connections: 64,
		method: "GET",
		path: "/no/such/path",
	},
	{
		name: "flood, preflights of a listed origin",
		key: "none",
		connections: 64,
		method: "OPTIONS",
		headers: [
			"Origin: https://chat.example",
			"Access-Control-Request-Method: POST",
			"Access-Control-Request-Headers: authorization",
		],
	},
	{
		name: "flood, foreign path with a key",
		key: "ruled",
		connections: 64,
		method: "GET",
		path: "/no/such/path",
	},
	{
		name: "key with models, chunks of one byte",
		key: "ruled",
		connections: 8,
		headers: ["Transfer-Encoding: chunked"],
		body: { again: oneByteChunk },
	},
	{
		name: "key with models, forms of 60 MiB",
		key: "ruled",
		connections: 2,
		path: transcriptions,
		headers: form,
		body: whole("", "--x"),
	},
	{
		name: 'key with models, JSON of "a":1,…',
		key: "ruled",
		connections: 2,
		body: whole("{", '"a":1,'),
	},
	{
		name: "key with models, JSON of 1,1,1…",
		key: "ruled",
		connections: 2,
		body: whole('{"a":[', "1,"),
	},
	{
		name: 'key with models, JSON of "","",…',
		key: "ruled",
		connections: 2,
		body: whole('{"a":[', '"",'),
	},
	{
		name: "key with models, bodies that trickle",
		key: "ruled",
		connections: 3,
		body: {
			first: '{"a":"',
			again: "x",
			length: 64 * mebibyte,
			trickleAfter: 64 * mebibyte - 64,
		},
	},
	{
		name: "key with models, packed bodies that are left",
		key: "ruled",
		// Ten a second, as many as a key may send by default in a minute.
		connections: 1,
		path: "/v1/chat/completions",
		headers: ["Content-Encoding: zstd"],
		body: {
			first: '{"a":[',
			again: "1,",
			length: 20 * mebibyte,
			packedAndLeftAfterMs: 100,
		},
	},
];
