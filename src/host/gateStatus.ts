import type { LockedOut } from "../gate/lockout.ts";
import { askDaemon } from "../net/sideDoors.ts";

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
	readonly connections: number;
	readonly streams: number;
	readonly lockedOut: number;
	/** Who they are, at most a hundred; absent in an older daemon. */
	readonly lockouts?: readonly LockedOut[];
}

/** What became of asking the running gate. */
export type Asked =
	| { readonly kind: "status"; readonly status: GateStatus }
	| {
			/** Nobody answers; or it may not be asked; or what answers is no gate. */
			readonly kind: "silent" | "denied" | "strange";
			readonly why: string;
	  };

/** Asks the running gate about itself. @param socket its admin socket */
export async function askGateOn(socket: string): Promise<Asked> {
	const { status, body, code } = await askDaemon(socket, "GET /status");
	if (code === "EACCES")
		return { kind: "denied", why: `only root may ask the gate on ${socket}` };
	if (status === 0)
		return { kind: "silent", why: `no gate answers on ${socket} (${code})` };
	const told = status === 200 ? readStatus(body) : undefined;
	return told === undefined
		? {
				kind: "strange",
				why: `what answers on ${socket} is no gate of this version (status ${status})`,
			}
		: { kind: "status", status: told };
}

function readStatus(body: string): GateStatus | undefined {
	try {
		const said = JSON.parse(body) as GateStatus;
		return isGateStatus(said) ? said : undefined;
	} catch {
		// What is no JSON is not the gate's.
		return undefined;
	}
}

function isGateStatus(said: GateStatus): boolean {
	const { version, pid, startedAt, listening, keys, lastReload } = said;
	return (
		[version, startedAt, lastReload?.at].every(isText) &&
		[listening, keys].every(
			(list) => Array.isArray(list) && list.every(isText),
		) &&
		[pid, said.connections, said.streams, said.lockedOut].every(
			(number) => typeof number === "number",
		) &&
		(said.files === undefined ||
			[said.files?.config, said.files?.keys].every(isText)) &&
		(said.lockouts === undefined ||
			(Array.isArray(said.lockouts) && said.lockouts.every(isLockedOut))) &&
		typeof said.keyUse === "object" &&
		said.keyUse !== null
	);
}

/** Whether this is one entry of `lockouts`. */
export function isLockedOut(value: unknown): value is LockedOut {
	const { addresses, node, secondsLeft } = (value ?? {}) as LockedOut;
	return (
		Array.isArray(addresses) &&
		addresses.every(isText) &&
		(node === null || isText(node)) &&
		typeof secondsLeft === "number"
	);
}

function isText(value: unknown): value is string {
	return typeof value === "string";
}
