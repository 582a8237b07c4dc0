import { once } from "node:events";
import t from "tap";
import { startGate, testKeys } from "../support/gate.ts";
import {
	attack,
	chunk,
	framed,
	head,
	hiddenRequest as hidden,
	honestStatus,
	openRaw,
	post,
	shows,
	strayCalls,
} from "../support/raw.ts";

const body = '{"model":"qwen3:8b","stream":false}';

t.test("a request whose body breaks off is answered once", async (t) => {
	const gate = await startGate(t);
	const requests: Record<string, string> = {
		"a chunk that is none, behind a refusal": framed(
			["Transfer-Encoding: chunked"],
			"zz\r\nhello\r\n0\r\n\r\n",
		),
		"a chunk that is none, later": framed(
			["Transfer-Encoding: chunked"],
			`${chunk(body)}2 x\r\naa\r\n0\r\n\r\n`,
		),
		"a coding that is none": framed(["Transfer-Encoding: xchunked"], body),
		"bytes behind HTTP/1.0": `${head("GET /api/tags HTTP/1.0")}GET`,
		"bytes behind the last request": `${head("GET /api/tags HTTP/1.1", "Host: x", "Connection: close")}GET`,
	};
	for (const [what, bytes] of Object.entries(requests)) {
		const client = await openRaw(gate.port);
		client.write(bytes);
		await client.closed;
		t.strictSame(
			client.replies().map(({ status }) => status),
			[401],
			what,
		);
	}
});

t.test(
	"nothing is read behind a body where there should be none (RFC 9110, 9.3.1)",
	async (t) => {
		const gate = await startGate(t);
		for (const method of ["GET", "HEAD"])
			for (const key of [undefined, testKeys.owner]) {
				const client = await openRaw(gate.port);
				client.write(
					head(
						`${method} /api/tags HTTP/1.1`,
						"Host: gate",
						...(key === undefined ? [] : [shows(key)]),
						`Content-Length: ${hidden.length}`,
					) +
						hidden +
						hidden,
				);
				await client.closed;
				t.match(
					client.text(),
					key === undefined ? /^HTTP\/1.1 401 / : /^HTTP\/1.1 400 /,
				);
				t.equal(client.text().split("HTTP/1.1 ").length, 2, "one reply");
			}
		t.strictSame(strayCalls(gate), [], "nothing hidden ran");
	},
);

t.test("nothing runs behind a reply that closes the connection", async (t) => {
	const gate = await startGate(t);
	const owner = shows(testKeys.owner);
	const expectation = "Expect: 100-continue";
	const first: Record<string, [string, string[]]> = {
		"to a body that was not waited for": [
			post("/api/embed", body, expectation),
			[],
		],
		"to a body in chunks that was not waited for": [
			framed(
				[expectation, "Transfer-Encoding: chunked"],
				`${chunk(body)}0\r\n\r\n`,
			),
			[],
		],
		"to an odd Expect": [post("/api/embed", body, owner, "Expect: x"), []],
		"to an Expect without a body": [
			head("GET /api/ps HTTP/1.1", "Host: gate", owner, expectation),
			["GET /api/ps"],
		],
		"to HTTP/1.0 that asks some proxy to keep the connection": [
			head("GET /api/ps HTTP/1.0", owner, "Proxy-Connection: keep-alive"),
			["GET /api/ps"],
		],
		"to HTTP/1.0 that would both close and go on": [
			head(
				"GET /api/ps HTTP/1.0",
				owner,
				"Connection: close",
				"Connection: keep-alive",
			),
			["GET /api/ps"],
		],
		"to a request that asks for the close": [
			head("GET /api/ps HTTP/1.1", "Host: gate", owner, "Connection: close"),
			["GET /api/ps"],
		],
		"to one that asks a proxy for the close, which Node's parser heeds": [
			head(
				"GET /api/ps HTTP/1.1",
				"Host: gate",
				owner,
				"Connection: keep-alive",
				"Proxy-Connection: close",
			),
			["GET /api/ps"],
		],
	};
	for (const [what, [bytes, calls]] of Object.entries(first)) {
		const client = await openRaw(gate.port);
		client.write(bytes + hidden + hidden);
		await client.closed;
		const replies = client.replies();
		t.equal(replies.length, 1, `${what}: one reply`);
		t.equal(replies[0]?.headers.connection, "close", what);
		t.equal(await honestStatus(gate), 200, "an honest request is served");
		t.strictSame(strayCalls(gate), calls, `${what}: nothing else ran`);
		gate.standIn.calls.length = 0;
	}
});

t.test("each request on a connection is judged by its own key", async (t) => {
	const gate = await startGate(t);
	const get = (...lines: string[]) =>
		head("GET /api/tags HTTP/1.1", "Host: gate", ...lines);
	const right = get(shows(testKeys.reader));
	const none = get();
	const wrong = get(shows(testKeys.wrong));
	const tooLittle = post("/api/embed", body, shows(testKeys.reader));
	const client = await openRaw(gate.port);
	client.write(right + none + right + wrong + tooLittle + none + right);
	const replies = await client.untilReplies(7);
	t.strictSame(
		replies.map(({ status }) => status),
		[200, 401, 200, 401, 403, 401, 200],
		"pipelined",
	);
	for (const [bytes, status] of [
		[right, 200],
		[none, 401],
		[wrong, 401],
		[right, 200],
	] as const) {
		const before = client.replies().length;
		client.write(bytes);
		const all = await client.untilReplies(before + 1);
		t.equal(all.at(-1)?.status, status, "one after the other");
	}
	t.equal(gate.standIn.calls.length, 5);
	client.destroy();
});

