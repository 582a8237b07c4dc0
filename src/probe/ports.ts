import { connect, isIP } from "node:net";
import { connect as connectTls } from "node:tls";
import { codeOf } from "../net/errorCode.ts";
import { formatHostPort } from "../net/ranges.ts";
import type { Check, Result } from "../report/result.ts";
import { excerpt } from "../visible.ts";
import { absent, checks, finding, ok, unknown } from "./checks.ts";
import { isPublicAddress, tailnetAddresses, type Way } from "./place.ts";

const timeoutMs = 5_000;
const maxSaid = 16 * 2 ** 10;
export const publicPorts: readonly number[] = [22, 443, 3000, 8080, 11434];

/** What became of one connection. */
export interface Knock {
	readonly address: string;
	readonly port: number;
	/** `closed`: refused. `filtered`: no answer, or a firewall's. `unreachable`: it is not known that anything was asked there. */
	readonly state: "open" | "closed" | "filtered" | "unreachable";
	/** Why there was no connection, where one was refused. */
	readonly code?: string;
	/** The version that an Ollama without a key told. */
	readonly ollama?: string;
	/** What else answered to the question for it, in short. */
	readonly other?: string;
}

/** How a port is asked for Ollama. */
export interface Asking {
	/** The name that was given, for servers that know several. */
	readonly host: string;
	/** `undefined` for a port that is not asked. */
	language(port: number): "http" | "https" | undefined;
}

/**
 * Opens one connection, and on it asks whether Ollama is there if that is
 * wanted. It is closed again at once, or after 5 s.
 */
function knock(
	address: string,
	port: number,
	{ host, language }: Asking,
): Promise<Knock> {
	return new Promise((resolve) => {
		const socket = connect({ host: address, port });
		let isOpen = false;
		let said = "";
		const end = (state: Knock["state"], code?: string) => {
			clearTimeout(timer);
			socket.destroy();
			resolve({
				address,
				port,
				state,
				...(code === undefined ? {} : { code }),
				...recognise(said),
			});
		};
		const timer = setTimeout(
			() => end(isOpen ? "open" : "filtered"),
			timeoutMs,
		);
		socket.once("connect", () => {
			isOpen = true;
			const spoken = language(port);
			if (spoken === undefined) return end("open");
			const stream =
				spoken === "http"
					? socket
					: connectTls({
							socket,
							...(isIP(host) === 0 ? { servername: host } : {}),
							// Anyone who comes for Ollama does not mind, and nothing secret is sent.
							rejectUnauthorized: false,
						});
			stream.setEncoding("latin1");
			stream.on("data", (text: string) => {
				said += text;
				if (said.length > maxSaid) end("open");
			});
			stream.on("error", () => end("open"));
			stream.once("close", () => end("open"));
			const name = formatHostPort(host, port);
			stream.write(
				`GET / HTTP/1.1\r\nhost: ${name}\r\n\r\nGET /api/version HTTP/1.1\r\nhost: ${name}\r\nconnection: close\r\n\r\n`,
			);
		});
		socket.once("error", (error) => {
			if (isOpen) return end("open");
			end(stateOf(codeOf(error)), codeOf(error));
		});
	});
}

/** Open WebUI has an /api/version of its own; the words at / are Ollama's. */
function recognise(said: string): Pick<Knock, "ollama" | "other"> {
	const status = /^HTTP\/1\.[01] (\d{3})/.exec(said)?.[1];
	if (status === undefined) return {};
	const start = said.indexOf("\r\n\r\n") + 4;
	// Before them is the length at the most, where a proxy sends chunks.
	const isOllama = said.slice(start, start + 32).includes("Ollama is running");
	if (status !== "200" || !isOllama) return { other: `HTTP ${status}` };
	const version = /"version"\s{0,9}:\s{0,9}"([^"]{1,99})"/.exec(
		said.slice(start),
	)?.[1];
	return { ollama: excerpt(version ?? "of an unknown version") };
}

