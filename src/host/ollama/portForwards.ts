import { readFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { type Patient, unique } from "../../doctor/check.ts";
import {
	type Address,
	formatHostPort,
	isLoopbackAddress,
	parseAddress,
} from "../../net/ranges.ts";
import { translations, wayIn } from "../../netfilter/evaluate.ts";
import type { Packets } from "../../netfilter/packetFilter.ts";
import { rangeOf, tailnet } from "../../netfilter/ufwPackets.ts";
import { anywhere } from "../../netfilter/ufwRules.ts";
import { type Container, nameOf, openPorts } from "../../system/docker.ts";
import { askEach } from "../../system/httpProbe.ts";
import { type KernelFilter, kernelFilter } from "../../system/kernelFilter.ts";
import { networkOf } from "../../system/processes.ts";
import type { ListeningSocket } from "../../system/sockets.ts";
import { describeDialer, type LoopbackDialer } from "../tailscale/userspace.ts";
import { answersAsOllama, hearOllama, mostAsked, nameless } from "./answers.ts";
import type { Server } from "./serverProcesses.ts";

/** A way that the kernel, Docker or tailscaled leads to an Ollama. */
export interface LedPlace {
	/** Where it was asked from here. */
	readonly address: string;
	readonly port: number;
	/** The port of this host's that others call, and how it leads there. */
	readonly entrance: number | undefined;
	readonly says: string;
	/** Whether only this host itself is led there. */
	readonly isLocal: boolean;
	readonly removal?: string;
	readonly container?: Container;
	/** The tailscaled that leads its peers there. */
	readonly dialer?: LoopbackDialer;
}

/** Whether it takes what this host sends to 127.0.0.1. */
export function takesLoopback({ address, device }: ListeningSocket): boolean {
	return (
		["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "*"].includes(address) &&
		(device === undefined || device === "lo")
	);
}

/** Where a tailscaled of this network leads its peers, of what is Ollama's: dialled as it dials for them. */
export async function dialedPlaces(
	dialers: readonly LoopbackDialer[],
	sockets: readonly ListeningSocket[],
	usual: readonly number[],
): Promise<LedPlace[]> {
	const here = dialers.filter(({ isElsewhere }) => !isElsewhere);
	if (here.length === 0) return [];
	const address = "127.0.0.1";
	const ports = [
		...new Set([
			...usual,
			...sockets.filter(takesLoopback).map(({ port }) => port),
		]),
	];
	const answers = await askEach(ports, (port) =>
		answersAsOllama(address, port),
	);
	return ports
		.filter((_, index) => answers[index])
		.flatMap((port) =>
			here.map(
				(dialer): LedPlace => ({
					address,
					port,
					entrance: port,
					isLocal: false,
					dialer,
					says: `${describeDialer(dialer)}, and Ollama answers on ${formatHostPort(address, port)}`,
				}),
			),
		);
}

/** The servers of other networks whose tailscaled dials loopback there, as beside it in a container. */
export async function exposedElsewhere(
	servers: readonly Server[],
	dialers: readonly LoopbackDialer[],
): Promise<string[]> {
	const lines: string[] = [];
	for (const { pid } of servers) {
		const network = await networkOf(pid);
		for (const dialer of dialers)
			if (dialer.isElsewhere && dialer.network === network)
				lines.push(
					`process ${pid} is an Ollama in a network of its own, and there ${describeDialer(dialer)}`,
				);
	}
	return lines;
}

/**
 * Ways other than a program's own sockets: of Docker's, and of rules that
 * translate addresses.
 *
 * @param ports those that may be Ollama's, which a rule for all ports leads to
 */
export async function ledPlaces(
	patient: Patient,
	running: readonly Container[],
	ports: readonly number[],
): Promise<{ led: LedPlace[]; missed: string[] }> {
	const translated = patient.isRoot
		? await translatedWays(ports)
		: { ways: [], missed: [] };
	const ways = [...running.flatMap(publishedWays), ...translated.ways];
	const asked = ways.slice(0, mostAsked);
	const answers = await askEach(asked, ({ address, port }) =>
		hearOllama(address, port),
	);
	return {
		led: asked.filter((_, index) => answers[index] === "yes"),
		missed: [
			...translated.missed,
			...nameless(
				asked
					.filter(
						({ isLocal }, index) => answers[index] === "unclear" && !isLocal,
					)
					.map(({ says }) => says),
			),
			...(ways.length > mostAsked
				? [
						`${ways.length} published ports and rules may lead to Ollama, and ${mostAsked} of them were asked`,
					]
				: []),
		],
	};
}

function publishedWays(container: Container): LedPlace[] {
	return openPorts(container)
		.filter(({ containerPort }) => containerPort.endsWith("/tcp"))
		.map(({ hostAddress, hostPort }) => ({
			// Docker's rules leave what is sent to 127.0.0.1 to its proxy, which may be off.
			address: ["0.0.0.0", "::"].includes(hostAddress)
				? (ownAddress(hostAddress === "::" ? "IPv6" : "IPv4") ?? "127.0.0.1")
				: hostAddress,
			port: hostPort,
			entrance: hostPort,
			container,
			says: `Docker publishes the container ${nameOf(container)} on ${formatHostPort(hostAddress, hostPort)}`,
			isLocal: isLoopbackAddress(hostAddress),
		}));
}

function ownAddress(family: "IPv4" | "IPv6"): string | undefined {
	return Object.values(networkInterfaces())
		.flat()
		.find(
			(one) =>
				one?.family === family &&
				!one.internal &&
				!one.address.startsWith("fe80:"),
		)?.address;
}

/**
 * Where the kernel sends what comes in for other addresses or ports (DNAT), and
 * why not all of that is known.
 *
 * @param ports see ledPlaces
 */
export async function translatedWays(
	ports: readonly number[],
): Promise<{ ways: LedPlace[]; missed: string[] }> {
	const filter = await kernelFilter().catch((error: Error) => error);
	if (filter instanceof Error)
		return {
			ways: [],
			missed: [
				`whether a rule leads others to Ollama is not known: ${filter.message}`,
			],
		};
	const { families, outside, unread } = filter;
	const interfaces = networkInterfaces();
	const own = new Set(
		Object.values(interfaces)
			.flat()
			.flatMap((entry) => entry?.address ?? []),
	);
	const isOwn = (address: Address) => own.has(address.toString());
	/** What is led to this host without an address: that of the interface, or the one it was sent to. Never loopback's. */
	const addressesOf = ({ interfaceIn, family, to }: Packets) =>
		unique([
			...(to === undefined ? [] : [to.toString()]),
			...(interfaces[interfaceIn] ?? [])
				.filter(
					(one) =>
						one.family.toLowerCase() === family &&
						!one.address.startsWith("fe80:"),
				)
				.map(({ address }) => address),
		]);
	const comingIn = families.flatMap((family) =>
		[...outside, tailnet].flatMap((interfaceIn) =>
			[undefined, ...ports].map(
				(port): Packets => ({
					...{ family, interfaceIn, protocol: "tcp", port },
					from: rangeOf(anywhere[family]),
				}),
			),
		),
	);
	const led = comingIn
		.flatMap((packets) => translations(filter, packets, isOwn))
		.filter(({ ending: { rule } }) =>
			// As Docker has it for what is published on loopback.
			rule?.conditions.every(
				(condition) =>
					condition.on !== "to" ||
					condition.negated ||
					condition.ranges.some(([base]) => base.range() !== "loopback"),
			),
		);
	const ways = led.flatMap(
		({ ending: { rule }, to, port, packets }): LedPlace[] => {
			if (to === "unknown" || port === undefined || rule === undefined)
				return [];
			return (to === undefined ? addressesOf(packets) : [to.toString()]).map(
				(address) => ({
					address,
					port,
					entrance: packets.port,
					isLocal: false,
					says: `a rule leads from ${packets.port === undefined ? "other ports" : `port ${packets.port}`} to ${formatHostPort(address, port)}: ${rule.text}`,
					removal: rule.removal,
				}),
			);
		},
	);
	ways.push(...(await neighboursWays(filter, ports)));
	return {
		ways: [...new Map(ways.map((way) => [way.says, way])).values()],
		missed: unique([
			...unread,
			...led.flatMap(({ ending: { rule }, to }) =>
				to === "unknown"
					? `a rule may lead others to Ollama, and where it leads is not known here: ${rule?.text ?? ""}`
					: [],
			),
		]),
	};
}

/** Of no neighbour's packets the source is loopback's: its answer would not get there. */
const neighbours = ["0.0.0.0/2", "128.0.0.0/1"].map(rangeOf);

/**
 * What a neighbour on the same link gets to of 127.0.0.1: all that no rule drops,
 * where the kernel takes what comes in for it (route_localnet of ip-sysctl.rst), as
 * kube-proxy has it.
 */
async function neighboursWays(
	filter: KernelFilter,
	ports: readonly number[],
): Promise<LedPlace[]> {
	const address = "127.0.0.1";
	const isOn = async (name: string) =>
		(
			await readFile(
				`/proc/sys/net/ipv4/conf/${name}/route_localnet`,
				"utf8",
			).catch(() => "")
		).trim() === "1";
	const isOnEverywhere = await isOn("all");
	const ways: LedPlace[] = [];
	for (const interfaceIn of filter.outside) {
		if (!isOnEverywhere && !(await isOn(interfaceIn))) continue;
		for (const port of ports) {
			const packets = neighbours.map(
				(from): Packets => ({
					...{ family: "ipv4", interfaceIn, protocol: "tcp", port },
					...{ from, to: parseAddress(address) },
				}),
			);
			if (packets.some((one) => wayIn(filter, one).share !== "none"))
				ways.push({
					...{ address, port, entrance: port, isLocal: false },
					says: `${interfaceIn} takes what a neighbour on the same link sends to ${formatHostPort(address, port)} (net.ipv4.conf.${isOnEverywhere ? "all" : interfaceIn}.route_localnet is 1), and no rule drops it`,
					removal: "sudo llamagate setup --only ufw",
				});
		}
	}
	return ways;
}
