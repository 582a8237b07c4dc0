import { isLoopbackAddress } from "../net/ranges.ts";
import { outputOf } from "./program.ts";

/** A TCP socket of this host that waits for connections, as the kernel knows it. */
export interface ListeningSocket {
	/** `*` where it takes any address of either family. */
	readonly address: string;
	/** The interface that it is bound to. */
	readonly device: string | undefined;
	readonly port: number;
	/**
	 * Names of the programs that hold it; empty without root. Any user may give
	 * a program any name.
	 */
	readonly programs: readonly string[];
}

/** Every TCP socket that listens. @throws if `ss` does not run */
export async function listeningSockets(): Promise<ListeningSocket[]> {
	const output = await outputOf("ss", "-H", "-O", "-l", "-n", "-t", "-p");
	if (output === undefined)
		throw new Error("ss does not run: install iproute2");
	return parseListeningSockets(output);
}

/** Reads what `ss -H -O -l -n -t -p` prints: `LISTEN 0 128 [fd7a::1]%tailscale0:22 [::]:* users:(("sshd",pid=1,fd=3))`. */
export function parseListeningSockets(output: string): ListeningSocket[] {
	return output
		.split("\n")
		.filter((line) => line.trim() !== "")
		.map((line) => {
			const local = line.trim().split(/\s+/)[3] ?? "";
			const colon = local.lastIndexOf(":");
			const [host = "", device] = local
				.slice(0, colon)
				.replace(/[[\]]/g, "")
				.split("%");
			return {
				address: host,
				device,
				port: Number(local.slice(colon + 1)),
				programs: [
					...new Set(
						[...line.matchAll(/\("([^"]+)",pid=/g)].flatMap(
							([, name]) => name ?? [],
						),
					),
				],
			};
		});
}

/** Whether only this host itself can reach it. */
export function isLocalOnly({ address }: ListeningSocket): boolean {
	return isLoopbackAddress(address);
}

/** `0.0.0.0:11434 (ollama)`, for people. */
export function formatSocket({
	address,
	device,
	port,
	programs,
}: ListeningSocket): string {
	const host = address.includes(":") ? `[${address}]` : address;
	const by = programs.length > 0 ? ` (${programs.join(", ")})` : "";
	return `${host}${device === undefined ? "" : `%${device}`}:${port}${by}`;
}
