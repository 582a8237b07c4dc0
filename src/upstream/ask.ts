import type { Upstream, UpstreamSink } from "./client.ts";

/** The longest answer that is read. */
const maxAnswerBytes = 16 * 2 ** 20;
/** Ollama answers these at once, whatever else it does; most of the time. */
const askTimeoutMs = 1_000;

/**
 * Asks Ollama something on the gate's own behalf.
 *
 * @returns the body of a 200; `undefined` for anything else, and after a second
 */
export function askUpstream(
	upstream: Upstream,
	path: string,
): Promise<string | undefined> {
	const { promise, resolve } = Promise.withResolvers<string | undefined>();
	const chunks: Buffer[] = [];
	let sizeBytes = 0;
	let isGood = false;
	const sink: UpstreamSink = {
		ready() {},
		head({ status }) {
			isGood = status === 200;
		},
		data(buffer, start, end) {
			sizeBytes += end - start;
			if (isGood && sizeBytes <= maxAnswerBytes)
				chunks.push(Buffer.from(buffer.subarray(start, end)));
			else giveUp();
			return true;
		},
		end() {
			resolve(isGood ? Buffer.concat(chunks).toString("utf8") : undefined);
		},
		failed() {
			resolve(undefined);
		},
	};
	const request = upstream.send(
		{ method: "GET", path, headers: [], body: undefined },
		sink,
	);
	function giveUp(): void {
		request.abort();
		resolve(undefined);
	}
	const timer = setTimeout(giveUp, askTimeoutMs);
	timer.unref();
	return promise.finally(() => clearTimeout(timer));
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
