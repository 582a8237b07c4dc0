import type { Server } from "node:http";
import { Server as NetServer } from "node:net";
import { constants, networkInterfaces } from "node:os";
import type { Log } from "../log.ts";
import {
	formatHostPort,
	isLoopbackAddress,
	isTailscaleAddress,
} from "./ranges.ts";

/** Node has no event for a changing interface, so its addresses are looked at this often. */
const pollIntervalMs = 1_000;
/** How long idle connections are kept whose address has gone: tailscaled may be restarting, and brings it back. */
const graceMs = 30_000;
/** Connections that wait to be taken; as many as Linux allows by default (net.core.somaxconn). */
const backlog = 4_096;

/** Where the gate listens when no socket is inherited. */
export type Listen =
	| { readonly kind: "interface"; readonly name: string; readonly port: number }
	| {
			readonly kind: "address";
			readonly address: string;
			readonly port: number;
	  };

/** A listener that cannot do what it was told, and never will. */
export class ListenError extends Error {
	readonly code = "LLAMAGATE_LISTEN";
	/** The port that another program has. */
	readonly takenPort: number | undefined;

	constructor(message: string, takenPort?: number) {
		super(message);
		this.takenPort = takenPort;
	}
}

/** Not by its own close(), which ends what is idle at once: a request may be on its way there. */
function stopAccepting(server: Server): void {
	NetServer.prototype.close.call(server);
}

/** Where the gate listens, now and as addresses come and go. */
export interface Listener {
	/** `100.101.102.104:11434`, for each address that is bound now. */
	bound(): string[];
	/** Moves to other addresses; connections that are open stay open. */
	move(listen: Listen): void;
	/** Stops accepting. Connections that are open stay open. */
	close(): void;
}

/** The Tailscale addresses of an interface; none if it does not exist or may not be seen. */
export function tailscaleAddressesOf(name: string): string[] {
	try {
		return readTailscaleAddresses(name);
	} catch {
		// A sandbox may forbid netlink. What cannot be seen is not listened on.
		return [];
	}
}

/** The same. @throws where they cannot be seen */
export function readTailscaleAddresses(name: string): string[] {
	return (networkInterfaces()[name] ?? [])
		.map(({ address }) => address)
		.filter(isTailscaleAddress);
}

/** What a host may be short of for a while, which says nothing about its interfaces. */
const shortages = (["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"] as const).map(
	(code) => [code, constants.errno[code]] as const,
);

/** The code of a shortage that kept the interfaces from being looked at. */
function shortageOf(error: unknown): string | undefined {
	// Node hands the number on with either sign, and no name for it.
	const { errno = 0 } = error as NodeJS.ErrnoException;
	return shortages.find(([, number]) => number === Math.abs(errno))?.[0];
}

/**
 * Listens on every Tailscale address of an interface, or on one address, and
 * keeps to it: waits for what is not there yet, follows what changes, closes
 * what goes. One address's failure leaves the others.
 *
 * @param onChange called when an address has been bound or given up
 * @throws {ListenError} if the one address is taken by another program
 */
export async function openListener(
	listen: Listen,
	createServer: () => Server,
	log: Log,
	onChange: () => void = () => {},
): Promise<Listener> {
	let wanted = listen;
	let closed = false;
	const servers = new Map<
		string,
		{ readonly server: Server; bound: boolean }
	>();
	/** Ends the idle connections of listeners whose address has gone. */
	const partings = new Map<string, { end(): void; cancel(): void }>();
	const failures = new Map<string, string>();
	let saidWaiting = false;
	let saidBlind = false;

	/** `undefined` if that cannot be told now: then what is open stays open. */
	function addressesOf(where: Listen): string[] | undefined {
		if (where.kind === "address") return [where.address];
		try {
			const addresses = readTailscaleAddresses(where.name);
			saidBlind = false;
			return addresses;
		} catch (error) {
			const code = shortageOf(error);
			if (code === undefined) return [];
			if (!saidBlind)
				log.warn(
					{ interface: where.name, code },
					"the interface cannot be looked at; what is open stays open",
				);
			saidBlind = true;
			return undefined;
		}
	}

	function bind(
		address: string,
		port: number,
	): Promise<NodeJS.ErrnoException | undefined> {
		const id = formatHostPort(address, port);
		const server = createServer();
		const entry = { server, bound: false };
		servers.set(id, entry);
		return new Promise((resolve) => {
			server.on("error", (error: NodeJS.ErrnoException) => {
				if (entry.bound)
					return log.error(
						{ address: id, code: error.code },
						"a listener failed",
					);
				servers.delete(id);
				if (failures.get(id) !== error.code)
					log.warn({ address: id, code: error.code }, adviceFor(error.code));
				failures.set(id, error.code ?? "");
				resolve(error);
			});
			server.listen({ host: address, port, backlog, ipv6Only: true }, () => {
				// The address may have gone, or the gate been told to stop, in the meantime.
				if (closed || servers.get(id) !== entry) return void server.close();
				entry.bound = true;
				partings.get(id)?.cancel();
				failures.delete(id);
				log.info({ address: addressOf(server) }, "listening");
				resolve(undefined);
				onChange();
			});
		});
	}

	/** Stops listening, and ends what is idle some time later, if the address is not back. */
	function part(id: string, server: Server): void {
		stopAccepting(server);
		partings.get(id)?.end();
		const end = () => {
			parting.cancel();
			server.closeIdleConnections();
		};
		const timer = setTimeout(end, graceMs);
		const parting = {
			end,
			cancel() {
				clearTimeout(timer);
				partings.delete(id);
			},
		};
		partings.set(id, parting);
	}

	function follow(): Promise<(NodeJS.ErrnoException | undefined)[]> {
		const addresses = addressesOf(wanted);
		if (addresses === undefined) return Promise.resolve([]);
		const ids = new Set(
			addresses.map((address) => formatHostPort(address, wanted.port)),
		);
		for (const [id, { server }] of servers) {
			if (ids.has(id)) continue;
			servers.delete(id);
			part(id, server);
			log.warn({ address: id }, "no longer listening: the address is gone");
			onChange();
		}
		if (addresses.length === 0 && wanted.kind === "interface" && !saidWaiting)
			log.warn(
				{ interface: wanted.name },
				"waiting for the interface to get a Tailscale address; nothing is open",
			);
		saidWaiting = addresses.length === 0;
		return Promise.all(
			addresses
				.filter((address) => !servers.has(formatHostPort(address, wanted.port)))
				.map((address) => bind(address, wanted.port)),
		);
	}

	const [firstError] = await follow();
	if (
		listen.kind === "address" &&
		firstError !== undefined &&
		firstError.code !== "EADDRNOTAVAIL"
	) {
		const where = formatHostPort(listen.address, listen.port);
		throw new ListenError(
			`cannot listen on ${where}: ${adviceFor(firstError.code)}`,
			firstError.code === "EADDRINUSE" ? listen.port : undefined,
		);
	}
	const poll = setInterval(() => void follow(), pollIntervalMs);

	return {
		bound: () =>
			[...servers.values()]
				.filter(({ bound }) => bound)
				.map(({ server }) => addressOf(server)),
		move(next) {
			wanted = next;
			saidWaiting = false;
			void follow();
		},
		close() {
			closed = true;
			clearInterval(poll);
			for (const { server } of servers.values()) stopAccepting(server);
			servers.clear();
			for (const { end } of [...partings.values()]) end();
		},
	};
}

