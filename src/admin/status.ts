import type { LedgerCounts } from "../ledger/client.ts";

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
	/** What it read last and took; absolute. A gate before 0.2 does not say. */
	readonly files?: { readonly config: string; readonly keys: string };
	/** What became of its records of usage; absent where none are kept. */
	readonly ledger?: LedgerCounts;
	readonly connections: number;
	readonly streams: number;
	readonly lockedOut: number;
	/** Who they are, at most a hundred; absent in an older daemon. */
	readonly lockouts?: readonly LockedOut[];
}

/** A device or an address that is locked out now. */
export interface LockedOut {
	readonly addresses: readonly string[];
	/** The device's name, or null where it is not known. */
	readonly node: string | null;
	readonly secondsLeft: number;
}
