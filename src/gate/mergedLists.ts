import { ask } from "../upstream/ask.ts";
import { modelKey } from "../upstream/hosts/catalog.ts";
import type { Host } from "../upstream/hosts/host.ts";
import type { Exchange } from "./exchange.ts";
import type { ReplyFilter } from "./modelPolicy.ts";
import { answers, noHostCan } from "./noHost.ts";
import type { Refusal } from "./refusal.ts";
import type { GateState } from "./state.ts";
import { badGateway } from "./upstreamFault.ts";

/** Lists of models that several hosts have, each model once. */

/** What a host does not say in this time is left out, or was said before. */
const askMs = 2_000;
/** Of each host. */
const maxListBytes = 4 * 2 ** 20;
const maxEntries = 10_000;

type Entry = Readonly<Record<string, unknown>>;

interface Shape {
	/** The member that holds the entries, and the one of an entry that is its name. */
	readonly list: string;
	readonly name: string;
	readonly rest: Readonly<Record<string, unknown>>;
}

const shapes: Readonly<Record<string, Shape>> = {
	"/api/tags": { list: "models", name: "name", rest: {} },
	"/api/ps": { list: "models", name: "name", rest: {} },
	"/v1/models": { list: "data", name: "id", rest: { object: "list" } },
};

/** The body of a merged list, without what the key may not see; or why there is none. */
export async function mergedAnswer(
	{ pool }: GateState,
	{ head, routeMatch }: Exchange,
	filter: ReplyFilter | undefined,
): Promise<Buffer | Refusal> {
	const fromGate = head.hop.length > 0;
	const { route } = routeMatch;
	const all = pool?.hosts.all ?? [];
	if (!all.some((host) => answers(host, route.path, fromGate)))
		return noHostCan(all, route);
	const list = await pool?.lists.get(route.path, fromGate);
	if (list === undefined)
		return badGateway(
			"no_host",
			`none of this gate's hosts says what it has: ${all.map(({ name, health }) => `${name} is ${health.state}`).join(", ")}`,
		);
	const body = filter === undefined ? list : filter(list);
	return body ?? badGateway("upstream_garbage", "the list cannot be read");
}

/** Asks all hosts, and puts together what they say. */
export class MergedLists {
	readonly #hosts: () => readonly Host[];
	/** Of those that are being asked, by path. */
	readonly #asking = new Map<string, Promise<Buffer | undefined>>();
	/** What a host has said last, for when it is slow. */
	readonly #last = new Map<string, readonly Entry[]>();

	constructor(hosts: () => readonly Host[]) {
		this.#hosts = hosts;
	}

	/**
	 * The list, as an Ollama would send it; `undefined` if no host says anything.
	 * Two who ask at once are answered by one look.
	 *
	 * @param fromGate for another gate, whose list another gate's entries would go round in
	 */
	get(path: string, fromGate: boolean): Promise<Buffer | undefined> {
		const id = `${path} ${fromGate}`;
		const running = this.#asking.get(id);
		if (running !== undefined) return running;
		const asked = this.#ask(path, fromGate).finally(() =>
			this.#asking.delete(id),
		);
		this.#asking.set(id, asked);
		return asked;
	}

	async #ask(path: string, fromGate: boolean): Promise<Buffer | undefined> {
		const entries = await this.entries(path, fromGate);
		const { rest, list } = shapeOf(path);
		return entries && Buffer.from(JSON.stringify({ ...rest, [list]: entries }));
	}

	/** What all hosts list, each model once; `undefined` if no host says anything. */
	async entries(
		path: string,
		fromGate = false,
	): Promise<readonly Entry[] | undefined> {
		const listed = await this.entriesOfHosts(path, fromGate);
		if (listed === undefined) return undefined;
		const { name } = shapeOf(path);
		const merged = new Map<string, Entry>();
		for (const { entry } of listed) {
			const key = modelKey(String(entry[name]));
			if (merged.size >= maxEntries) break;
			if (!merged.has(key)) merged.set(key, entry);
		}
		return [...merged.values()];
	}

	/** What each host lists and may have; `undefined` if no host says anything. */
	async entriesOfHosts(
		path: string,
		fromGate = false,
	): Promise<readonly { host: string; entry: Entry }[] | undefined> {
		const shape = shapeOf(path);
		const hosts = this.#hosts().filter(
			(host) => host.health.state !== "down" && answers(host, path, fromGate),
		);
		const lists = await Promise.all(
			hosts.map((host) => this.#entriesOf(host, path, shape)),
		);
		if (lists.every((entries) => entries === undefined)) return undefined;
		return hosts.flatMap((host, index) =>
			(lists[index] ?? [])
				.filter((entry) => host.mayHave(String(entry[shape.name])))
				.map((entry) => ({ host: host.name, entry })),
		);
	}

	async #entriesOf(
		host: Host,
		path: string,
		shape: Shape,
	): Promise<readonly Entry[] | undefined> {
		const id = `${host.name} ${path}`;
		const answer = await ask(host.asking, path, {
			timeoutMs: askMs,
			maxBytes: maxListBytes,
		});
		// One that was asked too often has what it had, too.
		if (
			answer.kind === "silent" ||
			(answer.kind === "answer" && answer.status === 429)
		)
			return this.#last.get(id);
		const entries =
			answer.kind === "answer" && answer.status === 200
				? read(answer.text, shape)
				: undefined;
		if (entries === undefined) this.#last.delete(id);
		else this.#last.set(id, entries);
		return entries;
	}
}

function shapeOf(path: string): Shape {
	const shape = shapes[path];
	if (shape === undefined) throw new Error(`${path} is not a list`);
	return shape;
}

/** Those entries that have a name; `undefined` for what is not a list. */
function read(
	text: string,
	{ list, name }: Shape,
): readonly Entry[] | undefined {
	try {
		const entries = (JSON.parse(text) as Entry)[list] ?? [];
		return Array.isArray(entries)
			? (entries as unknown[])
					.slice(0, maxEntries)
					.filter(
						(entry): entry is Entry =>
							typeof entry === "object" &&
							entry !== null &&
							typeof (entry as Entry)[name] === "string",
					)
			: undefined;
	} catch {
		return undefined;
	}
}
