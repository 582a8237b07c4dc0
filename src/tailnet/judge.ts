import type { Place, PortSpec, Rule, TailnetPolicy } from "./policyFile.ts";
import {
	type Answer,
	describeSource,
	isEveryone,
	isInternet,
	meansServer,
	type Server,
} from "./selectors.ts";

/** The ports that are looked at, and what stands behind each. */
export const watchedPorts = [
	{ port: 11434, use: "the gate" },
	{ port: 443, use: "tailscale serve" },
	{ port: 22, use: "SSH" },
	{ port: 3000, use: "Open WebUI, raw" },
	{ port: 8080, use: "Open WebUI, raw" },
] as const;

/** Worst first. */
export const severities = ["critical", "high", "medium", "low"] as const;

export type FindingKind =
	| "allow-all"
	| "no-rules"
	| "wide-source"
	| "wide-destination"
	| "wide-ports"
	| "extra-port"
	| "untagged"
	| "address-source"
	| "server-opens"
	| "internet"
	| "funnel"
	| "wide-tag-owner"
	| "missing-tag-owner"
	| "no-tests"
	| "duplicate"
	| "unknown"
	| "not-understood";

/** One thing to change in a policy. */
export interface Finding extends Partial<Place> {
	readonly kind: FindingKind;
	readonly severity: (typeof severities)[number];
	readonly says: string;
	readonly change: string;
}

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
}

/** A range of more ports than this is as good as all of them: it is as many as are privileged. */
const manyPorts = 1024;

const isWide = ({ first, last }: PortSpec) => last - first >= manyPorts;
const isPing = ({ protocol }: PortSpec) => protocol === "icmp";
const opensTcp = ({ protocol, first, last }: PortSpec, port: number) =>
	(protocol === "tcp" || protocol === "any") && first <= port && port <= last;

/**
 * Judges what a policy opens on the server, and what the server may open.
 *
 * Rules only add to each other, so each is judged alone; `srcPosture` and `via`
 * can only narrow a rule and are not counted in its favour. What the file does
 * not say (who is in a synced group, whose an address is) is a finding of kind
 * `unknown`. Ping alone (`icmp:*`) is no access.
 */
export function judgePolicy(policy: TailnetPolicy, server: Server): Report {
	const findings = [
		...judgeFile(policy, server),
		...policy.rules.flatMap((rule) => judgeRule(rule, policy, server)),
		...judgeTags(policy, server),
		...judgeFunnel(policy, server),
	];
	return {
		reach: watchedPorts.map(({ port, use }) => ({
			port,
			use,
			who: findOpeners(port, policy, server),
		})),
		findings: findings.toSorted(
			(a, b) =>
				severities.indexOf(a.severity) - severities.indexOf(b.severity) ||
				(a.line ?? 0) - (b.line ?? 0),
		),
	};
}

