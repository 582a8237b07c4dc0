import { type Finding, join, severities } from "./finding.ts";
import type { Place } from "./huJson.ts";
import { judgeRule, nameServer } from "./judgeRule.ts";
import { judgeTags } from "./judgeTags.ts";
import type { TailnetPolicy } from "./policyFile.ts";
import { runPolicyTests, type TestResults } from "./policyTests.ts";
import { opensTcp, splitDestination } from "./ports.ts";
import { readSelectors, type Selectors, type Server } from "./selectors.ts";
import { runSshTests } from "./sshTests.ts";

/** The ports that are looked at, and what follows each. */
export const watchedPorts = [
	{ port: 11434, use: "the gate" },
	{ port: 443, use: "tailscale serve" },
	{ port: 22, use: "SSH" },
	{ port: 3000, use: "Open WebUI, raw" },
	{ port: 8080, use: "Open WebUI, raw" },
] as const;

/** Someone who may open a port. */
export interface Opener {
	/** As the policy writes it. */
	readonly source: string;
	readonly detail?: string;
	/** False where the file alone does not say whether the rule is about the server, or who the source is. */
	readonly certain: boolean;
}

/** What a policy means for the server. */
export interface Report {
	readonly reach: readonly {
		port: number;
		use: string;
		who: readonly Opener[];
	}[];
	readonly findings: readonly Finding[];
	/** How `tests` and `sshTests` went; what failed is among the findings, too. */
	readonly tests: {
		held: number;
		failed: number;
		unclear: readonly (Place & { says: string })[];
	};
}

/**
 * Judges what a policy opens on the server, and what the server may open, and
 * runs the policy's tests.
 *
 * Rules only add to each other, so each is judged alone; `srcPosture` and `via`
 * can only narrow a rule and are not counted in its favour. What the file does
 * not say (who is in a synced group, whose an address is) is a finding of kind
 * `unknown`. Ping alone (`icmp:*`) is not access.
 */
export function judgePolicy(policy: TailnetPolicy, server: Server): Report {
	const selectors = readSelectors(policy, server);
	const reach = watchedPorts.map(({ port, use }) => ({
		port,
		use,
		who: findOpeners(port, policy, selectors),
	}));
	const openers = new Set(
		reach.flatMap(({ who }) => who.map(({ source }) => source)),
	);
	// Tailscale SSH knows people, and a tagged device has none, so a person who may
	// open port 22 alone and whom an ssh rule names is as it should be.
	const expectedOverSsh = new Set(
		policy.ssh
			.filter(({ hosts }) =>
				hosts.some((host) => selectors.look(host).isServer === "yes"),
			)
			.flatMap(({ sources }) => sources),
	);
	const results: TestResults[] = [
		runPolicyTests(policy, selectors, server),
		runSshTests(policy, selectors, server),
	];
	const failed = results.flatMap((result) => result.failed);
	const findings = [
		...judgeFile(policy, selectors, server),
		...policy.rules.flatMap((rule) =>
			judgeRule(rule, selectors, server, expectedOverSsh),
		),
		...judgeTags(policy, server, openers),
		...judgeFunnel(policy, selectors, server),
		...failed,
	];
	if (!findings.some(({ kind }) => kind === "wide-source"))
		findings.push(...judgeTogether(reach, selectors, server));
	return {
		reach,
		findings: findings.toSorted(
			(a, b) =>
				severities.indexOf(a.severity) - severities.indexOf(b.severity) ||
				(a.line ?? 0) - (b.line ?? 0),
		),
		tests: {
			held: results.reduce((sum, { held }) => sum + held, 0),
			failed: failed.length,
			unclear: results.flatMap(({ unclear }) => unclear),
		},
	};
}

/** @returns sorted by name, each source once */
function findOpeners(
	port: number,
	policy: TailnetPolicy,
	selectors: Selectors,
): Opener[] {
	// Issue 2799: without either section Tailscale lets everything through.
	if (!policy.hasRuleSection) return [{ source: "*", certain: true }];
	const openers = new Map<string, Opener>();
	for (const { sources, targets } of policy.rules) {
		const hosts = targets
			.filter(({ ports }) => ports.some((spec) => opensTcp(spec, port)))
			.map(({ host }) => host);
		const answers = [...selectors.mean(hosts).values()];
		if (answers.every((answer) => answer === "no")) continue;
		const isSure = answers.includes("yes");
		for (const source of sources) {
			const { sort, detail, resolved } = selectors.look(source);
			if (sort === "nobody") continue;
			const certain = isSure && resolved;
			openers.set(source, {
				source,
				...(detail === undefined ? {} : { detail }),
				certain: certain || openers.get(source)?.certain === true,
			});
		}
	}
	return [...openers.values()].toSorted((a, b) =>
		a.source < b.source ? -1 : 1,
	);
}

