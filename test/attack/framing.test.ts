import t, { type Test } from "tap";
import type { Call } from "../../src/ollama/standIn.ts";
import { startGate, type TestGate, testKeys } from "../support/gate.ts";
import {
	attack,
	chunk,
	framed,
	head,
	hiddenRequest as hidden,
	honestStatus,
	isTurnedAway,
	openRaw,
	post,
	shows,
	strayCalls,
} from "../support/raw.ts";

const body = '{"model":"qwen3:8b","stream":false}';

/** Every request with and without a key: turned away, and what hides behind it never runs. */
async function proveTurnedAway(
	t: Test,
	gate: TestGate,
	what: string,
	build: (key: string | undefined) => string,
): Promise<void> {
	for (const key of [undefined, testKeys.owner]) {
		const client = await openRaw(gate.port);
		client.write(build(key));
		const [first] = await client.untilReplies(1);
		t.ok(
			isTurnedAway({
				status: first?.status ?? 0,
				replies: client.replies(),
				closed: client.isClosed(),
			}),
			`${what}, ${key === undefined ? "without" : "with"} a key (${first?.status ?? "closed"})`,
		);
		// Whatever the gate still makes of the bytes behind, it has made by the time it serves another.
		t.equal(await honestStatus(gate), 200, "an honest request is served");
		t.strictSame(strayCalls(gate), [], `${what}: nothing hidden ran`);
		gate.standIn.calls.length = 0;
		client.destroy();
	}
}

t.test(
	"a length that is not one plain number is turned away, and nothing behind it runs",
	async (t) => {
		const gate = await startGate(t);
		const lengths: Record<string, readonly string[]> = {
			"a plus sign": ["Content-Length: +5"],
			hex: ["Content-Length: 0x5"],
			negative: ["Content-Length: -5"],
			"negative zero": ["Content-Length: -0"],
			empty: ["Content-Length:"],
			words: ["Content-Length: five"],
			"an exponent": ["Content-Length: 5e0"],
			"a fraction": ["Content-Length: 5.0"],
			"a semicolon": ["Content-Length: 5;x"],
			"a vertical tab": ["Content-Length: 5\x0b"],
			"a form feed": ["Content-Length: \x0c5"],
			"a NUL": ["Content-Length: 5\0"],
			"a no-break space": ["Content-Length: 5\xa0"],
			"two numbers": ["Content-Length: 5 5"],
			"underscored digits": ["Content-Length: 1_0"],
			"a list of the same": ["Content-Length: 5, 5"],
			"a list of different ones": ["Content-Length: 5, 50"],
			"a trailing comma": ["Content-Length: 5,"],
			"past 64 bits": ["Content-Length: 18446744073709551621"],
			"past 63 bits": ["Content-Length: 9223372036854775808"],
			"past what is counted exactly": ["Content-Length: 9007199254740992"],
			"a wall of digits": [`Content-Length: ${"9".repeat(400)}`],
			"twice the same": ["Content-Length: 5", "Content-Length: 5"],
			"twice, different": ["Content-Length: 5", "Content-Length: 50"],
			"twice, different case": ["Content-Length: 5", "content-length: 0"],
			"a space before the colon": ["Content-Length : 5"],
			"a tab before the colon": ["Content-Length\t: 5"],
			folded: ["Content-Length:", " 5"],
			"split by a fold": ["Content-Length: 1", " 0"],
			"with Transfer-Encoding behind": [
				"Content-Length: 5",
				"Transfer-Encoding: chunked",
			],
			"with Transfer-Encoding in front": [
				"Transfer-Encoding: chunked",
				"Content-Length: 5",
			],
			"zero with Transfer-Encoding": [
				"Content-Length: 0",
				"Transfer-Encoding: chunked",
			],
		};
		for (const [what, lines] of Object.entries(lengths))
			await proveTurnedAway(t, gate, what, (key) =>
				framed(lines, `hello${hidden}`, key),
			);
	},
);

