import { trimBlanks } from "./huJson.ts";

/**
 * `any` is what Tailscale takes when none is named: TCP, UDP and ICMP. Other
 * protocols than these stand by their IANA number, without ports.
 */
export type Protocol = "any" | "tcp" | "udp" | "icmp" | "sctp" | number;

/** Ports of one protocol that a rule opens, both ends included. */
export interface PortSpec {
	/** As the file writes it, with its protocol. */
	readonly text: string;
	readonly protocol: Protocol;
	readonly first: number;
	readonly last: number;
}

/** Where a rule leads: a selector and the ports opened on it. */
export interface Target {
	readonly host: string;
	readonly ports: readonly PortSpec[];
}

/** A range of more ports than this is as good as all of them: it is as many as are privileged. */
const manyPorts = 1024;

/** Whether ports are as good as all ports. */
export function isWide({ first, last }: PortSpec): boolean {
	return last - first >= manyPorts;
}

/** Whether a rule's ports are for ping alone. */
export function isPing({ protocol }: PortSpec): boolean {
	return protocol === "icmp";
}

/** Whether a rule's ports are of TCP, where the gate and all that is watched answers. */
export function isTcp({ protocol }: PortSpec): boolean {
	return protocol === "any" || protocol === "tcp";
}

/** Whether a rule's ports let TCP through to a port. */
export function opensTcp(spec: PortSpec, port: number): boolean {
	return isTcp(spec) && spec.first <= port && port <= spec.last;
}

const named: Readonly<Record<string, Protocol>> = {
	"": "any",
	tcp: "tcp",
	"6": "tcp",
	udp: "udp",
	"17": "udp",
	icmp: "icmp",
	"1": "icmp",
	"ipv6-icmp": "icmp",
	"58": "icmp",
	sctp: "sctp",
	"132": "sctp",
	igmp: 2,
	ipv4: 4,
	"ip-in-ip": 4,
	egp: 8,
	igp: 9,
	gre: 47,
	esp: 50,
	ah: 51,
	fc: 133,
};

/**
 * Reads `proto` of an acl or of a test, or what is before the colon in a
 * grant's `ip`: a name or an IANA number. Absent means TCP, UDP and ICMP.
 */
export function parseProtocol(value: unknown): Protocol | undefined {
	if (typeof value !== "string") return undefined;
	const name = value.trim().toLowerCase();
	if (Object.hasOwn(named, name)) return named[name];
	return /^[1-9]\d{0,2}$/.test(name) && Number(name) <= 255
		? Number(name)
		: undefined;
}

/** Reads `*`, `443`, `80-443` or several of them with commas between; `undefined` if it is none. */
function parsePorts(
	text: string,
	protocol: Protocol,
	whole: string,
): PortSpec[] | undefined {
	if (text.trim() === "*")
		return [{ text: whole, protocol, first: 0, last: 65_535 }];
	const specs: PortSpec[] = [];
	for (const part of text.split(",")) {
		const [, from = "", to = from] =
			/^\s*(\d{1,5})(?:-(\d{1,5}))?\s*$/.exec(part) ?? [];
		if (from === "") return undefined;
		const [first, last] = [Number(from), Number(to)];
		if (first > last || last > 65_535) return undefined;
		specs.push({ text: whole, protocol, first, last });
	}
	return specs;
}

/** Reads an item of a grant's `ip`. */
export function parseGrantPorts(text: string): PortSpec[] | undefined {
	const at = text.lastIndexOf(":");
	if (at === -1) return parsePorts(text, "any", text);
	const protocol = at === 0 ? undefined : parseProtocol(text.slice(0, at));
	return protocol === undefined
		? undefined
		: parsePorts(text.slice(at + 1), protocol, text);
}

/** Reads an item of an acl's `dst`, `host:ports`; an IPv6 host may stand in brackets. */
export function parseAclDestination(
	text: string,
	protocol: Protocol,
): Target | undefined {
	const { host, port } = splitDestination(text);
	if (host === "" || port === undefined) return undefined;
	const ports = parsePorts(
		port,
		protocol,
		protocol === "any" ? port : `${protocol}:${port}`,
	);
	return ports && { host, ports };
}

/** Splits `host:ports` at its last colon. An IPv6 address may stand in brackets, which go. */
export function splitDestination(text: string): {
	host: string;
	port: string | undefined;
} {
	const at = text.lastIndexOf(":");
	const [host, port] =
		at === -1 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
	return {
		host: trimBlanks(host).replace(/^\[(.*)\]/, "$1"),
		port: port === undefined ? undefined : trimBlanks(port),
	};
}
