import t from "tap";
import { startGate, testKeys } from "../support/gate.ts";
import {
	attack,
	head,
	honestStatus,
	isTurnedAway,
	post,
	shows,
	strayCalls,
} from "../support/raw.ts";

const body = '{"model":"qwen3:8b","stream":false}';

/** Ways to write `/api/chat` and its like that some reader takes for the plain one. */
const spellings = [
	// percent-encoding, once, twice, overlong, of the dots and slashes too
	"/api/%63hat",
	"/api/%63%68%61%74",
	"/%61pi/chat",
	"/api%2fchat",
	"/api%2Fchat",
	"%2fapi%2fchat",
	"/api/%2563hat",
	"/api/%252563hat",
	"/api/%c1%a3hat",
	"/api/%e0%81%a3hat",
	"/api/%u0063hat",
	"/api/%uff43hat",
	"/api/ch%at",
	"/api/chat%",
	"/api/chat%00",
	"/api/chat%20",
	"/api/chat%0d%0aX-Api-Key:%20x",
	"/api/chat%3fx",
	"/api/chat%23",
	"/api/%2e/chat",
	"/api/x/%2e%2e/chat",
	"/api%5cchat",
	// slashes and dots
	"//api/chat",
	"/api//chat",
	"///api///chat",
	"/./api/chat",
	"/api/./chat",
	"/api/x/../chat",
	"/../api/chat",
	"/v1/../api/chat",
	"/api/..;/api/chat",
	"/api/.../chat",
	"/api/chat/",
	"/api/chat//",
	"/api/chat/.",
	"/api/chat/x/..",
	"/api\\chat",
	"\\api\\chat",
	"/api/x\\..\\chat",
	// case, parameters, fragments, tails, other prefixes
	"/API/chat",
	"/Api/Chat",
	"/api/CHAT",
	"/api/chat;x=1",
	"/api;x=1/chat",
	"/api/chat;",
	"/api/chat#x",
	"/api/chat#/api/tags",
	"/api/chat.",
	"/api/chat.json",
	"/api/chat,",
	"/api/chat*",
	"/api/chat+",
	"/api/chat:",
	"/api/chat&x",
	"/api/*",
	"/ollama/api/chat",
	"/proxy/api/chat",
	"/v1/chat/completions/",
	"/v1//chat/completions",
	"/V1/chat/completions",
	// parameters that reach past their segment
	"/v1/models/",
	"/v1/models/.",
	"/v1/models/..",
	"/v1/models/...",
	"/v1/models/../../api/chat",
	"/v1/models/a/b",
	"/v1/models/a%2fb",
	"/v1/models/a%00b",
	"/v1/models/a\\b",
	"/v1/models/a;b",
	"/v1/models/$&",
	`/v1/models/${"a".repeat(257)}`,
	"/api/blobs/sha256:0123",
	`/api/blobs/sha256:${"AB".repeat(32)}`,
	`/api/blobs/sha256:${"ab".repeat(32)}/`,
	`/api/blobs/sha256:${"ab".repeat(32)}/../../chat`,
	"/api/user/keys/",
	"/api/user/keys/../../chat",
	// other forms of a target (RFC 9112, 3.2)
	"http://gate/api/chat",
	"HTTP://gate/api/chat",
	"http://127.0.0.1:11434/api/chat",
	"https://gate/api/chat",
	"http:/api/chat",
	"http:///api/chat",
	"http://user:password@gate/api/chat",
	"ws://gate/api/chat",
	"file:///api/chat",
	"//gate/api/chat",
	"gate:11434",
	"gate/api/chat",
	"api/chat",
	"*",
	"?/api/chat",
	"#",
	// bytes that no target may hold
	"/api/chat\0",
	"/api/\0chat",
	"/api/\x01chat",
	"/api/chat\x7f",
	"/api/chat\x0b",
	"/api/chat\t",
	"/api/chat\x85",
	"/api/ch\xe1t",
	"/api/\xef\xbd\x83hat",
	"/api/chat x",
	"/api/chat\rX: y",
	"/api/chat\nX: y",
];

t.test(
	"another spelling of a path is turned away, even with a key that may do everything",
	async (t) => {
		const gate = await startGate(t);
		for (const target of spellings) {
			for (const method of ["GET", "POST", "DELETE"]) {
				const bytes = post(target, body, shows(testKeys.owner)).replace(
					/^POST/,
					method,
				);
				const outcome = await attack(gate, bytes);
				t.ok(
					isTurnedAway(outcome),
					`${method} ${JSON.stringify(target)} (${outcome.status})`,
				);
			}
		}
		t.equal(await honestStatus(gate), 200, "an honest request is served");
		t.strictSame(strayCalls(gate), [], "nothing else reached Ollama");
	},
);

