import ipaddr from "ipaddr.js";

/** One address, parsed. */
export type Address = ipaddr.IPv4 | ipaddr.IPv6;

/** An address range; addresses of the other family never match it. */
export type Range = readonly [ipaddr.IPv4 | ipaddr.IPv6, number];

/** Tailscale hands its nodes addresses from these (tailscale.com/kb/1015). */
export const tailscaleRanges: readonly Range[] = [
	ipaddr.parseCIDR("100.64.0.0/10"),
	ipaddr.parseCIDR("fd7a:115c:a1e0::/48"),
];

/**
 * Inside 100.64.0.0/10 and yet no peers: MagicDNS, and the addresses of
 * ChromeOS's virtual machines (tailscale net/tsaddr).
 */
const neverPeers: readonly Range[] = [
	ipaddr.parseCIDR("100.100.100.100/32"),
	ipaddr.parseCIDR("100.115.92.0/23"),
	ipaddr.parseCIDR("fd7a:115c:a1e0::53/128"),
];

const loopbackRanges: readonly Range[] = [
	ipaddr.parseCIDR("127.0.0.0/8"),
	ipaddr.parseCIDR("::1/128"),
];

/**
 * `::100.64.0.1` is how a kernel writes ::6440:1, an address of IPv6 that anybody
 * on the same link can give himself. ipaddr.js takes that form, and no other of
 * this address, for ::ffff:100.64.0.1, which is the IPv4 address.
 */
function unmapped(text: string): string {
	return text.replace(/^::(?=\d+\.)/, "0::");
}

/** Reads `100.64.0.0/10` or a single address; `undefined` if it is neither. */
export function parseRange(text: string): Range | undefined {
	const written = unmapped(text);
	if (
		ipaddr.IPv4.isValidCIDRFourPartDecimal(written) ||
		ipaddr.IPv6.isValidCIDR(written)
	)
		return ipaddr.parseCIDR(written);
	const address = parseAddress(text);
	return address === undefined
		? undefined
		: [address, address.kind() === "ipv4" ? 32 : 128];
}

/** Reads a plain address. An IPv4 address mapped into IPv6 (`::ffff:…`) becomes the IPv4 one. */
export function parseAddress(
	text: string | undefined,
): ipaddr.IPv4 | ipaddr.IPv6 | undefined {
	if (text === undefined) return undefined;
	if (ipaddr.IPv4.isValidFourPartDecimal(text)) return ipaddr.IPv4.parse(text);
	// A zone ("fe80::1%eth0") says which link, and no Tailscale address has one.
	if (text.includes("%") || !ipaddr.IPv6.isValid(text)) return undefined;
	const address = ipaddr.IPv6.parse(unmapped(text));
	return address.isIPv4MappedAddress() ? address.toIPv4Address() : address;
}

/** Whether an address lies in one of the ranges. */
export function liesIn(
	address: ipaddr.IPv4 | ipaddr.IPv6,
	ranges: readonly Range[],
): boolean {
	return ranges.some(
		([base, bits]) =>
			base.kind() === address.kind() && address.match([base, bits] as never),
	);
}

/** Whether a text is an address that Tailscale may have given to a node. */
export function isTailscaleAddress(text: string): boolean {
	const address = parseAddress(text);
	return (
		address !== undefined &&
		liesIn(address, tailscaleRanges) &&
		!liesIn(address, neverPeers)
	);
}

/** What Tailscale derives IPv6 addresses from, the last 24 bits being those of the IPv4 address (tailscale net/tsaddr:Tailscale4To6Range). */
const derivedPrefix = "fd7a:115c:a1e0:ab12:4843:cd96:62";

/** The IPv4 address that a node's IPv6 address was derived from; any other address as it is. */
export function pairedAddress(text: string): string {
	if (!text.startsWith(derivedPrefix)) return text;
	const bytes = parseAddress(text)?.toByteArray().slice(-3) ?? [];
	const ipv4 = ["100", ...bytes].join(".");
	return isTailscaleAddress(ipv4) ? ipv4 : text;
}

/** Whether a text is 127.0.0.0/8 or ::1. */
export function isLoopbackAddress(text: string): boolean {
	const address = parseAddress(text);
	return address !== undefined && liesIn(address, loopbackRanges);
}

/** Reads `127.0.0.1:9464` or `[::1]:9464`; `undefined` for whatever is not an address and port of loopback. */
export function parseLoopbackPort(
	text: string,
): { readonly host: string; readonly port: number } | undefined {
	const match = /^(?:\[([0-9a-f:]+)\]|([0-9.]+)):([0-9]{1,5})$/i.exec(text);
	const host = match?.[1] ?? match?.[2];
	const port = Number(match?.[3]);
	return host === undefined || !isLoopbackAddress(host) || port > 65535
		? undefined
		: { host, port };
}

/** Whether a client with this address may speak to the gate at all. */
export function isPermittedSource(
	address: Address,
	ranges: readonly Range[],
): boolean {
	return liesIn(address, ranges) && !liesIn(address, neverPeers);
}

/** `host:port` as a URL wants it: IPv6 in brackets. */
export function formatHostPort(address: string, port: number): string {
	return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
