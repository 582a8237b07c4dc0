import { generateKeyPairSync, sign } from "node:crypto";
import { readFile } from "node:fs/promises";
import t from "tap";
import { digestOf } from "../../src/keys/newKey.ts";
import {
	type GateOptions,
	spawnGate,
	startGate,
	testKeys,
} from "../support/gate.ts";
import {
	attack,
	chunk,
	head,
	honestStatus,
	openRaw,
	post,
	shows,
	strayCalls,
} from "../support/raw.ts";

const user = shows(testKeys.user);
/** One key with rules, and the honest client's. */
const restricted: GateOptions = {
	keys: [
		{
			name: "user",
			sha256: digestOf(testKeys.user),
			scopes: ["read", "infer"],
			models: ["qwen3:8b"],
			maxOptions: { num_ctx: 4_096 },
		},
		{ name: "reader", sha256: digestOf(testKeys.reader), scopes: ["read"] },
	],
};

t.test("no spelling of a body gets past a key's models", async (t) => {
	const gate = await startGate(t, restricted);
	const bodies = [
		'{"model":"llama3.2:3b"}',
		'{"model":"qwen3:8b","model":"llama3.2:3b"}',
		'{"model":"llama3.2:3b","model":"qwen3:8b"}',
		'{"model":"qwen3:8b","MODEL":"llama3.2:3b"}',
		'{"Model":"llama3.2:3b","model":"qwen3:8b"}',
		'{"model":"qwen3:8b","mode\\u006c":"llama3.2:3b"}',
		'{"mode\\u006C":"llama3.2:3b"}',
		'{"model":"","name":"llama3.2:3b"}',
		'{"model":null,"name":"llama3.2:3b"}',
		'{"model":["llama3.2:3b"]}',
		'{"model":{"a":"qwen3:8b"}}',
		'{"model":"qwen3:8b"}{"model":"llama3.2:3b"}',
		'{"model":"llama3.2:3b"}{"model":"qwen3:8b"}',
		'{"model":"llama3.2:3b"} x',
		'[{"model":"llama3.2:3b"}]',
		'"qwen3:8b"',
		"",
		"{}",
		'{"model":"qwen3:8b"',
		'{"model":"qwen3:8b",}',
		"{'model':'qwen3:8b'}",
		'{"model":"qwen3:8b"/*"*/,"model":"llama3.2:3b"/*"*/}',
		'\xef\xbb\xbf{"model":"llama3.2:3b"}',
		'{"model":"qwen3:8b","\xff":1}',
		'{"a":"\\","model":"llama3.2:3b","b":"\\""}',
		'{"a":{"model":"qwen3:8b"},"model":"llama3.2:3b"}',
		'{"a":[{"b":["}"]}],"model":"llama3.2:3b"}',
		'{"model":"QWEN3:8B-cloud"}',
		'{"model":"qwen3:8b:cloud"}',
		'{"model":"evil.example/library/qwen3:8b"}',
		'{"model":"other/qwen3:8b"}',
		'{"model":"qwen3:8b\\u0000"}',
		'{"model":"../qwen3:8b"}',
		'{"model":"qwen3:8b/../llama3.2:3b"}',
	];
	for (const body of bodies) {
		for (const request of [
			post("/api/chat", body, user),
			`${head(
				"POST /v1/chat/completions HTTP/1.1",
				"Host: gate",
				user,
				"Transfer-Encoding: chunked",
			)}${[...body].map((byte) => chunk(byte)).join("")}0\r\n\r\n`,
		]) {
			const { status } = await attack(gate, request);
			t.ok(status === 400 || status === 403, `${body} (${status})`);
		}
	}
	t.equal(await honestStatus(gate), 200, "an honest request is served");
	t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
});

