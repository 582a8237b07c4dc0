import {
	absent,
	finding,
	type Outcome,
	ok,
	unique,
} from "../../doctor/check.ts";
import { isTailscaleAddress } from "../../net/ranges.ts";
import type { Ending } from "../../netfilter/evaluate.ts";
import { rangeOf, tailnetRange } from "../../netfilter/ufwPackets.ts";
import { anywhere } from "../../netfilter/ufwRules.ts";
import type { Severity } from "../../report/result.ts";
import { unguardedService } from "../../system/knownServices.ts";
import { isLocalOnly, type ListeningSocket } from "../../system/sockets.ts";
import {
	describe,
	isOfTailscaled,
	isWildcard,
	type Look,
	nameSocket,
	serviceOf,
	waysTo,
} from "./facts.ts";
import { fixFor, isUfws } from "./fixes.ts";

/** How bad it is that others reach a service. */
export function severityOf(service: string | undefined, otherwise: Severity) {
	if (service === undefined) return otherwise;
	return service === "Ollama" ? "critical" : "high";
}

export const worst = (severities: readonly Severity[]): Severity =>
	(["critical", "high", "warn"] as const).find((one) =>
		severities.includes(one),
	) ?? "info";

/** Those that others reach who get past the firewall: without tailscaled's own, and those of DHCP's clients. */
export function forOthers(
	seen: Pick<Look, "tailscaled">,
	sockets: readonly ListeningSocket[],
): ListeningSocket[] {
	return sockets.filter(
		(socket) =>
			!isLocalOnly(socket) &&
			!isOfTailscaled(seen, socket) &&
			!isDhcpClient(socket),
	);
}

/** Where a host gets its address, for which its answers have to come in; no user's program can have these ports. */
const isDhcpClient = ({ protocol, port, uid }: ListeningSocket) =>
	protocol === "udp" && [68, 546].includes(port) && uid < 1000;

/** By mDNS, LLMNR and SSDP neighbours find each other; each desktop has it, and UFW lets their multicast in. */
export const isDiscovery = ({ protocol, port }: ListeningSocket) =>
	protocol === "udp" && [5353, 5355, 1900].includes(port);

const isUfwsOwn = ({ path }: Ending) =>
	path.some((name) => /^ufw6?-before-input$/.test(name));

export function judgeListeners(seen: Look): Outcome {
	const { filter, sockets, udpSockets } = seen;
	const others = forOthers(seen, [...sockets, ...udpSockets]).filter(
		(socket) => !seen.sshSockets.has(socket),
	);
	const open = others.flatMap((socket) => {
		const ways = waysTo(seen, socket, filter.outside, (family) =>
			rangeOf(anywhere[family]),
		).filter((way) => !(isDiscovery(socket) && isUfwsOwn(way)));
		return ways.length === 0 ? [] : { socket, ways };
	});
	const [first] = open;
	if (first === undefined)
		return ok(
			`${others.length} sockets listen on more than loopback (SSH's, tailscaled's and DHCP's aside), and nothing from outside the tailnet gets to them`,
		);
	return finding(
		open.flatMap(({ socket, ways }) => [
			`${nameSocket(socket)}: ${ways.every(isUfws) ? "UFW lets in" : "let in"}`,
			...unique(ways.map((way) => `  ${describe(way)}`)),
		]),
		{
			severity: worst(
				open.map(({ socket }) =>
					severityOf(serviceOf(socket), isDiscovery(socket) ? "info" : "warn"),
				),
			),
			fix: unique(
				open.map(({ socket, ways }) => fixFor(seen, ways, socket.port)),
			).join(" && "),
		},
	);
}

export function judgeTailnet(seen: Look): Outcome {
	const { sockets, hasTailnet, tailnet, gatePort } = seen;
	if (!hasTailnet) return absent(`${tailnet} does not exist`);
	const reached = sockets
		.filter(
			(socket) =>
				(isWildcard(socket) || isTailscaleAddress(socket.address)) &&
				// The gate's, and tailscaled's own, which answers for itself and for Serve.
				!(socket.device === tailnet && socket.port === gatePort) &&
				!isOfTailscaled(seen, socket),
		)
		.filter(
			(socket) => waysTo(seen, socket, [tailnet], tailnetRange).length > 0,
		)
		.toSorted((a, b) => a.port - b.port);
	const [first] = reached;
	if (first === undefined)
		return ok(
			"every device of the tailnet reaches the gate by TCP, and nothing else",
		);
	const services = reached.flatMap(
		({ port, programs }) => unguardedService(port, programs) ?? [],
	);
	return finding(
		[
			`every device of the tailnet reaches ${unique(reached.map(({ port, programs }) => [port, ...programs].join(" "))).join(", ")}`,
			...reached.map(nameSocket),
			...(waysTo(seen, first, [tailnet], tailnetRange).some(({ path }) =>
				path.includes("ts-input"),
			)
				? [
						`tailscaled accepts what comes in on ${tailnet} ahead of UFW, whatever UFW says`,
					]
				: ["UFW lets them in"]),
		],
		{
			severity: services.length > 0 ? "warn" : "info",
			fix: "bind what is not for them to 127.0.0.1, and narrow the tailnet's policy: llamagate policy print",
		},
	);
}
