import type { LedgerCounts } from "../ledger/client.ts";
import type { Priority } from "../priority.ts";
import type { TlsStatus } from "../tls/keeper.ts";
import type { LiveBudget } from "./live.ts";

/** What the running gate says of itself (`GET /status` of its admin socket), as far as it is looked at. */
export interface GateStatus {
	readonly version: string;
	readonly pid: number;
	/** ISO 8601. */
	readonly startedAt: string;
	readonly listening: readonly string[];
	readonly keys: readonly string[];
	readonly keyUse: Readonly<
		Record<string, { readonly lastUsed: string; readonly lastFrom: string }>
	>;
	readonly lastReload: { readonly at: string; readonly ok: boolean };
	/** Sections of what it took last that differ from those it was started with, and take a restart; absent in an older daemon. */
	readonly restart?: readonly string[];
	/** What it read last and took; absolute. A gate before 0.2 does not say. */
	readonly files?: { readonly config: string; readonly keys: string };
	/** What became of its records of usage; absent where none are kept. */
	readonly ledger?: LedgerCounts;
	/** Absent where it speaks plain HTTP, and in an older daemon. */
	readonly tls?: TlsStatus;
	/** How much is used of each budget, the fullest first; absent in an older daemon. */
	readonly budgets?: readonly LiveBudget[];
	readonly connections: number;
	/** Requests that wait for no turn (or no longer), and have not ended. */
	readonly streams: number;
	/** The hosts, where there are several; absent in an older daemon. */
	readonly hosts?: readonly HostStatus[] | undefined;
	/** Who waits for a turn; absent where nobody has to, and in an older daemon. */
	readonly queue?: QueueStatus | undefined;
	readonly lockedOut: number;
	/** Who they are, at most a hundred; absent in an older daemon. */
	readonly lockouts?: readonly LockedOut[];
	/** How it shares with the other gates; absent where it shares nothing. */
	readonly state?: StateStatus;
}

/** What it shares with the gates that share their limits, and with the Valkey between them. */
export interface StateStatus {
	/** Where Valkey is. */
	readonly valkey: string;
	/** Whether it answers. */
	readonly isConnected: boolean;
	/** Why it does not. */
	readonly why?: string;
	/** Times that it went away. */
	readonly losses: number;
	/** Questions that it did not answer in time, or at all. */
	readonly unanswered: number;
	/** Gates that were there when they were last counted, this one among them. */
	readonly gates: number;
	/** Addresses that are locked out, by the word of all gates. */
	readonly lockedOut: number;
}

/** A device or an address that is locked out now. */
export interface LockedOut {
	readonly addresses: readonly string[];
	/** The device's name, or null where it is not known. */
	readonly node: string | null;
	readonly secondsLeft: number;
}

/** One of several hosts. */
export interface HostStatus {
	readonly name: string;
	readonly kind: "ollama" | "openai";
	readonly url: string;
	readonly state: "up" | "suspect" | "down" | "half-open";
	/** Since when, in seconds. */
	readonly forSeconds: number;
	/** What was wrong last; null where nothing is. */
	readonly why: string | null;
	/** How many it has; null where it has not said. */
	readonly models: number | null;
	/** Requests that are with it or wait for it. */
	readonly outstanding: number;
	/** Since the start: those that went there, that failed there, and that went on to another. */
	readonly requests: number;
	readonly failed: number;
	readonly moved: number;
}

/** Who waits for a turn at the GPU, and for which model. */
export interface QueueStatus {
	/** How many, by class. */
	readonly waiting: Readonly<Record<Priority, number>>;
	/** Requests whose turn it is. */
	readonly running: number;
	/** Those that are loaded, or that a request waits for or is with. */
	readonly models: readonly QueuedModel[];
}

export interface QueuedModel {
	/** As it was asked for last. */
	readonly name: string;
	/** Whose it is; absent where there is one Ollama. */
	readonly host?: string;
	readonly state: "loaded" | "loading" | "not loaded";
	/** How many requests Ollama works on at once, as far as is known. */
	readonly slots: number;
	readonly running: number;
	readonly waiting: number;
}
