import type { Finding } from "./finding.ts";
import type { Place } from "./huJson.ts";
import type { Answer } from "./nodeAddresses.ts";
import {
	costOf,
	isBareName,
	isSameUser,
	type Party,
	readParty,
	takesIn,
} from "./parties.ts";
import type { NameAt, PolicyTest, Rule, TailnetPolicy } from "./policyFile.ts";
import { type PortSpec, type Protocol, splitDestination } from "./ports.ts";
import { every, meetsPostures } from "./postures.ts";
import type { Selectors, Server } from "./selectors.ts";

/** How the tests of a policy went. */
export interface TestResults {
	/** How many assertions hold. */
	readonly held: number;
	/** One finding for each that does not. */
	readonly failed: readonly Finding[];
	/** Those of which the file does not tell enough. */
	readonly unclear: readonly (Place & { says: string })[];
}

/** Collects how assertions went. */
export class Tally implements TestResults {
	held = 0;
	readonly failed: Finding[] = [];
	readonly unclear: (Place & { says: string })[] = [];
	fail({ at, line }: Place, why: string, change: string): void {
		this.failed.push({
			kind: "failed-test",
			severity: "high",
			says: `this test fails, and Tailscale refuses a policy with a test that fails: ${why}`,
			change,
			at,
			line,
		});
	}
	leave({ at, line }: Place, says: string): void {
		this.unclear.push({ at, line, says });
	}
}

/** Work of this size takes about half a second; what is past it is not worked out. */
export const maxSteps = 2_000_000;

/** A rule that takes in a party, and the ports that it opens then. */
interface Match {
	readonly answer: Answer;
	readonly ports: readonly PortSpec[];
}

/** A test's source, ready to be looked up. */
type From = { readonly party: Party; readonly rules: Map<number, Answer> };

/**
 * Runs the `tests` of a policy under its own rules, as Tailscale does at each
 * save. A test takes one source, and one address, host, user, group or tag with
 * one port as destination.
 *
 * Source: tailscale.com/docs/reference/syntax/policy-file, under tests; and
 * what Tailscale made of tests, as recorded in headscale's
 * hscontrol/policy/v2/testdata/policytest_results.
 */
