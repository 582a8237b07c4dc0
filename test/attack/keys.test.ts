import t, { type Test } from "tap";
import { digestOf, generateKey } from "../../src/keys/newKey.ts";
import { startGate, type TestGate, testKeys } from "../support/gate.ts";
import {
	attack,
	head,
	honestStatus,
	openRaw,
	shows,
	strayCalls,
} from "../support/raw.ts";

const right = testKeys.reader;
/** Guesses are counted elsewhere; here nobody is locked out. */
const patient = { config: { limits: { authFailures: { max: 1_000_000 } } } };

function basic(userAndPassword: string): string {
	return `Authorization: Basic ${Buffer.from(userAndPassword, "latin1").toString("base64")}`;
}

function get(...lines: readonly string[]): string {
	return head("GET /api/tags HTTP/1.1", "Host: gate", ...lines);
}

/** The statuses of many requests, fifty to a connection. */
async function statusesOf(
	gate: TestGate,
	requests: readonly string[],
): Promise<number[]> {
	const statuses: number[] = [];
	for (let start = 0; start < requests.length; start += 50) {
		const client = await openRaw(gate.port);
		let count = 0;
		for (const request of requests.slice(start, start + 50)) {
			client.write(request);
			await client.untilReplies(++count);
		}
		client.destroy();
		statuses.push(...client.replies().map(({ status }) => status));
	}
	return statuses;
}

/** Proves that each of these is 401, and that none of them reached Ollama. */
async function proveUnknown(
	t: Test,
	gate: TestGate,
	lines: readonly string[],
): Promise<void> {
	const statuses = await statusesOf(
		gate,
		lines.map((line) => get(line)),
	);
	for (const [index, line] of lines.entries())
		t.equal(statuses[index], 401, JSON.stringify(line.slice(0, 120)));
	t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
	t.equal(await honestStatus(gate), 200, "an honest request is served");
}

t.test("a key of any other length is unknown", async (t) => {
	const gate = await startGate(t, patient);
	const lengths = [
		...Array.from({ length: 201 }, (_, length) => length),
		511,
		512,
		513,
		1_024,
		8_000,
	];
	const lines = lengths.flatMap((length) => {
		// The right key, cut or drawn out to the length.
		const key = right.repeat(Math.ceil(length / right.length)).slice(0, length);
		return key === right
			? []
			: [shows(key), `X-Api-Key: ${key}`, basic(`user:${key}`)];
	});
	await proveUnknown(t, gate, lines);
});

t.test(
	"a key with one byte changed is unknown, wherever the byte",
	async (t) => {
		const gate = await startGate(t, patient);
		const lines = [...right].flatMap((byte, at) => {
			const next = String.fromCharCode(byte.charCodeAt(0) ^ 1);
			const high = String.fromCharCode(byte.charCodeAt(0) | 0x80);
			return [next, high, ""].map((other) =>
				shows(right.slice(0, at) + other + right.slice(at + 1)),
			);
		});
		await proveUnknown(t, gate, lines);
	},
);

t.test(
	"a key is bytes: its case, its ends and its look-alikes count",
	async (t) => {
		const gate = await startGate(t, patient);
		const others = [
			right.toUpperCase(),
			right.replace("lg_", "LG_"),
			right.replace("lg_", "Lg_"),
			right.replace("lg_", ""),
			right.replace("lg_", "lg-"),
			`lg_${right}`,
			`${right}=`,
			`${right}.`,
			`${right},`,
			`${right};`,
			`${right}\xa0`,
			`${right}\xff`,
			`\xef\xbb\xbf${right}`,
			right.replace("1", "\xef\xbc\x91"),
			`"${right}"`,
			`<${right}>`,
			`%6cg_${right.slice(3)}`,
			[...right].reverse().join(""),
			digestOf(right),
			Buffer.from(right).toString("base64"),
			Buffer.from(right).toString("hex"),
			"undefined",
			"null",
			"*",
			"[object_Object]",
			"__proto__",
			"constructor",
			"reader",
			"0".repeat(64),
			"lg_",
		];
		await proveUnknown(t, gate, [
			...others.map((key) => shows(key)),
			...others.map((key) => `X-Api-Key: ${key}`),
			...others.map((key) => basic(`user:${key}`)),
			`X-Api-Key: Bearer ${right}`,
			`X-Api-Key: ${right} x`,
			`X-Api-Key: ${right},${right}`,
			`X-Api-Key: ${right}, ${right}`,
		]);
	},
);

