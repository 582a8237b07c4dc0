import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Exchange } from "../gate/account.ts";
import { type Address, parseAddress } from "./ranges.ts";
import { Roster } from "./roster.ts";

/** Where a connection over the Unix socket comes from: a program of this host that may open its file. */
export const localSource = "local";

/** One connection of a client. */
export interface Connection {
	/** The peer's address, an IPv4 address mapped into IPv6 written as IPv4; or `local`. */
	readonly address: string;
	/** As it came, for those who look at its bits; `local` over the Unix socket. */
	readonly parsedAddress: Address | typeof localSource;
	/** Whether a request with a good key has come over it. */
	authenticated: boolean;
	/** Requests that were refused while it was a stranger's. */
	refusals: number;
	/** Requests whose replies have not left yet: with more than one, the client pipelines. */
	unanswered: number;
	/** A refusal on it is held back. */
	waits: boolean;
	/** The reply that closes it has been written: whatever comes behind is not looked at. */
	closing: boolean;
	/** The request that was read last, or is being read. */
	latest: IncomingMessage | undefined;
	/** The requests on it that have not ended; more than one when the client pipelines. */
	readonly exchanges: Roster<Exchange>;
}

/**
 * Connections that have not shown a good key yet, as many as one address and
 * all together may hold open. Node closes each after the header timeout; the
 * bounds keep a flood of silent ones from using up the file descriptors, and
 * where there are few, one address gets half of the places at most.
 */
const maxStrangersPerAddress = 1024;
const maxStrangers = 8192;

/** A property of the socket: a WeakMap of every connection would cost each garbage collection. */
const held = Symbol("connection");
type HeldSocket = Socket & { [held]?: Connection };

/** The open connections, and the strangers among them. */
export class ConnectionTable {
	readonly #strangers = new Map<string, number>();
	#strangerCount = 0;
	#openCount = 0;
	readonly #room: () => number;

	/** @param room how many connections there may be at once, whoever's they are */
	constructor(room: () => number) {
		this.#room = room;
	}

	/**
	 * Takes note of a new connection; `undefined` if it is one too many and must be closed.
	 *
	 * @param local whether it came over the Unix socket, where a peer has no address
	 */
	open(socket: Socket, local: boolean): Connection | undefined {
		const parsedAddress = local
			? localSource
			: parseAddress(socket.remoteAddress);
		const address = parsedAddress?.toString();
		// Without an address it has been reset already.
		if (parsedAddress === undefined || address === undefined) return undefined;
		const strangers = this.#strangers.get(address) ?? 0;
		if (
			this.isFull ||
			strangers >= Math.min(maxStrangersPerAddress, this.#room() / 2) ||
			this.#strangerCount >= maxStrangers
		)
			return undefined;
		this.#strangers.set(address, strangers + 1);
		this.#strangerCount += 1;
		this.#openCount += 1;
		const connection: Connection = {
			address,
			parsedAddress,
			authenticated: false,
			refusals: 0,
			unanswered: 0,
			waits: false,
			closing: false,
			latest: undefined,
			exchanges: new Roster(),
		};
		(socket as HeldSocket)[held] = connection;
		// Node stops listening for errors once it has handed a socket over (CONNECT),
		// and an error that nobody listens for ends the process.
		socket.on("error", () => {});
		socket.once("close", () => {
			this.#openCount -= 1;
			if (!connection.authenticated) this.#forgetStranger(address);
			for (const exchange of connection.exchanges) exchange.abandon();
		});
		return connection;
	}

	/** The connection of a socket that `open` took. */
	of(socket: Socket): Connection | undefined {
		return (socket as HeldSocket)[held];
	}

	/** A good key was shown: the connection no longer counts as a stranger's. */
	markAuthenticated(connection: Connection): void {
		if (connection.authenticated) return;
		connection.authenticated = true;
		this.#forgetStranger(connection.address);
	}

	get openCount(): number {
		return this.#openCount;
	}

	/** Whether there is room for nobody, with a key or without. */
	get isFull(): boolean {
		return this.#openCount >= this.#room();
	}

	#forgetStranger(address: string): void {
		this.#strangerCount -= 1;
		const left = (this.#strangers.get(address) ?? 1) - 1;
		if (left > 0) this.#strangers.set(address, left);
		else this.#strangers.delete(address);
	}
}

/**
 * Closes a connection at once and reads no more of what it has sent.
 *
 * Destroying the socket alone does not stop Node's parser in the middle of the
 * 64 KiB that it was given, and it makes two objects of some 3 KB out of each
 * 18 bytes there. Answering 2 is how Node's own code makes it stop
 * (lib/_http_server.js:parserOnIncoming); where that ever changes, the socket is
 * closed all the same.
 */
export function cutOff(socket: Socket): void {
	const { parser } = socket as {
		parser?: { onIncoming?: () => number } | null;
	};
	if (parser) parser.onIncoming = () => 2;
	socket.destroy();
}
