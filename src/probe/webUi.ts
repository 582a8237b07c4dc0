import { isIP } from "node:net";
import { connect, type PeerCertificate, type TLSSocket } from "node:tls";
import { codeOf } from "../net/errorCode.ts";
import { formatHostPort } from "../net/ranges.ts";
import type { Result } from "../report/result.ts";
import { excerpt } from "../visible.ts";
import { checks, finding, ok, unknown } from "./checks.ts";
import { answered, type Knock, knockAtAll } from "./knock.ts";
import { resolve } from "./place.ts";
import { judgeShut } from "./ports.ts";

const timeoutMs = 10_000;
const maxHeadLength = 16 * 2 ** 10;
const dayMs = 24 * 3_600_000;
/** Tailscale renews its certificates when a third of their ninety days is left. */
const warnDays = 14;
const rawPorts = [3000, 8080];

/** Where Open WebUI is: `https://host` or `https://host:port`. */
export interface WebUi {
	readonly host: string;
	readonly port: number;
}

/** @returns `undefined` for anything but `https://host` with a port and a path at the most */
export function parseWebUi(text: string): WebUi | undefined {
	const url = URL.parse(text.includes("://") ? text : `https://${text}`);
	if (url?.protocol !== "https:" || url.username !== "" || url.hostname === "")
		return undefined;
	return {
		host: url.hostname.replace(/^\[|\]$/g, ""),
		port: url.port === "" ? 443 : Number(url.port),
	};
}

/** Looks at the certificate, asks for the page, and knocks at the ports that lead past HTTPS. */
export async function checkWebUi(webUi: WebUi): Promise<Result[]> {
	let addresses: string[];
	try {
		addresses = await resolve(webUi.host);
	} catch (error) {
		const reason = `the name ${webUi.host} cannot be looked up (${codeOf(error)})`;
		return [
			...judgeTls(webUi, { code: reason }, Date.now()),
			unknown(checks.webUiRawPorts, reason),
		];
	}
	// The page's own port tells a port that is shut from an address that nobody has.
	const knocking = knockAtAll(
		addresses,
		[...new Set([webUi.port, ...rawPorts])],
		{ host: webUi.host, language: () => undefined },
	);
	const seen = await look(webUi, addresses);
	return [
		...judgeTls(webUi, seen, Date.now()),
		judgeRawPorts(webUi, await knocking),
	];
}

function judgeRawPorts({ port }: WebUi, knocks: readonly Knock[]): Result {
	const raw = knocks.filter((knock) => knock.port !== port);
	const hasAnswered = answered(knocks);
	const silent = new Set(
		raw.map(({ address }) => address).filter((one) => !hasAnswered.has(one)),
	);
	if (silent.size > 0 && raw.every(({ state }) => state !== "open"))
		return unknown(
			checks.webUiRawPorts,
			`${[...silent].join(", ")} gave no answer at all, not at port ${port} either`,
		);
	return judgeShut(
		checks.webUiRawPorts,
		raw,
		"On the server: sudo llamagate setup --only open-webui. It has to listen on 127.0.0.1 alone, behind tailscale serve.",
	);
}

interface Seen {
	readonly certificate?: PeerCertificate | undefined;
	/** Why Node does not trust it, if it does not. */
	readonly distrust?: string | undefined;
	/** Of the reply, if there was one. */
	readonly status?: string | undefined;
	/** Why there was no connection. */
	readonly code?: string | undefined;
}

