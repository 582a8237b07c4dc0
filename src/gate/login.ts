import { isIP } from "node:net";
import type { Settings } from "../config/load.ts";
import type { LoginRule } from "../config/logins.ts";
import { defaultScopes, defaultShare } from "../keys/keyFile.ts";
import type { Credential, Key, Keyring } from "../keys/keyring.ts";
import { isLike } from "../keys/people.ts";
import { isLoopbackAddress, parseAddress } from "../net/ranges.ts";
import { parseModelPattern } from "../ollama/modelName.ts";
import { readOptionRules } from "../ollama/options.ts";
import type { Route } from "../ollama/routes.ts";
import { defaultPriority } from "../priority.ts";
import type { TailscaleNode, WhoisAnswer } from "../tailscale/localApi.ts";
import { localSource } from "./connection.ts";
import type { Exchange } from "./exchange.ts";
import { narrow } from "./narrow.ts";
import type { Refusal } from "./refusal.ts";
import type { Head } from "./requestHead.ts";
import type { GateState } from "./state.ts";
import type { Person } from "./user.ts";

/** The name for all logins where a key is named; no key can be called so. */
export const loginLabel = "(login)";
/** What begins the id of a credential that is not a key; no other id has a colon. */
const idPrefix = "login:";

/** Whether a request that shows no key may yet be let in, by whose device it comes from. */
export function mayLogIn({ identity }: Settings, refusal: Refusal): boolean {
	return identity.mode === "login" && refusal.reason === "no_key";
}

/**
 * Asks tailscaled whose device a request without a key comes from, and lets its
 * owner in where a rule says so. Whatever is not known for sure keeps its 401.
 *
 * @param noKey what it is refused with
 */
export async function logIn(
	state: GateState,
	exchange: Exchange,
	noKey: Refusal,
): Promise<Refusal | undefined> {
	const refused = (why: string): Refusal => ({
		...noKey,
		message: `${noKey.message}; ${why}`,
	});
	const { connection, req, head, match } = exchange;
	const { address, parsedAddress } = connection;
	if (parsedAddress === localSource) return noKey;
	if (isLoopbackAddress(address))
		return refused(
			"from loopback no login is known: a tailscaled without a tunnel device brings every peer from there, and so do proxies on this host",
		);
	const own = parseAddress(req.socket.localAddress)?.toString() ?? "";
	const [answer, self] = await Promise.all([
		state.whois.lookup(address, 0),
		state.whois.lookup(own, 0),
	]);
	if (answer.kind !== "node")
		exchange.identityFault =
			answer.kind === "unknown" ? "unknown" : answer.reason;
	const answered = ownerOf(answer, self, address, own);
	if (typeof answered === "string") return refused(answered);
	// The rules may have been replaced while tailscaled was asked.
	const { identity, corsOrigins } = state.settings;
	const byPage = ofPage(head, self, corsOrigins);
	if (byPage !== undefined) return refused(byPage);
	const credential = loginCredential(identity, answered.user);
	if (credential === undefined) return noKey;
	exchange.node = answered.node;
	exchange.person = personOf(credential, answered.user);
	exchange.credential =
		match.kind === "route"
			? leaveToLogin(credential, identity, answered.user, match.route)
			: credential;
	return undefined;
}

/** The device and its owner, or why it has none who could be let in. */
function ownerOf(
	answer: WhoisAnswer,
	self: WhoisAnswer,
	address: string,
	own: string,
): { readonly node: TailscaleNode; readonly user: string } | string {
	if (answer.kind === "unknown")
		return "this address belongs to no device of the tailnet";
	if (answer.kind !== "node")
		return "whose device this is could not be looked up";
	const { node } = answer;
	// An address behind a subnet router is not the router's.
	if (!node.addresses.includes(address))
		return "this address is not a device's own";
	if (node.user === undefined) return "a tagged device has no owner";
	// Another tailscaled's address here: whom this one knows by the same address is another.
	if (self.kind !== "node" || !self.node.addresses.includes(own))
		return "tailscaled does not know this server by the address that was called";
	// Every local user, and every container, comes from there.
	if (node.stableId === self.node.stableId || node.addresses.includes(own))
		return "this server itself needs one";
	// Whose logins those are is for others to say.
	if (node.isShared || !isOfTailnet(node, self.node))
		return "a device of another tailnet needs one";
	return { node, user: node.user };
}

