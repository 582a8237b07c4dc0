import type { QueueStatus } from "../../src/admin/status.ts";
import { bearer, eventually, type TestGate, testKeys } from "./gate.ts";
import { statusOf } from "./raw.ts";

/** An inference request; what is left out does not matter. */
export interface Call {
	readonly key?: string;
	readonly path?: string;
	/** Named in what reaches Ollama, as its User-Agent. */
	readonly as?: string;
	readonly model?: string;
	/** What is in it besides model and prompt, or in their place. */
	readonly body?: object;
	readonly headers?: Record<string, string>;
}

/** Sends an inference request. */
export function send({ url }: Pick<TestGate, "url">, call: Call = {}) {
	const { key = testKeys.user, path = "/api/generate", as = "x" } = call;
	const controller = new AbortController();
	const response = fetch(`${url}${path}`, {
		method: "POST",
		headers: { ...bearer(key), "user-agent": as, ...call.headers },
		body: JSON.stringify({
			model: call.model ?? "qwen3:8b",
			prompt: "a",
			messages: [{ role: "user", content: "a" }],
			...call.body,
		}),
		signal: controller.signal,
	});
	// A test that wants it awaits it.
	response.catch(() => {});
	return {
		response,
		leave: () => controller.abort(),
		text: async () => (await response).text(),
	};
}

/** Who waits in a gate; `undefined` where nobody has to. */
export async function queueOf(
	gate: TestGate,
): Promise<QueueStatus | undefined> {
	return (await statusOf(gate)).queue;
}

/** Resolves when so many wait, and so many have their turn, where that is said. */
export function waitUntil(
	gate: TestGate,
	waiting: number,
	running?: number,
): Promise<void> {
	return eventually(async () => {
		const queue = await queueOf(gate);
		if (queue === undefined) return false;
		const all = Object.values(queue.waiting).reduce((a, b) => a + b);
		return (
			all === waiting && (running === undefined || queue.running === running)
		);
	});
}
