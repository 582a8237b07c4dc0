import { type Finding, join, type Severity, unique } from "./finding.ts";
import type { Rule } from "./policyFile.ts";
import { isPing, isTcp, isWide, opensTcp, type PortSpec } from "./ports.ts";
import {
	isEveryone,
	type Meaning,
	type Selectors,
	type Server,
} from "./selectors.ts";

/** The server, in a sentence. */
export function nameServer({ tags }: Server): string {
	return tags.length === 1 ? tags.join() : `the server (${tags.join(", ")})`;
}

/** Judges what one rule opens on the server, and what it lets the server open. */
export function judgeRule(
	rule: Rule,
	selectors: Selectors,
	server: Server,
	expectedOverSsh: ReadonlySet<string>,
): Finding[] {
	const findings: Finding[] = [];
	const add = (
		kind: Finding["kind"],
		severity: Severity,
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
	const name = nameServer(server);
	const sources = unique(rule.sources)
		.map((source) => selectors.look(source))
		// An empty group gets nothing, whatever it is granted.
		.filter(({ sort }) => sort !== "nobody");
	const who = join(sources.map(({ selector }) => selector));
	const targets = targetsOf(rule, selectors);
	// A grant without ip, or of ping alone, opens no port.
	if (targets.length === 0 || sources.length === 0) return findings;

	const addresses = sources
		.filter(({ sort }) => sort === "address")
		.map(({ selector }) => selector);
	const areAll = addresses.length > 1 && selectors.coverTailnet(addresses);
	const everyone = sources
		.filter(({ sort }) => sort === "everyone" || (areAll && sort === "address"))
		.map(({ selector }) => selector);
	const fromAll = everyone.some(
		(source) => source === "*" || source === "autogroup:danger-all",
	);
	const allPorts = targets.some(
		({ host, ports }) => host === "*" && ports.some(isWideTcp),
	);
	if (fromAll && allPorts) {
		add(
			"allow-all",
			"critical",
			`this lets every device open every port of every other, ${name} too; rules only add to each other, so no other rule narrows it`,
			"delete it, and grant what is needed one by one",
		);
		return findings;
	}

	const onServer = targets.filter(({ isServer }) => isServer === "yes");
	const specs = onServer.flatMap(({ ports }) => ports);
	const tcp = specs.filter(isTcp);
	const others = specs.filter((spec) => !isTcp(spec));
	const portList = join(tcp.map(({ text }) => text));
	if (everyone.length > 0 && tcp.length > 0)
		add(
			"wide-source",
			everyone.includes("autogroup:danger-all") ? "critical" : "high",
			`${join(everyone)} may open ${portList} of ${name}: ${explainEveryone(everyone)}${
				everyone.some((source) => selectors.look(source).isServer === "yes")
					? "; and the server may open the same on others with its tag"
					: ""
			}`,
			"name a tag that only the server's clients carry, such as tag:client",
		);
	const hosts = onServer
		.filter(
			({ host, ports }) => ports.some(isTcp) && !server.tags.includes(host),
		)
		.map(({ host }) => host);
	const wanted = `what clients need of the server is "${server.tags[0]}" with tcp:11434 and tcp:443`;
	// Where machines with the server's tag alone are let in, that they are is told below.
	const arePeers = sources.every(({ selector }) =>
		server.tags.includes(selector),
	);
	if (hosts.length > 0 && !arePeers)
		add(
			"wide-destination",
			"high",
			hosts.every((host) => selectors.look(host).isServerAlone)
				? `dst ${join(hosts)} is the server by its address, and not by its tag: ${who} may open ${portList} of ${name}`
				: `dst ${join(hosts)} is more than the server, and takes it in: ${who} may open ${portList} of ${name}`,
			`name the machines that are meant; ${wanted}`,
		);
	const wide = specs.filter(
		(spec) => isWide(spec) && (isTcp(spec) || spec.protocol === "udp"),
	);
	if (wide.length > 0 && !arePeers)
		add(
			"wide-ports",
			"high",
			`${join(wide.map(({ text }) => text))} opens every ${wide.some(isTcp) ? "" : "UDP "}service of ${name}, also one started later, to ${who}`,
			"name the ports: tcp:11434 for the gate, tcp:443 for tailscale serve",
		);
	const extra = [3000, 8080].filter((port) =>
		tcp.some((spec) => !isWide(spec) && opensTcp(spec, port)),
	);
	if (extra.length > 0)
		add(
			"extra-port",
			"medium",
			`${who} may open ${join(extra.map(String))} of ${name}, where Open WebUI answers without HTTPS`,
			"take the port out, and reach the page through tailscale serve on 443",
		);
	const strangers = sources
		.filter(({ sort }) => sort !== "tag")
		.map(({ selector }) => selector);
	if (others.length > 0 && tcp.length === 0 && strangers.length > 0)
		add(
			"other-protocol",
			"low",
			`${join(strangers)} may send ${join(others.map(nameSpec))} to ${name}, where neither the gate nor tailscale serve listens: both are TCP`,
			"write tcp if that is meant; or take it out, unless something else on the server needs it",
		);

	const isSshOnly = tcp.every(({ first, last }) => first === 22 && last === 22);
	const persons = sources
		.filter(
			({ selector, sort }) =>
				sort === "person" && !(isSshOnly && expectedOverSsh.has(selector)),
		)
		.map(({ selector }) => selector);
	if (persons.length > 0 && tcp.length > 0)
		add(
			"untagged",
			"medium",
			`${join(persons)} may open ${portList} of ${name} from any device that they sign in on, tagged or not`,
			"grant it to a tag, such as tag:client, and tag the devices that are meant",
		);
	if (addresses.length > 0 && !areAll && tcp.length > 0)
		add(
			"address-source",
			"low",
			`${join(addresses)} may open ${portList} of ${name}, and an address does not say which device holds it, or whether it has a tag`,
			"grant it to a tag, such as tag:client",
		);

	findings.push(...judgeWayOut(rule, selectors, server, sources, targets));
	if (targets.some(({ host }) => selectors.isInternet(host)))
		add(
			"internet",
			"low",
			`dst autogroup:internet lets ${who} use every exit node of the tailnet; it opens nothing on the server, unless that is an exit node itself`,
			"take it out, unless exit nodes are wanted",
		);

	const unknownHosts = targets
		.filter(({ isServer }) => isServer === "unknown")
		.map(({ host }) => host);
	if (unknownHosts.length > 0)
		add(
			"unknown",
			"medium",
			`whether dst ${join(unknownHosts)} is the server is unknown: the policy file does not say`,
			nameAddresses,
		);
	const unknownSources = sources
		.filter(({ resolved }) => !resolved)
		.map(({ selector }) => selector);
	if (
		unknownSources.length > 0 &&
		targets.some(({ isServer }) => isServer !== "no")
	)
		add(
			"unknown",
			"medium",
			`who ${join(unknownSources)} is, is unknown: the policy file does not define it in full`,
			"look it up (a group may come from the identity provider), or name a tag",
		);
	return findings;
}

const nameAddresses =
	"use tags for devices, or name the server's addresses with --server-address";

interface JudgedTarget {
	readonly host: string;
	/** Ping is left out. */
	readonly ports: readonly PortSpec[];
	readonly isServer: "yes" | "no" | "unknown";
}

function targetsOf(rule: Rule, selectors: Selectors): JudgedTarget[] {
	const targets = rule.targets
		.map(({ host, ports }) => ({
			host,
			ports: ports.filter((spec) => !isPing(spec)),
		}))
		.filter(({ ports }) => ports.length > 0);
	const answers = selectors.mean(targets.map(({ host }) => host));
	return targets.map((target) => ({
		...target,
		isServer: answers.get(target.host) ?? "unknown",
	}));
}

/** What a rule lets the server itself open. */
function judgeWayOut(
	{ at, line }: Rule,
	selectors: Selectors,
	server: Server,
	sources: readonly Meaning[],
	targets: readonly JudgedTarget[],
): Finding[] {
	const beyond = unique(
		targets
			.map(({ host }) => host)
			.filter(
				(host) =>
					host !== "autogroup:self" && !selectors.look(host).isServerAlone,
			),
	);
	const ways = beyond.map((host) =>
		server.tags.includes(host) ? `other machines with ${host}` : host,
	);
	const answers = selectors.mean(sources.map(({ selector }) => selector));
	// Anyone who lets all devices reach the server has been told already.
	const isPeersOnly = beyond.every((host) => server.tags.includes(host));
	const opens = [...answers.keys()].filter(
		(source) =>
			answers.get(source) === "yes" && !(isPeersOnly && isEveryone(source)),
	);
	if (opens.length > 0 && beyond.length > 0)
		return [
			{
				at,
				line,
				kind: "server-opens",
				severity: "high",
				says: `src ${join(opens)} takes in ${nameServer(server)}, so the server may open connections to ${join(ways)}: who breaks into the server gets further from there`,
				change:
					"take the server out of src; replies to its clients need no rule",
			},
		];
	const unsure = [...answers.keys()].filter(
		(source) =>
			answers.get(source) === "unknown" &&
			beyond.some((host) => host !== source && !server.tags.includes(host)),
	);
	return unsure.length === 0
		? []
		: [
				{
					at,
					line,
					kind: "unknown",
					severity: "low",
					says: `whether src ${join(unsure)} is the server is unknown; if it is, the server may open connections to ${join(ways)}`,
					change: nameAddresses,
				},
			];
}

function isWideTcp(spec: PortSpec): boolean {
	return isTcp(spec) && isWide(spec);
}

/** A spec with its protocol, which is in `text` already where the file has it. */
function nameSpec({ text, protocol }: PortSpec): string {
	return text.includes(":") ? text : `${protocol}:${text}`;
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
	if (
		!selectors.some((selector) => /^(?:autogroup|group|user):/.test(selector))
	)
		return "these are the addresses of all devices, or of half and more";
	return "every untagged device that a member signs in on";
}