function adviceFor(code: string | undefined): string {
	switch (code) {
		case "EADDRINUSE":
			return "the port is taken; if Ollama listens on all addresses, set OLLAMA_HOST=127.0.0.1:11434 for it and restart it";
		case "EADDRNOTAVAIL":
			return "the address is not on this host yet; waiting for it";
		case "EACCES":
			return "this user may not bind the port";
		default:
			return `binding failed (${code}); it is tried again`;
	}
}

function addressOf(server: Server): string {
	const address = server.address();
	return address === null || typeof address === "string"
		? "local"
		: formatHostPort(address.address, address.port);
}

/** What an inherited Unix socket must be called (`FileDescriptorName=`) for the gate to take it. */
export const localSocketName = "llamagate";

/** sd_listen_fds(3). */
const firstInheritedFd = 3;

/** Takes a socket over, unless it is where the gate must not listen. */
function listenOn(
	server: Server,
	fd: number,
	mayBeLocal: boolean,
): Promise<Error | undefined> {
	return new Promise((resolve) => {
		server.once("error", resolve);
		// Node does not look at a `backlog` beside an fd.
		server.listen({ fd }, backlog, () => resolve(undefined));
		// Its address is known before the first connection can be accepted.
		const address = server.address();
		if (address === null || typeof address === "string") {
			if (mayBeLocal) return;
			resolve(
				new ListenError(
					`the inherited socket is not a TCP socket; set ListenStream to the Tailscale address and port, or, for a Unix socket that only root may open, FileDescriptorName=${localSocketName}`,
				),
			);
		} else if (
			!isLoopbackAddress(address.address) &&
			!isTailscaleAddress(address.address)
		)
			resolve(
				new ListenError(
					`the inherited socket is bound to ${address.address}, which is neither loopback nor a Tailscale address; set ListenStream to the Tailscale address and port`,
				),
			);
	});
}

/**
 * The sockets that systemd passed on, by its protocol (sd_listen_fds(3)): the
 * name of each, from file descriptor 3 on; none if they are for another program.
 */
export function inheritedSocketNames(env: NodeJS.ProcessEnv): string[] {
	const count = Number(env.LISTEN_FDS ?? 0);
	if (
		env.LISTEN_PID !== String(process.pid) ||
		!Number.isInteger(count) ||
		count <= 0
	)
		return [];
	const names = (env.LISTEN_FDNAMES ?? "").split(":");
	return Array.from({ length: count }, (_, index) => names[index] ?? "");
}

/**
 * Listens on the sockets that systemd passed on. A Unix socket among them lets
 * root try the gate from the host itself, which a socket bound to tailscale0
 * does not hear; anyone who may open its file needs a key like everybody else.
 *
 * @param names of the sockets, by `inheritedSocketNames`
 * @throws {ListenError} if one is bound to an address that the gate would not bind itself
 */
export async function adoptSockets(
	names: readonly string[],
	createServer: (isLocal: () => boolean) => Server,
	log: Log,
): Promise<Listener> {
	const servers: Server[] = [];
	for (const [index, name] of names.entries()) {
		const fd = firstInheritedFd + index;
		let local = false;
		const server = createServer(() => local);
		servers.push(server);
		const failure = await listenOn(server, fd, name === localSocketName);
		// A Unix socket that was inherited has no address that Node knows.
		local = failure === undefined && server.address() === null;
		if (failure !== undefined) {
			for (const opened of servers) opened.close();
			throw failure;
		}
		server.on("error", (error: NodeJS.ErrnoException) =>
			log.error({ code: error.code }, "a listener failed"),
		);
		log.info({ address: addressOf(server), inherited: true }, "listening");
	}
	return {
		bound: () => servers.map(addressOf),
		move: () =>
			log.warn("listen is not looked at: the socket comes from systemd"),
		close: () => {
			for (const server of servers) stopAccepting(server);
		},
	};
}
