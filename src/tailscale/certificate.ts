import { userName } from "../config/readConfig.ts";
import { Agent } from "../net/http.ts";
import { printable, type Refused, type Unreachable } from "./localApi.ts";
import { askSocket } from "./whois.ts";

/** tailscaled answers once it has a certificate, which takes the CA and the DNS a minute or more. */
const timeoutMs = 180_000;

export type PairAnswer =
	/** PEM: a private key and certificates, in one text. */
	{ readonly kind: "pair"; readonly pem: string } | Refused | Unreachable;

/**
 * Asks tailscaled for the certificate of one of this node's own names and its
 * key (ipn/localapi/cert.go:serveCert). It gives what it has, or gets one; where
 * what it has is about to end it gets another meanwhile. Never rejects.
 *
 * @param socket the path of tailscaled's socket
 * @param name a DNS name, without a dot at its end
 */
export async function askForPair(
	socket: string,
	name: string,
): Promise<PairAnswer> {
	const reply = await askSocket(
		socket,
		new Agent({ maxSockets: 1 }),
		`/localapi/v0/cert/${encodeURIComponent(name)}?type=pair`,
		timeoutMs,
	);
	if (reply.kind === "silence")
		return { kind: "unreachable", reason: reply.reason };
	const { status, text = "" } = reply;
	if (status === 200) return { kind: "pair", pem: text };
	return { kind: "refused", reason: refusalOf(status, text.trim()) };
}

/** Why tailscaled gives no certificate, and what to do about it. */
function refusalOf(status: number, text: string): string {
	const said = printable(`tailscaled answered ${status}: ${text}`);
	if (status === 403)
		return `${said}; it gives certificates to root and to the user in TS_PERMIT_CERT_UID: put TS_PERMIT_CERT_UID=${userName()} into /etc/default/tailscaled, then: sudo systemctl restart tailscaled`;
	if (text.includes("does not support getting TLS certs"))
		return `${said}; enable HTTPS certificates on the DNS page of the tailnet's admin console. A tailnet of Headscale has none: name files with a certificate of your own in listen.tls (docs/https.md)`;
	if (/not (?:enabled|available)|invalid domain/.test(text))
		return `${said}; look at: tailscale cert`;
	return said;
}
