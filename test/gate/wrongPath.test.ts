import { Ollama } from "ollama";
import OpenAI from "openai";
import t from "tap";
import { explainPath, loggablePath } from "../../src/gate/wrongPath.ts";
import { familyOf, routes } from "../../src/ollama/routes.ts";
import { startGate, testKeys } from "../support/gate.ts";
import { attack, head, shows } from "../support/raw.ts";

const advice: readonly (readonly [string, string, RegExp])[] = [
	[
		"/v1/v1/messages",
		"anthropic",
		/the path is \/v1\/messages: take \/v1 off the base URL$/,
	],
	["/v1/v1/chat/completions", "openai", /take \/v1 off the base URL$/],
	["/v1/v1/models/qwen3:8b", "openai", /take \/v1 off the base URL$/],
	[
		"/v1/api/chat",
		"native",
		/the path is \/api\/chat: take \/v1 off the base URL$/,
	],
	["/api/v1/chat/completions", "openai", /take \/api off the base URL$/],
	["/api/api/tags", "native", /take \/api off the base URL$/],
	["/ollama/api/chat", "native", /take \/ollama off the base URL$/],
	["/a/b/v1/messages", "anthropic", /take \/a\/b off the base URL$/],
	[
		"/chat/completions",
		"openai",
		/the path is \/v1\/chat\/completions: add \/v1 to the base URL$/,
	],
	["/completions", "openai", /add \/v1 to the base URL$/],
	["/embeddings", "openai", /add \/v1 to the base URL$/],
	["/models", "openai", /add \/v1 to the base URL$/],
	["/responses", "openai", /add \/v1 to the base URL$/],
	["/messages", "anthropic", /add \/v1 to the base URL$/],
	["/chat", "native", /the path is \/api\/chat: add \/api to the base URL$/],
	["/tags", "native", /add \/api to the base URL$/],
	[
		"/api/chat/completions",
		"openai",
		/end the base URL in \/v1 and not in \/api$/,
	],
	["/v1/chat", "openai", /end the base URL in \/api and not in \/v1$/],
	[
		"/v1/chat/completions/chat/completions",
		"openai",
		/end the base URL in \/v1 and not in \/v1\/chat\/completions$/,
	],
	[
		"/openai/chat/completions",
		"openai",
		/end the base URL in \/v1 and not in \/openai$/,
	],
	[
		"//api/chat",
		"native",
		/the path is \/api\/chat: take the slash off the end of the base URL$/,
	],
	[
		"//v1/chat/completions",
		"openai",
		/take the slash off the end of the base URL$/,
	],
	["/v1//chat/completions", "openai", /write each slash once$/],
	[
		"/api/chat/",
		"native",
		/the path is \/api\/chat: take the slash off its end$/,
	],
	["/v1/messages/", "anthropic", /take the slash off its end$/],
	["/API/chat", "native", /the path is \/api\/chat: write it in lower case$/],
	[
		"/%61pi/chat",
		"native",
		/the path is \/api\/chat: write it without percent signs$/,
	],
	["/v1//v1/messages?beta=true", "anthropic", /take \/v1 off the base URL$/],
	[
		"http://gate:11434/api/tags",
		"native",
		/ask for \/api\/tags alone: llamagate is not an HTTP proxy$/,
	],
	["/v1/messages/count_tokens", "anthropic", /counts no tokens ahead/],
	["/v1/v1/messages/count_tokens", "anthropic", /counts no tokens ahead/],
	["/v1/rerank", "openai", /knows no path "\/v1\/rerank" of Ollama's API$/],
	["/v1", "openai", /knows no path "\/v1" of Ollama's API$/],
	["/v1beta/models/x:generateContent", "native", /does not speak Gemini's API/],
	["/nothing", "native", /knows no path "\/nothing" of Ollama's API$/],
	["*", "native", /knows no path "\*" of Ollama's API$/],
	["", "native", /knows no path "" of/],
];

t.test(
	"a path that is none of Ollama's is named, with what to change",
	async (t) => {
		for (const [target, family, says] of advice) {
			const message = explainPath(target);
			t.match(message, says, target);
			t.ok(message.includes(`"${target.split("?")[0]}"`), message);
			t.equal(familyOf(target.split("?")[0] ?? ""), family, `${target}: shape`);
		}
	},
);

t.test("every route behind a wrong base URL is found again", async (t) => {
	for (const { path } of routes) {
		if (path === "/") continue;
		const example = path
			.replace(":model", "qwen3:8b")
			.replace(":digest", `sha256:${"0".repeat(64)}`)
			.replace(":key", "abc");
		for (const base of ["/v1", "/api", "/ollama"])
			t.match(
				explainPath(base + example),
				`the path is ${example}: take ${base} off the base URL`,
			);
		t.match(explainPath(`/${example}`), "take the slash off the end of");
		t.match(explainPath(`${example}/`), "take the slash off its end");
	}
});

t.test(
	"what a client is told of its path is one short line of ASCII",
	async (t) => {
		for (const path of [
			"/\u0000\u0001\n\r",
			"/%0a%0d/api/chat",
			"/%E2%80%AE/v1/messages",
			`/${"a".repeat(10_000)}`,
			`/${"a/".repeat(8_000)}v1/messages`,
			"/".repeat(16_000),
			'/\xff\xfe"\\',
			`/${"%0a".repeat(100)}/api/chat`,
		]) {
			const message = explainPath(path);
			t.match(message, /^[\x20-\x7e]+$/, JSON.stringify(path.slice(0, 40)));
			t.ok(message.length < 500, `${message.length} characters`);
		}
		t.notMatch(
			explainPath("/x?key=secret"),
			"secret",
			"the query is not looked at",
		);
	},
);

t.test(
	"the log has words of a path that are known, and a star for what could be a key",
	async (t) => {
		const key = testKeys.user;
		const logged: Record<string, string> = {
			"/v1/v1/messages": "/v1/v1/messages",
			"/v1/v1/messages?key=secret": "/v1/v1/messages",
			"//api/chat/": "//api/chat/",
			"/API/Chat": "/API/Chat",
			"/v1/messages/count_tokens": "/v1/messages/count_tokens",
			"/v1beta/models/gemini-2:generateContent": "/v1beta/models/*",
			"/nothing": "/nothing",
			[`/${key}/v1/messages`]: "/*/v1/messages",
			[`/v1/${key.slice(0, 20)}/${key.slice(20)}`]: "/v1/*/*",
			"/correct/horse/battery/staple/never": "/correct/horse/*/*/*",
			"/%6cg_": "/*",
			'/"x"': "/*",
			"/\xff": "/*",
			"/aB": "/*",
			[`/${"v1/".repeat(20)}`]: `${"/v1".repeat(9)}/…`,
			[`/${"a".repeat(10_000)}`]: "/*/…",
			"*": "*",
		};
		for (const [path, shown] of Object.entries(logged))
			t.equal(loggablePath(path), shown, path.slice(0, 60));
	},
);

t.test(
	"a wrong path is told to whoever has a key, in its own shape, and logged",
	async (t) => {
		const gate = await startGate(t);
		const ask = (target: string, ...lines: readonly string[]) =>
			attack(gate, head(`POST ${target} HTTP/1.1`, "Host: gate", ...lines));
		for (const [target, family, says] of advice) {
			if (target === "") continue;
			gate.log.length = 0;
			const stranger = await ask(target);
			t.equal(stranger.status, 401, target);
			t.notMatch(
				stranger.replies[0]?.body,
				/path/,
				"without a key there is no hint",
			);
			const { status, replies } = await ask(target, shows(testKeys.user));
			t.equal(status, 404, target);
			const body = replies[0]?.body ?? "";
			t.notMatch(body, /\n/);
			const error = JSON.parse(body);
			const message = family === "native" ? error.error : error.error.message;
			t.match(message, says);
			t.match(
				error,
				{
					native: { error: String },
					openai: { error: { type: "not_found_error", param: null } },
					anthropic: { type: "error", error: { type: "not_found_error" } },
				}[family],
			);
			t.match(gate.log, [
				{ status: 401, path: undefined },
				{ status: 404, reason: "unknown_route", path: loggablePath(target) },
			]);
		}
		t.strictSame(gate.standIn.calls, [], "nothing reached Ollama");
	},
);

t.test(
	"counting tokens takes nothing from a key's requests a minute",
	async (t) => {
		const gate = await startGate(t, {
			config: { limits: { perKey: { requestsPerMinute: 1 } } },
		});
		const ask = (target: string) =>
			attack(
				gate,
				head(`POST ${target} HTTP/1.1`, "Host: gate", shows(testKeys.user)),
			);
		// As many as a client asks at once to show what fills its context.
		const counts = await Promise.all(
			Array.from({ length: 27 }, () =>
				ask("/v1/messages/count_tokens?beta=true"),
			),
		);
		t.strictSame(
			counts.map(({ status }) => status),
			Array(27).fill(404),
		);
		t.match(JSON.parse(counts[0]?.replies[0]?.body ?? ""), {
			type: "error",
			error: { type: "not_found_error" },
		});
		const allowed = await attack(
			gate,
			head("GET /api/version HTTP/1.1", "Host: gate", shows(testKeys.user)),
		);
		t.equal(allowed.status, 200);
	},
);

t.test(
	"the packages of OpenAI and Ollama show what is wrong with their base URL",
	async (t) => {
		const gate = await startGate(t);
		const chat = (baseURL: string) =>
			new OpenAI({ baseURL, apiKey: testKeys.user }).chat.completions.create({
				model: "qwen3:8b",
				messages: [{ role: "user", content: "a" }],
			});
		for (const [base, says] of [
			["", /add \/v1 to the base URL/],
			["/v1/v1", /take \/v1 off the base URL/],
			["/api", /end the base URL in \/v1 and not in \/api/],
		] as const)
			await t.rejects(chat(gate.url + base), { status: 404, message: says });
		const ollama = new Ollama({
			host: `${gate.url}/v1`,
			headers: { Authorization: `Bearer ${testKeys.user}` },
		});
		await t.rejects(ollama.list(), { message: /take \/v1 off the base URL/ });
	},
);