export function runPolicyTests(
	policy: TailnetPolicy,
	selectors: Selectors,
	server: Server,
): TestResults {
	const tally = new Tally();
	if (policy.tests.length === 0) return tally;
	let steps = 0;
	const sources = new Map<string, Set<number>>();
	const targets = new Map<
		string,
		{ rule: number; ports: readonly PortSpec[] }[]
	>();
	for (const [
		rule,
		{ sources: names, targets: leads },
	] of policy.rules.entries()) {
		for (const name of names) {
			const rules = sources.get(name) ?? new Set();
			sources.set(name, rules.add(rule));
		}
		for (const { host, ports } of leads) {
			const list = targets.get(host) ?? [];
			targets.set(host, list);
			list.push({ rule, ports });
		}
	}

	/** Selectors that take in one user or tag and nobody else need not be looked at for another. */
	const others = (index: ReadonlyMap<string, unknown>) =>
		[...index.keys()].filter(
			(name) =>
				!name.startsWith("tag:") &&
				(!name.includes("@") ||
					isBareName(name) ||
					/^[a-z]+:/.test(name) ||
					policy.hosts.has(name)),
		);
	const [otherSources, otherTargets] = [others(sources), others(targets)];
	const candidates = (
		party: Party,
		all: ReadonlyMap<string, unknown>,
		other: readonly string[],
	): Iterable<string> => {
		if (party.sort === "address" || party.sort === "autogroup")
			return all.keys();
		const names = party.sort === "group" ? party.members : [party.name];
		if (names.some(isBareName)) return all.keys();
		return new Set([...other, ...names.filter((name) => all.has(name))]);
	};

	const rulesFrom = (party: Party): Map<number, Answer> => {
		const rules = new Map<number, Answer>();
		for (const selector of candidates(party, sources, otherSources)) {
			steps += costOf(party);
			if (steps > maxSteps) break;
			const answer = takesIn(selector, party, "src", policy, selectors);
			if (answer === "no") continue;
			for (const index of sources.get(selector) ?? []) {
				steps += 1;
				if (rules.get(index) !== "yes") rules.set(index, answer);
			}
		}
		return rules;
	};
	const rulesTo = (party: Party): Map<number, Match[]> => {
		const rules = new Map<number, Match[]>();
		for (const selector of candidates(party, targets, otherTargets)) {
			steps += costOf(party);
			if (steps > maxSteps) break;
			const answer = takesIn(selector, party, "dst", policy, selectors);
			if (answer === "no") continue;
			for (const { rule, ports } of targets.get(selector) ?? []) {
				steps += 1;
				const matches = rules.get(rule) ?? [];
				rules.set(rule, matches);
				matches.push({ answer, ports });
			}
		}
		return rules;
	};
	/** `autogroup:self` leads to what the source's own user signed in on. */
	const rulesToOwn = (from: Party, to: Party): Map<number, Match[]> => {
		const rules = new Map<number, Match[]>();
		if (
			to.sort === "tag" ||
			from.sort === "tag" ||
			(to.sort === "address" && !to.isTailnet)
		)
			return rules;
		const answer: Answer =
			from.sort !== "user" || to.sort !== "user"
				? "unknown"
				: isSameUser(from.name, to.name);
		if (answer !== "no")
			for (const { rule, ports } of targets.get("autogroup:self") ?? [])
				rules.set(rule, [{ answer, ports }]);
		return rules;
	};

	const knownFrom = new Map<
		string,
		From | { wrong: string } | { unclear: string }
	>();
	const fromOf = (name: string) => {
		let from = knownFrom.get(name);
		if (from === undefined) {
			const named = readParty(name, policy, selectors, server);
			from =
				"party" in named
					? { party: named.party, rules: rulesFrom(named.party) }
					: named;
			knownFrom.set(name, from);
		}
		return from;
	};
	const knownTo = new Map<string, Map<number, Match[]>>();

	/** Which rule lets a source open a port: the first that surely does, or else the first that may. */
	const findOpener = (
		test: PolicyTest,
		from: From,
		to: { name: string; party: Party; port: number },
	): { answer: Answer; rule?: Rule } => {
		// Issue 2799: without either section Tailscale lets everything through.
		if (!policy.hasRuleSection) return { answer: "yes" };
		let rules = knownTo.get(to.name);
		if (rules === undefined) {
			rules = rulesTo(to.party);
			knownTo.set(to.name, rules);
		}
		let best: { answer: Answer; rule?: Rule } = { answer: "no" };
		for (const matches of [rules, rulesToOwn(from.party, to.party)]) {
			const isShorter = matches.size < from.rules.size;
			for (const index of (isShorter ? matches : from.rules).keys()) {
				steps += 1;
				const source = from.rules.get(index);
				const rule = policy.rules[index];
				if (source === undefined || rule === undefined) continue;
				for (const { answer, ports } of matches.get(index) ?? []) {
					const open = opens(ports, to.port, test.protocol ?? "any");
					if (open === "no") continue;
					const all = every([
						source,
						answer,
						open,
						meetsPostures(rule.postures, test.attributes, policy),
						rule.isRouted ? "unknown" : "yes",
					]);
					if (all === "yes") return { answer: all, rule };
					if (all === "unknown" && best.rule === undefined)
						best = { answer: all, rule };
				}
			}
		}
		return best;
	};

	const assert = (
		test: PolicyTest,
		from: From,
		assertion: NameAt,
		wanted: "accept" | "deny",
	) => {
		const target = readDestination(assertion.name, policy, selectors, server);
		if ("wrong" in target)
			return tally.fail(
				assertion,
				target.wrong,
				"write one host and one port, such as tag:ai-server:443",
			);
		if ("unclear" in target) return tally.leave(assertion, target.unclear);
		const { answer, rule } =
			steps > maxSteps ? { answer: "no" } : findOpener(test, from, target);
		if (steps > maxSteps)
			return tally.leave(
				assertion,
				"there are too many tests and rules to work all of them out",
			);
		const what = `${test.source} may ${wanted === "accept" ? "not " : ""}open ${assertion.name}`;
		if (answer === "unknown")
			tally.leave(
				assertion,
				`whether ${test.source} may open ${assertion.name} is not to be told from the file alone: ${rule?.at} in line ${rule?.line} may allow it`,
			);
		else if ((answer === "yes") === (wanted === "accept")) tally.held += 1;
		else if (wanted === "accept")
			tally.fail(
				assertion,
				`${what}: no rule allows it`,
				"add a rule that does, or take this out of accept",
			);
		else
			tally.fail(
				assertion,
				rule === undefined
					? `${what}: without grants and acls everything is allowed`
					: `${what}: ${rule.at} in line ${rule.line} allows it`,
				rule === undefined
					? "add a grants section"
					: "narrow that rule, or take this out of deny",
			);
	};

	for (const test of policy.tests) {
		const from = fromOf(test.source);
		if ("wrong" in from)
			tally.fail(
				test,
				`src ${JSON.stringify(test.source)} cannot be tested: ${from.wrong}`,
				"name one user, group, tag or host that the policy has",
			);
		else if (test.accept.length + test.deny.length === 0)
			tally.fail(
				test,
				"it asserts nothing",
				"say what src may open under accept, or may not under deny",
			);
		else if (test.protocol === undefined)
			tally.fail(
				test,
				"its proto is none",
				'write "tcp" or "udp", or leave it out',
			);
		else if ("unclear" in from) tally.leave(test, from.unclear);
		else {
			for (const assertion of test.accept)
				assert(test, from, assertion, "accept");
			for (const assertion of test.deny) assert(test, from, assertion, "deny");
		}
	}
	return tally;
}

/** Reads `host:port`, as a test takes it. */
function readDestination(
	text: string,
	policy: TailnetPolicy,
	selectors: Selectors,
	server: Server,
):
	| { name: string; party: Party; port: number }
	| { wrong: string }
	| { unclear: string } {
	const { host, port = "" } = splitDestination(text);
	if (!/^\d{1,5}$/.test(port) || Number(port) > 65_535 || Number(port) === 0)
		return { wrong: `${text} is not one host and one port` };
	if (host.startsWith("autogroup:"))
		return { wrong: `a test does not take ${host} as destination` };
	const named = readParty(host, policy, selectors, server);
	return "party" in named
		? { name: host, party: named.party, port: Number(port) }
		: named;
}

/** Whether ports of a rule are open to a test, which means TCP or UDP if it names no protocol. */
function opens(
	ports: readonly PortSpec[],
	port: number,
	wanted: Protocol,
): Answer {
	let answer: Answer = "no";
	for (const { protocol, first, last } of ports) {
		if (port < first || port > last) continue;
		const isSame =
			wanted === "any"
				? protocol === "any" || protocol === "tcp" || protocol === "udp"
				: protocol === wanted ||
					(protocol === "any" && (wanted === "tcp" || wanted === "udp"));
		if (isSame) return "yes";
		// Ping comes with every access, and other protocols have no ports.
		if (typeof wanted === "number" || wanted === "icmp") answer = "unknown";
	}
	return answer;
}
