import t from "tap";
import { startGate, testKeys } from "../support/gate.ts";
import {
	attack,
	head,
	honestStatus,
	openRaw,
	post,
	type RawReply,
	shows,
	strayCalls,
	within,
} from "../support/raw.ts";

const allowed = "https://chat.example";
const body = '{"model":"qwen3:8b","stream":false}';

/** Near the configured origin, and not it. */
const foreign = [
	"https://evil.example",
	"null",
	"",
	"*",
	"http://chat.example",
	"https://chat.example:443",
	"https://chat.example:8443",
	"https://chat.example/",
	"https://chat.example.evil.example",
	"https://evilchat.example",
	"https://evil.example/https://chat.example",
	"https://chat.example@evil.example",
	"https://chat.example%2eevil.example",
	"https://chat.example.",
	"https://CHAT.example",
	"HTTPS://chat.example",
	"https://chat.exampl",
	"https://sub.chat.example",
	"https://chat.example, https://evil.example",
	"https://evil.example, https://chat.example",
	"https://evil.example https://chat.example",
	"chat.example",
	"//chat.example",
	"file://",
	"http://127.0.0.1:11434",
	"http://localhost",
	"app://obsidian.md",
	"chrome-extension://chat.example",
];

function corsHeadersOf(reply: RawReply | undefined): string[] {
	return Object.keys(reply?.headers ?? {}).filter((name) =>
		name.startsWith("access-control-"),
	);
}

function preflight(origin: string, ...lines: readonly string[]): string {
	return head(
		"OPTIONS /api/chat HTTP/1.1",
		"Host: gate",
		`Origin: ${origin}`,
		"Access-Control-Request-Method: POST",
		"Access-Control-Request-Headers: authorization, content-type",
		...lines,
	);
}

t.test(
	"a foreign origin is told nothing that a browser would act on",
	async (t) => {
		const gate = await startGate(t, {
			config: { cors: { origins: [allowed] } },
		});
		for (const origin of foreign) {
			const what = JSON.stringify(origin);
			const asked = await attack(gate, preflight(origin));
			t.equal(asked.status, 401, `${what}: preflight`);
			t.strictSame(corsHeadersOf(asked.replies[0]), [], `${what}: preflight`);
			const stranger = await attack(
				gate,
				head("GET /api/tags HTTP/1.1", "Host: gate", `Origin: ${origin}`),
			);
			t.equal(stranger.status, 401, what);
			t.strictSame(corsHeadersOf(stranger.replies[0]), [], what);
			// With a key it is served, for programs that are no browsers and send an Origin.
			const known = await attack(
				gate,
				post("/api/embed", body, shows(testKeys.user), `Origin: ${origin}`),
			);
			t.equal(known.status, 200, `${what}, with a key`);
			t.strictSame(corsHeadersOf(known.replies[0]), [], `${what}, with a key`);
			t.notOk(
				gate.standIn.calls
					.at(-1)
					?.rawHeaders.some((text) => /origin/i.test(text)),
				`${what} is never told to Ollama`,
			);
		}
		t.equal(await honestStatus(gate), 200, "an honest request is served");
	},
);

t.test("without configured origins there are none", async (t) => {
	const gate = await startGate(t);
	for (const origin of [allowed, ...foreign]) {
		const asked = await attack(gate, preflight(origin));
		t.equal(asked.status, 401, origin);
		t.strictSame(corsHeadersOf(asked.replies[0]), [], origin);
	}
	t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
});

t.test("a configured origin may ask, and still needs a key", async (t) => {
	const gate = await startGate(t, {
		config: { cors: { origins: [allowed, "app://obsidian.md"] } },
	});
	for (const origin of [allowed, "app://obsidian.md"]) {
		const asked = await attack(gate, preflight(origin));
		t.equal(asked.status, 204, "preflight");
		t.equal(asked.replies[0]?.headers["access-control-allow-origin"], origin);
		t.notOk(
			asked.replies[0]?.headers["access-control-allow-credentials"],
			"a browser's own credentials are not asked for",
		);
		const stranger = await attack(
			gate,
			post("/api/embed", body, `Origin: ${origin}`),
		);
		t.equal(stranger.status, 401, "no key");
		t.equal(
			stranger.replies[0]?.headers["access-control-allow-origin"],
			origin,
			"the page may read why",
		);
		t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
		const known = await attack(
			gate,
			post("/api/embed", body, shows(testKeys.user), `Origin: ${origin}`),
		);
		t.equal(known.status, 200);
		const headers = known.replies[0]?.headers;
		t.equal(headers?.["access-control-allow-origin"], origin);
		t.match(headers?.vary, /origin/i);
		t.notOk(
			gate.standIn.calls
				.at(-1)
				?.rawHeaders.some((text) => /origin/i.test(text)),
			"the origin is never told to Ollama",
		);
		gate.standIn.calls.length = 0;
	}
});