t.test(
	"a Transfer-Encoding other than chunked is turned away, and nothing behind it runs",
	async (t) => {
		const gate = await startGate(t);
		const codings: Record<string, readonly string[]> = Object.fromEntries(
			[
				"xchunked",
				"chunkedx",
				"chunked, identity",
				"identity",
				"identity, chunked",
				"gzip",
				"gzip, chunked",
				"chunked, gzip",
				"chunked, chunked",
				"chunked,",
				",chunked",
				", chunked",
				"chunked;q=1",
				'"chunked"',
				"'chunked'",
				"chunked\x0b",
				"\x0bchunked",
				"chunked\x0c",
				"chunked\0",
				"chunked\xa0",
				"chun ked",
				"ch*nked",
				"chunk\x65d x",
				"",
			].map((coding) => [
				JSON.stringify(coding),
				[`Transfer-Encoding: ${coding}`],
			]),
		);
		Object.assign(codings, {
			"a space before the colon": ["Transfer-Encoding : chunked"],
			"a tab before the colon": ["Transfer-Encoding\t: chunked"],
			folded: ["Transfer-Encoding:", " chunked"],
			"folded by a tab": ["Transfer-Encoding:", "\tchunked"],
			"twice chunked": [
				"Transfer-Encoding: chunked",
				"Transfer-Encoding: chunked",
			],
			"chunked and identity": [
				"Transfer-Encoding: chunked",
				"Transfer-Encoding: identity",
			],
			"identity and chunked": [
				"Transfer-Encoding: identity",
				"Transfer-Encoding: chunked",
			],
			"another and chunked": [
				"Transfer-Encoding: cow",
				"transfer-encoding: chunked",
			],
			"a line in front": [" Transfer-Encoding: chunked", "X: y"],
			"behind a bare CR": ["X: y\rTransfer-Encoding: chunked"],
			"behind a bare LF": ["X: y\nTransfer-Encoding: chunked"],
			"behind a NUL": ["X: y\0\r\nTransfer-Encoding: chunked"],
		});
		for (const [what, lines] of Object.entries(codings))
			await proveTurnedAway(t, gate, what, (key) =>
				framed(lines, `${chunk(body)}0\r\n\r\n${hidden}`, key),
			);
	},
);

t.test(
	"another version of HTTP has no Transfer-Encoding (RFC 9112, 6.1), and nothing behind it runs",
	async (t) => {
		const gate = await startGate(t);
		for (const version of ["1.0", "2.0", "0.9"])
			await proveTurnedAway(t, gate, `HTTP/${version}`, (key) =>
				framed(
					["Transfer-Encoding: chunked"],
					`${chunk(body)}0\r\n\r\n${hidden}`,
					key,
					version,
				),
			);
	},
);

