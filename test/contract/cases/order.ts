import type { Group, Ollama } from "../contract.ts";
import type { Sent } from "../server.ts";
import { load, loadedModels, unload } from "./loading.ts";

/** Starts a stream that goes on until it is left, and waits for its first token. */
async function hold(ollama: Ollama, model = "smol"): Promise<Sent> {
	const sent = generate(ollama, model, 100_000);
	await sent.until((text) => text.includes("\n"));
	return sent;
}

function generate(
	ollama: Ollama,
	model: string,
	tokens: number,
	more: object = {},
): Sent {
	return ollama.send("POST", "/api/generate", {
		...{ model, raw: true, prompt: "1, 2, 3, 4, 5, 6, 7," },
		options: { num_predict: tokens, temperature: 0 },
		...more,
	});
}

/** Waits until Ollama must have heard of all that was sent before: it answers a call that was sent later. */
async function isHeard(ollama: Ollama): Promise<void> {
	for (let calls = 0; calls < 20; calls++)
		await ollama.ask("GET", "/api/version");
}

async function loadedNames(ollama: Ollama): Promise<string[]> {
	return (await loadedModels(ollama)).map(({ name }) => name).sort();
}

/** Waits until exactly these are loaded. */
async function untilLoaded(
	ollama: Ollama,
	...names: readonly string[]
): Promise<void> {
	while ((await loadedNames(ollama)).join() !== names.join());
}

