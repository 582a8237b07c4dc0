import type { Upstream, UpstreamFault, UpstreamSink } from "./client.ts";

/** The longest answer that is read. */
const maxAnswerBytes = 16 * 2 ** 20;
/** Ollama answers these at once, whatever else it does; most of the time. */
const askTimeoutMs = 1_000;

/** What became of a question of the gate's own. */
export type Answer =
	| {
			readonly kind: "answer";
			readonly status: number;
			/** Lower-case names and values in turn. */
			readonly headers: readonly string[];
			readonly text: string;
	  }
	/** Nothing came in time, or not all. */
	| { readonly kind: "silent" }
	| { readonly kind: "too long" }
	| { readonly kind: "failed"; readonly fault: UpstreamFault };

/** Asks something on the gate's own behalf, with bounds. Never rejects. */
export function ask(
	upstream: Upstream,
	path: string,
	{ timeoutMs, maxBytes }: { timeoutMs: number; maxBytes: number },
): Promise<Answer> {
	const { promise, resolve } = Promise.withResolvers<Answer>();
	const chunks: Buffer[] = [];
	let sizeBytes = 0;
	let status = 0;
	let headers: readonly string[] = [];
	const sink: UpstreamSink = {
		ready() {},
		head(head) {
			({ status, headers } = head);
		},
		data(buffer, start, end) {
			sizeBytes += end - start;
			if (sizeBytes <= maxBytes)
				chunks.push(Buffer.from(buffer.subarray(start, end)));
			else giveUp("too long");
			return true;
		},
		end() {
			const text = Buffer.concat(chunks).toString("utf8");
			resolve({ kind: "answer", status, headers, text });
		},
		failed(fault) {
			resolve({ kind: "failed", fault });
		},
	};
	const request = upstream.send(
		{ method: "GET", path, headers: [], body: undefined },
		sink,
	);
	function giveUp(kind: "silent" | "too long"): void {
		request.abort();
		resolve({ kind });
	}
	const timer = setTimeout(() => giveUp("silent"), timeoutMs);
	timer.unref();
	return promise.finally(() => clearTimeout(timer));
}

/**
 * Asks Ollama something that it answers at once.
 *
 * @returns the body of a 200; `undefined` for anything else, and after a second
 */
export async function askUpstream(
	upstream: Upstream,
	path: string,
): Promise<string | undefined> {
	const answer = await ask(upstream, path, {
		timeoutMs: askTimeoutMs,
		maxBytes: maxAnswerBytes,
	});
	return answer.kind === "answer" && answer.status === 200
		? answer.text
		: undefined;
}

/** The entries of a list of models, such as `/api/ps` answers with; `undefined` if there is none. */
export async function askForModels(
	upstream: Upstream,
	path: "/api/tags" | "/api/ps",
): Promise<Record<string, unknown>[] | undefined> {
	const text = await askUpstream(upstream, path);
	if (text === undefined) return undefined;
	try {
		const { models } = JSON.parse(text) as { models?: unknown };
		return Array.isArray(models)
			? models.filter((entry) => typeof entry === "object" && entry !== null)
			: undefined;
	} catch {
		return undefined;
	}
}
