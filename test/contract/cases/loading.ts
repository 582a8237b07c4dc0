import type { Group, Ollama } from "../contract.ts";

/** The models that are loaded. */
export async function loadedModels(
	ollama: Ollama,
): Promise<{ name: string; expires_at: string; context_length: number }[]> {
	return JSON.parse((await ollama.ask("GET", "/api/ps")).text).models;
}

/** Loads a model, without a word of it. */
export async function load(
	ollama: Ollama,
	more: object = {},
	model = "smol",
): Promise<number> {
	return (await ollama.ask("POST", "/api/generate", { model, ...more })).status;
}

/** Unloads a model, and waits until it is gone. */
export async function unload(ollama: Ollama, model = "smol"): Promise<void> {
	await load(ollama, { keep_alive: 0 }, model);
	await becomesUnloaded(ollama, model);
}

async function becomesUnloaded(ollama: Ollama, model: string): Promise<void> {
	while (
		(await loadedModels(ollama)).some(({ name }) => name === `${model}:latest`)
	);
}

/** For how long a model will stay, in seconds. */
async function stays(ollama: Ollama): Promise<number> {
	const [model] = await loadedModels(ollama);
	return (Date.parse(model?.expires_at ?? "") - Date.now()) / 1000;
}

/** `keep_alive` and `options`: what stays loaded, and how. */
export const loading: Group = {
	cases: {
		"a request without words loads the model, and says so in one piece of JSON":
			async (t, ollama) => {
				for (const [path, body, words] of [
					["/api/generate", {}, { response: "" }],
					["/api/generate", { prompt: "" }, { response: "" }],
					["/api/chat", {}, { message: { role: "assistant", content: "" } }],
					[
						"/api/chat",
						{ messages: [] },
						{ message: { role: "assistant", content: "" } },
					],
				] as const) {
					const { status, headers, text } = await ollama.ask("POST", path, {
						model: "smol",
						...body,
					});
					t.equal(status, 200);
					t.equal(headers["content-type"], "application/json; charset=utf-8");
					const { created_at, ...rest } = JSON.parse(text);
					t.ok(Date.parse(created_at));
					t.strictSame(rest, {
						model: "smol",
						...words,
						done: true,
						done_reason: "load",
					});
				}
				const models = await loadedModels(ollama);
				t.strictSame(
					models.map((model) => Object.keys(model)),
					[
						[
							...["name", "model", "size", "digest", "details"],
							...["expires_at", "size_vram", "context_length"],
						],
					],
				);
				t.equal(models[0]?.name, "smol:latest");
				t.equal(models[0]?.context_length, 4096);
			},
		"it stays for 5 minutes, or as long as a request says": async (
			t,
			ollama,
		) => {
			await unload(ollama);
			await load(ollama);
			const near = (seconds: number, expected: number) =>
				t.ok(
					Math.abs(seconds - expected) < expected / 10 + 5,
					`${seconds} s, and it should be ${expected}`,
				);
			near(await stays(ollama), 300);
			for (const [keepAlive, seconds] of [
				[3600, 3600],
				["20m", 1200],
				["1h30m", 5400],
			] as const) {
				await load(ollama, { keep_alive: keepAlive });
				near(await stays(ollama), seconds);
				await load(ollama, { keep_alive: null });
				near(await stays(ollama), seconds);
			}
			for (const keepAlive of [-1, "-1s", -1e-10]) {
				await load(ollama, { keep_alive: keepAlive });
				t.ok((await stays(ollama)) > 1e9, `${keepAlive} is for good`);
			}
		},
		"these unload at once, and say so": async (t, ollama) => {
			for (const keepAlive of [
				...[0, "0", "0s", "+0", "-0", 1e-10, "0.1ns", "-0.1ns"],
			])
				t.match(
					await ollama.ask("POST", "/api/generate", {
						model: "smol",
						keep_alive: keepAlive,
					}),
					{ status: 200, text: /"done_reason":"unload"\}$/ },
					JSON.stringify(keepAlive),
				);
			t.match(
				await ollama.ask("POST", "/api/chat", { model: "smol", keep_alive: 0 }),
				{
					status: 200,
					text: /"message":\{"role":"assistant","content":""\},"done":true,"done_reason":"unload"\}$/,
				},
			);
			await becomesUnloaded(ollama, "smol");
		},
		"a number beyond what Go counts unloads too, after the use": async (
			t,
			ollama,
		) => {
			t.match(
				await ollama.ask(
					"POST",
					"/api/generate",
					'{"model":"smol","keep_alive":1e300}',
				),
				{ status: 200, text: /"done_reason":"load"\}$/ },
			);
			await becomesUnloaded(ollama, "smol");
		},
		"these are no durations": async (t, ollama) => {
			for (const [keepAlive, message] of [
				["10x", 'time: unknown unit "x" in duration "10x"'],
				["5", 'time: missing unit in duration "5"'],
				["-1", 'time: missing unit in duration "-1"'],
				["", 'time: invalid duration ""'],
				["9999999h", 'time: invalid duration "9999999h"'],
				[true, "Unsupported type: 'bool'"],
				[[], "Unsupported type: '[]interface {}'"],
				[{}, "Unsupported type: 'map[string]interface {}'"],
			] as const)
				for (const path of ["/api/generate", "/api/chat", "/api/embed"])
					t.match(
						await ollama.ask("POST", path, {
							model: "smol",
							keep_alive: keepAlive,
						}),
						{ status: 400, text: JSON.stringify({ error: message }) },
						`${path} ${JSON.stringify(keepAlive)}`,
					);
		},
		"an option of another type is 500, an unknown one is ignored": async (
			t,
			ollama,
		) => {
			for (const [options, message] of [
				[{ num_ctx: "4096" }, 'option "num_ctx" must be of type integer'],
				[{ num_ctx: true }, 'option "num_ctx" must be of type integer'],
				[{ num_predict: "5" }, 'option "num_predict" must be of type integer'],
				[{ temperature: "1" }, 'option "temperature" must be of type float32'],
				[{ use_mmap: "true" }, 'option "use_mmap" must be of type boolean'],
				[{ stop: "a" }, 'option "stop" must be of type array'],
			] as const)
				for (const path of ["/api/generate", "/api/chat", "/api/embed"])
					t.match(
						await ollama.ask("POST", path, {
							...{ model: "smol", prompt: "a", input: "a", options },
							messages: [{ role: "user", content: "a" }],
						}),
						{ status: 500, text: JSON.stringify({ error: message }) },
						`${path} ${message}`,
					);
			t.equal(
				await load(ollama, { options: { nonsense: "x", NUM_CTX: "x" } }),
				200,
			);
		},
		"another num_ctx loads the model anew, within bounds": async (
			t,
			ollama,
		) => {
			for (const [wanted, length] of [
				[512, 512],
				[1024.9, 1024],
				[100_000, 8192],
			] as const) {
				await load(ollama, { options: { num_ctx: wanted } });
				const models = await loadedModels(ollama);
				t.strictSame(
					models.map(({ context_length }) => context_length),
					[length],
					String(wanted),
				);
			}
			await load(ollama);
			const [model] = await loadedModels(ollama);
			t.equal(model?.context_length, 4096);
		},
		"a request prolongs the stay from its end on, one that was left too, and a look does not":
			async (t, ollama) => {
				const expires = async () =>
					Date.parse((await loadedModels(ollama))[0]?.expires_at ?? "");
				await load(ollama, { keep_alive: "10m" });
				const first = await expires();
				t.equal(await expires(), first);
				const sent = ollama.send("POST", "/api/generate", {
					...{ model: "smol", prompt: "Tell me a long story." },
					options: { num_predict: 100_000 },
				});
				await sent.until((text) => text.includes("\n"));
				sent.leave();
				const left = Date.now();
				while ((await expires()) < left + 599_000);
				t.ok((await expires()) > first);
			},
		"a request tells how long the load took": async (t, ollama) => {
			const call = async () => {
				const { text } = await ollama.ask("POST", "/api/generate", {
					...{ model: "smol", prompt: "a", stream: false },
					options: { num_predict: 1 },
				});
				return JSON.parse(text) as {
					load_duration: number;
					total_duration: number;
				};
			};
			await unload(ollama);
			const cold = await call();
			const warm = await call();
			t.ok(cold.load_duration > warm.load_duration);
			t.ok(cold.total_duration > cold.load_duration);
			await unload(ollama);
		},
	},
};
