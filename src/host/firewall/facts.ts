import { readFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { oncePerLook } from "../../doctor/check.ts";
import { isTailscaleAddress, parseAddress } from "../../net/ranges.ts";
import { type Ending, wayIn } from "../../netfilter/evaluate.ts";
import type { Family, Packets } from "../../netfilter/packetFilter.ts";
import { tailnet as usualTailnet } from "../../netfilter/ufwPackets.ts";
import { parseRuleFile } from "../../netfilter/ufwRules.ts";
import { type KernelFilter, kernelFilter } from "../../system/kernelFilter.ts";
import { unguardedService } from "../../system/knownServices.ts";
import {
	formatSocket,
	isLocalOnly,
	type ListeningSocket,
	waitingSockets,
} from "../../system/sockets.ts";
import { mainPidOf, propertiesOf } from "../gate/inspect.ts";
import { gatePlace } from "../gate/step.ts";
import { sshPorts, sshSockets } from "../sshd/inspect.ts";
import type { Firewall } from "./fixes.ts";

/** What the checks look at; read once, since all of them are made at the same time. */
export interface Look extends Firewall {
	/** TCP's. */
	readonly sockets: readonly ListeningSocket[];
	readonly udpSockets: readonly ListeningSocket[];
	/** tailscaled's process, by systemd's account. */
	readonly tailscaled: number | undefined;
	/** Those of the sockets that are sshd's, and not those of a program beside it. */
	readonly sshSockets: ReadonlySet<ListeningSocket>;
	readonly hasTailnet: boolean;
}

export const look = oncePerLook(lookAnew);

/** The same without a doctor, who asks once for all checks. */
export async function lookAnew(): Promise<Look> {
	const place = await gatePlace();
	const tailnet = tailnetInterface(place.device);
	const kept = (file: string) =>
		readFile(`/etc/ufw/${file}`, "utf8").then(parseRuleFile, () => []);
	const [filter, all, service, ports, rules4, rules6] = await Promise.all([
		kernelFilter(tailnet),
		waitingSockets(),
		propertiesOf("tailscaled.service"),
		sshPorts(),
		kept("user.rules"),
		kept("user6.rules"),
	]);
	const sockets = all.filter(({ protocol }) => protocol === "tcp");
	return {
		filter,
		sockets,
		udpSockets: all.filter(({ protocol }) => protocol === "udp"),
		tailscaled: mainPidOf(service),
		sshPorts: ports,
		sshSockets: new Set(await sshSockets(sockets)),
		tailnet,
		gatePort: place.port,
		hasTailnet: Object.hasOwn(networkInterfaces(), tailnet),
		ufwRules: [
			{ kind: "ipv4", rules: rules4 },
			{ kind: "ipv6", rules: rules6 },
		],
	};
}

/** The interface that the gate follows, where that is in the tailnet: on another there are strangers. */
function tailnetInterface(followed: string): string {
	return networkInterfaces()[followed]?.some(({ address }) =>
		isTailscaleAddress(address),
	)
		? followed
		: usualTailnet;
}

export const familyName = { ipv4: "IPv4", ipv6: "IPv6" } as const;

/** What lets packets in, for people. */
export function describe({ rule, chain, packets }: Ending): string {
	const by =
		rule === undefined
			? `${familyName[packets.family]}: no rule speaks of it, and ${chain.name} accepts what is left`
			: rule.text;
	return `on ${packets.interfaceIn}: ${by}`;
}

/** A port that no rule names. */
export function unspokenPort({ baseChains }: KernelFilter): number {
	const named = baseChains
		.flatMap(({ chains }) => [...chains.values()].flat())
		.flatMap(({ conditions }) =>
			conditions.flatMap((condition) =>
				condition.on === "port" ? condition.ranges : [],
			),
		);
	let port = 20_011;
	while (
		port < 65_535 &&
		named.some(([first, last]) => port >= first && port <= last)
	)
		port += 1;
	return port;
}

/** Those that listen on a port where others may reach it. */
export function listenersOn(
	{ sockets, tailnet }: Look,
	port: number,
): ListeningSocket[] {
	return sockets.filter(
		(socket) =>
			socket.port === port && !isLocalOnly(socket) && socket.device !== tailnet,
	);
}

/** The families in which a socket takes connections. */
function familiesOf(
	{ address }: ListeningSocket,
	all: readonly Family[],
): readonly Family[] {
	if (address === "*") return all;
	return all.filter((family) => (family === "ipv6") === address.includes(":"));
}

export const isWildcard = ({ address }: ListeningSocket) =>
	["*", "0.0.0.0", "::"].includes(address);

/** How packets get to a socket from some interfaces. */
export function waysTo(
	{ filter }: Look,
	socket: ListeningSocket,
	interfaces: readonly string[],
	from: (family: Family) => Packets["from"],
): Ending[] {
	const to = isWildcard(socket) ? undefined : parseAddress(socket.address);
	return familiesOf(socket, filter.families).flatMap((family) =>
		interfaces
			.filter((name) => socket.device === undefined || socket.device === name)
			.flatMap(
				(interfaceIn) =>
					wayIn(filter, {
						family,
						interfaceIn,
						protocol: socket.protocol,
						to,
						port: socket.port,
						from: from(family),
					}).by,
			),
	);
}

/** tailscaled's own, which any program may call itself. */
export function isOfTailscaled(
	{ tailscaled }: Pick<Look, "tailscaled">,
	{ uid, pids }: ListeningSocket,
): boolean {
	return (
		uid === 0 && pids.length > 0 && pids.every((pid) => pid === tailscaled)
	);
}

/** Of the services that are known by their port, those that take UDP on it. */
const udpServices = [111, 2049, 11211];

export function serviceOf({ protocol, port, programs }: ListeningSocket) {
	const isItsPort = protocol === "tcp" || udpServices.includes(port);
	return unguardedService(isItsPort ? port : 0, programs);
}

export function nameSocket(socket: ListeningSocket): string {
	const service = serviceOf(socket);
	return `${formatSocket(socket)}${service === undefined ? "" : `, which is ${service}'s`}`;
}