t.test(
	"without a key another spelling of a path is told nothing about it",
	async (t) => {
		const gate = await startGate(t);
		for (const target of spellings) {
			const { status, replies } = await attack(gate, post(target, body));
			// 400 is the parser's word: these bytes are no request.
			t.ok(
				status === 401 || status === 400,
				`${JSON.stringify(target)} (${status})`,
			);
			t.notMatch(replies[0]?.body, /path|route|method/, JSON.stringify(target));
		}
		t.equal(await honestStatus(gate), 200, "an honest request is served");
		t.strictSame(strayCalls(gate), [], "nothing else reached Ollama");
	},
);

t.test("a target of any length is answered", async (t) => {
	const gate = await startGate(t);
	const targets = [
		`/api/chat${"/".repeat(8_000)}`,
		`/${"a".repeat(15_000)}`,
		`/api/chat?${"a".repeat(15_000)}`,
		`/${"%41".repeat(5_000)}`,
		`/${"../".repeat(5_000)}`,
		`/${"a".repeat(100_000)}`,
		`/api/chat?${"a".repeat(1_000_000)}`,
	];
	for (const target of targets) {
		const what = `${target.slice(0, 20)}… of ${target.length}`;
		const stranger = await attack(gate, head(`GET ${target} HTTP/1.1`));
		t.ok(isTurnedAway(stranger), `${what} without a key`);
		const known = await attack(
			gate,
			head(`GET ${target} HTTP/1.1`, "Host: gate", shows(testKeys.owner)),
		);
		t.ok(isTurnedAway(known), `${what} with a key (${known.status})`);
	}
	t.equal(await honestStatus(gate), 200, "an honest request is served");
	t.strictSame(strayCalls(gate), [], "nothing else reached Ollama");
});

t.test(
	"whatever stands behind the question mark, Ollama sees the plain path",
	async (t) => {
		const gate = await startGate(t);
		const queries = [
			"?",
			"??",
			"?bypass_filter=true",
			"?model=other",
			"?_method=DELETE",
			"?/../../api/delete",
			"?%2e%2e/",
			"?a=b#c",
			"?x=http://127.0.0.1:1/",
			'?{"event":"auth_failed"}',
			`?ts=${Date.now()}`,
			`?x=${"y".repeat(10_000)}`,
		];
		for (const query of queries) {
			const { status } = await attack(
				gate,
				head(
					`GET /api/tags${query} HTTP/1.1`,
					"Host: gate",
					shows(testKeys.reader),
				),
			);
			t.equal(status, 200, query.slice(0, 40));
		}
		t.strictSame(
			strayCalls(gate),
			queries.map(() => "GET /api/tags"),
			"the query is never sent on",
		);
	},
);

t.test("a key in the query, a cookie or a body lets nobody in", async (t) => {
	const gate = await startGate(t);
	const key = testKeys.owner;
	const requests = [
		...[
			"key",
			"api_key",
			"apikey",
			"access_token",
			"token",
			"auth",
			"authorization",
			"Authorization",
			"x-api-key",
			"X-API-Key",
		].flatMap((name) => [
			head(`GET /api/tags?${name}=${key} HTTP/1.1`, "Host: gate"),
			head(`GET /api/tags?${name}=Bearer%20${key} HTTP/1.1`, "Host: gate"),
			head("GET /api/tags HTTP/1.1", "Host: gate", `Cookie: ${name}=${key}`),
			post("/api/show", JSON.stringify({ [name]: key, model: "qwen3:8b" })),
		]),
		head(`GET /api/tags/${key} HTTP/1.1`, "Host: gate"),
		head(`GET http://x:${key}@gate/api/tags HTTP/1.1`, "Host: gate"),
		head("GET /api/tags HTTP/1.1", `Host: x:${key}@gate`),
		head(
			"GET /api/tags HTTP/1.1",
			"Host: gate",
			`Proxy-Authorization: Bearer ${key}`,
		),
		head(
			"GET /api/tags HTTP/1.1",
			"Host: gate",
			`X-Forwarded-Authorization: Bearer ${key}`,
		),
		// a key in the trailer comes when everything has been decided
		`${head("POST /api/show HTTP/1.1", "Host: gate", "Transfer-Encoding: chunked", "Trailer: Authorization")}0\r\n${head(shows(key))}`,
	];
	for (const request of requests) {
		const { status } = await attack(gate, request);
		t.equal(status, 401, request.slice(0, 60));
	}
	t.equal(await honestStatus(gate), 200, "an honest request is served");
	t.strictSame(strayCalls(gate), [], "nothing else reached Ollama");
});
