import t from "tap";
import { digestOf } from "../../src/keys/newKey.ts";
import { refusedPaths, routes, scopes } from "../../src/ollama/routes.ts";
import { bearer, startGate, testKeys } from "../support/gate.ts";

/** A path that matches the route, with a fitting value for its parameter. */
function examplePath(path: string): string {
	return path
		.replace(":model", "qwen3:8b")
		.replace(":digest", `sha256:${"ab".repeat(32)}`)
		.replace(":key", "AAAAC3NzaC1lZDI1NTE5");
}

const methods = ["GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"];

t.test(
	"every method on every path is 401 without a key, in the family's shape",
	async (t) => {
		const gate = await startGate(t);
		const paths = new Set([
			...routes.map(({ path }) => examplePath(path)),
			"/no/such/path",
			"/api",
			"/v1",
			"/v1/nothing",
			"/metrics",
			"/health",
			"/healthz",
			"/ping",
			"/favicon.ico",
		]);
		for (const path of paths) {
			for (const method of methods) {
				const response = await fetch(`${gate.url}${path}`, { method });
				const body = await response.text();
				const what = `${method} ${path}`;
				t.equal(response.status, 401, what);
				t.match(response.headers.get("www-authenticate"), /^Bearer /, what);
				if (method === "HEAD") continue;
				const error = JSON.parse(body);
				if (path.startsWith("/v1/messages"))
					t.match(
						error,
						{
							type: "error",
							error: { type: "authentication_error", message: String },
						},
						what,
					);
				else if (path.startsWith("/v1/") || path === "/v1")
					t.strictSame(
						{ ...error, error: { ...error.error, message: "" } },
						{
							error: {
								message: "",
								type: "api_error",
								param: null,
								code: null,
							},
						},
						what,
					);
				else t.strictSame(Object.keys(error), ["error"], what);
				t.notOk(body.includes("\n"), `${what}: one line`);
			}
		}
		t.equal(gate.standIn.calls.length, 0, "nothing reached Ollama");
	},
);

t.test(
	"every route is 403 for a key without its scope, and says which is missing",
	async (t) => {
		const everyScopeBut = (left: string) =>
			scopes.filter((scope) => scope !== left);
		const keys = scopes.map((scope, i) => ({
			name: `no-${scope}`,
			key: `lg_${String(i).repeat(16)}${"0123456789abcdef".repeat(3)}`,
			scopes: everyScopeBut(scope),
		}));
		const gate = await startGate(t, {
			keys: keys.map(({ name, key, scopes }) => ({
				name,
				sha256: digestOf(key),
				scopes,
			})),
		});
		for (const route of routes) {
			const key =
				keys.find(({ name }) => name === `no-${route.scope}`)?.key ?? "";
			const response = await fetch(`${gate.url}${examplePath(route.path)}`, {
				method: route.method,
				headers: bearer(key),
			});
			t.equal(response.status, 403, route.id);
			if (route.method !== "HEAD")
				t.match(
					await response.text(),
					new RegExp(`"${route.scope}|${route.scope}\\\\"`),
					route.id,
				);
		}
		t.equal(gate.standIn.calls.length, 0, "nothing reached Ollama");
	},
);

t.test(
	"every route reaches Ollama, as it is in the table, for a key with its scope",
	async (t) => {
		const gate = await startGate(t);
		for (const route of routes) {
			const path = examplePath(route.path);
			const before = gate.standIn.calls.length;
			const response = await fetch(`${gate.url}${path}?bypass_filter=true`, {
				method: route.method,
				headers: bearer(testKeys.owner),
				...(route.body === "none"
					? {}
					: { body: JSON.stringify({ model: "qwen3:8b", stream: false }) }),
			});
			await response.arrayBuffer();
			t.equal(gate.standIn.calls.length, before + 1, route.id);
			const call = gate.standIn.calls.at(-1);
			t.equal(
				`${call?.method} ${call?.target}`,
				`${route.method} ${path}`,
				`${route.id}: constant path, no query`,
			);
			// The stand-in's owner is not signed in to ollama.com, and says so with a 401 of its own.
			if (route.path !== "/api/me") t.not(response.status, 401, route.id);
			t.not(response.status, 403, route.id);
		}
	},
);

t.test(
	"a method that a path does not take is 405 with a key, an unknown path 404",
	async (t) => {
		const gate = await startGate(t);
		const wrong = await fetch(`${gate.url}/api/chat`, {
			headers: bearer(testKeys.owner),
		});
		t.equal(wrong.status, 405);
		t.equal(wrong.headers.get("allow"), "POST");
		const unknown = await fetch(`${gate.url}/api/nothing`, {
			headers: bearer(testKeys.owner),
		});
		t.equal(unknown.status, 404);
		t.equal(gate.standIn.calls.length, 0);
	},
);

t.test("a new key may read and infer, and no more", async (t) => {
	const gate = await startGate(t, {
		keys: [{ name: "plain", sha256: digestOf(testKeys.user) }],
	});
	const status = async (path: string, init: RequestInit) =>
		(
			await fetch(`${gate.url}${path}`, {
				headers: bearer(testKeys.user),
				...init,
			})
		).status;
	t.equal(await status("/api/tags", {}), 200);
	t.equal(
		await status("/api/embed", {
			method: "POST",
			body: '{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
		}),
		200,
	);
	t.equal(
		await status("/api/pull", { method: "POST", body: '{"model":"x"}' }),
		403,
	);
	t.equal(await status("/api/me", { method: "POST" }), 403);
});

t.test("what is refused by name reaches Ollama under no scope", async (t) => {
	const gate = await startGate(t);
	t.strictSame(
		refusedPaths.map(({ path }) => path),
		["/api/codex/*"],
	);
	for (const path of [
		"/api/codex/_health",
		"/api/codex/backend-api/codex/responses",
		"/api/codex/v1/models",
		"/api/codex/",
	])
		for (const method of methods) {
			const response = await fetch(`${gate.url}${path}`, {
				method,
				headers: bearer(testKeys.owner),
			});
			const text = await response.text();
			t.equal(response.status, 404, `${method} ${path}`);
			if (method !== "HEAD") t.match(text, /chatgpt\.com/, `${method} ${path}`);
		}
	t.equal(gate.standIn.calls.length, 0);
});

t.test("a model in a path that is no name is told of as that", async (t) => {
	const gate = await startGate(t, {
		keys: [
			{
				name: "some",
				sha256: digestOf(testKeys.user),
				models: ["qwen3:*"],
			},
		],
	});
	const response = await fetch(`${gate.url}/v1/models/m@x`, {
		headers: bearer(testKeys.user),
	});
	t.equal(response.status, 400);
	t.match(await response.text(), /the model in the path is not a name/);
});
