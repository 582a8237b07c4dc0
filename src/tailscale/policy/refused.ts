import { quote } from "../../config/strictJson.ts";
import { intersect } from "./addressSet.ts";
import {
	elementsOf,
	field,
	fields,
	type Item,
	type Place,
	propertiesOf,
	quoteItem,
	textOf,
	trimBlanks,
} from "./huJson.ts";
import { addressSetOf } from "./nodeAddresses.ts";
import {
	type PortSpec,
	parseAclDestination,
	parseGrantPorts,
} from "./ports.ts";
import { isTag } from "./recommended.ts";

/** Something that Tailscale refuses to save. */
export interface Refusal extends Place {
	/** Finishes "Tailscale refuses this policy: …". */
	readonly message: string;
	/** What to do about it. */
	readonly change: string;
}

type Refuse = (item: Item, message: string, change: string) => void;

/**
 * What Tailscale refuses, and says so only when the policy is saved. It is no
 * full list: it has what was seen to be refused (headscale,
 * hscontrol/policy/v2/testdata: api_response_body), and what the reference
 * says cannot be.
 */
export function findRefusals(
	root: Item,
	placeOf: (item: Item) => Place,
): Refusal[] {
	const found: Refusal[] = [];
	const refuse: Refuse = (item, message, change) =>
		found.push({ ...placeOf(item), message, change });
	const entries = (name: string) => fields(root, name).flatMap(elementsOf);
	const named = (name: string) => fields(root, name).flatMap(propertiesOf);

	for (const [name, members] of named("groups"))
		refuseGroup(name, members, refuse);
	for (const [name, owners] of named("tagOwners"))
		if (!isTag(name))
			refuse(
				owners,
				`${quote(name)} is not a name for a tag`,
				"write tag: and then a letter, and letters of A to Z, digits and dashes",
			);
	for (const grant of entries("grants")) refuseGrant(grant, refuse);
	for (const acl of entries("acls")) {
		// In acls * means all of whom some have devices of their own; in grants it does not.
		refuseRule(
			acl,
			(text) => parseAclDestination(text, "any")?.host,
			(selector) => selector === "*" || isPeople(selector),
			refuse,
		);
		for (const item of listed(acl, "dst", "ports"))
			if (isPortZero(parseAclDestination(textOf(item) ?? "", "any")?.ports))
				refuse(item, ...portZero);
	}
	for (const entry of entries("ssh")) refuseSsh(entry, refuse);
	const hosts = new Set(named("hosts").map(([name]) => name));
	for (const entry of entries("nodeAttrs"))
		refuseNodeAttr(entry, hosts, refuse);
	return found;
}

/** The elements of the lists of some names. */
function listed(entry: Item, ...names: string[]): Item[] {
	const found: Item[] = [];
	for (const name of names)
		for (const list of fields(entry, name))
			for (const element of elementsOf(list)) found.push(element);
	return found;
}

function trimmed(item: Item): string {
	return trimBlanks(textOf(item) ?? "");
}

function refuseGroup(name: string, members: Item, refuse: Refuse): void {
	if (!name.startsWith("group:"))
		refuse(
			members,
			`${quote(name)} is not a name for a group`,
			`call it ${quote(`group:${name}`)}`,
		);
	for (const member of elementsOf(members))
		if (trimmed(member).startsWith("group:"))
			refuse(
				member,
				`${name} has the group ${quoteItem(member)} in it, and groups hold users alone`,
				"list its users here, or name both groups in the rules",
			);
}

const portZero = [
	"port 0 cannot be granted",
	'let the range start at 1, or write "*"',
] as const;

function isPortZero(specs: readonly PortSpec[] | undefined): boolean {
	return (specs ?? []).some(
		({ text, first }) => first === 0 && !text.trimEnd().endsWith("*"),
	);
}

/** Capabilities of Tailscale's own that a grant may give; others are for nodeAttrs, or Tailscale's alone. */
const tailscaleCapabilities =
	/^tailscale\.com\/cap\/(?:drive|golink|kubernetes|relay|secrets|tsidp|webui)$/;

function refuseGrant(grant: Item, refuse: Refuse): void {
	refuseRule(grant, (text) => text, isPeople, refuse);
	const capabilities = fields(grant, "app").flatMap(propertiesOf);
	const ports = listed(grant, "ip");
	if (ports.length === 0 && capabilities.length === 0)
		refuse(
			grant,
			"this grant has neither ip nor app, and so gives nothing",
			'say which ports, such as "ip": ["tcp:443"], or delete it',
		);
	for (const item of ports)
		if (isPortZero(parseGrantPorts(trimmed(item)))) refuse(item, ...portZero);
	for (const [name, value] of capabilities)
		if (!/^[^\s/:]+\.[^\s/:]+\/\S+$/.test(name))
			refuse(
				value,
				`the capability ${quote(name)} is not of the form domain/path`,
				"put a domain of yours before it: example.com/cap/name",
			);
		else if (
			/^(?:.+\.)?tailscale\.com\//i.test(name) &&
			!tailscaleCapabilities.test(name)
		)
			refuse(
				value,
				`the capability ${quote(name)} is in Tailscale's own domain, and none that a grant may give`,
				"take one of its documented ones (tailscale.com/cap/drive), or a domain of yours",
			);
	if (
		capabilities.length > 0 &&
		listed(grant, "dst").some((item) => trimmed(item) === "autogroup:internet")
	)
		refuse(
			grant,
			"app is of no use with autogroup:internet as dst",
			"put autogroup:internet into a grant of its own, with ip alone",
		);
	for (const item of listed(grant, "via"))
		if (!trimmed(item).startsWith("tag:"))
			refuse(
				item,
				`via has ${quoteItem(item)}, and only tags can stand there`,
				"name the tag of the routers",
			);
}