t.test(
	"a chunk that is not written plainly ends the connection before Ollama has a whole request",
	async (t) => {
		const gate = await startGate(t);
		const whole: Call[] = [];
		gate.standIn.events.on("body", (call) => whole.push(call));
		const bodies: Record<string, string> = {
			"a size that is no number": "zz\r\nhello\r\n0\r\n\r\n",
			"a negative size": "-5\r\nhello\r\n0\r\n\r\n",
			"a signed size": "+5\r\nhello\r\n0\r\n\r\n",
			"a hex prefix": "0x5\r\nhello\r\n0\r\n\r\n",
			"a size past 64 bits": "10000000000000005\r\nhello\r\n0\r\n\r\n",
			"a wall of digits": `${"F".repeat(1_000)}\r\nhello\r\n0\r\n\r\n`,
			"no size": "\r\nhello\r\n0\r\n\r\n",
			"a space behind the size": "5 \r\nhello\r\n0\r\n\r\n",
			"a space before the size": " 5\r\nhello\r\n0\r\n\r\n",
			"a tab behind the size": "5\t\r\nhello\r\n0\r\n\r\n",
			"an underscore": "0_5\r\nhello\r\n0\r\n\r\n",
			"an extension ended by LF": "5;x\nhello\r\n0\r\n\r\n",
			"an extension with CR": "5;x\rhello\r\n0\r\n\r\n",
			"an extension with NUL": "5;x\0\r\nhello\r\n0\r\n\r\n",
			"an endless extension": `5;${"x".repeat(100_000)}\r\nhello\r\n0\r\n\r\n`,
			"bare LF": "5\nhello\n0\n\n",
			"LF behind the size": "5\nhello\r\n0\r\n\r\n",
			"LF behind the data": "5\r\nhello\n0\r\n\r\n",
			"LF behind the last chunk": "5\r\nhello\r\n0\n\r\n",
			"LF at the end": "5\r\nhello\r\n0\r\n\n",
			"bare CR": "5\rhello\r0\r\r",
			"more data than the size": "5\r\nhelloXX\r\n0\r\n\r\n",
			"less data than the size": "9\r\nhello\r\n0\r\n\r\n",
			"no line end behind the data": "5\r\nhello0\r\n\r\n",
			"a last chunk with a tail": "5\r\nhello\r\n0x\r\n\r\n",
			"a trailer without colon": "5\r\nhello\r\n0\r\nX y\r\n\r\n",
			"a trailer with a bare LF": "5\r\nhello\r\n0\r\nX: y\nZ: z\r\n\r\n",
			"a trailer that is too long": `5\r\nhello\r\n0\r\nX: ${"y".repeat(100_000)}\r\n\r\n`,
		};
		for (const [what, chunks] of Object.entries(bodies)) {
			for (const key of [undefined, testKeys.owner]) {
				const client = await openRaw(gate.port);
				client.write(
					framed(["Transfer-Encoding: chunked"], `${chunks}${hidden}`, key),
				);
				await client.closed;
				const statuses = client.replies().map(({ status }) => status);
				t.ok(
					statuses.every((status) => status >= 400 && status < 500),
					`${what} (${statuses.join(", ") || "closed"})`,
				);
			}
		}
		t.equal(await honestStatus(gate), 200, "an honest request is served");
		t.strictSame(
			whole
				.map(({ target }) => target)
				.filter((target) => target !== "/api/version"),
			[],
			"Ollama never had a whole request of these",
		);
	},
);

t.test(
	"a chunked body reaches Ollama without what stood around it",
	async (t) => {
		const gate = await startGate(t);
		const half = Math.floor(body.length / 2);
		const variants = {
			"in one chunk": `${chunk(body)}0\r\n\r\n`,
			"in many": `${[...body].map((byte) => chunk(byte)).join("")}0\r\n\r\n`,
			"with leading zeros": `0000${chunk(body)}000\r\n\r\n`,
			"with an extension": `${chunk(body).replace("\r\n", ';name="value"\r\n')}0;last\r\n\r\n`,
			"with a trailer": `${chunk(body.slice(0, half))}${chunk(body.slice(half))}0\r\nX-Api-Key: x\r\nHost: y\r\n\r\n`,
		};
		for (const [what, chunks] of Object.entries(variants)) {
			const { status } = await attack(
				gate,
				framed(["Transfer-Encoding: chunked"], chunks, testKeys.user),
			);
			t.equal(status, 200, what);
			const call = gate.standIn.calls.at(-1);
			t.equal(call?.body.toString(), body, `${what}: the body and no more`);
			t.notOk(call?.headers["x-api-key"], `${what}: no trailer`);
		}
	},
);

t.test("optional whitespace is no part of a length", async (t) => {
	const gate = await startGate(t);
	for (const length of [
		`${body.length} `,
		`  ${body.length}`,
		`\t${body.length}\t`,
		`00${body.length}`,
	]) {
		const client = await openRaw(gate.port);
		client.write(
			framed(
				[`Content-Length: ${length}`],
				body +
					head("GET /api/version HTTP/1.1", "Host: x", shows(testKeys.reader)),
				testKeys.user,
			),
		);
		const replies = await client.untilReplies(2);
		t.strictSame(
			replies.map(({ status }) => status),
			[200, 200],
			JSON.stringify(length),
		);
		const call = gate.standIn.calls.find(
			({ target }) => target === "/api/embed",
		);
		t.equal(call?.body.toString(), body);
		t.equal(call?.headers["content-length"], String(body.length));
		gate.standIn.calls.length = 0;
		client.destroy();
	}
});

