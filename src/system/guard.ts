import { isTailscaleAddress, parseAddress } from "../net/ranges.ts";
import { wayIn } from "../netfilter/evaluate.ts";
import { parseNftables } from "../netfilter/nft.ts";
import type { BaseChain } from "../netfilter/packetFilter.ts";
import { rangeOf } from "../netfilter/ufwPackets.ts";
import { runProgram } from "./run.ts";

/**
 * The tables by which `follow-tailscale` keeps others than the tailnet from the
 * gate's sockets: one comes and goes with them, the other belongs to a process
 * of the follower's, so that nobody else can take it away.
 */
export const guardTables = ["llamagate", "llamagate_held"] as const;

/** A socket's place, as the kernel has it. */
interface Place {
	readonly protocol: "tcp" | "udp";
	readonly address: string;
	readonly port: number;
}

/** What those of the guard's tables that are in force do; of none where they cannot be seen, as without root. */
export interface Guard {
	/** Those of them that leave one interface alone, besides loopback, as a way to a socket, with that interface. */
	holding(place: Place): { readonly table: string; readonly device: string }[];
}

/** Reads the guard's tables. */
export async function readGuard(): Promise<Guard> {
	const tables = await Promise.all(
		guardTables.map(async (table) => {
			const listed = await runProgram([
				"nft",
				"-j",
				"list",
				"table",
				"inet",
				table,
			]);
			return { table, baseChains: chainsOf(listed) };
		}),
	);
	return {
		holding: (place) =>
			tables.flatMap(({ table, baseChains }) => {
				const device = onlyWayTo(place, baseChains);
				return device === undefined ? [] : { table, device };
			}),
	};
}

/** The chains of a table that nft was asked for; none of one that is not there. */
export function chainsOf({
	code,
	stdout,
}: {
	readonly code: number | null;
	readonly stdout: string;
}): BaseChain[] {
	if (code !== 0) return [];
	try {
		return parseNftables(stdout);
	} catch (error) {
		// Of a table that goes meanwhile nft prints the half, or nothing, and calls that a success.
		if (error instanceof SyntaxError) return [];
		throw error;
	}
}

function onlyWayTo(
	{ protocol, address, port }: Place,
	baseChains: readonly BaseChain[],
): string | undefined {
	const to = parseAddress(address);
	if (to === undefined || !isTailscaleAddress(address)) return undefined;
	const isOpenTo = (interfaceIn: string) =>
		wayIn(
			{ baseChains },
			{
				family: to.kind(),
				interfaceIn,
				protocol,
				port,
				to,
				from: rangeOf(to.kind() === "ipv4" ? "0.0.0.0/0" : "::/0"),
			},
		).share !== "none";
	const named = new Set(
		baseChains.flatMap(({ rules }) =>
			rules.flatMap(({ conditions }) =>
				conditions.flatMap((condition) =>
					condition.on === "interfaceIn" ? condition.names : [],
				),
			),
		),
	);
	// No interface has such a name, so it means all that no rule names.
	if (baseChains.length === 0 || isOpenTo("/")) return undefined;
	const [device, ...others] = [...named].filter(
		(name) => name !== "lo" && isOpenTo(name),
	);
	return others.length === 0 ? device : undefined;
}
