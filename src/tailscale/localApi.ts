import { parseAddress } from "../net/ranges.ts";

/** A reply is some kilobytes; parsing one of this size holds the event loop for about 5 ms. */
export const maxReplyBytes = 2 ** 20;
const maxReasonLength = 200;

/** Who a node of the tailnet is. */
export interface TailnetNode {
	/**
	 * The machine's name without its tailnet, lower case: `laptop`. For a node
	 * that another tailnet shares, it is all of `fqdn`, so that another's
	 * `laptop` is never taken for one's own. Empty if control gave no name: what
	 * tailscaled shows instead is the host name that the peer itself claims.
	 *
	 * Names are unique in a tailnet and yet no strong identity: anyone who may rename
	 * a machine, or add one, can take a name that is free.
	 */
	readonly name: string;
	/** The MagicDNS name, lower case and without its last dot: `laptop.tail1234.ts.net`. */
	readonly fqdn: string;
	/** The owner's login name, `me@example.com`; `undefined` for a tagged node, which has no owner. */
	readonly user: string | undefined;
	/** `tag:client` and the like. */
	readonly tags: readonly string[];
	/**
	 * Whether it is of another tailnet: one that is shared with this host, or one
	 * of a person with whom this host is shared. The control server tells the
	 * latter's name to nobody, so its name need not say so.
	 */
	readonly isShared: boolean;
}

/** What tailscaled says about the node behind an address. */
export interface TailscaleNode extends TailnetNode {
	/** Its addresses in the tailnet, one of IPv4 and one of IPv6 as a rule. */
	readonly addresses: readonly string[];
	/** Given by the control server and not the peer's to choose (tailcfg/tailcfg.go:StableNodeID). */
	readonly stableId: string;
	/**
	 * What the tailnet policy's `grants` let this node do here: capability
	 * (`domain/path`) to its values, each whatever JSON the policy has there. A
	 * capability without values has an empty list.
	 */
	readonly capabilities: ReadonlyMap<string, readonly unknown[]>;
}

/** tailscaled would not say: it answered, but neither yes nor no. The device must not be let in. */
export interface Refused {
	readonly kind: "refused";
	/** One line of printable ASCII. */
	readonly reason: string;
}

/** tailscaled could not be asked, or what it said made no sense. The device must not be let in. */
export interface Unreachable {
	readonly kind: "unreachable";
	/** One line of printable ASCII, with what to look at. */
	readonly reason: string;
}

export type WhoisAnswer =
	| { readonly kind: "node"; readonly node: TailscaleNode }
	/** The address belongs to no node of the tailnet. */
	| { readonly kind: "unknown" }
	| Refused
	| Unreachable;

/** This host's own place in the tailnet. */
export interface TailscaleStatus {
	/** `NoState`, `NeedsLogin`, `NeedsMachineAuth`, `Stopped`, `Starting`, `Running` (ipn.State). */
	readonly backendState: string;
	/** tailscaled's long version: `1.96.2-t0123456789-g0123456789`. */
	readonly version: string;
	/** Without a tunnel device peers are proxied: they reach a server here from loopback. */
	readonly userspace: boolean;
	/** This host's Tailscale addresses; none while it is logged out. */
	readonly addresses: readonly string[];
	/** Without its last dot; empty while logged out. */
	readonly dnsName: string;
	/** Epoch milliseconds; `undefined` for a key that does not expire. */
	readonly keyExpiresAtMs: number | undefined;
	/** Whether this host has tags, and so no owner who could renew its key. */
	readonly isTagged: boolean;
	/** Whether the tailnet gives its devices names; `undefined` without a tailnet. Its suffix is there whether or not it does. */
	readonly magicDns: boolean | undefined;
	/** Names that `tailscale cert` can get a certificate for; none unless HTTPS is enabled. */
	readonly certDomains: readonly string[];
	/** What tailscaled complains about, in its own words. */
	readonly health: readonly string[];
}

export type StatusAnswer =
	| { readonly kind: "status"; readonly status: TailscaleStatus }
	| Refused
	| Unreachable;

export type NodesAnswer =
	| { readonly kind: "nodes"; readonly nodes: readonly TailnetNode[] }
	| Refused
	| Unreachable;

/** A whole HTTP reply; `text` is undefined if it was too long to be read. */
export interface Reply {
	readonly kind: "reply";
	readonly status: number;
	readonly text: string | undefined;
}

/** Nothing that could be called a reply. */
export interface Silence {
	readonly kind: "silence";
	readonly reason: string;
}

/** The shape of a reply is not what Tailscale's source has. */
class UnexpectedShapeError extends Error {
	readonly code = "UNEXPECTED_SHAPE";
}