t.test("a preflight is one only if it is written like one", async (t) => {
	const gate = await startGate(t, { config: { cors: { origins: [allowed] } } });
	const requests: Record<string, string> = {
		"without a method asked for": head(
			"OPTIONS /api/chat HTTP/1.1",
			"Host: gate",
			`Origin: ${allowed}`,
		),
		"without an origin": head(
			"OPTIONS /api/chat HTTP/1.1",
			"Host: gate",
			"Access-Control-Request-Method: POST",
		),
		"with two origins": preflight(allowed, "Origin: https://evil.example"),
		"with the same origin twice": preflight(allowed, `Origin: ${allowed}`),
		"by GET": preflight(allowed).replace("OPTIONS", "GET"),
		"by POST": preflight(allowed).replace("OPTIONS", "POST"),
	};
	for (const [what, request] of Object.entries(requests)) {
		const { status } = await attack(gate, request);
		t.equal(status, 401, what);
	}
	t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
});

t.test(
	"what a preflight asks for is not echoed into other headers",
	async (t) => {
		const gate = await startGate(t, {
			config: { cors: { origins: [allowed] } },
		});
		for (const asked of [
			"x\ty",
			"x; y",
			"x: y",
			'"x"',
			"\xff",
			"*",
			"a".repeat(4_000),
			"<script>",
		]) {
			const { replies } = await attack(
				gate,
				preflight(allowed).replace("authorization, content-type", asked),
			);
			const headers = replies[0]?.headers["access-control-allow-headers"];
			t.equal(
				headers,
				"authorization, content-type, x-api-key",
				asked.slice(0, 20),
			);
		}
	},
);

t.test(
	"a page from the internet may ask a host of a private network, if its origin is listed",
	async (t) => {
		const gate = await startGate(t, {
			config: { cors: { origins: [allowed] } },
		});
		const asks = "Access-Control-Request-Private-Network: true";
		const grants = "access-control-allow-private-network";
		const asked = await attack(gate, preflight(allowed, asks));
		t.equal(asked.status, 204);
		t.equal(asked.replies[0]?.headers[grants], "true");
		const plain = await attack(gate, preflight(allowed));
		t.notOk(plain.replies[0]?.headers[grants], "it is not offered unasked");
		const stranger = await attack(
			gate,
			preflight("https://evil.example", asks),
		);
		t.equal(stranger.status, 401);
		t.strictSame(corsHeadersOf(stranger.replies[0]), []);
	},
);

t.test("a page may read that its address is locked out", async (t) => {
	const gate = await startGate(t, {
		config: {
			cors: { origins: [allowed] },
			limits: { authFailures: { max: 1 } },
		},
	});
	const request = (key: string) =>
		post("/api/embed", body, shows(key), `Origin: ${allowed}`);
	t.equal((await attack(gate, request(testKeys.wrong))).status, 401);
	const asked = await attack(gate, preflight(allowed));
	t.equal(asked.status, 204, "the preflight opens nothing");
	const refused = await attack(gate, request(testKeys.user));
	t.equal(refused.status, 429);
	const { headers, body: text } = refused.replies[0] ?? {};
	t.equal(headers?.["access-control-allow-origin"], allowed);
	t.match(headers?.["access-control-expose-headers"], /retry-after/);
	t.match(headers?.["access-control-expose-headers"], /x-should-retry/);
	t.match(text, /too many wrong keys/);
	t.equal(
		(await attack(gate, preflight("https://evil.example"))).status,
		429,
		"that of another origin is turned away like everything",
	);
	t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
});

t.test("a preflight with a body does not keep its connection", async (t) => {
	const gate = await startGate(t, { config: { cors: { origins: [allowed] } } });
	const client = await openRaw(gate.port);
	t.teardown(() => client.destroy());
	client.write(preflight(allowed, "Content-Length: 1000000"));
	// A byte now and then is all that it takes to look alive.
	const drip = setInterval(() => client.write("x"), 100);
	t.teardown(() => clearInterval(drip));
	await within(client.closed, "the gate to close the connection");
	t.match(client.text(), /^HTTP\/1\.1 204 /);
});

t.test(
	"a page of another origin cannot speak with a password that a browser keeps",
	async (t) => {
		const gate = await startGate(t, {
			config: { cors: { origins: [allowed] } },
		});
		const basic = `Authorization: Basic ${btoa(`:${testKeys.user}`)}`;
		for (const origin of foreign) {
			// What a form can send without asking first.
			for (const type of [
				"text/plain",
				"application/x-www-form-urlencoded",
				"multipart/form-data; boundary=x",
			]) {
				const { status } = await attack(
					gate,
					post(
						"/api/embed",
						body,
						basic,
						`Origin: ${origin}`,
						`Content-Type: ${type}`,
					),
				);
				t.equal(status, 403, `${JSON.stringify(origin)}, ${type}`);
			}
		}
		t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
		const { status } = await attack(
			gate,
			post("/api/embed", body, basic, `Origin: ${allowed}`),
		);
		t.equal(status, 200, "a configured origin may");
	},
);
