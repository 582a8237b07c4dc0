import { createSocket } from "node:dgram";
import { lookup } from "node:dns/promises";
import { once } from "node:events";
import { type NetworkInterfaceInfo, networkInterfaces } from "node:os";
import {
	isLoopbackAddress,
	isTailscaleAddress,
	liesIn,
	parseAddress,
	parseRange,
} from "../net/ranges.ts";

/** One address of the target, and how this device would reach it. */
export interface Way {
	readonly address: string;
	/** The address that this device would send from; `undefined` without a route. */
	readonly from: string | undefined;
	/** Target and sender are Tailscale's, or the target is this device. */
	readonly isPrivate: boolean;
	readonly isOwn: boolean;
	/** Both lie in the same network of an interface that is not Tailscale's. */
	readonly isSameLan: boolean;
	/** It is sent through Tailscale: to a peer, a subnet router or an exit node. */
	readonly viaTailnet: boolean;
}

/** Whether an address is one of the internet's, which every network can reach. */
export function isPublicAddress(text: string): boolean {
	return parseAddress(text)?.range() === "unicast" && !isTailscaleAddress(text);
}

/** Looks a host up; an address is itself. @throws as `dns.lookup` does */
export async function resolve(host: string): Promise<string[]> {
	const found = await lookup(host, { all: true });
	return [...new Set(found.map(({ address }) => address))];
}

/** How this device would reach an address. Nothing is sent: a UDP socket is connected, which asks the kernel for the route alone. */
export async function wayTo(address: string): Promise<Way> {
	const from = await localAddressTo(address);
	const own = ownAddresses();
	const parsed = parseAddress(address);
	const isOwn =
		isLoopbackAddress(address) ||
		own.some((entry) => entry.address === address);
	const viaTailnet =
		!isOwn &&
		own.some((entry) => entry.address === from && isTailscales(entry));
	return {
		address,
		from,
		isOwn,
		viaTailnet,
		isPrivate: isOwn || (viaTailnet && isTailscaleAddress(address)),
		isSameLan:
			parsed !== undefined &&
			!isOwn &&
			own.some((entry) => {
				const range = parseRange(entry.cidr ?? "");
				return (
					range !== undefined &&
					!entry.internal &&
					!isTailscales(entry) &&
					liesIn(parsed, [range])
				);
			}),
	};
}

/** The addresses that Tailscale has given to this device, each with its interface. */
export function tailnetAddresses(): string[] {
	return ownAddresses()
		.filter(isTailscales)
		.map(({ address, name }) => `${address} on ${name}`);
}

type OwnAddress = NetworkInterfaceInfo & { readonly name: string };

function ownAddresses(): OwnAddress[] {
	return Object.entries(networkInterfaces()).flatMap(([name, entries = []]) =>
		entries.map((entry) => ({ ...entry, name })),
	);
}

/**
 * Whether Tailscale gave this device the address. Providers give out addresses
 * of 100.64.0.0/10 too (RFC 6598), so it also goes by the interface, and by the
 * netmask: a node's address means itself alone. By IPv6 some systems show
 * the whole network of Tailscale's, which is nobody else's.
 */
function isTailscales({ name, address, cidr }: OwnAddress): boolean {
	const bits = cidr?.split("/")[1] ?? "";
	return (
		isTailscaleAddress(address) &&
		(address.includes(":") ? ["128", "48"] : ["32"]).includes(bits) &&
		tailscaleInterface.test(name)
	);
}

const tailscaleInterface =
	process.platform === "darwin"
		? /^utun\d+$/
		: process.platform === "win32"
			? /^Tailscale/
			: /^tailscale\d*$/;

async function localAddressTo(address: string): Promise<string | undefined> {
	const socket = createSocket(address.includes(":") ? "udp6" : "udp4");
	try {
		// The port does not matter: connecting UDP sends nothing.
		socket.connect(9, address);
		await once(socket, "connect");
		return socket.address().address;
	} catch {
		return undefined;
	} finally {
		socket.close();
	}
}