/** client/tailscale/apitype/apitype.go:WhoIsResponse, out of ipn/localapi/localapi.go:serveWhoIs. */
export function readWhois(reply: Reply | Silence): WhoisAnswer {
	// Any other path than LocalAPI's own has Go's "404 page not found".
	if (
		reply.kind === "reply" &&
		reply.status === 404 &&
		reply.text?.startsWith("no match") === true
	)
		return { kind: "unknown" };
	return read(reply, (body) => ({ kind: "node", node: readNode(body) }));
}

/** Those of ipn/ipnstate/ipnstate.go:Status; names as in {@link readNode}. */
export function readNodes(body: Fields): readonly TailnetNode[] {
	const users = isNothing(body.User) ? {} : fieldsIn(body, "User");
	const peers = isNothing(body.Peer) ? {} : fieldsIn(body, "Peer");
	const tailnet = isNothing(body.CurrentTailnet)
		? body
		: fieldsIn(body, "CurrentTailnet");
	const suffix = `.${hostName(textIn(tailnet, "MagicDNSSuffix"))}`;
	return [fieldsIn(body, "Self"), ...fieldsOf(peers)].map((node) => {
		const fqdn = hostName(textIn(node, "DNSName"));
		const owner = String(node.UserID);
		const tags = textsIn(node, "Tags");
		return {
			name: fqdn.endsWith(suffix) ? fqdn.slice(0, -suffix.length) : fqdn,
			fqdn,
			user: ownerOf(
				tags,
				isNothing(users[owner])
					? ""
					: textIn(fieldsIn(users, owner), "LoginName"),
			),
			tags,
			isShared: node.ShareeNode === true || !isZero(node.AltSharerUserID),
		};
	});
}

function readNode(body: Fields): TailscaleNode {
	const node = fieldsIn(body, "Node");
	const profile = fieldsIn(body, "UserProfile");
	const stableId = textIn(node, "StableID");
	if (stableId === "") throw new UnexpectedShapeError("StableID is empty");
	const tags = textsIn(node, "Tags");
	const login = textIn(profile, "LoginName");
	const fqdn = hostName(textIn(node, "Name"));
	// tailcfg/tailcfg.go:InitDisplayNames: the name less our own tailnet's suffix,
	// so that a node shared in from elsewhere has all of it.
	const computed = hostName(textIn(node, "ComputedName"));
	// They stand in each request's log line.
	if (!isShort([stableId, fqdn, computed, login, tags]))
		throw new UnexpectedShapeError("what the node is called is too long");
	const [label = ""] = fqdn.split(".");
	const host = isNothing(node.Hostinfo) ? {} : fieldsIn(node, "Hostinfo");
	return {
		name: computed === label ? label : fqdn,
		fqdn,
		addresses: readAddresses(node),
		stableId,
		user: ownerOf(tags, login),
		tags,
		// tailcfg/tailcfg.go:Hostinfo.ShareeNode, Node.Sharer
		isShared: host.ShareeNode === true || !isZero(node.Sharer),
		capabilities: readCapabilities(body),
	};
}

/** tailcfg/tailcfg.go:Node.Addresses: prefixes of one address each. Nobody is let in or kept out for want of them. */
function readAddresses(node: Fields): string[] {
	if (!Array.isArray(node.Addresses)) return [];
	return node.Addresses.flatMap((prefix) => {
		const [, text] = /^([^/]+)\/(?:32|128)$/.exec(String(prefix)) ?? [];
		return parseAddress(text)?.toString() ?? [];
	});
}

function ownerOf(tags: readonly string[], login: string): string | undefined {
	return tags.length > 0 || login === "" || login === "tagged-devices"
		? undefined
		: login;
}

/** tailcfg/tailcfg.go:PeerCapMap: an object of arrays of raw JSON. Go writes nil as null, for the map and for an array. */
function readCapabilities(
	body: Fields,
): ReadonlyMap<string, readonly unknown[]> {
	const capabilities = new Map<string, readonly unknown[]>();
	if (isNothing(body.CapMap)) return capabilities;
	for (const [name, values] of Object.entries(fieldsIn(body, "CapMap"))) {
		if (!isNothing(values) && !Array.isArray(values))
			throw new UnexpectedShapeError(`CapMap's ${name} is not a list`);
		capabilities.set(name, isShort(values ?? []) ? (values ?? []) : tooLong);
	}
	return capabilities;
}