/** Whose turn it is: at one model, and between models. */
export const order: Readonly<Record<string, Group>> = {
	"order at one model": {
		settings: { parallel: 1 },
		cases: {
			"one at a time, first come first served, and no head before": async (
				t,
				ollama,
			) => {
				const first = await hold(ollama);
				const ended: number[] = [];
				const waiting: Sent[] = [];
				for (const number of [1, 2, 3]) {
					const sent = generate(ollama, "smol", 2);
					void sent.end.then(() => ended.push(number));
					waiting.push(sent);
					await isHeard(ollama);
				}
				t.notOk(waiting.some((sent) => sent.hasHead()));
				first.leave();
				await Promise.all(waiting.map(({ end }) => end));
				t.strictSame(ended, [1, 2, 3]);
			},
			"who leaves in the middle of a stream frees the model": async (
				t,
				ollama,
			) => {
				for (const stream of [true, false]) {
					const first = generate(ollama, "smol", 100_000, { stream });
					if (stream) await first.until((text) => text.includes("\n"));
					else await isHeard(ollama);
					const next = generate(ollama, "smol", 2);
					await isHeard(ollama);
					t.notOk(next.hasHead());
					first.leave();
					t.equal((await next.end).status, 200);
				}
			},
			"who leaves while it waits is passed over": async (t, ollama) => {
				const first = await hold(ollama);
				const leaving = generate(ollama, "smol", 100_000);
				await isHeard(ollama);
				const last = generate(ollama, "smol", 2);
				await isHeard(ollama);
				leaving.leave();
				await leaving.end;
				first.leave();
				t.equal((await last.end).status, 200);
			},
			"what tells of the server is answered meanwhile": async (t, ollama) => {
				const first = await hold(ollama);
				for (const path of ["/api/ps", "/api/tags", "/v1/models"])
					t.equal((await ollama.ask("GET", path)).status, 200, path);
				t.equal(
					(await ollama.ask("POST", "/api/show", { model: "smol" })).status,
					200,
				);
				first.leave();
			},
			"a request that is at work outlasts keep_alive 0": async (t, ollama) => {
				const first = await hold(ollama);
				await load(ollama, { keep_alive: 0 });
				t.strictSame(await loadedNames(ollama), ["smol:latest"]);
				first.leave();
				await untilLoaded(ollama);
			},
		},
	},
	"order with two slots": {
		settings: { parallel: 2 },
		cases: {
			"two are served at once, and the third waits": async (t, ollama) => {
				const running = [await hold(ollama), await hold(ollama)];
				const third = generate(ollama, "smol", 2);
				await isHeard(ollama);
				t.notOk(third.hasHead());
				running[0]?.leave();
				t.equal((await third.end).status, 200);
				t.ok(running[1]?.hasHead());
				running[1]?.leave();
			},
		},
	},
	"order across models with room for both": {
		settings: { parallel: 1 },
		cases: {
			"a second model is loaded beside the first": async (t, ollama) => {
				const first = await hold(ollama);
				t.equal((await generate(ollama, "other", 2).end).status, 200);
				t.strictSame(await loadedNames(ollama), [
					...["other:latest", "smol:latest"],
				]);
				first.leave();
				await unload(ollama);
				t.strictSame(await loadedNames(ollama), ["other:latest"]);
				await unload(ollama, "other");
			},
		},
	},
	"order across models with room for one": {
		settings: { parallel: 1, maxLoadedModels: 1 },
		cases: {
			"a model gives way when it falls idle": async (t, ollama) => {
				const first = await hold(ollama);
				const other = generate(ollama, "other", 2);
				await isHeard(ollama);
				t.notOk(other.hasHead());
				first.leave();
				t.equal((await other.end).status, 200);
				t.strictSame(await loadedNames(ollama), ["other:latest"]);
			},
			"as long as requests come for the loaded model, none of another is served":
				async (t, ollama) => {
					let running = await hold(ollama);
					const other = generate(ollama, "other", 2);
					await isHeard(ollama);
					for (let round = 0; round < 5; round++) {
						// It comes after the one for the other model, and is served before it.
						const next = generate(ollama, "smol", 100_000);
						await isHeard(ollama);
						running.leave();
						await next.until((text) => text.includes("\n"));
						t.notOk(other.hasHead(), `round ${round}`);
						running = next;
					}
					running.leave();
					t.equal((await other.end).status, 200);
				},
			"a request that names a keep_alive takes an eviction back": async (
				t,
				ollama,
			) => {
				await load(ollama);
				const running = await hold(ollama);
				const other = generate(ollama, "other", 2);
				await isHeard(ollama);
				const keeping = generate(ollama, "smol", 2, { keep_alive: "10m" });
				await isHeard(ollama);
				running.leave();
				t.equal((await keeping.end).status, 200);
				// The model is idle, and nobody sends it away any more.
				t.equal((await generate(ollama, "smol", 2).end).status, 200);
				await isHeard(ollama);
				t.strictSame(await loadedNames(ollama), ["smol:latest"]);
				t.notOk(other.hasHead());
				await load(ollama, { keep_alive: 0 });
				t.equal((await other.end).status, 200);
			},
			"who leaves while another model is at work still has it sent away":
				async (t, ollama) => {
					await load(ollama);
					const running = await hold(ollama);
					const other = generate(ollama, "other", 2);
					await isHeard(ollama);
					other.leave();
					await other.end;
					running.leave();
					await untilLoaded(ollama);
					t.equal(await load(ollama), 200, "and loads go on");
				},
		},
	},
	loads: {
		settings: { parallel: 1, maxLoadedModels: 1, maxQueue: 1 },
		cases: {
			"a client that leaves while its model loads has the load given up":
				async (t, ollama) => {
					const leaving = generate(ollama, "smol", 2);
					await isHeard(ollama);
					leaving.leave();
					await leaving.end;
					t.equal(await load(ollama, {}, "other"), 200);
					t.strictSame(await loadedNames(ollama), ["other:latest"]);
					await unload(ollama, "other");
				},
			"OLLAMA_MAX_QUEUE counts those that wait for a load, and the next is 503":
				async (t, ollama) => {
					const running = await hold(ollama);
					// The first of them is no longer in the queue: the eviction is made for it.
					const other = generate(ollama, "other", 2);
					await isHeard(ollama);
					const queued = generate(ollama, "other", 2);
					await isHeard(ollama);
					const message =
						"server busy, please try again.  maximum pending requests exceeded";
					for (const [path, type] of [
						["/api/chat", undefined],
						["/v1/chat/completions", "api_error"],
						["/v1/messages", "overloaded_error"],
					] as const) {
						const reply = await ollama.ask("POST", path, {
							...{ model: "other", max_tokens: 2 },
							messages: [{ role: "user", content: "a" }],
						});
						t.equal(reply.status, 503, path);
						t.equal(reply.headers["retry-after"], undefined);
						const { error } = JSON.parse(reply.text);
						t.equal(type === undefined ? error : error.message, message);
						if (type !== undefined) t.equal(error.type, type);
					}
					// Those for the loaded model wait elsewhere, as many as come.
					const waiting = Array.from({ length: 5 }, () =>
						generate(ollama, "smol", 1),
					);
					await isHeard(ollama);
					running.leave();
					for (const { end } of [...waiting, other, queued])
						t.equal((await end).status, 200);
				},
		},
	},
};