/** Connects once. The certificate is judged here, so one that is bad is looked at all the same. */
function look(
	{ host, port }: WebUi,
	addresses: readonly string[],
): Promise<Seen> {
	return new Promise((done) => {
		const socket: TLSSocket = connect({
			host,
			port,
			lookup: (_host, { all }, found) => {
				const known = addresses.map((address) => ({
					address,
					family: isIP(address),
				}));
				if (all === true) found(null, known);
				else found(null, known[0]?.address ?? "", known[0]?.family);
			},
			// An address is not a name to ask for (RFC 6066, 3).
			...(isIP(host) === 0 ? { servername: host } : {}),
			rejectUnauthorized: false,
		});
		let certificate: PeerCertificate | undefined;
		let distrust: string | undefined;
		let said = "";
		let hasEnded = false;
		const end = (code?: string) => {
			if (hasEnded) return;
			hasEnded = true;
			clearTimeout(timer);
			socket.destroy();
			done({
				certificate,
				distrust,
				status: /^HTTP\/1\.[01] (\d{3})/.exec(said)?.[1],
				code: certificate === undefined ? code : undefined,
			});
		};
		const timer = setTimeout(() => end("no answer"), timeoutMs);
		socket.setEncoding("latin1");
		socket.once("secureConnect", () => {
			certificate = socket.getPeerCertificate();
			if (!socket.authorized) {
				const error: unknown = socket.authorizationError;
				distrust = error instanceof Error ? codeOf(error) : String(error);
			}
			socket.write(
				`GET / HTTP/1.1\r\nhost: ${port === 443 ? host : formatHostPort(host, port)}\r\naccept: text/html\r\nconnection: close\r\n\r\n`,
			);
		});
		socket.on("data", (text: string) => {
			said += text;
			if (said.includes("\r\n") || said.length > maxHeadLength) end();
		});
		socket.once("error", (error) => end(codeOf(error)));
		socket.once("close", () => end("closed"));
	});
}

function judgeTls({ host, port }: WebUi, seen: Seen, nowMs: number): Result[] {
	const { certificate, distrust, status, code } = seen;
	const where = `https://${formatHostPort(host, port)}`;
	if (certificate === undefined) {
		const reason = `no TLS connection to ${where}: ${code}`;
		return [
			unknown(checks.webUiCertificate, reason),
			unknown(checks.webUiExpiry, reason),
			finding(
				checks.webUiAnswers,
				[reason],
				"On the server: tailscale serve status. Is this device in the tailnet, and the name the full one, HOST.TAILNET.ts.net?",
			),
		];
	}
	const issuer = excerpt(
		String(certificate.issuer?.O ?? certificate.issuer?.CN ?? "nobody"),
	);
	const endsAtMs = Date.parse(certificate.valid_to);
	const days = Math.floor((endsAtMs - nowMs) / dayMs);
	const until = Number.isFinite(endsAtMs)
		? new Date(endsAtMs).toISOString().slice(0, 10)
		: "an unreadable time";
	return [
		distrust === undefined
			? ok(
					checks.webUiCertificate,
					`for ${host}, from ${issuer}, until ${until}`,
				)
			: finding(
					checks.webUiCertificate,
					[
						`${meaningOf(distrust, host)} (${excerpt(distrust)})`,
						`issued by ${issuer}, until ${until}`,
					],
					distrust === "CERT_HAS_EXPIRED"
						? "On the server: tailscale cert HOST.TAILNET.ts.net renews it; tailscale serve does so by itself while it runs."
						: "Use the full name, HOST.TAILNET.ts.net, and tailscale serve on the server. An authority of your own goes into NODE_EXTRA_CA_CERTS.",
				),
		!Number.isFinite(endsAtMs)
			? unknown(checks.webUiExpiry, "its end cannot be read")
			: days >= warnDays
				? ok(checks.webUiExpiry, `${days} days left, until ${until}`)
				: finding(
						checks.webUiExpiry,
						[
							days < 0
								? `it ran out on ${until}`
								: `${days} days left, until ${until}`,
						],
						"On the server: is tailscaled up, and is the clock right? tailscale cert HOST.TAILNET.ts.net renews it.",
					),
		status !== undefined && Number(status) < 400
			? ok(checks.webUiAnswers, `${where}: ${status}`)
			: finding(
					checks.webUiAnswers,
					[
						`${where}: ${status ?? "the connection was closed, or no HTTP came"}`,
					],
					"On the server: tailscale serve status shows what is behind it; is that running?",
				),
	];
}

function meaningOf(code: string, host: string): string {
	switch (code) {
		case "CERT_HAS_EXPIRED":
			return "it has run out";
		case "ERR_TLS_CERT_ALTNAME_INVALID":
			return `it is not for ${host}`;
		case "DEPTH_ZERO_SELF_SIGNED_CERT":
		case "SELF_SIGNED_CERT_IN_CHAIN":
			return "it has signed itself";
		default:
			return "this device does not trust it";
	}
}
