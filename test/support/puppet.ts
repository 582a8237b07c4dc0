import { once } from "node:events";
import {
	createServer,
	type IncomingMessage,
	type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";

export interface Prompt {
	readonly req: IncomingMessage;
	readonly res: ServerResponse;
}

/** An Ollama with a model `m`, loaded, that answers its prompts when the test does. */
export interface Puppet {
	readonly url: string;
	readonly prompts: readonly Prompt[];
	/** It answers none of the gate's own questions. */
	isSilent: boolean;
	/** What it answers them with in place of what an Ollama says. */
	nonsense: string | undefined;
	/** How many of these it was asked. */
	readonly asked: number;
	/** It answers them again, also those that were asked meanwhile. */
	wake(): void;
	/** Takes no connection any more, nor keeps one that is idle; what goes on does. */
	refuse(): void;
	/** Takes them again. */
	listen(): void;
}

export async function startPuppet(
	t: { teardown(action: () => unknown): unknown },
	isSilent = false,
): Promise<Puppet> {
	const prompts: Prompt[] = [];
	const held = new Set<() => void>();
	const models = [{ name: "m:latest", digest: "m" }];
	const server = createServer((req, res) => {
		req.resume();
		// As a gate before it says.
		res.setHeader("x-request-id", "1");
		res.setHeader("content-type", "application/json");
		if (req.method === "POST") return void prompts.push({ req, res });
		const says = JSON.stringify({ version: "0.34.0", models });
		const tell = () => res.end(puppet.nonsense ?? says);
		puppet.asked += 1;
		if (puppet.isSilent) held.add(tell);
		else tell();
	});
	await once(server.listen(0, "127.0.0.1"), "listening");
	t.teardown(() => {
		server.closeAllConnections();
		server.close();
	});
	const { port } = server.address() as AddressInfo;
	const puppet: Puppet & { asked: number } = {
		url: `http://127.0.0.1:${port}`,
		prompts,
		isSilent,
		nonsense: undefined,
		asked: 0,
		wake() {
			this.isSilent = false;
			for (const tell of held) tell();
			held.clear();
		},
		refuse() {
			server.close();
			server.closeIdleConnections();
		},
		listen() {
			server.listen(port, "127.0.0.1");
		},
	};
	return puppet;
}

export function answer(prompt: Prompt | undefined): void {
	prompt?.res.end('{"model":"m","done":true}');
}
