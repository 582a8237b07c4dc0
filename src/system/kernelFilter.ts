import { access, readFile } from "node:fs/promises";
import { parseIptables } from "../netfilter/iptables.ts";
import { chainsOfXt, parseNftables, tablesIn } from "../netfilter/nft.ts";
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
	const hasIpv6 = await access("/proc/net/if_inet6").then(
		() => true,
		() => false,
	);
	const families: Family[] = hasIpv6 ? ["ipv4", "ipv6"] : ["ipv4"];
	const nft = await runProgram(["nft", "-j", "list", "ruleset"]);
	const shown = nft.code === 0 ? tablesIn(nft.stdout) : undefined;
	const listings: IptablesListing[] = [];
	for (const family of families)
		listings.push(...(await iptablesOf(family, shown)));
	const baseChains =
		nft.code === 0
			? await withNftables(listings, nft.stdout)
			: listings.flatMap((listing) => listing.baseChains);
	const unread: string[] = [];
	if (nft.code !== 0) {
		const why =
			nft.code === 127 ? missingProgram("nft") : `nft: ${nft.stderr.trim()}`;
		const partial = listings.find(({ isWhole }) => !isWhole);
		if (partial !== undefined)
			throw new Error(
				`the table ${partial.table} has chains that only nft shows, and ${why}`,
			);
		if (listings.length === 0)
			throw new Error(
				nft.code === 127
					? why
					: `neither iptables nor nft tells the rules in force: ${nft.stderr.trim()}`,
			);
		unread.push(
			nft.code === 127
				? why
				: "nft does not run here: rules of its own are not seen",
		);
	}
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

/** What one kind of iptables shows of a table. */
interface IptablesListing {
	/** Whether its rules are nftables' to the kernel. */
	readonly isNft: boolean;
	/** Family and name, as nft has them. */
	readonly table: string;
	readonly baseChains: readonly BaseChain[];
	/** Whether iptables says that there is nothing else in the table. */
	readonly isWhole: boolean;
}

const iptablesFor = (family: BaseChain["family"]) =>
	family === "ipv6" ? "ip6tables" : "iptables";

/** It ends with 127 where it is not installed. */
const versionOf = (command: string) => runProgram([command, "-V"]);

const nftFamily = { ipv4: "ip", ipv6: "ip6", both: "inet" } as const;

/**
 * What both kinds of iptables show: the kernel asks the rules of both,
 * whichever is the one that is called iptables. None where it is not installed.
 *
 * @param shown the tables that nft shows, where it does: one that is not there
 * has no rules, though iptables would make its chains up
 */
async function iptablesOf(
	family: Family,
	shown: ReadonlySet<string> | undefined,
): Promise<IptablesListing[]> {
	const asked = tables.filter(
		(table) => shown?.has(`${nftFamily[family]} ${table}`) ?? true,
	);
	const legacy = (
		await readFile(`/proc/net/${nftFamily[family]}_tables_names`, "utf8").catch(
			() => "",
		)
	)
		.split("\n")
		.filter(Boolean);
	if (asked.length + legacy.length === 0) return [];
	const command = iptablesFor(family);
	const version = await versionOf(command);
	if (version.code === 127) return [];
	const isUsual = version.stdout.includes("nf_tables");
	const listings: IptablesListing[] = [];
	const read = async (name: string, table: string, isNft: boolean) => {
		const rules = await rulesOf(name, table);
		if (rules !== undefined)
			listings.push({
				isNft,
				table: `${nftFamily[family]} ${table}`,
				baseChains: parseIptables(
					rules.replace(/^#.*$/gm, ""),
					name,
					table,
					family,
				),
				isWhole: !/^#.*incompatible/m.test(rules),
			});
		return rules !== undefined;
	};
	for (const table of asked)
		await read(isUsual ? command : `${command}-nft`, table, true);
	const older = isUsual ? `${command}-legacy` : command;
	for (const table of legacy)
		if (!(await read(older, table, false)))
			throw new Error(`there are rules of ${older}, which does not run here`);
	return listings;
}

/**
 * Puts what iptables and nft show together. Of the rules that both show,
 * iptables' words count, in which nft cannot write them; and for a table of the
 * names that iptables uses it makes chains up that are not there.
 */
async function withNftables(
	listings: readonly IptablesListing[],
	ruleset: string,
): Promise<BaseChain[]> {
	const written = await runProgram(["nft", "-a", "list", "ruleset"]);
	if (written.code !== 0)
		throw new Error(`nft -a list ruleset: ${written.stderr.trim()}`);
	const shown = parseNftables(ruleset, written.stdout);
	const same = (one: BaseChain) => (other: BaseChain) =>
		one.family === other.family &&
		one.table === other.table &&
		one.name === other.name &&
		one.type === other.type &&
		one.hook === other.hook &&
		one.priority === other.priority;
	const byIptables = listings.flatMap(({ baseChains, isNft }) =>
		isNft ? baseChains.filter((chain) => shown.some(same(chain))) : baseChains,
	);
	const nfts = listings.flatMap(({ baseChains, isNft }) =>
		isNft ? baseChains : [],
	);
	const own = shown.filter((chain) => !nfts.some(same(chain)));
	const opaque = chainsOfXt(ruleset);
	for (const { family, table, name, chains } of own) {
		const key = `${nftFamily[family]} ${table}`;
		if (reached(name, chains).some((one) => opaque.has(`${key} ${one}`)))
			throw new Error(
				(await versionOf(iptablesFor(family))).code !== 127
					? `nftables' chain ${key} ${name} has, or leads to, rules of iptables', which nft does not show: keep those of either in a table of their own`
					: `the rules of nftables' table ${key} are iptables' and only that reads them: install iptables`,
			);
	}
	return [...byIptables, ...own];
}

/** A chain, and those that its rules lead to. */
function reached(name: string, chains: BaseChain["chains"]): string[] {
	const names = [name];
	for (const one of names)
		for (const { verdict } of chains.get(one) ?? [])
			if (
				(verdict.kind === "jump" || verdict.kind === "goto") &&
				!names.includes(verdict.chain)
			)
				names.push(verdict.chain);
	return names;
}

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
		/does not exist|incompatible, use 'nft' tool|can't initialize|initialize nft: protocol not supported/i.test(
			stderr,
		)
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
