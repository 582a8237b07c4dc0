import t from "tap";
import { bearer, eventually, startGate, testKeys } from "../support/gate.ts";
import { ledgerPlace, spawnLedger, sumsOf } from "../support/ledger.ts";
import { startOllama } from "./ollama.ts";

t.test(
	"the real Ollama's own times and counts are what is charged",
	async (t) => {
		const ollama = await startOllama(t);
		const place = await ledgerPlace(t);
		await spawnLedger(t, place);
		const gate = await startGate(t, {
			config: { ledger: place.section },
			upstreamUrl: ollama.url,
		});
		const options = { temperature: 0, seed: 1, num_predict: 16 };
		const post = async (path: string, body: object, signal?: AbortSignal) =>
			fetch(`${gate.url}${path}`, {
				method: "POST",
				headers: bearer(testKeys.user),
				body: JSON.stringify({ model: "smol", ...body }),
				...(signal && { signal }),
			});
		const sums = async () => {
			const [row] = await sumsOf(place);
			return row ?? { requests: 0, gpuMs: 0, loadMs: 0, tokensOut: 0 };
		};

		let gpuMs = 0;
		let loadMs = 0;
		let tokensOut = 0;
		for (const stream of [true, false]) {
			const reply = await post("/api/generate", {
				prompt: "a",
				options,
				stream,
			});
			const last = JSON.parse(
				(await reply.text()).trim().split("\n").at(-1) ?? "",
			);
			t.ok(last.eval_duration > 0, "it tells them");
			gpuMs += Math.round(
				((last.prompt_eval_duration ?? 0) + last.eval_duration) / 1e6,
			);
			loadMs += Math.round(last.load_duration / 1e6);
			tokensOut += last.eval_count;
		}
		await eventually(async () => (await sums()).requests === 2);
		t.match(await sums(), { gpuMs, loadMs, tokensOut });

		const before = await sums();
		const chat = await post("/v1/chat/completions", {
			messages: [{ role: "user", content: "a" }],
			max_tokens: 16,
		});
		const { usage } = (await chat.json()) as {
			usage: { completion_tokens: number };
		};
		await eventually(async () => (await sums()).requests === 3);
		const after = await sums();
		t.equal(after.tokensOut - before.tokensOut, usage.completion_tokens);
		t.ok(after.gpuMs > before.gpuMs, "of which it tells no time");

		// Without usage in the stream its events are counted, and the prompt is not.
		for (const path of ["/v1/chat/completions", "/v1/completions"]) {
			const { requests, tokensOut } = await sums();
			const body = {
				...{ prompt: "a", messages: [{ role: "user", content: "a" }] },
				...{ max_tokens: 16, temperature: 0, seed: 1, stream: true },
			};
			const told = await post(path, {
				...{ ...body, stream_options: { include_usage: true } },
			});
			const count = /"completion_tokens":([1-9]\d*)/.exec(await told.text());
			await eventually(async () => (await sums()).requests === requests + 1);
			const between = await sums();
			t.equal(between.tokensOut - tokensOut, Number(count?.[1]), path);
			await (await post(path, body)).text();
			await eventually(async () => (await sums()).requests === requests + 2);
			const counted = (await sums()).tokensOut - between.tokensOut;
			t.ok(
				Math.abs(counted - Number(count?.[1])) <= 1,
				`${path}: ${counted} events of ${count?.[1]} tokens`,
			);
		}

		const streamed = await sums();
		const controller = new AbortController();
		const left = await post(
			"/api/generate",
			{ prompt: "a", options: { ...options, num_predict: 500 } },
			controller.signal,
		);
		const reader = left.body?.getReader();
		for (let n = 0; n < 5; n += 1) await reader?.read();
		controller.abort();
		await eventually(
			async () => (await sums()).requests === streamed.requests + 1,
		);
		const end = await sums();
		t.ok(
			end.tokensOut - streamed.tokensOut >= 4,
			"what passed of one that was left",
		);
		t.ok(end.gpuMs > streamed.gpuMs);
	},
);
