import type { Listen } from "../net/listener.ts";
import {
	isLoopbackAddress,
	isTailscaleAddress,
	parseAddress,
	parseLoopbackPort,
} from "../net/ranges.ts";
import type { ConfigFile } from "./schema.ts";
import { got } from "./strictJson.ts";

export function readListen(
	config: Pick<ConfigFile, "listen">,
	interfaceIsGiven: boolean,
	refuse: (where: string[], message: string) => void,
): Listen | undefined {
	const { address, port } = config.listen;
	if (address === undefined)
		return { kind: "interface", name: config.listen.interface, port };
	if (interfaceIsGiven) {
		refuse(["listen"], "has both an interface and an address; keep one");
		return undefined;
	}
	if (!isLoopbackAddress(address) && !isTailscaleAddress(address)) {
		refuse(
			["listen", "address"],
			`expected one loopback or Tailscale address (100.64.0.0/10, fd7a:115c:a1e0::/48)${got(address)}. The gate never listens on the internet or the LAN`,
		);
		return undefined;
	}
	return {
		kind: "address",
		address: parseAddress(address)?.toString() ?? address,
		port,
	};
}

export function isOrigin(text: string): boolean {
	if (!URL.canParse(text)) return false;
	const { protocol, host } = new URL(text);
	// URL.origin is "null" for app schemes such as app://obsidian.md, which browsers do send.
	return host !== "" && text === `${protocol}//${host}`;
}

/** `undefined` when it is off, `null` when it is wrong. */
export function readMetrics(
	text: string,
): { host: string; port: number } | undefined | null {
	return text === "off" ? undefined : (parseLoopbackPort(text) ?? null);
}
