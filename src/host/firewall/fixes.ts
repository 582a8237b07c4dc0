import { unique } from "../../doctor/check.ts";
import { type Ending, wayIn, without } from "../../netfilter/evaluate.ts";
import type {
	BaseChain,
	Family,
	FilterRule,
	Packets,
} from "../../netfilter/packetFilter.ts";
import {
	contains,
	fitsSome,
	isLettingIn,
	isOpen,
	rangeOf,
	tailnetPeers,
	tailnetRange,
} from "../../netfilter/ufwPackets.ts";
import {
	anywhere,
	commandOf,
	type KeptRule,
	type Rule,
	type RuleList,
} from "../../netfilter/ufwRules.ts";
import type { KernelFilter } from "../../system/kernelFilter.ts";

export const setupUfw = "sudo llamagate setup --only ufw";

/** What the fixes go by. */
export interface Firewall {
	readonly filter: KernelFilter;
	readonly sshPorts: readonly number[];
	/** UFW's rules as it keeps them: a fix is written in its words. */
	readonly ufwRules: readonly RuleList[];
	/** The tailnet's interface. */
	readonly tailnet: string;
	readonly gatePort: number;
}

/** A rule, and how packets come to it. */
type Hanging = Pick<Ending, "rule" | "path">;

const isUfwChain = (name: string) => /^ufw6?-/.test(name);
export const isUfws = ({ path }: Hanging) => path.some(isUfwChain);

/** The file that a rule comes from which is asked ahead of those that UFW's commands write. */
function fileAhead({ path }: Hanging): string | undefined {
	if (path.some((name) => /^ufw6?-user-/.test(name))) return undefined;
	const chain = path.find((name) => /^ufw6?-before-/.test(name));
	return chain && `/etc/ufw/before${chain.startsWith("ufw6") ? "6" : ""}.rules`;
}

/** Whether one of UFW's commands can undo what a rule does. */
export const isByCommand = (ending: Hanging) =>
	isUfws(ending) && fileAhead(ending) === undefined;

/** Packets of others than the tailnet's, by each way in. */
export function strangers(
	{ families, outside }: KernelFilter,
	port: number | undefined,
	protocol: "tcp" | "udp" = "tcp",
): Packets[] {
	return families.flatMap((family) =>
		outside.map((interfaceIn) => ({
			family,
			interfaceIn,
			protocol,
			port,
			from: rangeOf(anywhere[family]),
		})),
	);
}

export const peers = (
	tailnet: string,
	family: Family,
	port: number | undefined,
): Packets => ({
	family,
	interfaceIn: tailnet,
	protocol: "tcp",
	port,
	from: tailnetRange(family),
});

/**
 * The base chains of INPUT that lead to UFW's rules. The hooks alone say
 * nothing: "ufw disable" leaves them, and the chains behind them empty.
 */
export function ufwInputs(
	{ baseChains }: KernelFilter,
	family: Family,
): BaseChain[] {
	const type = family === "ipv4" ? "" : "6";
	const leadsTo = (rules: readonly FilterRule[] | undefined, chain: string) =>
		rules?.some(
			({ verdict, conditions }) =>
				verdict.kind === "jump" &&
				verdict.chain === chain &&
				conditions.length === 0,
		) === true;
	return baseChains.filter(
		({ family: own, hook, rules, chains }) =>
			own === family &&
			hook === "input" &&
			leadsTo(rules, `ufw${type}-before-input`) &&
			leadsTo(chains.get(`ufw${type}-before-input`), `ufw${type}-user-input`) &&
			chains.has(`ufw${type}-user-input`),
	);
}

const ufwRule = (
	kind: RuleList["kind"],
	action: "allow" | "deny",
	port: number,
	more: Partial<KeptRule> = {},
): Rule =>
	commandOf({
		action,
		log: "",
		isRoute: false,
		direction: "in",
		interfaceIn: "",
		interfaceOut: "",
		protocol: "tcp",
		toPorts: String(port),
		to: anywhere[kind],
		fromPorts: "any",
		from: anywhere[kind],
		toApp: "",
		fromApp: "",
		...more,
	});