t.test("no place in a body hides an option from a key's rules", async (t) => {
	const gate = await startGate(t, restricted);
	const tooMuch = '"num_ctx":1000000';
	const optionLists = [
		`{${tooMuch}}`,
		`{"seed":1,${tooMuch}}`,
		`{"stop":[],${tooMuch}}`,
		`{"stop":["a","b"],${tooMuch}}`,
		`{"x":{},${tooMuch}}`,
		`{"x":{"y":[{"z":1}]},${tooMuch},"stop":[]}`,
		`{"num_ctx":1,${tooMuch}}`,
		`{"stop":[],"num_ctx":1,${tooMuch}}`,
		`{"num_ct\\u0078":1000000}`,
		`{"num_ctx":"1000000"}`,
		`{"num_ctx":1e9}`,
		`{"num_ctx":-1}`,
	];
	for (const options of optionLists) {
		for (const body of [
			`{"model":"qwen3:8b","options":${options}}`,
			`{"options":${options},"model":"qwen3:8b"}`,
			`{"messages":[{"a":[]}],"options":${options},"model":"qwen3:8b"}`,
		]) {
			const { status } = await attack(gate, post("/api/chat", body, user));
			t.ok(status === 400 || status === 403, `${body} (${status})`);
		}
	}
	t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
	const fits = await attack(
		gate,
		post(
			"/api/chat",
			'{"model":"qwen3:8b","stream":false,"options":{"stop":[],"num_ctx":4096}}',
			user,
		),
	);
	t.equal(fits.status, 200, "what is within the rules is served");
});

t.test(
	"a form that Ollama would take apart in another way is turned away",
	async (t) => {
		const gate = await startGate(t, restricted);
		const a = "Q".repeat(40);
		const b = "Z".repeat(40);
		const part = (boundary: string, disposition: string, value: string) =>
			`--${boundary}\r\nContent-Disposition: form-data; ${disposition}\r\n\r\n${value}\r\n`;
		const plain = part(a, 'name="model"', "qwen3:8b");
		const end = `--${a}--\r\n`;
		// Go's mime.ParseMediaType prefers `boundary*` to `boundary`, and reads `name*` (RFC 2231).
		const within = (disposition: string) =>
			plain +
			part(
				a,
				'name="file"; filename="x"',
				`\r\n${part(b, disposition, "llama3.2:3b")}${part(b, 'name="file"; filename="x"', "y")}--${b}--`,
			) +
			end;
		const forms: Record<string, readonly [type: string, body: string]> = {};
		for (const disposition of [
			"name*=utf-8''%6dodel",
			"name*0=mo; name*1=del",
		]) {
			for (const boundaries of [
				`boundary=${a}; boundary*=utf-8''${b}`,
				`boundary*=utf-8''${b}; boundary=${a}`,
				`boundary=${a}; boundary*0=${b}`,
				`boundary=${a}; boundary*0*=utf-8''${b}`,
				`boundary=${a}; boundary=${b}`,
				`boundary=${b}; boundary=${a}`,
			])
				forms[
					`${boundaries.replaceAll(/[QZ]+/g, (c) => c.charAt(0))} ${disposition}`
				] = [boundaries, within(disposition)];
			const other = part(a, disposition, "llama3.2:3b");
			forms[`before: ${disposition}`] = [`boundary=${a}`, other + plain + end];
			forms[`behind: ${disposition}`] = [`boundary=${a}`, plain + other + end];
			forms[`two names: ${disposition}`] = [
				`boundary=${a}`,
				part(a, `name="x"; ${disposition}`, "llama3.2:3b") + plain + end,
			];
			forms[`a line end in front: ${disposition}`] = [
				`boundary=${a}`,
				`x\r\n--${a} \r\nContent-Disposition: form-data; ${disposition}\r\n\r\nllama3.2:3b\r\n${plain}${end}`,
			];
		}
		// Who decodes it, or goes by the length, reads another model.
		for (const head of [
			"Content-Transfer-Encoding: quoted-printable",
			"Content-Transfer-Encoding: base64",
			"Content-Length: 3",
		])
			forms[head] = [
				`boundary=${a}`,
				plain.replace("\r\n\r\n", `\r\n${head}\r\n\r\n`) + end,
			];
		for (const [what, [parameters, body]] of Object.entries(forms)) {
			const { status } = await attack(
				gate,
				post(
					"/v1/audio/transcriptions",
					body,
					user,
					`Content-Type: multipart/form-data; ${parameters}`,
				),
			);
			t.ok(status === 400 || status === 403, `${what} (${status})`);
		}
		t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
		for (const file of [
			'name="file"; filename="x.wav"',
			"name=file; filename=x.wav; filename*=utf-8''x.wav\r\nContent-Length: 5",
		]) {
			const honest = await attack(
				gate,
				post(
					"/v1/audio/transcriptions",
					plain + part(a, file, "sound") + end,
					user,
					`Content-Type: multipart/form-data; boundary=${a}`,
				),
			);
			t.equal(honest.status, 200, `a plain form is served: ${file}`);
		}
	},
);

