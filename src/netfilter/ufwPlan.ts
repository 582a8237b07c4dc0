import { parseAddress } from "../net/ranges.ts";
import {
	closedPorts,
	gateRules,
	isForClosed,
	isForTailnet,
	keep,
	type OwnRule,
	ownCommand,
	sshRule,
	tailnetPorts,
} from "./ufwOwnRules.ts";
import {
	everybody,
	fitsAll,
	isLettingIn,
	isOpen,
	isSurelyOpen,
	isSurelyShut,
	type Packets,
	rangeOf,
	tailnet,
	tailnetPeers,
} from "./ufwPackets.ts";
import {
	commandOf,
	type KeptRule,
	type Rule,
	type RuleList,
} from "./ufwRules.ts";

/** UFW holds two rules for the same that differ only in these, and then replaces the one, or refuses the other. */
function keyOf(rule: KeptRule): string {
	const known = keys.get(rule);
	if (known !== undefined) return known;
	const key = JSON.stringify({ ...rule, action: "", log: "" });
	keys.set(rule, key);
	return key;
}

/** The same rules are compared again for each step of each plan. */
const keys = new WeakMap<KeptRule, string>();

const isSameVerdict = (one: KeptRule, other: KeptRule) =>
	one.action === other.action || (!isLettingIn(one) && !isLettingIn(other));

/** One command. */
export interface RuleChange {
	/** `prepend`: to the very front. `append`: to the end. */
	readonly how: "prepend" | "append" | "delete";
	readonly rule: Rule;
}

/** What a change makes of the rules, as UFW does it (ufw/backend_iptables.py, set_rule). */
function applied(
	lists: readonly RuleList[],
	{ how, rule }: RuleChange,
	own: ReadonlyMap<Rule, OwnRule>,
): RuleList[] {
	return lists.map(({ kind, rules }) => {
		if (how === "delete")
			return { kind, rules: rules.filter((one) => commandOf(one) !== rule) };
		const made = own.get(rule);
		if (made === undefined || (made.from && made.from.kind() !== kind))
			return { kind, rules };
		const added = keep(made, kind);
		const key = keyOf(added);
		if (rules.some((one) => keyOf(one) === key))
			return {
				kind,
				rules:
					how === "prepend"
						? rules
						: rules.map((one) => (keyOf(one) === key ? added : one)),
			};
		return {
			kind,
			rules: how === "prepend" ? [added, ...rules] : [...rules, added],
		};
	});
}

/** How the firewall is now. */
export interface FirewallNow {
	/** Whether what no rule speaks of is let in; `off` where nothing is filtered. */
	readonly default: "off" | "allow" | "deny";
	/** The SSH connection that the person sits on. */
	readonly connection?:
		| {
				readonly clientAddress: string;
				readonly serverPort: number;
				/** Where it comes in, if that is known. */
				readonly interfaceIn?: string | undefined;
		  }
		| undefined;
}

/**
 * The changes that lead from the rules that are there to those that are wanted,
 * in their order. When they are made,
 *
 * - 11434 and 443 are open on tailscale0; 11434, 3000 and 8080 are shut
 *   everywhere else, whatever other rules say;
 * - anyone who got in by SSH gets in, and nobody else does: a firewall that was
 *   off is given the person's own rules for SSH or, if there are none that let
 *   anybody in, one for everybody;
 * - the connection that the person sits on is let in, also on the way there;
 * - the same question has no further changes for an answer.
 *
 * @param lists of the families that UFW filters
 * @param ports of sshd
 */
