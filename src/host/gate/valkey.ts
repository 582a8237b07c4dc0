import type { RedisOptions } from "iovalkey";
import { bridgesVariable, withBridges } from "../../config/bridges.ts";
import { loadConfig } from "../../config/load.ts";
import { formatState, type StateSettings } from "../../config/state.ts";
import {
	absent,
	finding,
	type Outcome,
	ok,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { BadFileError } from "../../errors.ts";
import { isLoopbackAddress } from "../../net/ranges.ts";
import { lookUpUnit } from "../../system/units.ts";
import { loadStateAccess, type StateAccess } from "../../valkey/access.ts";
import { clientOptions } from "../../valkey/connection.ts";
import { gateService } from "./inspect.ts";

/** For each of the two logins. */
const patienceMs = 5_000;
/** No gate calls anything so. */
const foreignKey = "llamagate-doctor-looks";

/** What a Valkey shows to who asks it. */
export interface ValkeySeen {
	/** Why it does not answer the gate's user; `undefined` where it does. */
	readonly refuses: string | undefined;
	/** Whether it answers who shows no password. */
	readonly letsAnyoneIn: boolean;
	/** What it does when its memory is full; `undefined` where its user may not ask. */
	readonly eviction: string | undefined;
	/** How much memory it may use; 0 for as much as there is. */
	readonly maxMemoryBytes: number;
	/** Whether the gate's user may read what is not the gates' own. */
	readonly readsAll: boolean;
}

/** Whether Valkey is held by a password, keeps what it is told, and its user can touch nothing else. */
export async function examineValkey(patient: Patient): Promise<Outcome> {
	try {
		const unit = await lookUpUnit(gateService);
		const { state } = withBridges(
			await loadConfig(patient.configFile),
			unit?.environment.get(bridgesVariable),
		);
		if (state === undefined)
			return absent("the configuration shares nothing with other gates");
		const access = await loadStateAccess(state);
		return judgeValkey(state, await lookAtValkey(state, access));
	} catch (error) {
		if (error instanceof BadFileError) return unknown(error.message);
		throw error;
	}
}

/** Asks a Valkey, as the gate's user and as anyone; it changes nothing. Never rejects. */
export async function lookAtValkey(
	{ target, user }: StateSettings,
	access: StateAccess,
): Promise<ValkeySeen> {
	const anyone = { ...access, password: undefined };
	const [own, letsAnyoneIn] = await Promise.all([
		asking(clientOptions(target, user, access), async (call) => {
			// One of the few that the gate's user may.
			await call("TIME");
			const memory = await call("INFO", "memory").catch(() => "");
			const readsAll = await call("GET", foreignKey).then(
				() => true,
				() => false,
			);
			return { memory, readsAll };
		}),
		asking(clientOptions(target, undefined, anyone), (call) => call("PING")),
	]);
	const fieldOf = (name: string) =>
		typeof own === "string"
			? undefined
			: new RegExp(`^${name}:([\\w-]+)`, "m").exec(own.memory)?.[1];
	return {
		refuses: typeof own === "string" ? own : undefined,
		letsAnyoneIn: letsAnyoneIn === "PONG",
		eviction: fieldOf("maxmemory_policy"),
		maxMemoryBytes: Number(fieldOf("maxmemory") ?? 0),
		readsAll: typeof own !== "string" && own.readsAll,
	};
}

type Call = (...words: [string, ...string[]]) => Promise<string>;

/** @returns what came of it, or why nothing did */
async function asking<T>(
	options: RedisOptions,
	ask: (call: Call) => Promise<T>,
): Promise<T | string> {
	const { Redis } = await import("../../valkey/iovalkey.ts");
	const client = new Redis({
		...options,
		connectionName: "llamagate-doctor",
		// Once, and whatever comes of it.
		retryStrategy: () => null,
	});
	let why = "it does not answer";
	client.on("error", ({ code, message }: NodeJS.ErrnoException) => {
		why = code ?? message;
	});
	const timer = setTimeout(() => client.disconnect(), patienceMs);
	try {
		await client.connect();
		return await ask(async (...words) => String(await client.call(...words)));
	} catch (error) {
		const { message } = error as Error;
		if (/^(?:NOAUTH|WRONGPASS)/.test(message))
			return "it does not accept the user or the password";
		return /^(?:NOPERM|ERR)/.test(message) ? message.slice(0, 200) : why;
	} finally {
		clearTimeout(timer);
		client.disconnect();
	}
}

/** @param seen what it shows */
export function judgeValkey(
	{ target, user, passwordFile, prefix }: StateSettings,
	{ refuses, letsAnyoneIn, eviction, maxMemoryBytes, readsAll }: ValkeySeen,
): Outcome {
	const where = formatState(target);
	const isHere = target.kind === "unix" || isLoopbackAddress(target.host);
	const wrong: string[] = [];
	const fixes: string[] = [];
	if (letsAnyoneIn && !(isHere && passwordFile === undefined)) {
		wrong.push(
			`${where} answers without a password, so anyone who reaches it can lift limits and lockouts`,
		);
		fixes.push("in Valkey's ACL: user default off (or requirepass)");
	}
	if (refuses !== undefined)
		return wrong.length > 0
			? finding(wrong, { fix: fixes.join("; ") })
			: unknown(`${where} does not answer: ${refuses}; see gate.state`);
	if (
		eviction !== undefined &&
		eviction !== "noeviction" &&
		maxMemoryBytes > 0
	) {
		wrong.push(
			`${where} throws counts away when its memory is full (maxmemory-policy ${eviction}), which lifts limits`,
		);
		fixes.push("in valkey.conf: maxmemory-policy noeviction");
	}
	if (readsAll && user !== undefined) {
		wrong.push(
			`the user ${user} may touch what is not the gates' own in ${where}`,
		);
		fixes.push(`in Valkey's ACL: user ${user} resetkeys ~{${prefix}}:*`);
	}
	if (wrong.length > 0)
		return finding(wrong, {
			fix: fixes.join("; "),
			...(!letsAnyoneIn && { severity: "warn" as const }),
		});
	const facts = [
		letsAnyoneIn
			? `${where} asks for no password, on this host`
			: `${where} asks for a password`,
		...(user === undefined
			? []
			: [`the user ${user} may touch the gates' own alone`]),
	];
	return eviction === undefined
		? unknown(
				...facts,
				`${user === undefined ? "its user" : `the user ${user}`} may not ask what it does when its memory is full; give it +info in Valkey's ACL`,
			)
		: ok(
				...facts,
				maxMemoryBytes === 0
					? "its memory has no limit, so it throws nothing away"
					: "it throws nothing away when its memory is full",
			);
}
