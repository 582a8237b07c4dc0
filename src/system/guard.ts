import { isTailscaleAddress, parseAddress } from "../net/ranges.ts";
import { wayIn } from "../netfilter/evaluate.ts";
import { parseNftables } from "../netfilter/nft.ts";
import { TornListingError } from "../netfilter/nftListing.ts";
import type { BaseChain } from "../netfilter/packetFilter.ts";
import { rangeOf } from "../netfilter/ufwPackets.ts";
import { type Ended, runProgram } from "./run.ts";

/**
 * Those of the tables that `nft list tables inet` prints by which `follow-tailscale`
 * keeps others than the tailnet from the gate's sockets: one comes and goes with
 * them, the other belongs to a process of the follower's, so that nobody else can
 * take it away, and has a name that it never had before.
 */
export function guardTables(listed: string): string[] {
	return [
		...listed.matchAll(/^table inet (llamagate(?:_held(?:_\w+)?)?)$/gm),
	].flatMap(([, table]) => table ?? []);
}

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
	const { stdout } = await runProgram(["nft", "list", "tables", "inet"]);
	const tables = await Promise.all(
		guardTables(stdout).map(async (table) => {
			const list = ["list", "table", "inet", table];
			const listed = await runProgram(["nft", "-j", ...list]);
			const written = await runProgram(["nft", ...list]);
			return { table, baseChains: chainsOf(listed, written) };
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

type Listing = Pick<Ended, "code" | "stdout">;

/**
 * The chains of a table that nft was asked for, in JSON and in words; none of
 * one that is not there, or is dormant.
 */
export function chainsOf(listed: Listing, written: Listing): BaseChain[] {
	if (listed.code !== 0 || written.code !== 0) return [];
	try {
		return parseNftables(listed.stdout, written.stdout);
	} catch (error) {
		// Of a table that goes meanwhile nft prints the half, or nothing, and calls that a success.
		if (error instanceof SyntaxError || error instanceof TornListingError)
			return [];
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