export function planRules(
	lists: readonly RuleList[],
	ports: readonly number[],
	now: FirewallNow,
): RuleChange[] {
	const { connection } = now;
	const sshPorts = [
		...new Set([...ports, ...(connection ? [connection.serverPort] : [])]),
	];
	const gate = gateRules(sshPorts);
	const own = new Map<Rule, OwnRule>();
	const known = (rule: OwnRule) => {
		const command = ownCommand(rule);
		own.set(command, rule);
		return command;
	};
	const closed = closedPorts.filter((port) => !sshPorts.includes(port));
	const remove = commandsOf(lists, (entries) =>
		entries.every((rule) => isForTailnet(rule) || isForClosed(rule, closed)),
	);
	// UFW has no room for one of ours beside one that says the opposite of the same.
	const ours = [...gate, ...sshPorts.map(sshRule)].flatMap((rule) =>
		lists.map(({ kind }) => keyOf(keep(rule, kind))),
	);
	const inPlaceOfOurs = remove.filter((command) =>
		lists.some(({ rules }) =>
			rules.some(
				(rule) => commandOf(rule) === command && ours.includes(keyOf(rule)),
			),
		),
	);
	const first: RuleChange[] = inPlaceOfOurs.map((rule) => ({
		how: "delete",
		rule,
	}));
	const front: Rule[] = [];
	const end: Rule[] = [];
	let kept: readonly RuleList[] = lists.map(({ kind, rules }) => ({
		kind,
		rules: rules.filter((rule) => !remove.includes(commandOf(rule))),
	}));
	/** Takes out what UFW would take for the same rule, so that one can be put in its place. */
	const clear = (rule: OwnRule, except?: (other: KeptRule) => boolean) => {
		for (const { kind, rules } of kept) {
			const key = keyOf(keep(rule, kind));
			for (const other of rules) {
				if (keyOf(other) !== key || except?.(other)) continue;
				const command = commandOf(other);
				if (!first.some((change) => change.rule === command))
					first.push({ how: "delete", rule: command });
			}
		}
		for (const change of first) kept = applied(kept, change, own);
	};

	// The gate's own rules: added behind the others where that is enough, else put ahead of all.
	const isThere = (rule: OwnRule) =>
		kept.every(({ kind, rules }) => {
			const wanted = keep(rule, kind);
			return rules.some((other) => isSame(other, wanted));
		});
	for (const rule of gate)
		clear(rule, (other) => isSame(other, keep(rule, kindOf(other))));
	const missing = gate.filter((rule) => !isThere(rule)).map(known);
	const grown = missing.reduce<readonly RuleList[]>(
		(rules, rule) => applied(rules, { how: "append", rule }, own),
		kept,
	);
	if (grown.every((list) => isGateRight(list, closed))) end.push(...missing);
	else {
		for (const rule of gate) clear(rule);
		front.push(...gate.map(known));
	}

	for (const port of ports) {
		const mine = sshRule(port);
		const wasOpen = ({ kind, rules }: RuleList) =>
			now.default === "off" ||
			isOpen(rules, everybody(kind, port), now.default === "allow");
		const isLost = (after: readonly RuleList[]) =>
			lists.some((list, index) => {
				const rules = after[index]?.rules ?? [];
				return wasOpen(list) && !isOpen(rules, everybody(list.kind, port));
			});
		const decidedByPerson =
			now.default === "off" && kept.some((list) => hasOwnWayIn(list, port));
		let then = kept;
		if (!decidedByPerson && isLost(kept)) {
			clear(mine);
			const rule = known(mine);
			then = applied(kept, { how: "append", rule }, own);
			if (isLost(then)) {
				then = applied(kept, { how: "prepend", rule }, own);
				front.unshift(rule);
			} else end.unshift(rule);
		}
		// It was open to the tailnet by a rule that goes.
		const isLostToPeers = [isOpen, isSurelyOpen].some((isFor) =>
			lists.some((list, index) => {
				const peers = tailnetPeers(list.kind, port);
				return (
					isFor(list.rules, peers) && !isFor(then[index]?.rules ?? [], peers)
				);
			}),
		);
		if (isLostToPeers) {
			const peers = { ...mine, interfaceIn: tailnet };
			clear(peers);
			front.unshift(known(peers));
		}
	}

	const changes: RuleChange[] = [
		...first,
		...front.toReversed().map((rule) => ({ how: "prepend", rule }) as const),
		...end.map((rule) => ({ how: "append", rule }) as const),
		...remove
			.filter((rule) => !inPlaceOfOurs.includes(rule))
			.map((rule) => ({ how: "delete", rule }) as const),
	];
	return connection === undefined
		? changes
		: [...changesFor(connection, lists, changes, own), ...changes];
}