/** In place of values that are too long or too deep to be handed on: anyone who reads it finds nothing granted. */
const tooLong: readonly unknown[] = [null];
/** What one capability's values may be, written as JSON, and how deep. They stand in each request's log line. */
const maxValuesLength = 4096;
const maxValuesDepth = 16;

/** Whether JSON has at most so many characters; what cannot be is not looked at to its end. */
function isShort(value: unknown): boolean {
	let left = maxValuesLength;
	const take = (value: unknown, depth: number): boolean => {
		if (typeof value === "string") left -= JSON.stringify(value).length;
		else if (typeof value !== "object" || value === null)
			left -= String(value).length;
		else {
			if (depth > maxValuesDepth) return false;
			left -= 2;
			for (const [name, child] of Object.entries(value)) {
				left -= Array.isArray(value) ? 1 : name.length + 4;
				if (left < 0 || !take(child, depth + 1)) return false;
			}
		}
		return left >= 0;
	};
	return take(value, 0);
}

/** ipn/ipnstate/ipnstate.go:Status, out of ipn/localapi/localapi.go:serveStatus. */
export function readStatus(reply: Reply | Silence): StatusAnswer {
	return read(reply, (body) => {
		const self = fieldsIn(body, "Self");
		return {
			kind: "status",
			status: {
				backendState: textIn(body, "BackendState"),
				version: textIn(body, "Version"),
				userspace: body.TUN !== true,
				addresses: textsIn(self, "TailscaleIPs"),
				dnsName: hostName(textIn(self, "DNSName")),
				keyExpiresAtMs: isNothing(self.KeyExpiry)
					? undefined
					: timeIn(self, "KeyExpiry"),
				isTagged: textsIn(self, "Tags").length > 0,
				magicDns: isNothing(body.CurrentTailnet)
					? undefined
					: fieldsIn(body, "CurrentTailnet").MagicDNSEnabled === true,
				certDomains: textsIn(body, "CertDomains"),
				health: textsIn(body, "Health"),
			},
		};
	});
}

export function read<Answer>(
	reply: Reply | Silence,
	readBody: (body: Fields) => Answer,
): Answer | Refused | Unreachable {
	if (reply.kind === "silence")
		return { kind: "unreachable", reason: reply.reason };
	const { status, text } = reply;
	if (text === undefined)
		return {
			kind: "unreachable",
			reason: `tailscaled's reply is longer than ${maxReplyBytes} bytes`,
		};
	if (status !== 200)
		return {
			kind: "refused",
			reason: printable(`tailscaled answered ${status}: ${text.trim()}`),
		};
	try {
		return readBody(fieldsIn({ reply: JSON.parse(text) }, "reply"));
	} catch (error) {
		// Whatever is wrong with it, nobody may be let in on it, and everybody wants an answer.
		const { message } = error as Error;
		return {
			kind: "unreachable",
			reason: printable(
				`what answers on tailscaled's socket is not LocalAPI as llamagate knows it: ${message}`,
			),
		};
	}
}

type Fields = Readonly<Record<string, unknown>>;

/** Go leaves an empty field out, or writes null. */
function isNothing(value: unknown): value is undefined | null {
	return value === undefined || value === null;
}

/** Go's empty number, which it leaves out as a rule. */
function isZero(value: unknown): boolean {
	return isNothing(value) || value === 0;
}

function fieldsIn(fields: Fields, name: string): Fields {
	const value = fields[name];
	if (typeof value !== "object" || value === null || Array.isArray(value))
		throw new UnexpectedShapeError(`${name} is not an object`);
	return value as Fields;
}

function fieldsOf(fields: Fields): Fields[] {
	return Object.keys(fields).map((name) => fieldsIn(fields, name));
}

function textIn(fields: Fields, name: string): string {
	const value = fields[name] ?? "";
	if (typeof value !== "string")
		throw new UnexpectedShapeError(`${name} is not a text`);
	return value;
}

function textsIn(fields: Fields, name: string): readonly string[] {
	const value = fields[name] ?? [];
	if (
		!Array.isArray(value) ||
		!value.every((item): item is string => typeof item === "string")
	)
		throw new UnexpectedShapeError(`${name} is not a list of texts`);
	return value;
}

function timeIn(fields: Fields, name: string): number {
	const time = Date.parse(textIn(fields, name));
	if (Number.isNaN(time))
		throw new UnexpectedShapeError(`${name} is not a time`);
	return time;
}

function hostName(text: string): string {
	return text.toLowerCase().replace(/\.$/, "");
}

/** Reasons reach logs and terminals, and not every part of them is ours. */
export function printable(text: string): string {
	return text.replace(/[^\x20-\x7e]+/g, " ").slice(0, maxReasonLength);
}