/** @returns sorted by name, each source once */
function findOpeners(
	port: number,
	policy: TailnetPolicy,
	server: Server,
): Opener[] {
	// Issue 2799: without either section Tailscale lets everything through.
	if (!policy.hasRuleSection) return [{ source: "*", certain: true }];
	const openers = new Map<string, Opener>();
	for (const { sources, targets } of policy.rules) {
		const answers = targets
			.filter(({ ports }) => ports.some((spec) => opensTcp(spec, port)))
			.map(({ host }) => meansServer(host, server, policy))
			.filter((answer) => answer !== "no");
		if (answers.length === 0) continue;
		for (const source of sources) {
			const { detail, resolved } = describeSource(source, policy);
			const certain = answers.includes("yes") && resolved;
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

function judgeFile(policy: TailnetPolicy, server: Server): Finding[] {
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
			says: `${place.at} stands here a second time, and Tailscale counts only one of the two; both are judged here`,
			change: "keep one, with the content of both",
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
	const mentionsServer = policy.tests.names.some(
		(name) => name === server.tag || name.startsWith(`${server.tag}:`),
	);
	if (policy.tests.count === 0)
		findings.push({
			kind: "no-tests",
			severity: "low",
			says: "there are no tests, so a later edit that opens the server would be saved without a word",
			change: "add the tests that llamagate policy print writes",
		});
	else if (!mentionsServer)
		findings.push({
			kind: "no-tests",
			severity: "low",
			says: `no test names ${server.tag}, so a later edit that opens it would be saved without a word`,
			change: "add the tests that llamagate policy print writes",
		});
	return findings;
}

function judgeRule(
	rule: Rule,
	policy: TailnetPolicy,
	server: Server,
): Finding[] {
	const findings: Finding[] = [];
	const add = (
		kind: FindingKind,
		severity: Finding["severity"],
		says: string,
		change: string,
	) =>
		findings.push({
			kind,
			severity,
			says,
			change,
			at: rule.at,
			line: rule.line,
		});
	const targets = rule.targets
		.map(({ host, ports }) => ({
			host,
			ports: ports.filter((spec) => !isPing(spec)),
			isServer: meansServer(host, server, policy),
		}))
		.filter(({ ports }) => ports.length > 0);
	// A grant without ip, or of ping alone, opens no port.
	if (targets.length === 0) return findings;

	const toAll = targets.filter(({ host }) => host === "*");
	const everyone = rule.sources.filter(
		(source) => describeSource(source, policy).sort === "everyone",
	);
	const fromAll = everyone.filter(
		(source) => source === "*" || source === "autogroup:danger-all",
	);
	if (fromAll.length > 0 && toAll.some(({ ports }) => ports.some(isWide))) {
		add(
			"allow-all",
			"critical",
			`this lets every device open every port of every other, ${server.tag} too; rules only add to each other, so no other rule narrows it`,
			"delete it, and grant what is needed one by one",
		);
		return findings;
	}

	const onServer = targets.filter(({ isServer }) => isServer === "yes");
	const ports = onServer.flatMap((target) => target.ports);
	const portList = [...new Set(ports.map(({ text }) => text))].join(", ");
	if (everyone.length > 0 && onServer.length > 0)
		add(
			"wide-source",
			everyone.includes("autogroup:danger-all") ? "critical" : "high",
			`${join(everyone)} may open ${portList} of ${server.tag}: ${explainEveryone(everyone)}`,
			"name a tag that only the server's clients carry, such as tag:client",
		);
	const hosts = [
		...new Set(
			onServer.map(({ host }) => host).filter((host) => host !== server.tag),
		),
	];
	if (hosts.length > 0)
		add(
			"wide-destination",
			"high",
			`dst ${join(hosts)} is more than the server, and takes it in: ${join(rule.sources)} may open ${portList} of ${server.tag}`,
			`name the machines that are meant; what clients need of the server is "${server.tag}" with tcp:11434 and tcp:443`,
		);
	const wideSpecs = ports.filter(isWide);
	if (wideSpecs.length > 0)
		add(
			"wide-ports",
			"high",
			`${join(unique(wideSpecs.map(({ text }) => text)))} opens every service of ${server.tag}, also one started later, to ${join(rule.sources)}`,
			"name the ports: tcp:11434 for the gate, tcp:443 for tailscale serve",
		);
	const extra = [3000, 8080].filter((port) =>
		ports.some((spec) => !isWide(spec) && opensTcp(spec, port)),
	);
	if (extra.length > 0)
		add(
			"extra-port",
			"medium",
			`${join(rule.sources)} may open ${join(extra.map(String))} of ${server.tag}, where Open WebUI answers without HTTPS`,
			"take the port out, and reach the page through tailscale serve on 443",
		);

	const persons = rule.sources.filter(
		(source) =>
			describeSource(source, policy).sort === "person" &&
			!isExpectedOverSsh(source, ports, policy, server),
	);
	if (persons.length > 0 && onServer.length > 0)
		add(
			"untagged",
			"medium",
			`${join(persons)} may open ${portList} of ${server.tag} from any device that they sign in on, tagged or not`,
			"grant it to a tag, such as tag:client, and tag the devices that are meant",
		);
	const byAddress = rule.sources.filter(
		(source) => describeSource(source, policy).sort === "address",
	);
	if (byAddress.length > 0 && onServer.length > 0)
		add(
			"address-source",
			"low",
			`${join(byAddress)} may open ${portList} of ${server.tag}, and an address does not say which device holds it, or whether it has a tag`,
			"grant it to a tag, such as tag:client",
		);

	const own = rule.sources.map((source): [string, Answer] => [
		source,
		meansServer(source, server, policy),
	]);
	const beyond = unique(
		targets
			.map(({ host }) => host)
			.filter((host) => host !== server.tag && host !== "autogroup:self"),
	);
	const opens = own.filter(([, answer]) => answer === "yes");
	if (opens.length > 0 && beyond.length > 0)
		add(
			"server-opens",
			"high",
			`src ${join(opens.map(([source]) => source))} takes in ${server.tag}, so the server may open connections to ${join(beyond)}: who breaks into the server gets further from there`,
			"take the server out of src; replies to its clients need no rule",
		);
	if (targets.some(({ host }) => isInternet(host, policy)))
		add(
			"internet",
			"low",
			`dst autogroup:internet lets ${join(rule.sources)} use every exit node of the tailnet; it opens nothing on the server, unless that is an exit node itself`,
			"take it out, unless exit nodes are wanted",
		);

	const unknownHosts = unique(
		targets
			.filter(({ isServer }) => isServer === "unknown")
			.map(({ host }) => host),
	);
	if (unknownHosts.length > 0)
		add(
			"unknown",
			"medium",
			`whether dst ${join(unknownHosts)} is the server is unknown: the policy file does not say`,
			`use tags for devices, or name the server's addresses with --server-address`,
		);
	const unknownSources = rule.sources.filter(
		(source) =>
			!describeSource(source, policy).resolved &&
			targets.some(({ isServer }) => isServer !== "no"),
	);
	if (unknownSources.length > 0)
		add(
			"unknown",
			"medium",
			`who ${join(unknownSources)} is, is unknown: the policy file does not define it in full`,
			"look it up (a group may come from the identity provider), or name a tag",
		);
	const unknownOwn = own
		.filter(
			([source, answer]) =>
				answer === "unknown" && beyond.some((host) => host !== source),
		)
		.map(([source]) => source);
	if (unknownOwn.length > 0)
		add(
			"unknown",
			"low",
			`whether src ${join(unknownOwn)} is the server is unknown; if it is, the server may open connections to ${join(beyond)}`,
			`use tags for devices, or name the server's addresses with --server-address`,
		);
	return findings;
}

/**
 * Tailscale SSH knows people, and a tagged device has none, so a person who may
 * open port 22 alone and whom an `ssh` rule names is as it should be.
 */
function isExpectedOverSsh(
	source: string,
	ports: readonly PortSpec[],
	policy: TailnetPolicy,
	server: Server,
): boolean {
	return (
		ports.every(({ first, last }) => first === 22 && last === 22) &&
		policy.ssh.some(
			({ sources, hosts }) =>
				sources.includes(source) &&
				hosts.names.some((host) => meansServer(host, server, policy) === "yes"),
		)
	);
}

function judgeTags(policy: TailnetPolicy, server: Server): Finding[] {
	const findings: Finding[] = [];
	const missing = [...policy.usedTags].filter(
		([tag]) => !policy.tagOwners.has(tag),
	);
	for (const [tag, place] of missing)
		findings.push({
			...place,
			kind: "missing-tag-owner",
			severity: "medium",
			says: `${tag} is used, but tagOwners does not have it, so no device can carry it`,
			change: `add "${tag}": ["autogroup:admin"] to tagOwners`,
		});
	if (!policy.tagOwners.has(server.tag) && !policy.usedTags.has(server.tag))
		findings.push({
			kind: "missing-tag-owner",
			severity: "high",
			says: `${server.tag} is nowhere in this policy, so nothing here is about the server`,
			change: `add it to tagOwners, or name the server's tag with --server-tag`,
		});
	// Who may give themselves a client's tag is a client.
	const clients = watchedPorts
		.flatMap(({ port }) => findOpeners(port, policy, server))
		.map(({ source }) => source);
	for (const [tag, { names, ...place }] of policy.tagOwners) {
		const owners = names.filter(isEveryone);
		if (owners.length > 0 && (tag === server.tag || clients.includes(tag)))
			findings.push({
				...place,
				kind: "wide-tag-owner",
				severity: "high",
				says: `${join(owners)} may put ${tag} on any device of theirs, and so get what it gets`,
				change: "let autogroup:admin alone own it",
			});
	}
	return findings;
}

function judgeFunnel(policy: TailnetPolicy, server: Server): Finding[] {
	return policy.funnel.flatMap(({ names, ...place }): Finding[] => {
		const answers = names.map((name) => meansServer(name, server, policy));
		if (answers.includes("yes"))
			return [
				{
					...place,
					kind: "funnel",
					severity: "critical",
					says: `the attribute funnel lets ${server.tag} publish a port to the whole internet`,
					change: `take ${join(names.filter((_, index) => answers[index] === "yes"))} out of target`,
				},
			];
		return answers.includes("unknown")
			? [
					{
						...place,
						kind: "unknown",
						severity: "medium",
						says: `whether the attribute funnel is given to the server through ${join(names.filter((_, index) => answers[index] === "unknown"))} is unknown`,
						change:
							"use tags in target, or name the server's addresses with --server-address",
					},
				]
			: [];
	});
}

function explainEveryone(selectors: readonly string[]): string {
	if (selectors.includes("autogroup:danger-all"))
		return "devices outside the tailnet too";
	if (selectors.includes("*"))
		return "every device, untagged and shared ones too, and approved subnets";
	if (selectors.includes("autogroup:shared"))
		return "people outside the tailnet who accepted a share";
	if (selectors.every((selector) => selector === "autogroup:tagged"))
		return "every tagged device, whatever it is for";
	return "every untagged device that a member signs in on";
}

function unique(names: readonly string[]): string[] {
	return [...new Set(names)];
}

function join(names: readonly string[]): string {
	return names.join(", ");
}