t.test("a control byte in a key ends the connection", async (t) => {
	const gate = await startGate(t, patient);
	for (const key of [
		`${right}\0`,
		`\0${right}`,
		`${right}\r`,
		`${right}\n\n`,
		`${right}\x7f`,
		`\x1b${right}`,
	]) {
		for (const line of [shows(key), `X-Api-Key: ${key}`]) {
			const { status, replies } = await attack(gate, get(line));
			t.equal(status, 400, JSON.stringify(line));
			t.equal(replies[0]?.headers.connection, "close");
		}
	}
	t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
	t.equal(await honestStatus(gate), 200, "an honest request is served");
});

t.test("an Authorization of another form lets nobody in", async (t) => {
	const gate = await startGate(t, patient);
	await proveUnknown(t, gate, [
		"Authorization:",
		"Authorization: Bearer",
		"Authorization: Basic",
		`Authorization: ${right}`,
		`Authorization: Bearer${right}`,
		`Authorization: Bearer\t${right}`,
		`Authorization: Bearer\xa0${right}`,
		`Authorization: Bearer ${right} ${right}`,
		`Authorization: Bearer ${right}, Bearer ${right}`,
		`Authorization: Bearer ${right},Basic eA==`,
		`Authorization: Bearer: ${right}`,
		`Authorization: Bearer token=${right}`,
		`Authorization: Bearer Bearer ${right}`,
		`Authorization: Bearer realm="llamagate" ${right}`,
		`Authorization: XBearer ${right}`,
		`Authorization: BearerX ${right}`,
		`Authorization: Token ${right}`,
		`Authorization: Key ${right}`,
		`Authorization: ApiKey ${right}`,
		`Authorization: Digest username="x", response="${right}"`,
		`Authorization: Negotiate ${right}`,
		`Authorization: AWS4-HMAC-SHA256 ${right}`,
		`Authorization: none ${right}`,
		// the form of the stock CLI's signature, which this version does not know
		`Authorization: ${"A".repeat(68)}:${"A".repeat(86)}==`,
	]);
});

t.test("the scheme's name is read in any case (RFC 9110, 11.1)", async (t) => {
	const gate = await startGate(t);
	const password = Buffer.from(`user:${right}`).toString("base64");
	const lines = [
		`Authorization: bearer ${right}`,
		`Authorization: BEARER ${right}`,
		`Authorization: bEaReR ${right}`,
		`Authorization: Bearer   ${right}`,
		`Authorization:Bearer ${right}`,
		`Authorization: Bearer ${right}  \t`,
		`X-Api-Key:${right}`,
		`x-api-key: ${right} `,
		`Authorization: basic ${password}`,
		`Authorization: BASIC ${password}`,
		basic(`:${right}`),
		basic(`anyone at all:${right}`),
	];
	t.strictSame(
		await statusesOf(
			gate,
			lines.map((line) => get(line)),
		),
		lines.map(() => 200),
	);
});

t.test("Basic that is malformed lets nobody in", async (t) => {
	const gate = await startGate(t, patient);
	const encoded = Buffer.from(`user:${right}`).toString("base64");
	await proveUnknown(t, gate, [
		"Authorization: Basic !!!!",
		"Authorization: Basic =",
		"Authorization: Basic ====",
		"Authorization: Basic Og==",
		`Authorization: Basic user:${right}`,
		`Authorization: Basic ${encoded} ${encoded}`,
		`Authorization: Basic ${encoded},${encoded}`,
		`Authorization: Basic ${encoded.slice(1)}`,
		`Authorization: Basic ${encoded.slice(0, -4)}`,
		`Authorization: Basic x${encoded}`,
		`Authorization: Basic ${encodeURIComponent(":")}${encoded}`,
		basic(right),
		basic(`${right}:`),
		basic(`${right}:x`),
		basic(`user:${right}:`),
		basic(`user::${right}`),
		basic(`user:x:${right}`),
		basic(`user:${right}\n`),
		basic(`user:${right}\0`),
		basic(`user: ${right}`),
		basic("user:"),
		basic(":"),
		basic(""),
		basic(`Bearer ${right}`),
		basic(`user:${"k".repeat(5_000)}`),
	]);
});

const known = shows(right);
const unknown = shows(testKeys.wrong);
const other = testKeys.owner;