/** Whether the control server has named a device as it has this server: one word, and then the same tailnet. */
function isOfTailnet(node: TailscaleNode, self: TailscaleNode): boolean {
	const tailnet = self.fqdn.replace(/^[^.]+/, "");
	return (
		node.name !== "" &&
		!node.name.includes(".") &&
		self.fqdn !== "" &&
		node.fqdn === `${node.name}${tailnet}`
	);
}

/**
 * Why a request could be a web page's that a person's browser has open. Nothing
 * that a page cannot send proves the device's owner, so a page of any other
 * origin would act for them; and one whose name leads here (DNS rebinding) would
 * read the replies too.
 */
function ofPage(
	{ host, origin }: Head,
	self: WhoisAnswer,
	allowed: ReadonlySet<string>,
): string | undefined {
	if (origin.some((one) => !allowed.has(one)))
		return "a page of another origin needs one, unless it is in cors.origins";
	const [name = "", ...more] = host;
	const [, bracketed = ""] =
		/^(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]+)?$/i.exec(name) ?? [];
	const bare = bracketed.toLowerCase().replace(/^\[|\]$|\.$/g, "");
	// An address is not a name that could lead elsewhere tomorrow.
	const isOwn =
		isIP(bare) !== 0 ||
		(bare !== "" &&
			self.kind === "node" &&
			[self.node.name, self.node.fqdn].includes(bare));
	return isOwn && more.length === 0
		? undefined
		: "under this name of the server a key is needed; use its address, or its name in the tailnet";
}

/**
 * What a device's owner has in place of a key: all that the rules for
 * them have together. `undefined` without a rule, or without that mode.
 */
export function loginCredential(
	identity: Settings["identity"],
	user: string,
): Credential | undefined {
	const rules = rulesFor(identity, user);
	if (rules.length === 0) return undefined;
	const key: Key = {
		name: `${idPrefix}${user}`,
		label: loginLabel,
		scopes: new Set(rules.flatMap(({ scopes }) => scopes ?? defaultScopes)),
		limits: {},
		share: Math.max(...rules.map(({ share = defaultShare }) => share)),
		priority: defaultPriority,
		models: undefined,
		modelNames: [],
		options: undefined,
		bind: undefined,
		people: undefined,
		charges: [],
		canary: false,
		entry: JSON.stringify(rules),
	};
	return {
		key,
		id: `${idPrefix}${user}`,
		expiresAtMs: Number.POSITIVE_INFINITY,
		replaced: false,
	};
}

/**
 * The credential as it is in force now; `undefined` if it no longer is.
 *
 * @param route for which a login's is narrowed
 */
export function currentCredential(
	{
		settings,
		keyring,
	}: { readonly settings: Settings; readonly keyring: Keyring },
	{ id }: Credential,
	route?: Route,
): Credential | undefined {
	if (!id.startsWith(idPrefix)) return keyring.current(id);
	const { identity } = settings;
	const user = id.slice(idPrefix.length);
	const current = loginCredential(identity, user);
	return current === undefined || route === undefined
		? current
		: leaveToLogin(current, identity, user, route);
}

/** What the rules leave for this route; all of it where none does, for the step that refuses it. */
function leaveToLogin(
	credential: Credential,
	identity: Settings["identity"],
	user: string,
	route: Route,
): Credential {
	const grants = rulesFor(identity, user).map(({ scopes, models }) => ({
		scopes: new Set(scopes ?? defaultScopes),
		models: models?.map((text) => parseModelPattern(text) ?? (() => false)),
	}));
	const key = narrow(credential.key, grants, route, "for this person");
	if (key === undefined) return credential;
	const options = readOptionRules({}, key.models !== undefined);
	return { ...credential, key: { ...key, options } };
}

function rulesFor(
	{ mode, rules }: Settings["identity"],
	user: string,
): readonly LoginRule[] {
	if (mode !== "login") return [];
	return rules.filter(({ users }) =>
		users.some(
			(pattern) =>
				isLike(user, pattern) ||
				// As headscale writes a user whose login is not an e-mail.
				isLike(`${user}@`, pattern),
		),
	);
}

function personOf({ key }: Credential, user: string): Person {
	return { id: user, name: user, by: "login", share: key.share };
}