/** Puts a rule ahead of UFW's others. UFW leaves one where it is that says the same, or the opposite of the same. */
function prepend({ ufwRules }: Firewall, rule: Rule): string[] {
	const subject = (command: Rule) =>
		command.replace(/^\w+ /, "").replace(/\blog(-all)? /, "");
	const standing = ufwRules
		.flatMap(({ rules }) => rules.map(commandOf))
		.filter((command) => subject(command) === subject(rule));
	return [
		...unique(standing).map((command) => `sudo ufw delete ${command}`),
		`sudo ufw prepend ${rule}`,
	];
}

/** Packets that get in by SSH for no other reason than some rules. */
function lostSsh(
	{ filter, sshPorts, tailnet }: Firewall,
	rules: readonly FilterRule[],
): Ending[] {
	const endings = sshPorts
		.flatMap((port) => [
			...strangers(filter, port),
			...filter.families.map((family) => peers(tailnet, family, port)),
		])
		.flatMap((packets) => wayIn(filter, packets).by)
		.filter((ending) => ending.rule !== undefined && !isByCommand(ending));
	// Other findings may have the others taken out.
	const left = without(
		filter,
		[...rules, ...endings.flatMap(({ rule }) => rule ?? [])].map(
			({ removal }) => removal,
		),
	);
	return endings.filter(
		({ rule, packets }) =>
			rules.some(({ removal }) => removal === rule?.removal) &&
			!wayIn(left, packets).by.some(
				(other) =>
					contains(other.packets.from, packets.from) &&
					(other.share === "all" ||
						other.path.some((name) => /^ufw6?-user-limit-accept$/.test(name))),
			),
	);
}

/** Has UFW let the tailnet in to the gate, ahead of what it says to others. */
export function letTailnetIn(firewall: Firewall): string[] {
	return prepend(
		firewall,
		ufwRule("ipv4", "allow", firewall.gatePort, {
			interfaceIn: firewall.tailnet,
		}),
	);
}

/** How rules are taken out: the commands, and then, in words, what is to do in UFW's files. */
function removalOf(endings: readonly Hanging[]): string {
	const commands: string[] = [];
	const ahead = new Map<string, string[]>();
	for (const ending of endings) {
		const { rule } = ending;
		if (rule === undefined) continue;
		const file = fileAhead(ending);
		if (file === undefined) commands.push(rule.removal);
		else
			ahead.set(file, [
				...(ahead.get(file) ?? []),
				`"${rule.text.replace(/^ip6?tables\S* /, "")}"`,
			]);
	}
	const edits = [...ahead].map(
		([file, rules]) =>
			`take out of ${file} what makes ${unique(rules).join(" and ")} (where it is not there, the reload is enough)`,
	);
	return [
		unique(commands).join(" && "),
		...(edits.length > 0
			? [`${edits.join(" and ")}, then: sudo ufw reload`]
			: []),
	]
		.filter(Boolean)
		.join(", then ");
}

/**
 * Takes rules out that no command of UFW's can undo, and has UFW let in before
 * anyone who gets in by SSH because of them; where UFW cannot say that, in words.
 *
 * @returns `undefined` where UFW is not in force and SSH would be shut
 */
