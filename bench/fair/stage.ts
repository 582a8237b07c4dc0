import { readFileSync } from "node:fs";
import { loadavg } from "node:os";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import type { Priority } from "../../src/priority.ts";
import { type OllamaOptions, startOllama } from "../../test/real/ollama.ts";
import { realParts } from "../../test/real/parts.ts";
import { freePort } from "../../test/support/freePort.ts";
import { spawnGate, testKeys } from "../../test/support/gate.ts";
import { temporaryFolder } from "../../test/support/temporaryFolder.ts";
import { masterKey, startLitellm, stopLitellm } from "./litellm.ts";
import { type Asked, type Load, type LoadUser, runLoad } from "./load.ts";

/** The Ollama that all of it is measured with. */
export const ollamaVersion = "0.32.15";

/** What every workload needs to know of this run. */
export interface Stage {
	/** For how long an interactive user is watched; other times follow from it. */
	readonly seconds: number;
	/** The ways that are measured, by name; all if nothing is said. */
	readonly only: readonly string[] | undefined;
	/** What it is given is done at the end, the last first, also after Ctrl-C. */
	teardown(action: () => unknown): void;
	progress(text: string): void;
}

/** One way to Ollama. */
export interface Way {
	readonly name: string;
	readonly url: string;
	readonly family: Load["family"];
	/** Who keeps many requests open, and who wants one answer now and then. */
	readonly keys: { readonly batch?: string; readonly person?: string };
}

export const direct = "direct";
export const gateOff = "gate, queue off";
/** The gate as `llamagate setup` leaves it; the goals are about it. */
export const gateFair = "gate";
/** The same, with the batch user's key in the class that says so. */
export const gateBatch = "gate, batch key";
export const viaLitellm = "litellm";

export const gateNote =
	"gate: queue.parallel is Ollama's own number, as setup writes it";

export const litellmNote =
	"litellm: its proxy from PyPI, one master key for both users, as a key for each takes a database; it is asked by /v1/chat/completions, and asks Ollama by /api/chat as the others do";

/**
 * A real Ollama with the models `smol` and `other`, the given settings, of which
 * OLLAMA_NUM_PARALLEL is one, and every way to it that is to be measured. `close` ends all of it.
 */
export async function openWays(
	stage: Stage,
	env: NonNullable<OllamaOptions["env"]>,
	names: readonly string[],
): Promise<{ ways: Way[]; notes: string[]; close(): Promise<void> }> {
	const closing: (() => unknown)[] = [];
	const t = { teardown: (action: () => unknown) => closing.unshift(action) };
	const close = async () => {
		for (const action of closing.splice(0)) await action();
	};
	stage.teardown(close);
	const host = `127.0.0.1:${await freePort()}`;
	const { url } = await startOllama(t, { version: ollamaVersion, host, env });
	const parallel = Number(env.OLLAMA_NUM_PARALLEL);
	const wanted = names.filter((name) => stage.only?.includes(name) ?? true);
	const ways: Way[] = [];
	const notes: string[] = [];
	for (const name of wanted)
		try {
			ways.push({ name, ...(await openWay(stage, t, name, url, parallel)) });
		} catch (error) {
			const why = error instanceof Error ? error.message : String(error);
			notes.push(`${name}: not measured: ${why}`);
			stage.progress(`${name} cannot be measured: ${why}`);
		}
	return { ways, notes, close };
}

type Teardown = Parameters<typeof startOllama>[0];

