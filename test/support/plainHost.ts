import { startRawServer } from "./rawServer.ts";

/** What a prompt is answered with. */
export interface PlainAnswer {
	readonly status?: number;
	/** An object is sent as JSON. */
	readonly body: object | string;
	/** What the head says of the body's length, where that is not true. */
	readonly length?: number;
}

/** A host that answers whatever it is asked, as a test says. */
export interface PlainHost {
	readonly url: string;
	/** The bodies of the prompts that have reached it. */
	readonly prompts: readonly Record<string, unknown>[];
}

type Answering = (
	prompt: Record<string, unknown>,
	path: string,
) => PlainAnswer | "break off" | "no HTTP" | Promise<PlainAnswer>;

/**
 * A host that sends a reply's head and body in one write, as most do; it looks
 * like a gate with an Ollama behind it, or like a server of OpenAI's calls.
 */
export async function startPlainHost(
	t: { teardown(action: () => unknown): unknown },
	models: readonly string[],
	answer: Answering,
	/** Whether it answers the gate's own questions; waits for what is returned. */
	mayTell: () => Promise<void> | undefined = () => undefined,
): Promise<PlainHost> {
	const prompts: Record<string, unknown>[] = [];
	const own: Readonly<Record<string, () => object>> = {
		"/api/version": () => ({ version: "0.34.0" }),
		"/api/ps": () => ({ models: [] }),
		"/api/tags": () => ({ models: models.map((name) => ({ name })) }),
		// llama.cpp's server says it in both forms.
		"/v1/models": () => ({
			models: models.map((name) => ({ name, model: name })),
			object: "list",
			data: models.map((id) => ({ id })),
		}),
	};
	const { port } = await startRawServer(t, (socket) => {
		let text = "";
		const reply = async (method: string, path: string, body: string) => {
			const told = method === "GET" ? own[path] : undefined;
			if (told !== undefined) {
				await mayTell();
				socket.write(written({ body: told() }));
				return;
			}
			const prompt = (body.startsWith("{") ? JSON.parse(body) : {}) as Record<
				string,
				unknown
			>;
			prompts.push(prompt);
			const said = await answer(prompt, path);
			if (said === "break off") socket.destroy();
			else if (said === "no HTTP") socket.end("what?\r\n\r\n");
			else socket.write(written(said));
		};
		socket.on("data", (piece) => {
			text += piece.toString("latin1");
			const end = text.indexOf("\r\n\r\n");
			if (end === -1) return;
			const head = text.slice(0, end);
			const length = Number(/content-length: (\d+)/.exec(head)?.[1] ?? 0);
			const body = text.slice(end + 4, end + 4 + length);
			if (body.length < length) return;
			text = text.slice(end + 4 + length);
			const [method = "", path = ""] = head.split(" ");
			void reply(method, path, body);
		});
	});
	return {
		url: `http://127.0.0.1:${port}`,
		prompts,
	};
}

function written({ status = 200, body, length }: PlainAnswer): string {
	const text = typeof body === "string" ? body : JSON.stringify(body);
	return `HTTP/1.1 ${status} So\r\ncontent-type: application/json\r\nx-request-id: 1\r\ncontent-length: ${length ?? text.length}\r\n\r\n${text}`;
}
