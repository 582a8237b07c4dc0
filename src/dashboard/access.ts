/** Who may see the page. */
export interface AccessRules {
	/** The port that this machine's own browsers name. */
	readonly port: number;
	/** The address that is listened on, as a URL has it. */
	readonly address: string;
	/** Names under which `tailscale serve` brings others, in lower case. */
	readonly hosts: ReadonlySet<string>;
	/** Logins that it may bring, in lower case; `any` for each that it proves. */
	readonly allow: ReadonlySet<string> | "any";
}

/** The part of a request that is judged: its header fields, names in lower case. */
export type Fields = Readonly<NodeJS.Dict<string[]>>;

export type Access =
	/** The login is the one that `tailscale serve` proved; `undefined` for this machine's own browsers. */
	| { readonly kind: "granted"; readonly login: string | undefined }
	| { readonly kind: "denied"; readonly why: string };

const denied = (why: string): Access => ({ kind: "denied", why });

/**
 * What a proxy adds, `tailscale serve` among them (tailscale
 * ipn/ipnlocal/serve.go: addProxyForwardedHeaders, addTailscaleIdentityHeaders):
 * it passes the Host on that its client names, so that one who comes through it
 * may say "localhost".
 */
const proxied = /^(?:x-forwarded-|x-real-ip$|forwarded$|via$|tailscale-)/;

/**
 * Whether a request may see the page. A browser that a page of elsewhere, or a
 * name that leads here (DNS rebinding), makes ask says so in Host, Origin or
 * Sec-Fetch-Site.
 *
 * @param fields of a peer on loopback; nobody else is listened to
 */
export function judgeAccess(fields: Fields, rules: AccessRules): Access {
	const [host, ...others] = fields.host ?? [];
	if (host === undefined || others.length > 0)
		return denied("the request names no Host, or several");
	const isProxied = Object.keys(fields).some((name) => proxied.test(name));
	const name = nameOf(host);
	const isOwn = isLocal(host, rules);
	if (!isOwn && (name === undefined || !rules.hosts.has(name)))
		return denied(
			`this page is not served under the name ${JSON.stringify(host.slice(0, 100))}; a name that tailscale serve brings is given with --host`,
		);
	const foreign = judgeOrigin(fields, host, isProxied || !isOwn);
	if (foreign !== undefined) return foreign;
	return isOwn && !isProxied
		? { kind: "granted", login: undefined }
		: judgeLogin(fields, rules, isOwn);
}

/** A page of elsewhere may lead here by a link; it may not read, nor load parts. */
function judgeOrigin(
	fields: Fields,
	host: string,
	mayBeHttps: boolean,
): Access | undefined {
	const own = [`http://${host}`, ...(mayBeHttps ? [`https://${host}`] : [])];
	if (fields.origin?.some((origin) => !own.includes(origin)))
		return denied("a page of another origin may not read this one");
	const site = fields["sec-fetch-site"]?.[0];
	const isLink = fields["sec-fetch-mode"]?.[0] === "navigate";
	return (site === "cross-site" || site === "same-site") && !isLink
		? denied("a page of another site may not load parts of this one")
		: undefined;
}

function judgeLogin(
	fields: Fields,
	{ allow }: AccessRules,
	isOwn: boolean,
): Access {
	if (fields["tailscale-funnel-request"] !== undefined)
		return denied("this page is not for the internet; turn Funnel off for it");
	if (isOwn)
		return denied(
			"a proxy may not ask under this machine's own name; see llamagate dashboard --help for --host",
		);
	const [login, ...others] = fields["tailscale-user-login"] ?? [];
	if (login === undefined || login === "" || others.length > 0)
		return denied(
			"tailscale serve proves no login: a tagged device has none, and neither has this machine under that name",
		);
	return allow === "any" || allow.has(login.toLowerCase())
		? { kind: "granted", login }
		: denied(
				`${login.slice(0, 200)} may not see this page; its owner lets logins in with --allow`,
			);
}

/** `gpu.tailnet.ts.net` of `GPU.tailnet.ts.net:8443`. */
function nameOf(host: string): string | undefined {
	return /^([a-z0-9-]+(?:\.[a-z0-9-]+)*)(?::\d{1,5})?$/
		.exec(host.toLowerCase())
		?.at(1);
}

function isLocal(host: string, { port, address }: AccessRules): boolean {
	const at = host.toLowerCase();
	return ["localhost", "127.0.0.1", "[::1]", address].some(
		(name) => at === `${name}:${port}` || (port === 80 && at === name),
	);
}