async function openWay(
	stage: Stage,
	t: Teardown,
	name: string,
	ollamaUrl: string,
	parallel: number,
): Promise<Omit<Way, "name">> {
	if (name === direct) return { url: ollamaUrl, family: "ollama", keys: {} };
	if (name === viaLitellm) {
		const folder = await temporaryFolder(t);
		const { url, child } = await startLitellm(
			...([realParts().folder, folder, ollamaUrl] as const),
			...([["smol", "other"], stage.progress] as const),
		);
		t.teardown(() => stopLitellm(child));
		const keys = { batch: masterKey, person: masterKey };
		return { url, family: "openai", keys };
	}
	const entry = (who: string, key: string, priority?: Priority): KeyEntry => ({
		...{ name: who, sha256: digestOf(key), scopes: ["infer"] },
		...(priority !== undefined && { priority }),
	});
	const { url } = await spawnGate(t, {
		upstreamUrl: ollamaUrl,
		config: { queue: { mode: name === gateOff ? "off" : "fair", parallel } },
		keys: [
			entry(
				...(["batch", testKeys.worker] as const),
				name === gateBatch ? "batch" : undefined,
			),
			entry("person", testKeys.user),
		],
	});
	return {
		...{ url, family: "ollama" as const },
		keys: { batch: testKeys.worker, person: testKeys.user },
	};
}

/** What a way made of a load. */
export interface Measured {
	readonly way: Way;
	readonly asked: readonly Asked[];
	readonly seconds: number;
	/** Of the machine when it began: what ran beside. */
	readonly loadBefore: number;
}

/** Has the model loaded through a way, so that what follows finds it warm. */
export async function warmUp(
	stage: Stage,
	way: Way,
	model: string,
): Promise<Asked> {
	const [one] = await ask(stage, way, 0, [
		{
			...{ name: "first", key: way.keys.person, model, tokens: 4 },
			...{ workers: 1, pauseMs: 0, afterMs: 0 },
		},
	]);
	if (one?.failure !== undefined)
		throw new Error(`${way.name}: ${one.failure}`);
	if (one === undefined) throw new Error(`${way.name} was not asked`);
	return one;
}

/** Puts a load on a way. */
export async function measure(
	stage: Stage,
	way: Way,
	seconds: number,
	users: readonly LoadUser[],
): Promise<Measured> {
	const [loadBefore = 0] = loadavg();
	const asked = await ask(stage, way, seconds, users);
	return { way, asked, seconds, loadBefore };
}

async function ask(
	stage: Stage,
	{ url, family }: Way,
	seconds: number,
	users: readonly LoadUser[],
): Promise<Asked[]> {
	return runLoad({ url, family, seconds, users }, (child) =>
		stage.teardown(() => child.kill()),
	);
}

/** How long somebody waited for the first token, or for nothing, in seconds. */
export const waitOf = ({ sentMs, firstMs, endMs }: Asked) =>
	((firstMs ?? endMs) - sentMs) / 1000;

/** Tokens a second while requests began. */
export const rateOf = ({ asked, seconds }: Measured) =>
	asked.reduce((sum, one) => sum + one.tokensInTime, 0) / seconds;

/** When each request began and how long it waited, by user, for the plot. */
export function waitsOf(measured: readonly Measured[]): Waits {
	const rounded = (value: number) => Number(value.toFixed(2));
	return Object.fromEntries(
		measured.map(({ way, asked }) => {
			const users: Record<string, [number, number][]> = {};
			for (const one of asked) {
				users[one.user] ??= [];
				users[one.user]?.push([
					rounded(one.sentMs / 1000),
					rounded(waitOf(one)),
				]);
			}
			return [way.name, users];
		}),
	);
}

/** By way and user: seconds from the start, seconds waited. */
export type Waits = Record<string, Record<string, [number, number][]>>;

/** A note for each way that did not answer everybody. */
export function failures(measured: readonly Measured[]): string[] {
	return measured.flatMap(({ way, asked }) => {
		const failed = asked.filter(({ failure }) => failure !== undefined);
		const [first] = failed;
		return first === undefined
			? []
			: [
					`${way.name}: ${failed.length} of ${asked.length} requests failed, the first with ${first.failure}`,
				];
	});
}

/** What ran beside, as far as the kernel tells. */
export function loadNote(measured: readonly Measured[]): string {
	const loads = measured.map(({ loadBefore }) => loadBefore);
	return `the machine's load average when each way began: ${loads.map((load) => load.toFixed(1)).join(", ")} (two and more are this bench's own once it runs)`;
}

/** The processor's name. */
export const processor = () =>
	/^model name\s*:\s*(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ??
	"unknown CPU";