/** Only what the other side can have said, or silence, says anything about a port. */
function stateOf(code: string): Knock["state"] {
	switch (code) {
		case "ECONNREFUSED":
		case "ECONNRESET":
			return "closed";
		case "ETIMEDOUT":
			return "filtered";
		default:
			return "unreachable";
	}
}

/** Knocks at each of these ports of these addresses, all at once, one connection each. */
export async function knockAtAll(
	addresses: readonly string[],
	ports: readonly number[],
	asking: Asking,
): Promise<Knock[]> {
	const knocks = await Promise.all(
		addresses.flatMap((address) =>
			ports.map((port) => knock(address, port, asking)),
		),
	);
	// An Ollama on loopback that others are led to says so to a Host that it does not know.
	const hosts = await Promise.all(
		knocks.map((one) =>
			one.other === "HTTP 403" && asking.language(one.port) === "http"
				? knock(one.address, one.port, {
						...asking,
						host: "127.0.0.1",
					}).then((again) => (again.ollama === undefined ? one : again))
				: one,
		),
	);
	const hasAnswered = answered(knocks);
	// These codes are a missing route's and a firewall's refusal (firewalld sends
	// the latter); where other ports answer there is a route.
	return hosts.map((one) =>
		/^(EHOSTUNREACH|EACCES)$/.test(one.code ?? "") &&
		hasAnswered.has(one.address)
			? { ...one, state: "filtered" }
			: one,
	);
}

/** The addresses of which at least one port gave an answer. */
export function answered(knocks: readonly Knock[]): Set<string> {
	return new Set(
		knocks
			.filter(({ state }) => state === "open" || state === "closed")
			.map(({ address }) => address),
	);
}

/** Knocks at these ports of these addresses, all at once, one connection each. */
export async function checkPublic(
	host: string,
	ways: readonly Way[],
	ports: readonly number[],
): Promise<Result[]> {
	const knocks = await knockAtAll(
		ways.map(({ address }) => address),
		ports,
		{
			host,
			language: (port) =>
				port === 22 ? undefined : port === 443 ? "https" : "http",
		},
	);
	const at = (...wanted: number[]) =>
		knocks.filter(({ port }) => wanted.includes(port));
	const others = ports.filter((port) => !publicPorts.includes(port));
	return [
		judgePlace(ways),
		judgeAnswers(knocks),
		judgeOllama(knocks),
		judgeShut(
			checks.publicPort11434,
			at(11434),
			"On the server: sudo llamagate setup. On a cloud host, take the port out of the security group as well.",
		),
		judgeShut(
			checks.publicOpenWebUi,
			at(3000, 8080),
			"On the server: sudo llamagate setup --only open-webui. A port that Docker publishes bypasses UFW: publish 127.0.0.1:PORT instead.",
		),
		judgeShut(
			checks.publicHttps,
			at(443),
			"On the server: tailscale funnel status, and sudo ss -ltnp 'sport = 443'. If a web server is meant to be there, leave it.",
		),
		judgeSsh(at(22)),
		judgeShut(
			checks.publicOthers,
			at(...others),
			"On the server: sudo ss -ltnp shows whose it is. Bind it to 127.0.0.1, or close it in the firewall.",
		),
	];
}

function describe(knock: Knock): string {
	const { address, port, state, code, ollama, other } = knock;
	const answer =
		ollama !== undefined
			? `, and Ollama ${ollama} answers`
			: other !== undefined
				? `, and answers ${other}`
				: "";
	return `${formatHostPort(address, port)} is ${state === "unreachable" ? `out of this device's reach${code === undefined ? "" : ` (${code})`}` : state}${answer}`;
}

export function judgeShut(
	check: Check,
	knocks: readonly Knock[],
	fix: string,
): Result {
	if (knocks.length === 0)
		return absent(check, "not among the ports asked for");
	const open = knocks.filter(({ state }) => state === "open");
	if (open.length > 0) return finding(check, open.map(describe), fix);
	return seenOrUnknown(check, knocks, knocks.map(describe));
}