t.test("of several keys the one that is known counts", async (t) => {
	const gate = await startGate(t);
	const sets: Record<string, readonly string[]> = {
		"the same twice": [known, known],
		"right, then wrong": [known, unknown],
		"wrong, then right": [unknown, known],
		"right, then empty": [known, "Authorization:"],
		"empty, then right": ["Authorization:", known],
		"Bearer and Basic": [known, basic(`:${right}`)],
		"in two cases": [known, known.toLowerCase()],
		"three times": [unknown, known, known],
		"a hundred times": Array(100).fill(known),
		"apart from each other": [known, "Accept: */*", known],
		"x-api-key twice": [`X-Api-Key: ${right}`, `X-Api-Key: ${right}`],
		"x-api-key right, then wrong": [
			`X-Api-Key: ${right}`,
			`X-Api-Key: ${testKeys.wrong}`,
		],
		"x-api-key wrong, then right": [
			`X-Api-Key: ${testKeys.wrong}`,
			`X-Api-Key: ${right}`,
		],
		"both headers": [known, `X-Api-Key: ${right}`],
		"Authorization right, x-api-key wrong": [
			known,
			`X-Api-Key: ${testKeys.wrong}`,
		],
		"Authorization wrong, x-api-key right": [unknown, `X-Api-Key: ${right}`],
		"x-api-key right, Authorization wrong": [`X-Api-Key: ${right}`, unknown],
		"x-api-key empty": [known, "X-Api-Key:"],
		"another scheme beside it": [
			"Authorization: Digest x",
			`X-Api-Key: ${right}`,
		],
		"malformed Basic beside it": [
			"Authorization: Basic !!!!",
			`X-Api-Key: ${right}`,
		],
		"a key that is too long beside it": [
			known,
			`X-Api-Key: ${"k".repeat(5_000)}`,
		],
		"a signature of nobody's beside it": [
			`Authorization: ${"A".repeat(68)}:${"A".repeat(85)}A==`,
			`X-Api-Key: ${right}`,
		],
	};
	for (const [what, lines] of Object.entries(sets)) {
		const { status } = await attack(gate, get(...lines));
		t.equal(status, 200, what);
	}
	t.notOk(
		gate.log.some(({ event }) => event === "auth_failed"),
		"what is unknown beside a known one is passed over",
	);
	t.ok(gate.log.every(({ key }) => key === undefined || key === "reader"));
});

t.test("two different known keys let nobody in", async (t) => {
	const gate = await startGate(t, patient);
	const sets: Record<string, readonly string[]> = {
		"in Authorization": [known, shows(other)],
		"turned round": [shows(other), known],
		"in two headers": [known, `X-Api-Key: ${other}`],
		"by Basic": [basic(`:${right}`), `X-Api-Key: ${other}`],
		"with an unknown one": [unknown, known, `X-Api-Key: ${other}`],
		"three of them": [known, shows(other), shows(testKeys.user)],
	};
	for (const [what, lines] of Object.entries(sets)) {
		const { status, replies } = await attack(gate, get(...lines));
		t.equal(status, 401, what);
		t.match(replies[0]?.body, /two different keys were sent/, what);
	}
	t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
	t.equal(await honestStatus(gate), 200, "an honest request is served");
});

t.test("no more than eight keys of a request are looked at", async (t) => {
	const gate = await startGate(t, patient);
	const wrongs = (count: number) =>
		Array.from({ length: count }, () => shows(generateKey()));
	t.equal((await attack(gate, get(...wrongs(7), known))).status, 200);
	for (const lines of [
		[...wrongs(8), known],
		[known, ...wrongs(8)],
		[...wrongs(100), known],
	]) {
		const { status, replies } = await attack(gate, get(...lines));
		t.equal(status, 401);
		t.match(replies[0]?.body, /more than 8 different keys/);
	}
	t.strictSame(gate.log.map(({ reason }) => reason).filter(Boolean), [
		"unclear_key",
		"unclear_key",
		"unclear_key",
	]);
});

t.test("each wrong key of a request is a guess of its own", async (t) => {
	const gate = await startGate(t);
	const guess = () =>
		get(
			...Array.from({ length: 5 }, () => shows(generateKey())),
			`X-Api-Key: ${testKeys.wrong}`,
		);
	t.equal((await attack(gate, guess(), "127.0.0.2")).status, 401);
	t.equal((await attack(gate, guess(), "127.0.0.2")).status, 401);
	t.equal(
		gate.log.filter(({ event }) => event === "auth_failed").length,
		11,
		"each has a line, and the one that came twice has one",
	);
	t.equal((await attack(gate, get(known), "127.0.0.2")).status, 429);
});

t.test(
	"a key and the one that replaced it are one key; the newer rules",
	async (t) => {
		const gate = await startGate(t, {
			keys: [
				{
					name: "laptop",
					sha256: digestOf(right),
					previous: [
						{ sha256: digestOf(other), expires: "2020-01-01T00:00:00Z" },
						{
							sha256: digestOf(testKeys.user),
							expires: "2999-01-01T00:00:00Z",
						},
					],
				},
			],
		});
		for (const old of [other, testKeys.user])
			for (const lines of [
				[known, `X-Api-Key: ${old}`],
				[shows(old), `X-Api-Key: ${right}`],
			])
				t.equal((await attack(gate, get(...lines))).status, 200);
	},
);

