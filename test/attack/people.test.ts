import { generateKeyPairSync, hash, sign as signBy } from "node:crypto";
import fc from "fast-check";
import t from "tap";
import { startGate, type TestGate, testKeys } from "../support/gate.ts";
import {
	appKey,
	appSecret,
	claims,
	person,
	secretFile,
	sign,
	tokenHeader,
} from "../support/peopleTokens.ts";
import { attack, head, shows, strayCalls } from "../support/raw.ts";
import { startRecordingUpstream } from "../support/recordingUpstream.ts";

/** What of a reply says that it was refused, in the shape of Ollama's own API. */
const nativeError = /^\{"error":"[^\n]+"\}$/;

const now = () => Math.floor(Date.now() / 1000);
const without = (name: string) => {
	const { [name]: _, ...rest } = claims();
	return rest;
};
const base64url = (text: string) => Buffer.from(text).toString("base64url");

/** Every token that proves nobody. */
function badTokens(): Record<string, string> {
	const good = sign(claims());
	const [header = "", payload = "", signature = ""] = good.split(".");
	const { privateKey, publicKey } = generateKeyPairSync("rsa", {
		modulusLength: 2048,
	});
	const rsaSigned = `${base64url('{"alg":"RS256","typ":"JWT"}')}.${payload}`;
	const publicPem = publicKey
		.export({ type: "spki", format: "pem" })
		.toString();
	return {
		"an empty one": "",
		"no token": "me@example.com",
		"an unsigned one": `${header}.${payload}.`,
		"one without its signature's part": `${header}.${payload}`,
		"none as algorithm": `${base64url('{"alg":"none"}')}.${payload}.`,
		"none, spelt otherwise": `${base64url('{"alg":"NoNe"}')}.${payload}.`,
		"none, with a good signature": sign(claims(), { header: { alg: "none" } }),
		"no algorithm": sign(claims(), { header: { typ: "JWT" } }),
		"a list of algorithms": sign(claims(), { header: { alg: ["HS256"] } }),
		"HS384, well signed": sign(claims(), {
			header: { alg: "HS384" },
			hash: "sha384",
		}),
		"HS512, well signed": sign(claims(), {
			header: { alg: "HS512" },
			hash: "sha512",
		}),
		"RS256 of a key of one's own": `${rsaSigned}.${signBy("sha256", Buffer.from(rsaSigned), privateKey).toString("base64url")}`,
		"HS256 with a public key as secret": sign(claims(), { secret: publicPem }),
		"another secret": sign(claims(), { secret: "fedcba9876543210".repeat(4) }),
		"an empty secret": sign(claims(), { secret: "" }),
		"the secret with its line's end": sign(claims(), {
			secret: `${appSecret}\n`,
		}),
		"the key as secret": sign(claims(), { secret: testKeys.user }),
		"a key in its header": sign(claims(), {
			secret: "x",
			header: { alg: "HS256", jwk: { kty: "oct", k: base64url("x") } },
		}),
		"a critical header": sign(claims(), {
			header: { alg: "HS256", crit: ["exp"], exp: 1 },
		}),
		"claims that are not encoded": sign(claims(), {
			header: { alg: "HS256", b64: false, crit: ["b64"] },
		}),
		"other claims under a good signature": `${header}.${base64url(JSON.stringify(claims({ role: "admin" })))}.${signature}`,
		"another header over a good signature": `${base64url('{"typ":"JWT","alg":"HS256"}')}.${payload}.${signature}`,
		"one more part": `${good}.${signature}`,
		"an encrypted form": `${header}..${payload}.${signature}.`,
		"two in one": `${good}, ${good}`,
		"a Bearer before it": `Bearer ${good}`,
		"an expired one": sign(claims({ iat: now() - 400, exp: now() - 61 })),
		"one from the future": sign(claims({ iat: now() + 65, exp: now() + 365 })),
		"one that is not good yet": sign(claims({ nbf: now() + 65 })),
		"no exp": sign(without("exp")),
		"no iat": sign(without("iat")),
		"no iss": sign(without("iss")),
		"no sub": sign(without("sub")),
		"exp as text": sign(claims({ exp: String(now() + 300) })),
		"exp without end": sign(
			JSON.stringify(claims()).replace(/"exp":\d+/, '"exp":1e999'),
		),
		"exp that is null": sign(claims({ exp: null })),
		"iat as text": sign(claims({ iat: "0" })),
		"another issuer": sign(claims({ iss: "open-webui-2" })),
		"a list of issuers": sign(claims({ iss: ["open-webui"] })),
		"a list as sub": sign(claims({ sub: ["a"] })),
		"an empty sub": sign(claims({ sub: "" })),
		"a number as sub": sign(claims({ sub: 1 })),
		"a line's end in sub": sign(claims({ sub: "a\nb" })),
		"half a character in sub": sign(
			JSON.stringify(claims({ sub: "?" })).replace('"?"', '"\\ud800"'),
		),
		"a sub of 300 letters": sign(claims({ sub: "a".repeat(300) })),
		"a list as email": sign(claims({ email: ["me@example.com"] })),
		"an escape in email": sign(claims({ email: "a\u001b[31m@example.com" })),
		"a list as role": sign(claims({ role: ["admin"] })),
		"a list as claims": sign([claims()]),
		"claims that are no JSON": sign("claims"),
		"claims that are not UTF-8": `${header}.${Buffer.from([0xff, 0xfe]).toString("base64url")}.${signature}`,
		"one of 8 KB": sign(claims({ name: "a".repeat(8_000) })),
	};
}