t.test(
	"bytes behind a request that asks for an upgrade are either read from their start or not at all",
	async (t) => {
		const gate = await startGate(t);
		for (const key of [undefined, testKeys.reader]) {
			for (const protocol of ["websocket", "h2c", "TLS/1.0"]) {
				const client = await openRaw(gate.port);
				// Half a request rides in the same packet: if it is dropped, its body becomes a request.
				client.write(
					head(
						"GET /api/version HTTP/1.1",
						"Host: gate",
						...(key === undefined ? [] : [shows(key)]),
						"Connection: Upgrade, HTTP2-Settings",
						"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
						`Upgrade: ${protocol}`,
						"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
						"Sec-WebSocket-Version: 13",
					) +
						head(
							"POST /api/nothing HTTP/1.1",
							"Host: gate",
							shows(testKeys.owner),
							`Content-Length: ${hidden.length}`,
						),
				);
				const [first] = await client.untilReplies(1);
				t.equal(first?.status, key === undefined ? 401 : 200, protocol);
				t.notOk(first?.headers.upgrade, "nothing is upgraded");
				client.write(hidden);
				// Behind a reply that closes the connection, nothing can come any more.
				if (first?.headers.connection === "close") await client.closed;
				else await client.untilReplies(2);
				client.destroy();
			}
		}
		t.equal(await honestStatus(gate), 200, "an honest request is served");
		t.strictSame(
			strayCalls(gate),
			[],
			"the hidden request, a body to the client, never ran",
		);
	},
);

for (const [moment, misbehaviour] of [
	["before its reply has begun", "hang"],
	["while it is being answered", "stall-mid-stream"],
] as const) {
	t.test(
		`bytes behind a request that asks for an upgrade do not run ${moment}`,
		async (t) => {
			const gate = await startGate(t, {
				standIn: {
					misbehave: ({ target }) =>
						target === "/api/chat" ? misbehaviour : undefined,
				},
			});
			const called = once(gate.standIn.events, "body");
			const client = await openRaw(gate.port);
			t.teardown(() => client.destroy());
			// Half a request rides in the same packet: if it is dropped, its body becomes a request.
			client.write(
				post(
					"/api/chat",
					'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
					shows(testKeys.owner),
					"Connection: Upgrade",
					"Upgrade: h2c",
				) +
					head(
						"POST /api/nothing HTTP/1.1",
						"Host: gate",
						shows(testKeys.owner),
						`Content-Length: ${hidden.length}`,
					),
			);
			await called;
			if (misbehaviour === "stall-mid-stream")
				await client.until((text) => text.includes('"done":false'));
			client.write(hidden);
			t.equal(await honestStatus(gate), 200, "an honest request is served");
			t.equal(await honestStatus(gate), 200, "and another");
			t.strictSame(
				strayCalls(gate),
				["POST /api/chat"],
				"the hidden one never ran",
			);
			t.notOk(client.isClosed(), "the first one goes on");
		},
	);
}

t.test("a request that asks for an upgrade may have a body", async (t) => {
	const gate = await startGate(t);
	for (const framing of [
		[`Content-Length: ${body.length}`, body],
		["Transfer-Encoding: chunked", `${chunk(body)}0\r\n\r\n`],
	] as const) {
		const { status } = await attack(
			gate,
			`${head(
				"POST /api/embed HTTP/1.1",
				"Host: gate",
				shows(testKeys.user),
				"Connection: Upgrade",
				"Upgrade: h2c",
				framing[0],
			)}${framing[1]}`,
		);
		t.equal(status, 200, framing[0]);
		const call = gate.standIn.calls.at(-1);
		t.equal(call?.body.toString(), body);
		t.notOk(call?.headers.upgrade, "the upgrade is not passed on");
		t.not(call?.headers.connection, "Upgrade");
	}
});

t.test("a reply is never put in the middle of another one", async (t) => {
	const gate = await startGate(t, {
		standIn: { misbehave: () => "stall-mid-stream" },
	});
	const behind: Record<string, string> = {
		"a tunnel": head("CONNECT gate:1 HTTP/1.1", "Host: gate"),
		"a tunnel with a key": head(
			"CONNECT gate:1 HTTP/1.1",
			"Host: gate",
			shows(testKeys.owner),
		),
		"bytes that are no HTTP": "\0\x01\x02\r\n\r\n",
		"a head that is too large": head(
			"GET / HTTP/1.1",
			`X: ${"y".repeat(20_000)}`,
		),
		"a refused request": head("GET / HTTP/1.1", "Host: gate"),
		"an upgrade": head(
			"GET / HTTP/1.1",
			"Host: gate",
			"Connection: Upgrade",
			"Upgrade: websocket",
		),
	};
	for (const [what, bytes] of Object.entries(behind)) {
		for (const late of [false, true]) {
			const client = await openRaw(gate.port);
			const first = post(
				"/api/chat",
				'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
				shows(testKeys.user),
			);
			const stalled = once(gate.standIn.events, "body");
			client.write(late ? first : first + bytes);
			if (late) {
				await client.until((text) => text.includes('"done":false'));
				client.write(bytes);
			}
			// Either the stream goes on undisturbed, or the connection is closed.
			await Promise.race([stalled, client.closed]);
			t.equal(await honestStatus(gate), 200, "an honest request is served");
			const text = client.text();
			const streamAt = text.indexOf("HTTP/1.1 200");
			t.equal(
				text.lastIndexOf("HTTP/1.1 "),
				text === "" ? -1 : streamAt,
				`${what}, ${late ? "in mid-stream" : "at once"}: ${JSON.stringify(text.slice(0, 60))}`,
			);
			client.destroy();
		}
	}
});