t.test(
	"lines that do not end in CR LF, and folded ones, are turned away",
	async (t) => {
		const gate = await startGate(t);
		const key = shows(testKeys.owner);
		const requests: Record<string, string> = {
			"LF everywhere": `GET /api/tags HTTP/1.1\nHost: gate\n${key}\n\n`,
			"LF behind the request line": `GET /api/tags HTTP/1.1\nHost: gate\r\n${key}\r\n\r\n`,
			"LF behind a header": `GET /api/tags HTTP/1.1\r\nHost: gate\n${key}\r\n\r\n`,
			"LF as the empty line": `GET /api/tags HTTP/1.1\r\nHost: gate\r\n${key}\r\n\n`,
			"CR everywhere": `GET /api/tags HTTP/1.1\rHost: gate\r${key}\r\r`,
			"CR behind a header": `GET /api/tags HTTP/1.1\r\nHost: gate\r${key}\r\n\r\n`,
			"CR in a value": `GET /api/tags HTTP/1.1\r\nHost: gate\r\nX: a\rb\r\n${key}\r\n\r\n`,
			"CR CR LF": `GET /api/tags HTTP/1.1\r\nHost: gate\r\r\n${key}\r\n\r\n`,
			"LF CR": `GET /api/tags HTTP/1.1\n\rHost: gate\n\r${key}\n\r\n\r`,
			"a folded header": `GET /api/tags HTTP/1.1\r\nHost: gate\r\nX: a\r\n b\r\n${key}\r\n\r\n`,
			"a fold by tab": `GET /api/tags HTTP/1.1\r\nHost: gate\r\nX: a\r\n\tb\r\n${key}\r\n\r\n`,
			"a folded key": `GET /api/tags HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer\r\n ${testKeys.owner}\r\n\r\n`,
			"a key in two lines": `GET /api/tags HTTP/1.1\r\nHost: gate\r\nX-Api-Key: ${testKeys.owner.slice(0, 30)}\r\n ${testKeys.owner.slice(30)}\r\n\r\n`,
			"a fold in front of all headers": `GET /api/tags HTTP/1.1\r\n ${key}\r\nHost: gate\r\n\r\n`,
			"a NUL in a value": `GET /api/tags HTTP/1.1\r\nHost: gate\r\nX: a\0b\r\n${key}\r\n\r\n`,
			"a header without a name": `GET /api/tags HTTP/1.1\r\nHost: gate\r\n: x\r\n${key}\r\n\r\n`,
			"a header without a colon": `GET /api/tags HTTP/1.1\r\nHost: gate\r\nX\r\n${key}\r\n\r\n`,
			"a space in front": ` GET /api/tags HTTP/1.1\r\nHost: gate\r\n${key}\r\n\r\n`,
		};
		for (const [what, bytes] of Object.entries(requests)) {
			const outcome = await attack(gate, bytes);
			t.ok(isTurnedAway(outcome), `${what} (${outcome.status})`);
		}
		t.equal(await honestStatus(gate), 200, "an honest request is served");
		t.strictSame(strayCalls(gate), [], "nothing else reached Ollama");
	},
);

t.test(
	"empty lines in front of a request are skipped (RFC 9112, 2.2)",
	async (t) => {
		const gate = await startGate(t);
		const { status } = await attack(gate, `\r\n\r\n\r\n${hidden}`);
		t.equal(status, 200);
		t.equal(
			(await attack(gate, `\r\n\r\n${head("GET / HTTP/1.1", "Host: x")}`))
				.status,
			401,
		);
	},
);

