import { formatHostPort } from "../net/ranges.ts";
import type { Check, Result } from "../report/result.ts";
import { absent, checks, closeOllama, finding, ok, unknown } from "./checks.ts";
import { answered, type Knock, knockAtAll } from "./knock.ts";
import { isPublicAddress, tailnetAddresses, type Way } from "./place.ts";

export const publicPorts: readonly number[] = [22, 443, 3000, 8080, 11434];

/** Knocks at these ports of these addresses, all at once, and asks those that are open for Ollama. */
export async function checkPublic(
	host: string,
	ways: readonly Way[],
	ports: readonly number[],
): Promise<Result[]> {
	const knocks = withoutSilent(
		await knockAtAll(
			ways.map(({ address }) => address),
			ports,
			{
				host,
				language: (port) =>
					port === 22 ? undefined : port === 443 ? "https" : "http",
			},
		),
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

/** Silence at every port of an address is no firewall's work for certain: nothing may have got there. */
function withoutSilent(knocks: readonly Knock[]): Knock[] {
	const hasAnswered = answered(knocks);
	return knocks.map((one) =>
		one.state === "filtered" && !hasAnswered.has(one.address)
			? {
					...one,
					state: "unreachable",
					code: "no port of this address answered",
				}
			: one,
	);
}

function describe(knock: Knock): string {
	const { address, port, state, code, ollama, isLedTo, other, isUnclear } =
		knock;
	const answer =
		ollama !== undefined
			? `, and Ollama ${ollama} answers${isLedTo === true ? ", which something there leads others to" : ""}`
			: other !== undefined
				? `, and answers ${other}`
				: isUnclear === true
					? ", and says nothing in HTTP, plain or over TLS"
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
	return seenOrUnknown(check, knocks, describeAll(knocks));
}

function describeAll(knocks: readonly Knock[]): string[] {
	return [...knocks.map(describe), ...sayOfSilence(knocks)];
}

/** What silence may be besides a firewall's, where other ports of the address answer. A firewall's refusal is no silence. */
function sayOfSilence(knocks: readonly Knock[]): string[] {
	return knocks.some(
		({ state, code }) =>
			state === "filtered" && (code === undefined || code === "ETIMEDOUT"),
	)
		? [
				"filtered is silence as seen from here; a network that lets only some ports out looks the same",
			]
		: [];
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
		: seenOrUnknown(checks.publicSsh, knocks, describeAll(knocks));
}

function judgeOllama(knocks: readonly Knock[]): Result {
	const check = checks.publicOllama;
	const bare = knocks.filter(({ ollama }) => ollama !== undefined);
	if (bare.length > 0)
		return finding(
			check,
			bare.map(describe),
			bare.some(({ isLedTo }) => isLedTo === true)
				? "On the server, at once: sudo llamagate doctor --only ollama --only tailscale, which names what leads there. Until that is mended: sudo systemctl stop ollama"
				: closeOllama,
		);
	const asked = knocks.filter(({ port }) => port !== 22);
	if (asked.length === 0) return absent(check, "not among the ports asked for");
	const open = asked.filter(({ state }) => state === "open");
	const unclear = open.filter(({ isUnclear }) => isUnclear === true);
	const unseen = asked.filter(({ state }) => state === "unreachable");
	if (unclear.length > 0)
		return unknown(
			check,
			...[...unclear, ...unseen].map(describe),
			"that does not tell whether Ollama is there; on the server, sudo ss -ltnp shows what is",
		);
	return seenOrUnknown(check, asked, [
		open.length === 0
			? "no port is open that could be asked"
			: `${open.length} open port${open.length === 1 ? "" : "s"} asked`,
		...open.map(describe),
		...sayOfSilence(asked),
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
