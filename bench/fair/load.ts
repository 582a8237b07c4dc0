import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { Agent, type IncomingMessage, request } from "node:http";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";

/** Somebody who keeps requests open for as long as the load lasts. */
export interface LoadUser {
	readonly name: string;
	/** Sent as a bearer key. */
	readonly key?: string | undefined;
	readonly model: string;
	/** How long each reply is. */
	readonly tokens: number;
	/** How many requests are open at once. */
	readonly workers: number;
	/** Between a reply's end and the next request. */
	readonly pauseMs: number;
	/** From one request to the next at the least: whoever waits less asks no more often for that. */
	readonly everyMs?: number | undefined;
	/** When it begins, from the load's start. */
	readonly afterMs: number;
	/** Whether all its requests have one prompt, of which Ollama has nearly all in its cache. */
	readonly samePrompt?: boolean;
}

export interface Load {
	readonly url: string;
	/** `/api/chat` or `/v1/chat/completions`. */
	readonly family: "ollama" | "openai";
	/** For how long requests begin, one a worker at the least; those that are open then are waited for. */
	readonly seconds: number;
	readonly users: readonly LoadUser[];
}

/** What became of a request. Times count from the load's start. */
export interface Asked {
	readonly user: string;
	readonly sentMs: number;
	/** Absent where no token came. */
	readonly firstMs?: number;
	readonly endMs: number;
	/** Absent where there was no reply. */
	readonly status?: number;
	/** Pieces of text, of which Ollama sends one a token. */
	readonly tokens: number;
	/** Those that came while requests began. */
	readonly tokensInTime: number;
	/** What Ollama says it took for prompt and reply; only `/api/chat` has it. */
	readonly gpuMs?: number;
	/** What Ollama says it took to load the model, or to see that it is loaded. */
	readonly loadMs?: number;
	/** Why the reply is not whole. */
	readonly failure?: string;
}

/** A reply that has not ended by then, from the last request's start, is given up. */
const patienceMs = 150_000;

/**
 * Runs a load in a process of its own.
 *
 * @param started gets the process, so that it can be ended early
 * @throws if it cannot be run to its end
 */
export async function runLoad(
	load: Load,
	started: (child: ChildProcess) => void,
): Promise<Asked[]> {
	const child = spawn(
		process.execPath,
		[import.meta.filename, JSON.stringify(load)],
		{ stdio: ["ignore", "pipe", "inherit"] },
	);
	started(child);
	let text = "";
	child.stdout.setEncoding("utf8").on("data", (piece: string) => {
		text += piece;
	});
	const [code] = await once(child, "close");
	if (code !== 0) throw new Error(`the load ended with ${code}`);
	return JSON.parse(text) as Asked[];
}

/** Told from each other by their numbers: what comes after them is read anew for each. */
const promptOf = (number: number) =>
	`Tell me a long story about a lighthouse with ${number} rooms.`;

async function generate({ url, family, seconds, users }: Load) {
	const agent = new Agent({ keepAlive: true, maxSockets: Infinity });
	const startedAt = performance.now();
	const now = () => performance.now() - startedAt;
	const endMs = seconds * 1000;
	const asked: Asked[] = [];
	const givingUp = AbortSignal.timeout(endMs + patienceMs);
	let number = 0;

	const ask = async (user: LoadUser): Promise<Asked> => {
		const messages = [
			{ role: "user", content: promptOf(user.samePrompt ? 0 : ++number) },
		];
		const { model, tokens } = user;
		const isNative = family === "ollama";
		const body = isNative
			? { options: { num_predict: tokens, temperature: 0 } }
			: { max_tokens: tokens, temperature: 0 };
		const sentMs = now();
		const seen = { tokens: 0, tokensInTime: 0 };
		let firstMs: number | undefined;
		let status: number | undefined;
		let last: Piece | undefined;
		let failure: string | undefined;
		try {
			const sent = request(
				new URL(isNative ? "/api/chat" : "/v1/chat/completions", url),
				{
					...{ agent, method: "POST", signal: givingUp },
					headers: {
						"content-type": "application/json",
						...(user.key && { authorization: `Bearer ${user.key}` }),
					},
				},
			);
			sent.end(JSON.stringify({ model, messages, stream: true, ...body }));
			const [reply] = (await once(sent, "response")) as [IncomingMessage];
			status = reply.statusCode;
			for await (const line of createInterface({ input: reply })) {
				const piece = read(line, isNative);
				if (piece === undefined) continue;
				last = piece;
				if (piece.error !== undefined) failure = JSON.stringify(piece.error);
				if (textOf(piece) === "") continue;
				firstMs ??= now();
				seen.tokens++;
				if (now() <= endMs) seen.tokensInTime++;
			}
			if (status !== 200) failure ??= `status ${status}`;
			else if (seen.tokens === 0) failure ??= "no token";
		} catch (error) {
			failure = error instanceof Error ? error.message : String(error);
		}
		return {
			user: user.name,
			...{ sentMs, endMs: now(), ...seen },
			...(firstMs !== undefined && { firstMs }),
			...(status !== undefined && { status }),
			...(last?.eval_duration !== undefined && {
				gpuMs: (last.eval_duration + (last.prompt_eval_duration ?? 0)) / 1e6,
				loadMs: (last.load_duration ?? 0) / 1e6,
			}),
			...(failure !== undefined && { failure: failure.slice(0, 200) }),
		};
	};

	const work = async (user: LoadUser) => {
		await delay(user.afterMs);
		do {
			const one = await ask(user);
			asked.push(one);
			// Whoever refuses at once is not asked as fast as it can.
			const pauseMs = one.failure === undefined ? user.pauseMs : 200;
			const nextMs = one.sentMs + (user.everyMs ?? 0);
			await delay(Math.max(pauseMs, nextMs - now()));
		} while (now() < endMs);
	};
	await Promise.all(
		users.flatMap((user) =>
			Array.from({ length: user.workers }, () => work(user)),
		),
	);
	agent.destroy();
	return asked;
}

/** What is read of a line, of either family. */
interface Piece {
	readonly error?: unknown;
	readonly message?: { readonly content?: string };
	readonly choices?: readonly { readonly delta?: { content?: string } }[];
	readonly load_duration?: number;
	readonly prompt_eval_duration?: number;
	readonly eval_duration?: number;
}

function read(line: string, isNative: boolean): Piece | undefined {
	const text = isNative ? line : line.replace(/^data: ?/, "");
	// Comments, blank lines and the end mark of an event stream.
	if (!text.startsWith("{")) return undefined;
	return JSON.parse(text) as Piece;
}

function textOf({ message, choices }: Piece): string {
	return message?.content ?? choices?.[0]?.delta?.content ?? "";
}

if (import.meta.main) {
	const load = JSON.parse(process.argv[2] ?? "") as Load;
	process.stdout.write(JSON.stringify(await generate(load)));
}