t.test(
	"a canary beside a good key is told of, and not to its finder",
	async (t) => {
		const gate = await startGate(t, {
			keys: [
				{ name: "reader", sha256: digestOf(right), scopes: ["read"] },
				{ name: "trap", sha256: digestOf(other), canary: true },
			],
		});
		for (const stranger of [other, testKeys.wrong])
			t.equal(
				(await attack(gate, get(known, `X-Api-Key: ${stranger}`))).status,
				200,
			);
		t.strictSame(
			gate.log
				.filter(({ event }) => event !== undefined)
				.map(({ event, key }) => [event, key]),
			[["canary_used", "trap"]],
		);
	},
);

t.test("who sends the key elsewhere is told where it goes", async (t) => {
	const gate = await startGate(t, patient);
	const told: readonly (readonly [string, RegExp])[] = [
		[
			get(),
			/^\{"error":"a key is needed: send it as Authorization: Bearer KEY"\}$/,
		],
		[get(`x-goog-api-key: ${right}`), /x-goog-api-key is not read here/],
		[get(`api-key: ${right}`), /; api-key is not read here/],
		[get(`Proxy-Authorization: Bearer ${right}`), /proxy-authorization is not/],
		[
			get().replace("tags", `tags?key=${right}`),
			/a key in the URL is not read/,
		],
		[
			get().replace("tags", `tags?alt=sse&api_key=${right}`),
			/a key in the URL is not read/,
		],
		[get("Authorization: Bearer"), /the header came without one/],
		[get("X-Api-Key:"), /the header came without one/],
	];
	for (const [request, says] of told) {
		const { status, replies } = await attack(gate, request);
		t.equal(status, 401);
		t.match(replies[0]?.body, says);
		t.notMatch(replies[0]?.body, right, "the key is not repeated");
	}
	t.notMatch(JSON.stringify(gate.log), right, "nor logged");
});

t.test("a refused key is not to be tried again", async (t) => {
	const gate = await startGate(t, {
		config: { limits: { authFailures: { max: 1 } } },
	});
	for (const path of ["/api/tags", "/v1/models", "/v1/messages"]) {
		const post = (...lines: readonly string[]) =>
			head(`POST ${path} HTTP/1.1`, "Host: gate", ...lines);
		for (const [status, request] of [
			[401, post()],
			[401, post("Authorization: Digest x")],
			[
				403,
				post(shows(testKeys.reader))
					.replace("tags", "pull")
					.replace("models", "completions"),
			],
		] as const) {
			const { replies } = await attack(gate, request);
			t.equal(replies[0]?.status, status, `${path} ${status}`);
			t.equal(replies[0]?.headers["x-should-retry"], "false");
		}
	}
	const tunnel = await attack(
		gate,
		head("CONNECT gate:1 HTTP/1.1", "Host: gate"),
	);
	t.equal(tunnel.replies[0]?.headers["x-should-retry"], "false");
	t.equal((await attack(gate, get(unknown))).status, 401);
	const locked = await attack(gate, get(known));
	t.equal(locked.status, 429);
	t.notOk(locked.replies[0]?.headers["x-should-retry"], "this one is, later");
});

t.test("a refusal says nothing about how near a key was", async (t) => {
	const gate = await startGate(t, patient);
	const shape = async (line: string) => {
		const { status, replies } = await attack(gate, get(line));
		const { body = "", headers = {} } = replies[0] ?? {};
		const {
			"x-request-id": _id,
			date: _date,
			...rest
		} = headers as Record<string, string>;
		return { status, body, rest };
	};
	const wrong = await shape(shows(testKeys.wrong));
	for (const key of [
		"x",
		right.slice(0, -1),
		`${right}x`,
		`${right.slice(0, -1)}!`,
		testKeys.owner.slice(0, 40),
		"k".repeat(600),
	])
		t.strictSame(await shape(shows(key)), wrong, key.slice(0, 20));
});

t.test("a key that has expired, or is gone, opens nothing", async (t) => {
	const gate = await startGate(t, {
		keys: [
			{
				name: "old",
				sha256: digestOf(testKeys.user),
				expires: "2020-01-01T00:00:00Z",
			},
			{
				name: "rotated",
				sha256: digestOf(testKeys.reader),
				scopes: ["read"],
				previous: [
					{
						sha256: digestOf(testKeys.worker),
						expires: "2020-01-01T00:00:00Z",
					},
				],
			},
		],
	});
	for (const [key, status, says] of [
		[testKeys.user, 403, /the key "old" expired on 2020-01-01/],
		[testKeys.worker, 403, /the key "rotated" was replaced on 2020-01-01/],
		[testKeys.owner, 401, /not known here/],
	] as const) {
		const outcome = await attack(gate, get(shows(key)));
		t.equal(outcome.status, status);
		t.match(outcome.replies[0]?.body.replaceAll('\\"', '"'), says);
	}
	t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
	t.equal(await honestStatus(gate), 200, "an honest request is served");
});