const refusedStatus = (status: number) => status === 401 || status === 403;

function request(...lines: readonly string[]): string {
	return head(
		"GET /api/tags HTTP/1.1",
		"Host: gate",
		shows(testKeys.user),
		"Connection: close",
		...lines,
	);
}

async function badPersons(gate: TestGate): Promise<number> {
	const { askDaemon } = await import("../../src/admin/client.ts");
	const { body } = await askDaemon(`${gate.folder}/admin.sock`, "GET /metrics");
	return Number(/^llamagate_bad_persons_total (\d+)$/m.exec(body)?.[1]);
}

for (const unknown of ["refuse", "key"] as const)
	t.test(
		`a token that proves nobody is refused and counted, and never logged (unknown: ${unknown})`,
		async (t) => {
			const gate = await startGate(t, {
				keys: [appKey({ unknown })],
				files: { [secretFile]: `${appSecret}\n` },
			});
			const bad = badTokens();
			for (const [what, token] of Object.entries(bad)) {
				const { status, replies } = await attack(
					gate,
					request(`X-OpenWebUI-User-Jwt: ${token}`),
				);
				t.ok(refusedStatus(status), `${what}: ${status}`);
				t.match(replies[0]?.body, nativeError, what);
				t.equal(replies[0]?.headers["x-should-retry"], "false", what);
			}
			t.equal(strayCalls(gate).length, 0);
			t.equal(await badPersons(gate), Object.keys(bad).length);
			const log = JSON.stringify(gate.log);
			for (const [what, token] of Object.entries(bad))
				if (token.length > 20) t.notOk(log.includes(token.slice(0, 40)), what);
			t.notOk(log.includes("example.com"));
			t.notOk(log.includes(person.sub));
			const { status } = await attack(
				gate,
				request(`${tokenHeader}: ${sign(claims())}`),
			);
			t.equal(status, 200, "and a good one is taken");
		},
	);

t.test("a token of 64 KB is refused, and the gate goes on", async (t) => {
	const gate = await startGate(t, {
		keys: [appKey()],
		files: { [secretFile]: appSecret },
	});
	const token = sign(claims({ name: "a".repeat(48_000) }));
	const { status } = await attack(gate, request(`${tokenHeader}: ${token}`));
	t.ok([401, 403, 431].includes(status), String(status));
	t.equal(strayCalls(gate).length, 0);
	const good = await attack(gate, request(`${tokenHeader}: ${sign(claims())}`));
	t.equal(good.status, 200);
});

