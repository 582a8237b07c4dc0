import t from "tap";
import { digestOf } from "../../src/keys/newKey.ts";
import {
	bearer,
	startGate,
	type TestGate,
	testEntries,
	testKeys,
} from "../support/gate.ts";

const search = { type: "web_search_20250305", name: "web_search" };
const plain = { type: "function", name: "web_search", parameters: {} };

async function send(
	gate: TestGate,
	key: string,
	path: string,
	body: object | string,
) {
	const response = await fetch(`${gate.url}${path}`, {
		method: "POST",
		headers: bearer(key),
		body: typeof body === "string" ? body : JSON.stringify(body),
	});
	return { status: response.status, text: await response.text() };
}

const bodies = {
	"/v1/messages": {
		model: "qwen3:8b",
		max_tokens: 5,
		messages: [{ role: "user", content: "a" }],
	},
	"/v1/responses": { model: "qwen3:8b", input: "a" },
};

t.test(
	"a key without the scope account starts no search on the owner's account",
	async (t) => {
		const gate = await startGate(t);
		for (const [path, body] of Object.entries(bodies)) {
			for (const tools of [
				[search],
				[plain, { type: "web_search" }],
				[{ type: "web_search_preview" }],
				[{ type: "web_fetch_20250910" }],
				[{ TYPE: "web_search" }],
			]) {
				const refused = await send(gate, testKeys.user, path, {
					...body,
					tools,
				});
				const what = `${path} ${JSON.stringify(tools)}`;
				t.equal(refused.status, 403, what);
				t.match(refused.text, /needs the scope \\"account\\"/, what);
			}
			const spelt = JSON.stringify({ ...body, tools: [search] }).replace(
				"web_search_2",
				"web\\u005fsearch_2",
			);
			t.equal((await send(gate, testKeys.user, path, spelt)).status, 403);
			for (const [more, message] of [
				[',"Tools":[]}', /takes for \\"tools\\"/],
				[',"tools":[]}', /\\"tools\\" twice/],
			] as const) {
				const odd = await send(
					gate,
					testKeys.user,
					path,
					JSON.stringify({ ...body, tools: [] }).replace(/\}$/, more),
				);
				t.equal(odd.status, 400, path);
				t.match(odd.text, message);
			}
		}
		t.equal(gate.standIn.calls.length, 0, "nothing reached Ollama");
		const line = await gate.logged(({ reason }) => reason === "web_tool");
		t.match(line, { outcome: "refused", status: 403, key: "user" });
	},
);

t.test("other tools, and keys with account, go through", async (t) => {
	const gate = await startGate(t);
	for (const [path, body] of Object.entries(bodies)) {
		t.equal((await send(gate, testKeys.user, path, body)).status, 200, path);
		t.equal(
			(await send(gate, testKeys.user, path, { ...body, tools: [plain] }))
				.status,
			200,
			path,
		);
		t.equal(
			(await send(gate, testKeys.owner, path, { ...body, tools: [search] }))
				.status,
			200,
			path,
		);
	}
	// Ollama runs no tool of these itself.
	for (const path of ["/api/chat", "/v1/chat/completions"])
		t.equal(
			(
				await send(gate, testKeys.user, path, {
					model: "qwen3:8b",
					messages: [{ role: "user", content: "a" }],
					stream: false,
					tools: [search],
				})
			).status,
			200,
			path,
		);
});

t.test(
	"where only tools matter, a body may be spelt as Ollama takes it",
	async (t) => {
		const gate = await startGate(t);
		const body = JSON.stringify(bodies["/v1/responses"]).replace(
			'"model"',
			'"Model":"other","MODEL"',
		);
		t.equal(
			(await send(gate, testKeys.user, "/v1/responses", body)).status,
			200,
		);
		t.equal(gate.standIn.calls[0]?.body.toString(), body, "byte for byte");
	},
);

t.test("a key with models is held to both rules", async (t) => {
	const gate = await startGate(t, {
		keys: [
			{
				name: "some",
				sha256: digestOf(testKeys.user),
				models: ["qwen3:*"],
			},
			...testEntries.filter(({ name }) => name !== "user"),
		],
	});
	for (const [path, body] of Object.entries(bodies)) {
		const status = async (more: object) =>
			(await send(gate, testKeys.user, path, { ...body, ...more })).status;
		t.equal(await status({ tools: [search] }), 403);
		t.equal(await status({ model: "llama3.2:3b" }), 403);
		t.equal(await status({ tools: [plain] }), 200);
	}
});