export function takeOut(
	firewall: Firewall,
	endings: readonly Hanging[],
): string | undefined {
	const { filter } = firewall;
	const removal = removalOf(endings);
	const lost = lostSsh(
		firewall,
		endings.flatMap(({ rule }) => rule ?? []),
	);
	if (lost.some(({ packets }) => !ufwInputs(filter, packets.family)[0]))
		return undefined;
	const isSure = lost.every((ending) =>
		wayIn(filter, ending.packets).by.some(
			({ rule, share }) => rule === ending.rule && share === "all",
		),
	);
	const kept = unique(
		lost.map(({ packets: { family, from, port = 0, interfaceIn } }) => {
			const isForAll = filter.outside.every((name) =>
				lost.some(
					({ packets }) =>
						packets.interfaceIn === name &&
						packets.port === port &&
						packets.from[1] === 0,
				),
			);
			return ufwRule(
				...([family, "allow", port] as const),
				isForAll ? {} : { interfaceIn, from: from.join("/") },
			);
		}),
	);
	const commands = kept.flatMap((rule) => prepend(firewall, rule));
	return isSure
		? [commands.join(" && "), removal]
				.filter(Boolean)
				.join(removal.startsWith("sudo ") ? " && " : ", then ")
		: `once UFW itself lets you in by SSH (sudo ufw allow from YOUR_ADDRESS to any port ${unique(lost.map(({ packets }) => String(packets.port))).join(" and ")} proto tcp), with this session still open: ${removal}`;
}

/**
 * What shuts a port again that some rules let packets to. A rule of UFW's by
 * which SSH is open stays, and one that denies this port goes ahead of it.
 */
export function fixFor(
	firewall: Firewall,
	endings: readonly Ending[],
	port: number,
): string {
	const [first] = endings;
	if (first === undefined || endings.some(({ rule }) => rule === undefined))
		return setupUfw;
	const { filter, ufwRules, tailnet } = firewall;
	const sshPorts = firewall.sshPorts.filter((one) => one !== port);
	const removal = takeOut(
		{ ...firewall, sshPorts },
		endings.filter((ending) => !isByCommand(ending)),
	);
	if (removal === undefined) return setupUfw;
	const { protocol } = first.packets;
	const lettingIn = ufwRules.flatMap(({ kind, rules }) =>
		rules
			.filter(
				(rule) =>
					isLettingIn(rule) &&
					endings.some(({ packets: { interfaceIn } }) =>
						fitsSome(rule, {
							port,
							protocol,
							interfaceIn,
							from: rangeOf(anywhere[kind]),
						}),
					),
			)
			.map((rule) => ({
				command: commandOf(rule),
				isForSsh: sshPorts.some((sshPort) =>
					[...filter.outside, tailnet].some((interfaceIn) =>
						fitsSome(rule, {
							port: sshPort,
							protocol: "tcp",
							interfaceIn,
							from: rangeOf(anywhere[kind]),
						}),
					),
				),
			})),
	);
	const forSsh = lettingIn.filter(({ isForSsh }) => isForSsh);
	const taken = unique(lettingIn.map(({ command }) => command)).filter(
		(command) => !forSsh.some((one) => one.command === command),
	);
	const denies =
		forSsh.length > 0 || (endings.some(isByCommand) && lettingIn.length === 0);
	const isForGate = port === firewall.gatePort && protocol === "tcp";
	return unique(
		[
			removal,
			...taken.map((command) => `sudo ufw delete ${command}`),
			...(denies
				? prepend(firewall, ufwRule("ipv4", "deny", port, { protocol }))
				: []),
			...(isForGate &&
			(denies || taken.length > 0) &&
			shutsTailnetOut(firewall, taken, denies)
				? letTailnetIn(firewall)
				: []),
		].filter(Boolean),
	).join(" && ");
}

/** Whether the tailnet gets to the gate no more by UFW's rules without some, or behind one that denies the port; tailscaled's own rules are asked before them. */
function shutsTailnetOut(
	{ filter, ufwRules, tailnet, gatePort }: Firewall,
	taken: readonly string[],
	denies: boolean,
): boolean {
	const isByTailscaled = filter.families.every((family) => {
		const { by } = wayIn(filter, peers(tailnet, family, gatePort));
		return by.length > 0 && by.every(({ path }) => path.includes("ts-input"));
	});
	return (
		!isByTailscaled &&
		(denies ||
			!ufwRules.every(({ kind, rules }) =>
				isOpen(
					rules.filter((rule) => !taken.includes(commandOf(rule))),
					{ ...tailnetPeers(kind, gatePort), interfaceIn: tailnet },
				),
			))
	);
}