/** Lets the person in ahead of all changes, unless that is so at each moment anyway. */
function changesFor(
	connection: NonNullable<FirewallNow["connection"]>,
	lists: readonly RuleList[],
	changes: readonly RuleChange[],
	own: ReadonlyMap<Rule, OwnRule>,
): RuleChange[] {
	const { serverPort, interfaceIn } = connection;
	// An IPv6 address of the link comes with its interface, which a rule does not take.
	const address = parseAddress(connection.clientAddress.replace(/%.*$/, ""));
	if (address === undefined || address.range() === "loopback") return [];
	const packets: Packets = {
		port: serverPort,
		protocol: "tcp",
		interfaceIn,
		from: rangeOf(address.toString()),
	};
	const isIn = (state: readonly RuleList[]) =>
		state.every(
			({ kind, rules }) =>
				kind !== address.kind() || isSurelyOpen(rules, packets),
		);
	let state = lists;
	let wasIn = isIn(state);
	let wasShutOut = false;
	for (const change of changes) {
		state = applied(state, change, own);
		const is = isIn(state);
		wasShutOut ||= wasIn && !is;
		wasIn = is;
	}
	if (wasIn && !wasShutOut) return [];
	const narrow: OwnRule = {
		...sshRule(serverPort),
		from: address,
		...(interfaceIn === tailnet ? { interfaceIn } : {}),
	};
	const { protocol: _, ...wide } = narrow;
	const standing = (rule: OwnRule) => {
		const key = keyOf(keep(rule, address.kind()));
		return commandsOf(lists, (entries) =>
			entries.some((other) => keyOf(other) === key),
		);
	};
	// Where the very rule is further behind, it is not taken out for a moment: another goes ahead.
	const rule = standing(narrow).length === 0 ? narrow : wide;
	return [
		...standing(rule).map((other) => ({ how: "delete", rule: other }) as const),
		{ how: "prepend", rule: ownCommand(rule) },
	];
}

const kindOf = (rule: KeptRule) => rangeOf(rule.from)[0].kind();

function isSame(one: KeptRule, other: KeptRule): boolean {
	return keyOf(one) === keyOf(other) && isSameVerdict(one, other);
}

/** The commands whose entries, in both families, satisfy the condition. */
function commandsOf(
	lists: readonly RuleList[],
	condition: (entries: readonly KeptRule[]) => boolean,
): Rule[] {
	const entries = new Map<Rule, KeptRule[]>();
	for (const rule of lists.flatMap(({ rules }) => rules)) {
		const command = commandOf(rule);
		entries.set(command, [...(entries.get(command) ?? []), rule]);
	}
	return [...entries].flatMap(([command, list]) =>
		condition(list) ? command : [],
	);
}

/** Whether the ports that are to be closed are, and those of the tailnet are not. */
function isGateRight(
	{ kind, rules }: RuleList,
	closed: readonly number[],
): boolean {
	return (
		closed.every((port) =>
			(["tcp", "udp"] as const).every((protocol) =>
				isSurelyShut(rules, everybody(kind, port, protocol)),
			),
		) &&
		tailnetPorts.every((port) => isOpen(rules, tailnetPeers(kind, port))) &&
		isOpen(rules, everybody(kind, 41641, "udp"))
	);
}

/** Whether a rule of the person's own, for this very port, lets a device in. */
function hasOwnWayIn({ rules }: RuleList, port: number): boolean {
	return rules.some((rule) => {
		const packets: Packets = {
			port,
			protocol: "tcp",
			interfaceIn: rule.interfaceIn || undefined,
			from: rangeOf(rule.from),
		};
		return (
			isLettingIn(rule) &&
			rule.toPorts !== "any" &&
			fitsAll(rule, packets) &&
			isOpen(rules, packets)
		);
	});
}