/** What is out of reach was not seen, and makes the whole unknown. */
function seenOrUnknown(
	check: Check,
	knocks: readonly Knock[],
	evidence: readonly string[],
): Result {
	const unseen = knocks.filter(({ state }) => state === "unreachable");
	if (unseen.length === 0) return ok(check, ...evidence);
	const others = knocks.filter(({ state }) => state !== "unreachable");
	return unknown(check, ...unseen.map(describe), ...others.map(describe));
}

function judgeSsh(knocks: readonly Knock[]): Result {
	return knocks.length === 0
		? absent(checks.publicSsh, "not among the ports asked for")
		: seenOrUnknown(checks.publicSsh, knocks, knocks.map(describe));
}

function judgeOllama(knocks: readonly Knock[]): Result {
	const bare = knocks.filter(({ ollama }) => ollama !== undefined);
	if (bare.length > 0)
		return finding(
			checks.publicOllama,
			bare.map(describe),
			"On the server, at once: sudo llamagate setup. Until then: sudo systemctl stop ollama",
		);
	const asked = knocks.filter(({ port }) => port !== 22);
	if (asked.length === 0)
		return absent(checks.publicOllama, "not among the ports asked for");
	const open = asked.filter(({ state }) => state === "open");
	return seenOrUnknown(checks.publicOllama, asked, [
		open.length === 0
			? "no port is open that could be asked"
			: `${open.length} open port${open.length === 1 ? "" : "s"} asked`,
		...open.map(describe),
	]);
}

function judgeAnswers(knocks: readonly Knock[]): Result {
	const check = checks.publicAnswers;
	const hasAnswered = answered(knocks);
	const addresses = [...new Set(knocks.map(({ address }) => address))];
	const silent = addresses.filter((address) => !hasAnswered.has(address));
	if (silent.length > 0)
		return unknown(
			check,
			`not one port of ${silent.join(", ")} gave an answer: the firewall drops everything, or this is not the server's address, or the network here lets nothing out`,
		);
	const trusting = addresses.filter((address) => {
		const own = knocks.filter((one) => one.address === address);
		return own.length > 3 && own.every(({ state }) => state === "open");
	});
	if (trusting.length > 0)
		return unknown(
			check,
			`every port of ${trusting.join(", ")} is open: that may be the network here, which answers in the server's place`,
		);
	const heard = knocks.filter(
		({ state }) => state === "open" || state === "closed",
	);
	return ok(
		check,
		`${heard.length} of ${knocks.length} connections were answered, the others met silence`,
	);
}

/** What this device can know of where it is. Nobody is asked what its own public address is. */
function judgePlace(ways: readonly Way[]): Result {
	const fix =
		"Run it on a device outside: a laptop on a phone's hotspot, with Tailscale off or on but without an exit node.";
	const bad = ways.flatMap(({ address, isOwn, viaTailnet, isSameLan, from }) =>
		isOwn
			? [`${address} is this device's own: this is the server`]
			: viaTailnet
				? [`the way to ${address} is through the tailnet (from ${from})`]
				: isSameLan
					? [`${address} is in the same network as this device (${from})`]
					: [],
	);
	if (bad.length > 0) return finding(checks.publicOutside, bad, fix);
	const inTailnet = tailnetAddresses();
	const seen = `sent from ${ways.map(({ from }) => from ?? "nowhere").join(" and ")}, not through the tailnet`;
	// Anyone who has a public address of its own is behind no router.
	if (ways.every(({ from }) => from !== undefined && isPublicAddress(from)))
		return ok(checks.publicOutside, seen);
	return unknown(
		checks.publicOutside,
		seen,
		...(inTailnet.length === 0
			? []
			: [
					`this device is in the tailnet (${inTailnet.join(", ")}), which the test goes past`,
				]),
		"if this device is behind the same router as the server, the test proves little; only you can know",
	);
}
