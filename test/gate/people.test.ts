import { chmod, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import type { Exchange } from "../../src/gate/exchange.ts";
import { userOf } from "../../src/gate/user.ts";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { parseKeys } from "../../src/keys/keyFile.ts";
import { Keyring } from "../../src/keys/keyring.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import { isLike, type PeopleEntry } from "../../src/keys/people.ts";
import { type Scope, scopes } from "../../src/ollama/routes.ts";
import type { StandInOptions } from "../../src/ollama/standIn.ts";
import { bearer, eventually, startGate, testKeys } from "../support/gate.ts";
import {
	appKey,
	appSecret,
	claims,
	person,
	secretFile,
	sign,
	tokenHeader,
} from "../support/peopleTokens.ts";

type Tap = Parameters<typeof startGate>[0];

/** A gate with one key, of an app with people. */
async function start(
	t: Tap,
	people: PeopleEntry,
	key: Partial<KeyEntry> = { scopes },
	config: Record<string, unknown> = {},
	standIn: StandInOptions = {},
) {
	const gate = await startGate(t, {
		config,
		standIn,
		keys: [appKey(people, key)],
		files: { [secretFile]: `${appSecret}\n` },
	});
	const send = async (
		headers: Record<string, string>,
		path = "/api/version",
		body?: unknown,
	) => {
		const response = await fetch(`${gate.url}${path}`, {
			headers: { ...bearer(testKeys.user), ...headers },
			...(body !== undefined && {
				method: "POST",
				body: JSON.stringify(body),
			}),
		});
		return { status: response.status, text: await response.text() };
	};
	return { gate, send };
}

const endless = { tokenIntervalMs: 5 };

const as = (changes: Record<string, unknown> = {}, secret = appSecret) => ({
	[tokenHeader]: sign(claims(changes), { secret }),
});

t.test(
	"who signs in an app is known by its token, and the log says by what and not who",
	async (t) => {
		const { gate, send } = await start(t, {});
		t.equal((await send(as())).status, 200);
		const line = await gate.logged(({ msg }) => msg === "request");
		t.match(line, { key: "app", userBy: "jwt" });
		t.notOk("person" in line);
	},
);

t.test(
	"the log names a person where its owner wants that, or has one pseudonym for each",
	async (t) => {
		const on = await start(t, {}, {}, { log: { people: "on" } });
		await on.send(as());
		t.match(await on.gate.logged(({ msg }) => msg === "request"), {
			userBy: "jwt",
			person: person.email,
		});
		const hash = await start(t, {}, {}, { log: { people: "hash" } });
		for (const sub of ["one", "two", "one"]) await hash.send(as({ sub }));
		const lines = () => hash.gate.log.filter(({ msg }) => msg === "request");
		await eventually(() => lines().length === 3);
		const [one, two, again] = lines().map((line) => String(line.person));
		t.match(one, /^[0-9a-f]{16}$/);
		t.not(one, two);
		t.equal(one, again);
		t.notOk(JSON.stringify(hash.gate.log).includes("example.com"));
	},
);

t.test("nobody named is refused, or served as the key", async (t) => {
	const refuse = await start(t, {});
	const { status, text } = await refuse.send({});
	t.equal(status, 403);
	t.match(text, /FORWARD_USER_INFO_HEADER_JWT_SECRET/);
	t.match(await refuse.gate.logged(({ msg }) => msg === "request"), {
		reason: "no_person",
		userBy: "key",
	});
	const key = await start(t, { unknown: "key" });
	t.equal((await key.send({})).status, 200);
	t.match(await key.gate.logged(({ msg }) => msg === "request"), {
		userBy: "key",
	});
});

t.test(
	"somebody no rule is for is refused, or served as the key",
	async (t) => {
		const rules = [{ email: "*@example.com" }];
		const stranger = as({ email: "eve@example.org" });
		const refuse = await start(t, { rules });
		t.equal((await refuse.send(stranger)).status, 403);
		t.match(await refuse.gate.logged(({ msg }) => msg === "request"), {
			reason: "person",
		});
		t.equal((await refuse.send(as({ email: null }))).status, 403);
		t.equal((await refuse.send(as({ email: "", role: "" }))).status, 403);
		t.equal((await refuse.send(as())).status, 200);
		t.equal(refuse.gate.standIn.calls.length, 1);
		const key = await start(t, { rules, unknown: "key" });
		t.equal((await key.send(stranger)).status, 200);
	},
);

t.test(
	"a rule narrows models: in a body, in a path, and in lists",
	async (t) => {
		const { gate, send } = await start(t, {
			rules: [
				{ email: "*@example.com", models: ["qwen3:*"] },
				{ role: "admin" },
			],
		});
		const chat = (model: string) => ({ model, messages: [], stream: false });
		t.equal((await send(as(), "/api/chat", chat("qwen3:8b"))).status, 200);
		const refused = await send(as(), "/api/chat", chat("llama3.2:3b"));
		t.equal(refused.status, 403);
		t.match(refused.text, /may not use the model .* for this person/);
		t.equal((await send(as(), "/v1/models/llama3.2:3b")).status, 403);
		const list = JSON.parse((await send(as(), "/api/tags")).text) as {
			models: { name: string }[];
		};
		t.strictSame(
			list.models.map(({ name }) => name),
			["qwen3:8b"],
		);
		const admin = as({ role: "admin" });
		t.equal((await send(admin, "/api/chat", chat("llama3.2:3b"))).status, 200);
		t.notOk(JSON.stringify(gate.log).includes("example.com"));
	},
);

t.test("a rule narrows scopes, and several add up", async (t) => {
	const { send } = await start(t, {
		rules: [
			{ email: "*@example.com", scopes: ["read"] },
			{ role: "admin", scopes: ["manage"] },
		],
	});
	const remove = [
		"/api/copy",
		{ source: "qwen3:8b", destination: "x" },
	] as const;
	t.equal((await send(as(), "/api/tags")).status, 200);
	const refused = await send(as(), ...remove);
	t.equal(refused.status, 403);
	t.match(refused.text, /which no rule of the key .* leaves to this person/);
	const admin = as({ role: "admin" });
	t.equal((await send(admin, ...remove)).status, 200);
	t.equal((await send(admin, "/api/tags")).status, 200);
	const outsider = as({ role: "admin", email: "a@example.org" });
	t.equal((await send(outsider, "/api/tags")).status, 403);
});

t.test("a rule never widens the key", async (t) => {
	const { send } = await start(
		t,
		{ rules: [{ role: "user", scopes: ["read", "manage"], models: ["*"] }] },
		{ scopes: ["read", "infer"], models: ["nomic-embed-text"] },
	);
	const { status } = await send(as(), "/api/copy", {
		source: "nomic-embed-text",
		destination: "x",
	});
	t.equal(status, 403);
	t.equal((await send(as(), "/api/show", { model: "qwen3:8b" })).status, 403);
	t.equal(
		(await send(as(), "/api/show", { model: "nomic-embed-text" })).status,
		200,
	);
	t.equal(
		(await send(as(), "/api/embed", { model: "nomic-embed-text" })).status,
		403,
	);
	const account = await start(
		t,
		{ rules: [{ role: "user", scopes: ["infer", "account"] }] },
		{ scopes: ["read", "infer"] },
	);
	const search = await account.send(as(), "/v1/messages", {
		model: "qwen3:8b",
		max_tokens: 1,
		messages: [{ role: "user", content: "x" }],
		tools: [{ type: "web_search_20250305", name: "web_search" }],
	});
	t.equal(search.status, 403, "nor by a tool that needs a scope");
	t.equal(account.gate.standIn.calls.length, 0);
});

t.test(
	"a person without the scope account makes Ollama search no web, though the key has it",
	async (t) => {
		const { gate, send } = await start(t, {
			rules: [{ role: "user", scopes: ["infer"] }, { role: "admin" }],
		});
		const body = {
			model: "qwen3:8b",
			max_tokens: 1,
			messages: [{ role: "user", content: "x" }],
			tools: [{ type: "web_search_20250305", name: "web_search" }],
		};
		t.equal((await send(as(), "/v1/messages", body)).status, 403);
		t.equal(gate.standIn.calls.length, 0);
		const admin = as({ role: "admin" });
		t.equal((await send(admin, "/v1/messages", body)).status, 200);
	},
);

t.test(
	"plain headers are ignored behind a signing key, and believed where the key says so",
	async (t) => {
		const plain = {
			"X-OpenWebUI-User-Email": person.email,
			"X-OpenWebUI-User-Id": person.sub,
			"X-OpenWebUI-User-Role": "admin",
		};
		const signing = await start(t, { unknown: "key" });
		t.equal((await signing.send(plain)).status, 200);
		t.match(await signing.gate.logged(({ msg }) => msg === "request"), {
			userBy: "key",
		});
		const rules = [{ role: "admin" }];
		const trusting = await start(t, { trust: "headers", rules });
		t.equal((await trusting.send(plain)).status, 200);
		t.match(await trusting.gate.logged(({ msg }) => msg === "request"), {
			userBy: "headers",
		});
		const user = { ...plain, "X-OpenWebUI-User-Role": "user" };
		t.equal((await trusting.send(user)).status, 403);
		t.equal((await trusting.send(as())).status, 403, "a token is not read");
	},
);

t.test("a clock that is off by a minute is good", async (t) => {
	const { send } = await start(t, {});
	const now = Math.floor(Date.now() / 1000);
	const ahead = as({ iat: now + 50, exp: now + 350 });
	t.equal((await send(ahead)).status, 200);
	const behind = as({ iat: now - 350, exp: now - 50 });
	t.equal((await send(behind)).status, 200);
});

t.test("header and issuer are the key's to name", async (t) => {
	const jwt = { header: "x-app-token", secretFile, issuer: "my-app" };
	const { send } = await start(t, { jwt });
	const token = sign(claims({ iss: "my-app" }));
	t.equal((await send({ "X-App-Token": token })).status, 200);
	t.equal((await send(as({ iss: "my-app" }))).status, 403);
	t.equal((await send({ "X-App-Token": sign(claims()) })).status, 401);
});

t.test("a reload takes another secret over, or is refused whole", async (t) => {
	const { gate, send } = await start(t, {});
	const file = path.join(gate.folder, secretFile);
	const next = "89abcdef01234567".repeat(4);
	await writeFile(file, next);
	t.equal((await send(as({}, next))).status, 401, "not before the reload");
	t.match(await gate.daemon.reload(), { ok: true });
	t.equal((await send(as({}, next))).status, 200);
	t.equal((await send(as())).status, 401);
	for (const spoil of [
		() => chmod(file, 0o644),
		() => writeFile(file, "short"),
		() => writeFile(file, ""),
		() => writeFile(file, "a".repeat(64)),
	]) {
		await writeFile(file, next);
		await chmod(file, 0o600);
		await spoil();
		const result = await gate.daemon.reload();
		t.match(result, { ok: false, file });
		t.notOk(JSON.stringify(result).includes(next));
		t.equal((await send(as({}, next))).status, 200, "the old one stays");
	}
});

t.test(
	"a stream is cut when a reload leaves its scope to its person no more",
	async (t) => {
		const rules = [{ email: "*@example.com" }];
		const { gate } = await start(t, { rules }, { scopes }, {}, endless);
		const stream = await fetch(`${gate.url}/api/chat`, {
			method: "POST",
			headers: { ...bearer(testKeys.user), ...as() },
			body: '{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}],"options":{"num_predict":1000000}}',
		});
		const reader = stream.body?.getReader();
		await reader?.read();
		await gate.writeKeys([
			appKey(
				{ rules: [{ email: "*@example.com", scopes: ["read"] }] },
				{ scopes },
			),
		]);
		await gate.daemon.reload();
		t.match(await gate.logged(({ route }) => route === "POST /api/chat"), {
			outcome: "cut",
			reason: "person",
		});
		await reader?.cancel().catch(() => {});
	},
);

t.test("a keys file says what is wrong with a rule about people", async (t) => {
	const mistakesOf = (people: unknown) => {
		const entry = { name: "app", sha256: digestOf("x"), people };
		try {
			parseKeys(JSON.stringify({ keys: [entry] }), "keys.json");
			return "";
		} catch (error) {
			return String(error);
		}
	};
	const jwt = { secretFile: "a" };
	t.equal(mistakesOf({ jwt }), "");
	t.equal(mistakesOf({ trust: "headers" }), "");
	t.match(mistakesOf({}), /either jwt or "trust"/);
	t.match(mistakesOf({ jwt, trust: "headers" }), /either jwt or "trust"/);
	t.match(mistakesOf({ jwt: {} }), /secretFile/);
	for (const header of ["authorization", "x-api-key", "X-A", "x a", "accept"])
		t.match(mistakesOf({ jwt: { ...jwt, header } }), /header/, header);
	t.match(mistakesOf({ jwt, rules: [] }), /rules/);
	t.match(
		mistakesOf({ jwt, rules: [{ models: ["*"] }] }),
		/needs an email or a role/,
	);
	t.match(
		mistakesOf({ jwt, rules: [{ role: "a", share: 0 }] }),
		/0.001 to 1000/,
	);
	t.match(
		mistakesOf({ jwt, rules: [{ role: "a", models: ["x y"] }] }),
		/models/,
	);
	t.match(mistakesOf({ jwt, unknown: "allow" }), /"refuse" or "key"/);
});

t.test("a pattern of e-mails takes a star for any characters", async (t) => {
	t.ok(isLike("me@example.com", "me@example.com"));
	t.ok(isLike("Me@Example.COM", "me@example.com"));
	t.ok(isLike("me@example.com", "*@example.com"));
	t.ok(isLike("me@example.com", "*"));
	t.ok(isLike("a.b@x.example.com", "a*@*.example.com"));
	t.notOk(isLike("me@example.com.evil.org", "*@example.com"));
	t.notOk(isLike("me@badexample.com", "*@example.com"));
	t.notOk(isLike("example.com", "*@example.com"));
	t.notOk(isLike("aba", "ab*ba"));
	t.notOk(isLike("a@b", "a*@*@b"));
	// U+212A, which Unicode has as k in lower case.
	t.notOk(isLike("\u212a@example.com", "k@example.com"));
	t.notOk(isLike("me@example.com", "me.example.com"));
});

t.test("whose a request is: the person's, else the key's", async (t) => {
	const ring = new Keyring([{ name: "app", sha256: digestOf("x") }]);
	const knownCredential = ring.find("x");
	const of = (given: Exchange["person"]) =>
		userOf({ person: given, knownCredential } as Exchange);
	t.strictSame(of(undefined), { id: "key:app", by: "key", share: 1 });
	t.strictSame(of({ id: "7", name: "a@b", by: "jwt", share: 2 }), {
		id: "jwt:app:7",
		by: "jwt",
		share: 2,
	});
	t.strictSame(of({ id: "a@b", name: "a@b", by: "login" }), {
		id: "login:a@b",
		by: "login",
		share: 1,
	});
});

t.test("without a rule about people, nothing of it is looked at", async (t) => {
	const gate = await startGate(t, {
		keys: [
			{
				name: "user",
				sha256: digestOf(testKeys.user),
				scopes: ["read"] satisfies Scope[],
			},
		],
	});
	const response = await fetch(`${gate.url}/api/version`, {
		headers: { ...bearer(testKeys.user), [tokenHeader]: "nonsense" },
	});
	t.equal(response.status, 200);
	t.match(await gate.logged(({ msg }) => msg === "request"), { userBy: "key" });
});
