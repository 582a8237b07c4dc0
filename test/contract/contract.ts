import type { Test } from "tap";
import { bodies } from "./cases/bodies.ts";
import { changes } from "./cases/changes.ts";
import { embeddings } from "./cases/embeddings.ts";
import { ends } from "./cases/ends.ts";
import { hosts } from "./cases/hosts.ts";
import { loading } from "./cases/loading.ts";
import { names, withoutCloud } from "./cases/names.ts";
import { order } from "./cases/order.ts";
import { replies } from "./cases/replies.ts";
import { routes } from "./cases/routes.ts";
import { has, type Moved } from "./moved.ts";
import {
	ask,
	type Reply,
	type Sent,
	type Server,
	type Settings,
	type Subject,
	send,
} from "./server.ts";

/** What a case asks. */
export interface Ollama extends Server {
	ask(...call: Asked): Promise<Reply>;
	send(...call: Asked): Sent;
	/** Whether this version has what moved at some time. */
	has(what: Moved): boolean;
}

type Asked =
	Parameters<typeof ask> extends [unknown, ...infer Rest] ? Rest : never;

/** Cases that share a server, in their order. Each leaves it as it was. */
export interface Group {
	readonly settings?: Settings;
	/** By the sentence that each proves. */
	readonly cases: Readonly<
		Record<string, (t: Test, ollama: Ollama) => Promise<void>>
	>;
}

/** All that the gate relies on, by subject. */
const groups: Readonly<Record<string, Group>> = {
	...{ routes, hosts, names, bodies, loading, replies, embeddings, changes },
	"without cloud models": withoutCloud,
	...order,
	...ends,
};

/** What the cases are about. */
export const subjects: readonly string[] = Object.keys(groups);

/** Runs every case on a server. */
export async function runContract(t: Test, subject: Subject): Promise<void> {
	for (const [subjectName, { settings = {}, cases }] of Object.entries(groups))
		await t.test(subjectName, async (t) => {
			const server = await subject.start(t, settings);
			const ollama: Ollama = {
				...server,
				ask: (...call) => ask(server, ...call),
				send: (...call) => send(server, ...call),
				has: (what) => has(subject.version, what),
			};
			for (const [sentence, prove] of Object.entries(cases))
				await t.test(sentence, (t) => prove(t, ollama));
		});
}
