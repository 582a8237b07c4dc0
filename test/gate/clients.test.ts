import { spawn } from "node:child_process";
import { once } from "node:events";
import { Ollama } from "ollama";
import OpenAI, { APIError } from "openai";
import t from "tap";
import { startGate, testKeys } from "../support/gate.ts";
import { requireTool } from "../support/tools.ts";

const messages = [{ role: "user" as const, content: "Hello!" }];

t.test(
	"the ollama package lists, streams and embeds with a key in its headers",
	async (t) => {
		const gate = await startGate(t);
		const ollama = new Ollama({
			host: gate.url,
			headers: { Authorization: `Bearer ${testKeys.user}` },
		});
		const { models } = await ollama.list();
		t.ok(models.some(({ name }) => name === "qwen3:8b"));
		let text = "";
		let parts = 0;
		for await (const part of await ollama.chat({
			model: "qwen3:8b",
			messages,
			stream: true,
		})) {
			text += part.message.content;
			parts += 1;
		}
		t.match(text, /stand-in/);
		t.ok(parts > 10);
		const { embeddings } = await ollama.embed({
			model: "nomic-embed-text",
			input: "a",
		});
		t.equal(embeddings.length, 1);
	},
);

t.test(
	"the ollama package shows what the gate says when it refuses",
	async (t) => {
		const gate = await startGate(t);
		const stranger = new Ollama({ host: gate.url });
		await t.rejects(stranger.list(), { message: /a key is needed/ });
		const user = new Ollama({
			host: gate.url,
			headers: { Authorization: `Bearer ${testKeys.user}` },
		});
		await t.rejects(user.delete({ model: "qwen3:8b" }), {
			message: /needs the scope "manage"/,
		});
	},
);

t.test("the ollama package's abort reaches Ollama", async (t) => {
	const gate = await startGate(t, { standIn: { tokenIntervalMs: 5 } });
	const ollama = new Ollama({
		host: gate.url,
		headers: { Authorization: `Bearer ${testKeys.user}` },
	});
	const stream = await ollama.generate({
		model: "qwen3:8b",
		prompt: "a",
		stream: true,
	});
	const aborted = once(gate.standIn.events, "abort");
	await t.rejects(async () => {
		for await (const _part of stream) stream.abort();
	});
	await aborted;
});

t.test(
	"the ollama package sees an error in a stream that broke off",
	async (t) => {
		const gate = await startGate(t, {
			standIn: { misbehave: () => "die-mid-stream" },
		});
		const ollama = new Ollama({
			host: gate.url,
			headers: { Authorization: `Bearer ${testKeys.user}` },
		});
		const stream = await ollama.chat({
			model: "qwen3:8b",
			messages,
			stream: true,
		});
		await t.rejects(
			async () => {
				for await (const _part of stream);
			},
			{ message: /Ollama closed the connection/ },
		);
	},
);

t.test("the openai package lists, streams and completes", async (t) => {
	const gate = await startGate(t);
	const openai = new OpenAI({
		baseURL: `${gate.url}/v1`,
		apiKey: testKeys.user,
		maxRetries: 0,
	});
	const ids = [];
	for await (const model of openai.models.list()) ids.push(model.id);
	t.ok(ids.includes("qwen3:8b"));
	t.equal((await openai.models.retrieve("qwen3:8b")).id, "qwen3:8b");
	const stream = await openai.chat.completions.create({
		model: "qwen3:8b",
		messages,
		stream: true,
		stream_options: { include_usage: true },
	});
	let text = "";
	let usage: unknown;
	for await (const chunk of stream) {
		text += chunk.choices[0]?.delta.content ?? "";
		usage = chunk.usage ?? usage;
	}
	t.match(text, /stand-in/);
	t.match(usage, { prompt_tokens: 26 });
	const whole = await openai.chat.completions.create({
		model: "qwen3:8b",
		messages,
	});
	t.match(whole.choices[0]?.message.content, /stand-in/);
	const response = await openai.responses.create({
		model: "qwen3:8b",
		input: "a",
	});
	t.match(response.output_text, /stand-in/);
});

t.test(
	"the openai package understands refusals, and an error in a stream that broke off",
	async (t) => {
		const gate = await startGate(t, {
			standIn: {
				misbehave: ({ target }) =>
					target === "/v1/chat/completions" ? "die-mid-stream" : undefined,
			},
		});
		const stranger = new OpenAI({
			baseURL: `${gate.url}/v1`,
			apiKey: testKeys.wrong,
			maxRetries: 0,
		});
		await t.rejects(stranger.models.list(), {
			status: 401,
			message: /not known/,
		});
		const user = new OpenAI({
			baseURL: `${gate.url}/v1`,
			apiKey: testKeys.user,
			maxRetries: 0,
		});
		await t.rejects(user.files.list(), { message: /404/ });
		const stream = await user.chat.completions.create({
			model: "qwen3:8b",
			messages,
			stream: true,
		});
		try {
			for await (const _chunk of stream);
			t.fail("the stream seemed whole");
		} catch (error) {
			t.ok(error instanceof APIError);
			t.match(String(error), /Ollama closed the connection/);
		}
	},
);

t.test("curl is refused, lists, and streams line by line", async (t) => {
	if (!requireTool(t, "curl")) return;
	const gate = await startGate(t, {
		standIn: {
			misbehave: ({ target }) =>
				target === "/api/chat" ? "stall-mid-stream" : undefined,
		},
	});
	const curl = async (...args: string[]) => {
		const child = spawn("curl", ["-sS", "-i", ...args], {
			stdio: ["ignore", "pipe", "inherit"],
		});
		let out = "";
		child.stdout.setEncoding("utf8").on("data", (text: string) => {
			out += text;
		});
		await once(child, "close");
		return out;
	};
	t.match(await curl(`${gate.url}/api/tags`), /^HTTP\/1\.1 401 /);
	t.match(
		await curl("-u", `me:${testKeys.user}`, `${gate.url}/api/tags`),
		/^HTTP\/1\.1 200 /,
	);
	const child = spawn("curl", [
		"-sSN",
		"-H",
		`Authorization: Bearer ${testKeys.user}`,
		`${gate.url}/api/chat`,
		"-d",
		'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
	]);
	child.stdout.setEncoding("utf8");
	let out = "";
	while (out.split("\n").length <= 4)
		out += (await once(child.stdout, "data"))[0];
	t.match(JSON.parse(out.split("\n")[3] ?? ""), { done: false });
	const aborted = once(gate.standIn.events, "abort");
	child.kill();
	await aborted;
});