t.test(
	"two tokens are refused, equal ones and good ones too, however they are spelt",
	async (t) => {
		const gate = await startGate(t, {
			keys: [appKey({ unknown: "key" })],
			files: { [secretFile]: appSecret },
		});
		const good = sign(claims());
		const other = sign(claims({ sub: "other", email: "other@example.com" }));
		for (const lines of [
			[`${tokenHeader}: ${good}`, `${tokenHeader}: ${good}`],
			[`${tokenHeader}: ${good}`, `X-OpenWebUI-User-JWT: ${other}`],
			[`X-OPENWEBUI-USER-JWT: `, `${tokenHeader}: ${good}`],
		]) {
			const { status } = await attack(gate, request(...lines));
			t.equal(status, 401);
		}
		t.equal(strayCalls(gate).length, 0);
	},
);

t.test("the refusal has the shape of the API that was called", async (t) => {
	const gate = await startGate(t, {
		keys: [appKey()],
		files: { [secretFile]: appSecret },
	});
	const body = '{"model":"qwen3:8b","messages":[],"max_tokens":1}';
	for (const [path, shape] of [
		["/api/chat", nativeError],
		["/v1/chat/completions", /^\{"error":\{"message":"/],
		["/v1/messages", /^\{"type":"error","error":\{/],
	] as const) {
		const { replies } = await attack(
			gate,
			`${head(
				`POST ${path} HTTP/1.1`,
				"Host: gate",
				shows(testKeys.user),
				"Connection: close",
				`${tokenHeader}: nonsense`,
				`Content-Length: ${body.length}`,
			)}${body}`,
		);
		t.equal(replies[0]?.status, 401);
		t.match(replies[0]?.body, shape);
	}
});

t.test(
	"a token is looked at behind a good key of that rule only, and is no key itself",
	async (t) => {
		const gate = await startGate(t, {
			keys: [appKey({}, { scopes: ["read"] }), ...otherKeys()],
			files: { [secretFile]: appSecret },
		});
		const good = `${tokenHeader}: ${sign(claims())}`;
		const bad = `${tokenHeader}: nonsense`;
		const send = async (key: string | undefined, line: string) =>
			(
				await attack(
					gate,
					head(
						"GET /api/tags HTTP/1.1",
						"Host: gate",
						"Connection: close",
						...(key === undefined ? [] : [shows(key)]),
						line,
					),
				)
			).status;
		t.equal(await send(undefined, good), 401, "no key");
		t.equal(await send(testKeys.wrong, good), 401, "a wrong key");
		t.equal(await send(sign(claims()), good), 401, "the token as key");
		t.equal(await badPersons(gate), 0);
		t.equal(await send(testKeys.reader, bad), 200, "another key");
		t.equal(await badPersons(gate), 0);
		t.match(await gate.logged(({ key }) => key === "reader"), {
			userBy: "key",
		});
	},
);

function otherKeys() {
	return [appKey({}, { name: "reader" })].map(({ people: _, ...entry }) => ({
		...entry,
		sha256: digest(testKeys.reader),
	}));
}

function digest(key: string): string {
	return hash("sha256", Buffer.from(key, "latin1"), "hex");
}

t.test(
	"neither a token nor a plain header about a person ever reaches Ollama",
	async (t) => {
		const upstream = await startRecordingUpstream(t);
		for (const people of [{}, { trust: "headers" }] as const) {
			const gate = await startGate(t, {
				keys: [appKey(people)],
				files: { [secretFile]: appSecret },
				upstreamUrl: upstream.url,
			});
			const { status } = await attack(
				gate,
				request(
					`${tokenHeader}: ${sign(claims())}`,
					"X-OpenWebUI-User-Email: me@example.com",
					"X-OpenWebUI-User-Id: 1",
					"X-OpenWebUI-User-Name: Me",
					"X-OpenWebUI-User-Role: admin",
					"X-OpenWebUI-Chat-Id: 1",
				),
			);
			t.equal(status, 200);
			const seen = (await upstream.take()).join("");
			t.match(seen, /^GET \/api\/tags/);
			t.notMatch(seen, /openwebui|example\.com/i);
		}
	},
);

t.test(
	"no header, token or body that a client sends makes it somebody whom its signature does not prove",
	async (t) => {
		const gate = await startGate(t, {
			config: { log: { people: "on" } },
			keys: [
				appKey({
					unknown: "key",
					rules: [{ email: person.email, scopes: ["read"] }],
				}),
			],
			files: { [secretFile]: appSecret },
		});
		const proved = sign(claims());
		const victim = { sub: "victim", email: "victim@example.com" };
		const forged = Object.values(badTokens()).filter((token) => token !== "");
		const name = fc.constantFrom(
			...[tokenHeader, "X-OpenWebUI-User-Email", "X-OpenWebUI-User-Id"],
			...["X-OpenWebUI-User-Role", "x_openwebui_user_jwt", "X-Forwarded-User"],
			...["X-Forwarded-Email", "Tailscale-User-Login", "Remote-User"],
			...["X-Webauth-User", "Cookie", "Forwarded", "From", "Connection"],
			...["X-OpenWebUI-User-JWT ", "Authorization-Jwt", "User"],
		);
		const value = fc.oneof(
			fc.constantFrom(
				...forged,
				...[victim.sub, victim.email, "admin", "close", tokenHeader],
				...[
					sign({ ...claims(victim) }, { secret: "0".repeat(64) }),
					`${proved.split(".").slice(0, 1)}.${base64url(JSON.stringify(claims(victim)))}.${proved.split(".")[2]}`,
				],
			),
			fc.string({ maxLength: 40 }).map((text) => text.replace(/[\r\n\0]/g, "")),
		);
		await fc.assert(
			fc.asyncProperty(
				fc.boolean(),
				fc.array(fc.tuple(name, value), { maxLength: 5 }),
				fc.string({ maxLength: 30 }),
				async (isProved, lines, text) => {
					const before = gate.log.length;
					const body = JSON.stringify({
						model: "qwen3:8b",
						user: victim.email,
						sub: victim.sub,
						metadata: { user_id: victim.sub, text },
					});
					await attack(
						gate,
						`${head(
							"POST /api/show HTTP/1.1",
							"Host: gate",
							shows(testKeys.user),
							"Connection: close",
							...(isProved ? [`${tokenHeader}: ${proved}`] : []),
							...lines.map(([name, value]) => `${name}: ${value}`),
							`Content-Length: ${Buffer.byteLength(body)}`,
						)}${Buffer.from(body).toString("latin1")}`,
					);
					await gate.logged((line) => gate.log.indexOf(line) >= before);
					for (const line of gate.log.slice(before)) {
						const { userBy, person: named } = line;
						if (named !== undefined && named !== person.email) return false;
						if (userBy === "jwt" && !isProved) return false;
						if (userBy === "headers" || userBy === "login") return false;
					}
					return true;
				},
			),
			{ numRuns: 300 },
		);
		t.notOk(JSON.stringify(gate.log).includes(victim.email));
		t.notOk(JSON.stringify(gate.log).includes(victim.sub));
	},
);

t.test(
	"a person who is held to some models learns of no model file of others",
	async (t) => {
		const gate = await startGate(t, {
			keys: [
				appKey(
					{ rules: [{ email: person.email, models: ["qwen3:*"] }] },
					{ scopes: ["read", "infer", "manage"] },
				),
			],
			files: { [secretFile]: appSecret },
		});
		const { status } = await fetch(
			`${gate.url}/api/blobs/sha256:${"ab".repeat(32)}`,
			{
				method: "HEAD",
				headers: {
					authorization: `Bearer ${testKeys.user}`,
					[tokenHeader]: sign(claims()),
				},
			},
		);
		t.equal(status, 404);
		t.equal(strayCalls(gate).length, 0);
	},
);
