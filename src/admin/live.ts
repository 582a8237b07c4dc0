import type { Period } from "../ledger/budgetWindow.ts";
import { askDaemon, isText, readAnswer, strangeAt } from "./client.ts";
import { type GateTop, isGateTop } from "./top.ts";

/** Models and budgets that `GET /live` of the admin socket lists. */
export const maxLiveEntries = 100;

/** What `top` and the live page need, in one answer. Never a prompt, a header or a key. */
export interface GateLive {
	/** ISO 8601. */
	readonly startedAt: string;
	readonly top: GateTop;
	/** Pieces of inference's replies that were passed on since the start, of a stream about one a token. */
	readonly pieces: number;
	/** From a request's arrival to the first byte of its streamed reply. */
	readonly firstTokens: {
		readonly lastMinute: FirstTokens;
		readonly tenMinutes: FirstTokens;
	};
	/** Of ten minutes, the most frequent first. */
	readonly refusals: readonly RefusalCount[];
	readonly lockedOut: number;
	/** The fullest first, at most `maxLiveEntries`. */
	readonly budgets: readonly LiveBudget[];
	/** What Ollama has loaded, at most `maxLiveEntries`; null while it does not say. */
	readonly loaded: readonly LoadedModel[] | null;
}

export interface FirstTokens {
	readonly count: number;
	/** Milliseconds; null where there was none. */
	readonly medianMs: number | null;
	/** Nineteen of twenty took no longer. */
	readonly p95Ms: number | null;
}

export interface RefusalCount {
	/** As in the log. */
	readonly reason: string;
	readonly count: number;
}

/** How much of its budget a key, or a group, has used, what runs included by its estimate. */
export interface LiveBudget {
	/** The key's name, or `group:NAME`. */
	readonly key: string;
	readonly per: Period;
	readonly used: Amounts;
	readonly limits: Partial<Amounts>;
	/** When all of it is there again; ISO 8601. */
	readonly resetsAt: string;
	/** Whether what the key used before the gate's start is in `used`. */
	readonly isKnown: boolean;
	/** What becomes of the key's requests until that is known; absent where it is. */
	readonly untilKnown?: "batch" | "refuse";
}

interface Amounts {
	readonly gpuMs: number;
	readonly tokens: number;
	readonly requests: number;
}

export interface LoadedModel {
	readonly name: string;
	/** Where it is loaded; absent where there is one Ollama. */
	readonly host?: string;
	/** Bytes in all, and those of the GPU's memory. */
	readonly sizeBytes: number;
	readonly vramBytes: number;
	/** When Ollama unloads it if nobody asks; ISO 8601, or null where it does not say. */
	readonly expiresAt: string | null;
}

/** What became of asking the running gate. */
export type AskedLive =
	| { readonly kind: "live"; readonly live: GateLive }
	| {
			/** Nobody answers; or it may not be asked; or it is another version. */
			readonly kind: "silent" | "denied" | "strange";
			readonly why: string;
	  };

/** Asks the running gate for all of it. @param socket its admin socket */
export async function askLiveOn(socket: string): Promise<AskedLive> {
	const { status, body, code } = await askDaemon(socket, "GET /live");
	if (code === "EACCES")
		return { kind: "denied", why: `only root may ask the gate on ${socket}` };
	if (status === 0)
		return { kind: "silent", why: `no gate answers on ${socket} (${code})` };
	if (status === 404)
		return {
			kind: "strange",
			why: `the gate on ${socket} is older than this program; restart it: systemctl restart llamagate`,
		};
	const live = status === 200 ? readAnswer(body, isGateLive) : undefined;
	return live === undefined
		? {
				kind: "strange",
				why: strangeAt(socket, status),
			}
		: { kind: "live", live };
}

function isGateLive(said: GateLive): boolean {
	const { startedAt, top, pieces, firstTokens, lockedOut } = said;
	return (
		isTime(startedAt) &&
		isGateTop(top) &&
		[pieces, lockedOut].every(Number.isFinite) &&
		[firstTokens?.lastMinute, firstTokens?.tenMinutes].every(isFirstTokens) &&
		isListOf(
			said.refusals,
			({ reason, count }) => isText(reason) && Number.isFinite(count),
		) &&
		isListOf(said.budgets, isLiveBudget) &&
		(said.loaded === null || isListOf(said.loaded, isLoadedModel))
	);
}

function isFirstTokens(said: FirstTokens | undefined): boolean {
	return (
		Number.isFinite(said?.count) &&
		[said?.medianMs, said?.p95Ms].every(
			(ms) => ms === null || Number.isFinite(ms),
		)
	);
}

/** Whether what a daemon says is one. */
export function isLiveBudget({
	key,
	per,
	used,
	limits,
	resetsAt,
	untilKnown,
}: LiveBudget): boolean {
	return (
		[undefined, "batch", "refuse"].includes(untilKnown) &&
		[key, per].every(isText) &&
		isTime(resetsAt) &&
		[used?.gpuMs, used?.tokens, used?.requests].every(Number.isFinite) &&
		typeof limits === "object" &&
		limits !== null &&
		[limits.gpuMs, limits.tokens, limits.requests].every(
			(limit) => limit === undefined || Number.isFinite(limit),
		)
	);
}

function isLoadedModel(model: LoadedModel): boolean {
	return (
		isText(model.name) &&
		(model.host === undefined || isText(model.host)) &&
		[model.sizeBytes, model.vramBytes].every(Number.isFinite) &&
		(model.expiresAt === null || isTime(model.expiresAt))
	);
}

function isTime(text: unknown): boolean {
	return isText(text) && !Number.isNaN(Date.parse(text));
}

function isListOf<T>(list: readonly T[], is: (part: T) => boolean): boolean {
	return (
		Array.isArray(list) &&
		list.every((part) => is(Object(part) as unknown as T))
	);
}
