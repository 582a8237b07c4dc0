import { createServer } from "node:net";
import type { Listen } from "../net/listener.ts";
import { tailscaleAddressesOf } from "../net/listener.ts";
import { formatHostPort } from "../net/ranges.ts";
import { readSmallText } from "../net/smallReply.ts";
import { isWildcard } from "../system/httpProbe.ts";
import { describePortHolder } from "../system/portHolder.ts";
import { type ListeningSocket, listeningSockets } from "../system/sockets.ts";

/** What holds an address where a gate would listen. */
export type Holder =
	| { readonly kind: "nobody" | "gate" | "ollama" }
	| { readonly kind: "unbindable"; readonly code: string }
	/** `says` finishes the sentence "it is taken by …". */
	| { readonly kind: "other"; readonly says: string };

/** The addresses that a gate with these settings would listen on now. */
export function listenAddresses(listen: Listen): string[] {
	return listen.kind === "address"
		? [listen.address]
		: tailscaleAddressesOf(listen.name);
}

/** Whether an address can be bound, and if not, who has it: a gate, or the Ollama that it should guard. */
export async function whoListens(
	address: string,
	port: number,
): Promise<Holder> {
	const code = await tryToBind(address, port);
	if (code === undefined) return { kind: "nobody" };
	if (code !== "EADDRINUSE") return { kind: "unbindable", code };
	const where = formatHostPort(address, port);
	const answer = await fetch(`http://${where}/api/version`, {
		signal: AbortSignal.timeout(2_000),
	}).catch(() => undefined);
	const said =
		answer?.body == null
			? ""
			: await readSmallText(answer.body).catch(() => "");
	if (
		answer?.headers.get("www-authenticate")?.includes("llamagate") === true ||
		// Where it speaks HTTPS it says so.
		said.includes("this port speaks HTTPS")
	)
		return { kind: "gate" };
	if (answer?.status === 200) return { kind: "ollama" };
	return { kind: "other", says: await describePortHolder(port) };
}

function tryToBind(address: string, port: number): Promise<string | undefined> {
	return new Promise((resolve) => {
		const server = createServer();
		server.once("error", ({ code, message }: NodeJS.ErrnoException) =>
			resolve(code ?? message),
		);
		server.listen({ host: address, port, ipv6Only: true }, () =>
			server.close(() => resolve(undefined)),
		);
	});
}

/**
 * Whether nobody but systemd holds an address: it keeps the gate's socket open
 * while no gate runs, and starts one for whoever connects.
 */
export function isSystemdAlone(
	sockets: readonly Pick<ListeningSocket, "address" | "port" | "programs">[],
	address: string,
	port: number,
): boolean {
	const there = sockets.filter(
		(socket) =>
			socket.port === port &&
			(socket.address === address || isWildcard(socket)),
	);
	return (
		there.length > 0 &&
		there.every(
			({ programs }) => programs.length === 1 && programs[0] === "systemd",
		)
	);
}

/** The same of this host; false where that cannot be seen, as without root. */
export async function isHeldBySystemdAlone(
	address: string,
	port: number,
): Promise<boolean> {
	const sockets = await listeningSockets().catch(() => []);
	return isSystemdAlone(sockets, address, port);
}
