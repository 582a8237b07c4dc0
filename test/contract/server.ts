import { request } from "node:http";
import { within } from "../support/raw.ts";

/** What a case needs of tap: a place to say what must be closed at its end. */
export interface Teardown {
	teardown(action: () => unknown): unknown;
}

/** Ollama's settings that a case may want; left out is Ollama's own default. */
export interface Settings {
	/** OLLAMA_NUM_PARALLEL */
	readonly parallel?: number;
	/** OLLAMA_MAX_LOADED_MODELS */
	readonly maxLoadedModels?: number;
	/** OLLAMA_MAX_QUEUE */
	readonly maxQueue?: number;
	/** OLLAMA_NO_CLOUD */
	readonly noCloud?: boolean;
}

/**
 * A server that the contract is run on: the real Ollama or the stand-in. It
 * listens on 127.0.0.1, has the models `smol` and `other`, which can chat and
 * nothing else, and reaches nothing outside of this host.
 */
export interface Server {
	readonly port: number;
	/** Ends the runner of the model that is loaded, as a crash does. */
	killRunner(): Promise<void>;
	/** SIGTERM. */
	terminate(): Promise<void>;
}

/** What is measured. */
export interface Subject {
	/** The version that it is, or stands for. */
	readonly version: string;
	start(t: Teardown, settings: Settings): Promise<Server>;
}

/** A reply that has come to its end. */
export interface Reply {
	/** 0 if the connection ended without one. */
	readonly status: number;
	readonly headers: Readonly<Record<string, string | undefined>>;
	readonly text: string;
	/** Whether it came to the end that its framing promises. */
	readonly isWhole: boolean;
}

/** A request that was sent, whose reply may be long in coming. */
export interface Sent {
	/** Resolves with the status when the reply's head is there; with 0 if none came. */
	readonly head: Promise<number>;
	/** Whether the head is there. */
	hasHead(): boolean;
	/** What came of the body so far. */
	text(): string;
	/** Waits for so much of the body, or for its end. */
	until(condition: (text: string) => boolean): Promise<void>;
	readonly end: Promise<Reply>;
	/** Leaves, as a client does that gives up. */
	leave(): void;
}

type Body = object | string | Buffer;

/** Sends a request on a connection of its own. */
export function send(
	{ port }: Pick<Server, "port">,
	method: string,
	path: string,
	body?: Body,
	headers: Readonly<Record<string, string>> = {},
): Sent {
	const bytes =
		body === undefined || Buffer.isBuffer(body) || typeof body === "string"
			? body
			: JSON.stringify(body);
	const head = Promise.withResolvers<number>();
	const end = Promise.withResolvers<Reply>();
	const waiting = new Set<() => void>();
	let text = "";
	let reply: Reply = { status: 0, headers: {}, text: "", isWhole: false };
	let isOver = false;
	const look = () => {
		for (const check of waiting) check();
	};
	const finish = (isWhole: boolean) => {
		isOver = true;
		head.resolve(reply.status);
		end.resolve({ ...reply, text, isWhole });
		look();
	};
	const req = request({
		...{ host: "127.0.0.1", port, method, path, agent: false },
		headers: {
			...headers,
			...(bytes === undefined
				? {}
				: { "content-length": Buffer.byteLength(bytes) }),
		},
	});
	req.on("response", (res) => {
		reply = {
			...reply,
			status: res.statusCode ?? 0,
			headers: res.headers as Reply["headers"],
		};
		head.resolve(reply.status);
		res.setEncoding("utf8").on("data", (piece: string) => {
			text += piece;
			look();
		});
		res.on("error", () => {});
		res.on("close", () => finish(res.complete));
	});
	req.on("error", () => finish(false));
	req.end(bytes);
	return {
		head: within(head.promise, `the head of ${method} ${path}`),
		hasHead: () => reply.status !== 0,
		text: () => text,
		until: (condition) =>
			within(
				new Promise<void>((resolve) => {
					const check = () => {
						if (!isOver && !condition(text)) return;
						waiting.delete(check);
						resolve();
					};
					waiting.add(check);
					check();
				}),
				`more of ${method} ${path}`,
			),
		end: within(end.promise, `the end of ${method} ${path}`),
		leave: () => req.destroy(),
	};
}

/** Sends a request and waits for the end of its reply. */
export function ask(...call: Parameters<typeof send>): Promise<Reply> {
	return send(...call).end;
}
