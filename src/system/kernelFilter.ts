import { access, readFile } from "node:fs/promises";
import { parseIptables } from "../netfilter/iptables.ts";
import { parseNftables, tablesOfXt } from "../netfilter/nft.ts";
import type {
	BaseChain,
	Family,
	PacketFilter,
} from "../netfilter/packetFilter.ts";
import { tailnet } from "../netfilter/ufwPackets.ts";
import { missingProgram, runProgram } from "./run.ts";

const tables = ["filter", "nat", "mangle", "raw"] as const;

/** The rules in force, and where packets come in. */
export interface KernelFilter extends PacketFilter {
	/** Interfaces by which others than this host, its containers and the tailnet come in. */
	readonly outside: readonly string[];
	/** The families that this host speaks. */
	readonly families: readonly Family[];
	/** What could not be read, and does no harm but that it may shut more than is known here. */
	readonly unread: readonly string[];
}

/**
 * Reads every rule that is in force. Needs root.
 *
 * @param ownTailnet the tailnet's interface, where it is another than usual
 * @throws if something that may let packets in cannot be read, with the reason
 */
export async function kernelFilter(
	ownTailnet = tailnet,
): Promise<KernelFilter> {
	const baseChains: BaseChain[] = [];
	const unread: string[] = [];
	const hasIpv6 = await access("/proc/net/if_inet6").then(
		() => true,
		() => false,
	);
	const families: Family[] = hasIpv6 ? ["ipv4", "ipv6"] : ["ipv4"];
	const byIptables = new Set<string>();
	for (const family of families) {
		const command = family === "ipv4" ? "iptables" : "ip6tables";
		const nftFamily = family === "ipv4" ? "ip" : "ip6";
		for (const table of tables) {
			const rules = await rulesOf(command, table);
			if (rules === undefined) continue;
			byIptables.add(`${nftFamily} ${table}`);
			baseChains.push(...parseIptables(rules, command, table, family));
		}
		// Where both kinds of iptables are in use, `iptables` shows the one.
		const legacy = await readFile(
			`/proc/net/${family === "ipv4" ? "ip" : "ip6"}_tables_names`,
			"utf8",
		).catch(() => "");
		const version = (await runProgram([command, "-V"])).stdout;
		if (!version.includes("nf_tables")) continue;
		for (const table of legacy.split("\n").filter(Boolean)) {
			const rules = await rulesOf(`${command}-legacy`, table);
			if (rules === undefined)
				throw new Error(
					`there are rules of ${command}-legacy, which does not run here`,
				);
			baseChains.push(
				...parseIptables(rules, `${command}-legacy`, table, family),
			);
		}
	}
	const nft = await runProgram(["nft", "-j", "list", "ruleset"]);
	if (nft.code === 0) {
		const [opaque] = tablesOfXt(nft.stdout).filter(
			(table) => !byIptables.has(table),
		);
		if (opaque !== undefined)
			throw new Error(
				`the rules of nftables' table ${opaque} are iptables' and only that reads them: install iptables`,
			);
		const written = await runProgram(["nft", "-a", "list", "ruleset"]);
		baseChains.push(
			...parseNftables(nft.stdout, written.stdout).filter(
				({ family, table }) =>
					family === "both" ||
					!byIptables.has(`${family === "ipv4" ? "ip" : "ip6"} ${table}`),
			),
		);
	} else if (byIptables.size === 0)
		throw new Error(
			nft.code === 127
				? missingProgram("nft")
				: `neither iptables nor nft tells the rules in force: ${nft.stderr.trim()}`,
		);
	else
		unread.push(
			nft.code === 127
				? missingProgram("nft")
				: "nft does not run here: rules of its own are not seen",
		);
	for (const family of families)
		if (
			!baseChains.some(
				(chain) =>
					chain.hook === "input" &&
					chain.type === "filter" &&
					[family, "both"].includes(chain.family),
			)
		)
			baseChains.push(noFirewall(family));
	return {
		baseChains,
		families,
		unread,
		outside: await outsideInterfaces(families, [tailnet, ownTailnet]),
	};
}

/** What holds where nothing hangs at the hook: everything is let in. */
const noFirewall = (family: Family): BaseChain => ({
	family,
	table: "filter",
	name: "INPUT",
	type: "filter",
	hook: "input",
	priority: 0,
	accepts: true,
	rules: [],
	chains: new Map(),
});

/** What `-S` prints; `undefined` where the command or the table does not exist. */
async function rulesOf(
	command: string,
	table: string,
): Promise<string | undefined> {
	const { code, stdout, stderr } = await runProgram([
		command,
		"-w",
		"5",
		"-t",
		table,
		"-S",
	]);
	if (code === 0) return stdout;
	// nft shows a table that iptables cannot.
	if (
		code === 127 ||
		/does not exist|incompatible, use 'nft' tool|can't initialize/i.test(stderr)
	)
		return undefined;
	throw new Error(`${command} -t ${table} -S: ${stderr.trim()}`);
}

/** What `ip -json -details link show` prints, as far as it is read here. */
interface Link {
	readonly ifname: string;
	/** The interface that it is part of. */
	readonly master?: string;
	readonly linkinfo?: { readonly info_kind?: string };
}

/** Kinds of interfaces behind which there is a container, a virtual machine or a program. */
const inner = ["veth", "tun"];

/**
 * The interfaces but for loopback, the tailnet's, those that are part of
 * another, and bridges that have only virtual machines or containers on
 * them. A bridge on a bond or a VLAN is the LAN's, and so is one that leads to
 * the default route: in a container that may be a veth. Where there are none,
 * one that may come.
 *
 * @throws if `ip` does not tell
 */
async function outsideInterfaces(
	families: readonly Family[],
	tailnets: readonly string[],
): Promise<string[]> {
	const links = (await askIp("-details", "link", "show")) as Link[];
	const ways: unknown[] = [];
	for (const family of families)
		for (const { dev, nexthops = [] } of (await askIp(
			family === "ipv4" ? "-4" : "-6",
			"route",
			"show",
			"default",
		)) as { dev?: string; nexthops?: readonly { dev?: string }[] }[])
			ways.push(dev, ...nexthops.map((hop) => hop.dev));
	const isInner = ({ linkinfo }: Link) =>
		inner.includes(linkinfo?.info_kind ?? "");
	const outside = links.filter(
		({ ifname, master, linkinfo }) =>
			!["lo", ...tailnets].includes(ifname) &&
			master === undefined &&
			(linkinfo?.info_kind !== "bridge" ||
				ways.includes(ifname) ||
				!links.filter((port) => port.master === ifname).every(isInner)),
	);
	return outside.length > 0
		? outside.map(({ ifname }) => ifname).sort()
		: ["eth0"];
}

async function askIp(...question: string[]): Promise<readonly unknown[]> {
	const { code, stdout, stderr } = await runProgram([
		"ip",
		"-json",
		...question,
	]);
	if (code !== 0)
		throw new Error(
			code === 127
				? missingProgram("ip")
				: `ip does not tell this host's interfaces: ${stderr.trim()}`,
		);
	return JSON.parse(stdout) as readonly unknown[];
}