/** Whose own devices `autogroup:self` can be: people's. */
function isPeople(selector: string): boolean {
	return (
		selector.startsWith("group:") ||
		selector.startsWith("user:*@") ||
		selector.includes("@") ||
		/^autogroup:(?:members?|owner|admin|(?:network|it|billing)-admin|auditor)$/.test(
			selector,
		)
	);
}

/** What holds of grants and acls. `hostOf` reads a destination, `hasSelf` says whose own devices there can be. */
function refuseRule(
	rule: Item,
	hostOf: (text: string) => string | undefined,
	hasSelf: (selector: string) => boolean,
	refuse: Refuse,
): void {
	const sources = listed(rule, "src", "users");
	for (const item of sources)
		if (trimmed(item) === "autogroup:self")
			refuse(
				item,
				"autogroup:self means the source's own devices, and cannot be a src",
				"write autogroup:member, or name the users",
			);
	const strangers = sources.filter((item) => !hasSelf(trimmed(item)));
	for (const item of listed(rule, "dst", "ports")) {
		const host = hostOf(trimmed(item));
		if (host === "autogroup:self" && strangers[0] !== undefined)
			refuse(
				item,
				`autogroup:self means devices of the source's own user, and src has ${quoteItem(strangers[0])}, which is not a user`,
				"write autogroup:member as src, or give the two rules of their own",
			);
		if (host === "autogroup:danger-all")
			refuse(
				item,
				"autogroup:danger-all cannot be a dst",
				'name the machines that are meant; "*" is all of the tailnet',
			);
		if (host !== undefined && /^(?:0\.0\.0\.0|::)\/0$/.test(host))
			refuse(
				item,
				`dst ${host} cannot stand for all addresses`,
				'name the machines that are meant; "*" is all of the tailnet, autogroup:internet the exit nodes',
			);
	}
}

/** 168 hours. */
const maxCheckPeriodSeconds = 168 * 3600;

/** Reads a Go duration, such as `1h30m`; `undefined` if it is none. */
function parseSeconds(text: string): number | undefined {
	if (!/^[+-]?(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+$/.test(text))
		return undefined;
	const units: Record<string, number> = {
		ns: 1e-9,
		us: 1e-6,
		µs: 1e-6,
		ms: 1e-3,
		s: 1,
		m: 60,
		h: 3600,
	};
	const sum = [...text.matchAll(/([\d.]+)([a-zµ]+)/g)].reduce(
		(seconds, [, count, unit = ""]) =>
			seconds + Number(count) * (units[unit] ?? 0),
		0,
	);
	return text.startsWith("-") ? -sum : sum;
}

function refuseSsh(entry: Item, refuse: Refuse): void {
	const action = textOf(field(entry, "action"))?.trim();
	if (action !== "accept" && action !== "check")
		refuse(
			entry,
			`an ssh rule's action is "accept" or "check", and this one has ${quoteItem(field(entry, "action"))}`,
			'write "accept", or "check" to have people sign in again',
		);
	const users = listed(entry, "users");
	if (users.length === 0)
		refuse(
			entry,
			"an ssh rule must say with users whom one may log in as",
			'write "users": ["autogroup:nonroot"]',
		);
	for (const user of users)
		if (["", "*"].includes(textOf(user) ?? "-"))
			refuse(
				user,
				`users has ${quoteItem(user)}, which is not a user`,
				'name the users, or write "autogroup:nonroot", and "root" beside it if need be',
			);
	for (const value of listed(entry, "acceptEnv"))
		if (textOf(value) === "")
			refuse(value, "acceptEnv has an empty name", "take it out");
	const period = field(entry, "checkPeriod");
	const text = textOf(period);
	const seconds = text === undefined ? undefined : parseSeconds(text);
	if (
		period !== undefined &&
		text !== "always" &&
		text !== "" &&
		(seconds === undefined || seconds < 0 || seconds > maxCheckPeriodSeconds)
	)
		refuse(
			period,
			`checkPeriod ${quoteItem(period)} is not a time of up to 168 hours`,
			'write a time such as "12h", or "always"',
		);
	for (const item of listed(entry, "dst")) {
		const host = trimmed(item);
		if (!host.includes("@") && !/^(?:tag|group|autogroup|user):/.test(host))
			refuse(
				item,
				`an ssh rule leads to tags, users and autogroups, and dst has ${quoteItem(item)}`,
				"name the tag of the machine",
			);
	}
}

/** Addresses that Tailscale keeps for itself (tailscale.com/docs/reference/reserved-ip-addresses). */
const reserved = addressSetOf([
	"100.100.0.0/24",
	"100.100.100.0/24",
	"100.115.92.0/23",
]);

function refuseNodeAttr(
	entry: Item,
	hosts: ReadonlySet<string>,
	refuse: Refuse,
): void {
	for (const item of listed(entry, "target")) {
		const target = trimmed(item);
		const isKnown =
			target === "*" ||
			target.includes("@") ||
			hosts.has(target) ||
			/^(?:tag|group|autogroup|user|ipset|host|svc):/.test(target) ||
			addressSetOf([target]).length > 0;
		if (!isKnown || target === "autogroup:self")
			refuse(
				item,
				`target ${quoteItem(item)} names no devices`,
				"name a tag, a user, a group, or * for all",
			);
	}
	for (const item of listed(entry, "ipPool"))
		if (intersect(addressSetOf([trimmed(item)]), reserved).length > 0)
			refuse(
				item,
				`ipPool ${quoteItem(item)} has addresses that Tailscale keeps for itself`,
				"take a range without 100.100.0.0/24, 100.100.100.0/24 and 100.115.92.0/23",
			);
}
