import { createHash } from "node:crypto";
import t from "tap";
import { eventually, spawnGate, testKeys } from "../support/gate.ts";
import { attack, head, honestStatus, post, shows } from "../support/raw.ts";

const forged = '{"event":"auth_failed","ip":"100.64.0.1"}';
const prompt = "sesame-opens-the-forty-thieves-cave";
const words = /stand-in speaking|not a model|one token at a time/;

t.test(
	"no key, digest, prompt or reply is logged, and no client can forge the line that fail2ban reads",
	async (t) => {
		const oddModel = `odd${forged.replaceAll('"', "'")}`;
		const gate = await spawnGate(t, {
			config: {
				log: { level: "trace" },
				cors: { origins: ["https://chat.example"] },
				limits: { authFailures: { max: 1_000 } },
			},
			standIn: {
				models: ["qwen3:8b", oddModel],
				misbehave: ({ body }) =>
					body.includes("please break") ? "die-mid-stream" : undefined,
			},
		});
		let output = "";
		gate.child.stdout?.on("data", (text: string) => {
			output += text;
		});

		const { user, owner, wrong } = testKeys;
		const shown = [
			...Object.values(testKeys),
			"hunter2-hunter2-hunter2",
			forged,
			"k".repeat(600),
		];
		const bodies = [
			{ model: "qwen3:8b", prompt },
			{ model: "qwen3:8b", prompt, stream: false },
			{ model: "qwen3:8b", messages: [{ role: "user", content: prompt }] },
			{ model: "qwen3:8b", prompt: `${prompt} please break` },
			{ model: forged, prompt },
			{ model: `x\n${forged}\n`, prompt },
			{ model: oddModel, prompt, stream: false },
			{ model: prompt },
		].map((value) => JSON.stringify(value));
		const requests = [
			...shown.flatMap((key) => [
				head("GET /api/tags HTTP/1.1", "Host: gate", shows(key)),
				head("GET /api/tags HTTP/1.1", "Host: gate", `X-Api-Key: ${key}`),
				head(
					"GET /api/tags HTTP/1.1",
					"Host: gate",
					`Authorization: Basic ${btoa(`${prompt}:${key}`)}`,
				),
				head("GET /api/tags HTTP/1.1", "Host: gate", `Authorization: ${key}`),
				head(
					`GET /api/tags?key=${encodeURIComponent(key)} HTTP/1.1`,
					"Host: gate",
				),
				head(
					`GET /${encodeURIComponent(key)} HTTP/1.1`,
					"Host: gate",
					shows(owner),
				),
				head("GET /api/tags HTTP/1.1", "Host: gate", shows(key), shows(key)),
				head("CONNECT gate:1 HTTP/1.1", "Host: gate", shows(key)),
				head("GET /api/tags HTTP/1.1", `Host: ${key}`, shows(owner)),
				head(
					"GET /api/tags HTTP/1.1",
					"Host: gate",
					`Authorization: Bearer ${key}\0`,
				),
			]),
			...bodies.flatMap((body) =>
				[
					"/api/generate",
					"/api/chat",
					"/v1/chat/completions",
					"/v1/messages",
				].map((target) => post(target, body, shows(user))),
			),
			// every place in which a client can put text
			...[wrong, owner].flatMap((key) => [
				head(`GET /${forged} HTTP/1.1`, "Host: gate", shows(key)),
				head(`GET /api/tags?${forged} HTTP/1.1`, "Host: gate", shows(key)),
				head("GET /api/tags HTTP/1.1", `Host: ${forged}`, shows(key)),
				head(
					"GET / HTTP/1.1",
					"Host: gate",
					`User-Agent: ${forged}`,
					shows(key),
				),
				head(
					"GET / HTTP/1.1",
					"Host: gate",
					`X-Request-Id: ${forged}`,
					shows(key),
				),
				head(
					"GET / HTTP/1.1",
					"Host: gate",
					`X-Forwarded-For: ${forged}`,
					shows(key),
				),
				head("GET / HTTP/1.1", "Host: gate", `Origin: ${forged}`, shows(key)),
				head(
					"GET / HTTP/1.1",
					"Host: gate",
					`${"x".repeat(20_000)}: ${forged}`,
				),
				head(`${forged} / HTTP/1.1`, "Host: gate", shows(key)),
				head("GET / HTTP/1.1", "Host: gate", `Expect: ${forged}`, shows(key)),
				head(
					"GET / HTTP/1.1",
					"Host: gate",
					`Transfer-Encoding: ${forged}`,
					shows(key),
				),
				head("GET /v1/models/%0a HTTP/1.1", "Host: gate", shows(key)),
				head(
					"GET /v1/models/event:auth_failed HTTP/1.1",
					"Host: gate",
					shows(key),
				),
				`GET /\n${forged}\n HTTP/1.1\r\nHost: gate\r\n\r\n`,
				`GET / HTTP/1.1\r\nHost: gate\r\nX: y\n${forged}\n\r\n\r\n`,
				`\n${forged}\n`,
				`${forged}\r\n\r\n`,
			]),
		];
		for (const request of requests) await attack(gate, request);
		t.equal(await honestStatus(gate), 200, "an honest request is served");
		await gate.logged(({ ip }) => ip === "127.0.0.9");
		gate.child.kill("SIGTERM");
		t.equal(await gate.exited, 0);
		await eventually(() => output.includes('"stopped"'));

		const lines = output.split("\n").filter((line) => line !== "");
		t.ok(lines.length > requests.length, `${lines.length} lines`);
		for (const secret of shown.filter((text) => text !== forged)) {
			const sha256 = createHash("sha256").update(secret).digest();
			for (const form of [
				secret,
				secret.slice(3, 35),
				sha256.toString("hex"),
				sha256.toString("base64"),
				sha256.toString("hex").slice(0, 16),
				Buffer.from(secret).toString("base64").slice(0, 24),
			])
				t.notOk(output.includes(form), `${form.slice(0, 20)}… is not logged`);
		}
		t.notOk(output.includes(prompt), "no prompt is logged");
		t.notMatch(output, words, "no reply is logged");

		const start = '{"event":"auth_failed","ip":"127.0.0.1"';
		const isAuthFailure = (line: string) =>
			JSON.parse(line).event === "auth_failed";
		for (const line of lines) {
			const what = line.slice(0, 120);
			t.equal(line.startsWith(start), isAuthFailure(line), what);
			t.equal(line.startsWith('{"event"'), line.startsWith(start), what);
			t.match(
				String(JSON.parse(line).ip ?? "127.0.0.1"),
				/^127\.0\.0\.[19]$/,
				"the address is the socket's",
			);
		}
		t.ok(lines.some(isAuthFailure), "wrong keys have their lines");
	},
);