t.test(
	"a request hidden in the body of a refused one never runs",
	async (t) => {
		const gate = await startGate(t);
		const carriers: Record<string, string> = {
			"without a key": post("/api/embed", hidden),
			"with a wrong key": post("/api/embed", hidden, shows(testKeys.wrong)),
			"without the scope": post("/api/pull", hidden, shows(testKeys.user)),
			"of an unknown path": post("/api/nothing", hidden, shows(testKeys.owner)),
			"of a wrong method": post("/api/tags", hidden, shows(testKeys.owner)),
			"of a coded body": post(
				"/api/embed",
				hidden,
				shows(testKeys.owner),
				"Content-Encoding: gzip",
			),
			"that waits for 100": post("/api/embed", hidden, "Expect: 100-continue"),
			"with an odd Expect": post("/api/embed", hidden, "Expect: 200-ok"),
			"in a chunk": framed(
				["Transfer-Encoding: chunked"],
				`${chunk(hidden)}0\r\n\r\n`,
			),
			"that Ollama refuses": post("/api/embed", hidden, shows(testKeys.user)),
		};
		for (const [what, bytes] of Object.entries(carriers)) {
			const client = await openRaw(gate.port);
			client.write(bytes);
			const [first] = await client.untilReplies(1);
			t.ok(
				first !== undefined && first.status >= 400 && first.status < 500,
				`${what} (${first?.status})`,
			);
			// A second reply on the connection would be the hidden request's.
			client.write(
				head("GET /api/version HTTP/1.1", "Host: gate", "Connection: close"),
			);
			await client.closed;
			t.ok(
				client.replies().every(({ status }) => status >= 400),
				`${what}: nothing is answered with 200`,
			);
		}
		t.equal(await honestStatus(gate), 200, "an honest request is served");
		t.strictSame(
			strayCalls(gate),
			["POST /api/embed"],
			"only the one with a key reached Ollama, as a body",
		);
	},
);

t.test(
	"100 Continue is said to a good request and to nobody else",
	async (t) => {
		const gate = await startGate(t, { config: { limits: { body: "1MiB" } } });
		const waiting = (target: string, length: number, ...lines: string[]) =>
			head(
				`POST ${target} HTTP/1.1`,
				"Host: gate",
				"Expect: 100-continue",
				`Content-Length: ${length}`,
				...lines,
			);
		const owner = shows(testKeys.owner);
		const refused: Record<string, [string, number]> = {
			"without a key": [waiting("/api/embed", 10), 401],
			"with a wrong key": [
				waiting("/api/embed", 10, shows(testKeys.wrong)),
				401,
			],
			"without the scope": [
				waiting("/api/pull", 10, shows(testKeys.user)),
				403,
			],
			"for an unknown path": [waiting("/api/nothing", 10, owner), 404],
			"for a wrong method": [waiting("/api/tags", 10, owner), 405],
			"for too large a body": [waiting("/api/embed", 2 ** 20 + 1, owner), 413],
			"for a coded body": [
				waiting("/api/embed", 10, owner, "Content-Encoding: zstd"),
				415,
			],
		};
		for (const [what, [bytes, status]] of Object.entries(refused)) {
			const client = await openRaw(gate.port);
			client.write(bytes);
			const [reply] = await client.untilReplies(1);
			t.equal(reply?.status, status, what);
			t.equal(client.replies().length, 1, `${what}: no 100 before it`);
			// A client that holds its body back would send its next request where the body was due.
			t.equal(reply?.headers.connection, "close", `${what}: and closed`);
			await client.closed;
		}
		for (const expectation of [
			"100-continue, 100-continue",
			"x100-continue",
			"200-ok",
			"100-continue;x",
			"junk",
			"",
		]) {
			const bytes = post("/api/embed", body, owner, `Expect: ${expectation}`);
			const { status, replies } = await attack(gate, bytes);
			t.equal(status, 417, `Expect: ${expectation}`);
			t.equal(replies.length, 1, "no 100 before it");
			const stranger = await attack(gate, bytes.replace(`${owner}\r\n`, ""));
			t.equal(stranger.status, 401, `Expect: ${expectation}, without a key`);
		}
		t.strictSame(strayCalls(gate), [], "nothing has reached Ollama");

		for (const spelling of ["100-continue", "100-Continue"]) {
			const client = await openRaw(gate.port);
			client.write(
				waiting("/api/embed", body.length, owner).replace(
					"100-continue",
					spelling,
				),
			);
			await client.until((text) => text.includes("100 Continue"));
			t.strictSame(
				client.replies().map(({ status }) => status),
				[100],
			);
			client.write(body);
			const [reply] = await client.untilReplies(1);
			t.equal(reply?.status, 200, "a good request");
			t.notOk(
				gate.standIn.calls.at(-1)?.headers.expect,
				"the gate waits for no one itself",
			);
			client.destroy();
		}
	},
);