/** Ranges that are of several rules, and together most of the tailnet. */
function judgeTogether(
	reach: Report["reach"],
	selectors: Selectors,
	server: Server,
): Finding[] {
	return reach.flatMap(({ port, who }): Finding[] => {
		const ranges = who
			.map(({ source }) => source)
			.filter((source) => selectors.look(source).sort === "address");
		return ranges.length < 2 || !selectors.coverTailnet(ranges)
			? []
			: [
					{
						kind: "wide-source",
						severity: "high",
						says: `${join(ranges)} may open ${port} of ${nameServer(server)} by several rules: together they are the addresses of all devices, or of half and more`,
						change:
							"name a tag that only the server's clients carry, such as tag:client",
					},
				];
	});
}

function judgeFile(
	policy: TailnetPolicy,
	selectors: Selectors,
	server: Server,
): Finding[] {
	const findings: Finding[] = [];
	if (!policy.hasRuleSection)
		findings.push({
			kind: "no-rules",
			severity: "critical",
			says: "there is neither a grants nor an acls section, and then Tailscale lets every device reach every port of every other",
			change:
				'add a grants section; "grants": [] would deny everything (see: llamagate policy print)',
		});
	for (const place of policy.duplicates)
		findings.push({
			...place,
			kind: "duplicate",
			severity: "high",
			says: `${place.at} is here a second time, and Tailscale counts only one of the two; both are judged here`,
			change: "keep one, with the content of both",
		});
	for (const { message, change, ...place } of policy.refused)
		findings.push({
			...place,
			kind: "refused",
			severity: "medium",
			says: `Tailscale refuses this policy, and keeps the one before it in force: ${message}`,
			change,
		});
	for (const { message, ...place } of policy.notUnderstood)
		findings.push({
			...place,
			kind: "not-understood",
			severity: "medium",
			says: `${message}; this was not judged, and what it opens is unknown`,
			change:
				"write it as in tailscale.com/docs/reference/syntax/policy-file; Tailscale refuses a policy that it does not understand",
		});
	const change = "add the tests that llamagate policy print writes";
	if (policy.tests.length === 0)
		findings.push({
			kind: "no-tests",
			severity: "low",
			says: "it has no tests, so a later edit that opens the server would be saved without a word",
			change,
		});
	else if (!testsNameServer(policy, selectors))
		findings.push({
			kind: "no-tests",
			severity: "low",
			says: `no test names ${nameServer(server)}, so a later edit that opens it would be saved without a word`,
			change,
		});
	return findings;
}

/** Whether a test is about the server, or may be: by a tag, a host or an address. */
function testsNameServer(policy: TailnetPolicy, selectors: Selectors): boolean {
	return policy.tests.some(({ source, accept, deny }) =>
		[
			source,
			...[...accept, ...deny].map(({ name }) => splitDestination(name).host),
		].some((name) => selectors.look(name).isServer !== "no"),
	);
}

function judgeFunnel(
	policy: TailnetPolicy,
	selectors: Selectors,
	server: Server,
): Finding[] {
	return policy.funnel.flatMap(({ names, ...place }): Finding[] => {
		const answers = selectors.mean(names);
		const those = (wanted: string) =>
			names.filter((name) => answers.get(name) === wanted);
		if (those("yes").length > 0)
			return [
				{
					...place,
					kind: "funnel",
					severity: "critical",
					says: `the attribute funnel lets ${nameServer(server)} publish a port to the whole internet`,
					change: `take ${join(those("yes"))} out of target`,
				},
			];
		return those("unknown").length > 0
			? [
					{
						...place,
						kind: "unknown",
						severity: "medium",
						says: `whether the attribute funnel is given to the server through ${join(those("unknown"))} is unknown`,
						change:
							"use tags in target, or name the server's addresses with --server-address",
					},
				]
			: [];
	});
}