t.test(
	"a body that a rule must see first takes no more memory than another",
	{ skip: process.platform === "linux" ? false : "reads /proc" },
	async (t) => {
		const gate = await spawnGate(t, restricted);
		const peakMiB = async () =>
			Number(
				/^VmHWM:\s+(\d+) kB/m.exec(
					await readFile(`/proc/${gate.child.pid}/status`, "utf8"),
				)?.[1],
			) / 1024;
		const before = await peakMiB();
		const block = Buffer.alloc(2 ** 20, " ");
		await Promise.all(
			Array.from({ length: 8 }, async () => {
				const client = await openRaw(gate.port, "127.0.0.2");
				t.teardown(() => client.destroy());
				client.write(
					head(
						"POST /api/chat HTTP/1.1",
						"Host: gate",
						user,
						`Content-Length: ${64 * 2 ** 20}`,
					),
				);
				// All but the end; a gate that will not hold it may answer or stop reading.
				for (let n = 0; n < 60 && client.text() === ""; n++) {
					client.write(block);
					if (client.socket.writableNeedDrain)
						await Promise.race([
							new Promise((resolve) => client.socket.once("drain", resolve)),
							client.until((text) => text !== "").catch(() => undefined),
						]);
				}
			}),
		);
		t.equal(await honestStatus(gate), 200, "an honest request is served");
		const grown = (await peakMiB()) - before;
		t.ok(
			grown < 400,
			`8 bodies of 60 MiB: it has grown by ${Math.round(grown)} MiB`,
		);
	},
);

t.test(
	"a captured signature is good for few uses, however it is spelt",
	async (t) => {
		const { publicKey, privateKey } = generateKeyPairSync("ed25519");
		const ollamaKey = Buffer.concat([
			Buffer.from("0000000b7373682d6564323535313900000020", "hex"),
			publicKey.export({ format: "der", type: "spki" }).subarray(-32),
		]).toString("base64");
		const gate = await startGate(t, {
			keys: [{ name: "cli", ollamaKey, scopes: ["read"] }],
		});
		const target = `/api/tags?ts=${Math.floor(Date.now() / 1000)}`;
		const signature = sign(
			null,
			Buffer.from(`GET,${target}`),
			privateKey,
		).toString("base64");
		// Four bits of the last letter stand for nothing; sixteen letters say the same.
		const letters =
			"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
		const first = letters.indexOf(signature.charAt(85)) & ~15;
		let served = 0;
		for (let use = 0; use < 48; use++) {
			const spelt = `${signature.slice(0, 85)}${letters.charAt(first + (use % 16))}==`;
			const { status } = await attack(
				gate,
				head(
					`GET ${target} HTTP/1.1`,
					"Host: gate",
					`Authorization: ${ollamaKey}:${spelt}`,
				),
			);
			if (status === 200) served += 1;
			else
				t.ok(status === 401 || status === 403 || status === 429, `${status}`);
		}
		t.ok(served >= 1 && served <= 16, `it was served ${served} times`);

		for (const [method, other] of [
			["GET", target.replace("tags", "version")],
			["HEAD", target],
			["GET", target.replace("?", "//?")],
			["GET", `${target}&x=1`],
			["GET", target.replace("ts=", "x=1&ts=")],
			["GET", "/api/tags"],
			["GET", `${target}#x`],
			["GET", `http://gate${target}`],
		] as const) {
			const { status } = await attack(
				gate,
				head(
					`${method} ${other} HTTP/1.1`,
					"Host: gate",
					`Authorization: ${ollamaKey}:${signature}`,
					"Connection: close",
				),
				"127.0.0.4",
			);
			t.not(status, 200, `${method} ${other}`);
		}
		t.equal(gate.standIn.calls.length, served);
	},
);
