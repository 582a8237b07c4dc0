import type { Socket } from "node:net";
import type { Server, TLSSocket } from "node:tls";
import type { Certificate } from "../tls/certificate.ts";
import { contextOptions } from "../tls/certificate.ts";
import { type Connection, holdLittle } from "./connection.ts";
import { Pacer } from "./pacer.ts";
import { TlsOverhead } from "./tlsOverhead.ts";

/** How long a connection may take until it is encrypted, from its first packet on. */
const handshakeTimeoutMs = 10_000;
/** Handshakes under way at once, of one device and in all. */
const mostOfDevice = 256;
const mostInAll = 1_024;
/** Handshakes of one device at once, and a second from then on; the others wait for so long at most. */
const burst = 128;
const leastPerSecond = 50;
const mostPerSecond = 1_000;
const longestWaitMs = 6_000;
/** What a handshake with a large RSA key costs, in others. */
const costOfLarge = 5;
/** Begun in one turn of the event loop: each signs, and the streams wait meanwhile. */
const mostInTurn = 2;
/** The first byte of TLS: a record of type handshake (RFC 8446, 5.1). */
const handshakeRecord = 0x16;

/** How handshakes have gone, since the start. */
export interface HandshakeCounts {
	done: number;
	/** The client broke off, or the two had no version or cipher in common. */
	failed: number;
	/** The client spoke plain HTTP, or no protocol that is known. */
	notTls: number;
	/** Ten seconds had gone by. */
	late: number;
	/** Too many were under way, or it gave way to another's, or there was no certificate, and none came. */
	refused: number;
	/** Encrypted connections that were closed, as they sent very many empty records. */
	wasteful: number;
}

interface Pending {
	/** Its TCP connection. */
	readonly id: string;
	readonly connection: Connection;
	readonly socket: Socket;
	readonly startedAtMs: number;
	readonly taken: Taken;
	/** Whose it is. */
	readonly device: string;
	/** Its turn comes later. */
	timer: NodeJS.Timeout | undefined;
	/** It has sent something, and waits for its turn or is under way. */
	isUnderWay: boolean;
	isEnded: boolean;
}

/** What becomes of a connection that has got through. */
interface Taken {
	/** It is encrypted. */
	encrypted(socket: TLSSocket): void;
	/** It speaks something else, most likely plain HTTP. */
	plain(socket: Socket): void;
}

/**
 * Has connections encrypted. A handshake costs the gate a signature, and costs
 * anyone who asks for it a packet, so each device has only so many under way and
 * only so many a second; those beyond wait, and streams do not feel it. Where all
 * places are taken, a new one gets the oldest place of the device that has most.
 */
export class Handshakes {
	readonly counts: HandshakeCounts = {
		done: 0,
		failed: 0,
		notTls: 0,
		late: 0,
		refused: 0,
		wasteful: 0,
	};
	/** There once there was a certificate. */
	#server: Server | undefined;
	readonly #pending = new Map<string, Pending>();
	/** Of each device, the oldest first. */
	readonly #underWay = new Map<string, Set<Pending>>();
	#underWayCount = 0;
	readonly #ready = new Set<Pending>();
	readonly #overhead = new TlsOverhead();
	readonly #pacer: Pacer;
	#certificate: Certificate | undefined;
	/** There is none yet, and it is being asked for. */
	#isComing = false;
	readonly #deviceOf: (address: string) => string;
	#isBeginning = false;

	/**
	 * @param requestsPerSecond what one address may ask for, as each request may have a connection of its own
	 * @param deviceOf the same for all addresses of a device, as far as they are known
	 */
	constructor(
		requestsPerSecond: () => number,
		deviceOf: (address: string) => string,
	) {
		this.#deviceOf = deviceOf;
		this.#pacer = new Pacer(() => {
			const perSecond = Math.min(
				Math.max(leastPerSecond, 2 * requestsPerSecond()),
				mostPerSecond,
			);
			const cost = this.#certificate?.isCostly === true ? costOfLarge : 1;
			return {
				burst: Math.max(burst, perSecond) / cost,
				perSecond: perSecond / cost,
				longestWaitMs,
			};
		});
	}

	/**
	 * It never listens: it is handed what the gate has taken. HTTP/2 is not offered
	 * (docs/adr/0032). A gate without a certificate does not load TLS.
	 */
	#openServer(): Server {
		const { createServer } = process.getBuiltinModule("node:tls");
		const server = createServer({ ALPNProtocols: ["http/1.1"] });
		server.on("secureConnection", (socket) => this.#finish(socket));
		// Its connection closes, which counts it.
		server.on("tlsClientError", () => {});
		return server;
	}

	/**
	 * Has new connections see this certificate; those that are encrypted already go on.
	 * While one is coming they wait for it, as long as a handshake may take, and
	 * without one they are closed.
	 */
	use(certificate: Certificate | "coming" | undefined): void {
		this.#isComing = certificate === "coming";
		this.#certificate = certificate === "coming" ? undefined : certificate;
		if (this.#certificate !== undefined) {
			this.#server ??= this.#openServer();
			this.#server.setSecureContext(contextOptions(this.#certificate));
		}
		this.#beginSoon();
	}

	/** The certificate that new connections see. */
	get certificate(): Certificate | undefined {
		return this.#certificate;
	}

	/** How many have not been encrypted yet. */
	get size(): number {
		return this.#pending.size;
	}

	/**
	 * Encrypts a connection, in its turn, or closes it. One that says nothing costs
	 * only its place.
	 */
	begin(connection: Connection, socket: Socket, taken: Taken): void {
		const id = tupleOf(socket);
		const pending: Pending = {
			id,
			connection,
			socket,
			startedAtMs: performance.now(),
			taken,
			device: this.#deviceOf(connection.address),
			timer: undefined,
			isUnderWay: false,
			isEnded: false,
		};
		this.#pending.set(id, pending);
		socket.once("close", () => {
			if (!pending.isEnded && pending.isUnderWay) this.counts.failed += 1;
			this.#end(pending);
		});
		const leave = () => void socket.destroy();
		socket.once("end", leave);
		socket.once("data", (bytes: Buffer) => {
			socket.off("end", leave);
			socket.pause();
			// It may have to wait for its turn.
			holdLittle(socket);
			if (bytes[0] === handshakeRecord) {
				socket.unshift(bytes);
				this.#enqueue(pending);
				return;
			}
			this.counts.notTls += 1;
			this.#end(pending);
			taken.plain(socket);
		});
	}

	/** Closes those that have had their time, and those that waste the gate's. */
	sweep(nowMs: number): void {
		for (const device of this.#overhead.sweep()) {
			this.counts.wasteful += 1;
			// Or the next connection would do the same.
			this.#pacer.exhaust(device, nowMs);
		}
		this.#pacer.sweep(nowMs);
		// The oldest come first.
		for (const pending of this.#pending.values()) {
			if (nowMs - pending.startedAtMs < handshakeTimeoutMs) break;
			this.counts.late += 1;
			this.#end(pending);
			pending.socket.destroy();
		}
	}

	/** Closes all that are not encrypted yet. */
	closeAll(): void {
		for (const { socket } of this.#pending.values()) socket.destroy();
	}

	#enqueue(pending: Pending): void {
		const { device } = pending;
		const ofDevice = this.#underWay.get(device) ?? new Set();
		const isFull = this.#underWayCount >= mostInAll;
		const givesWay = isFull ? this.#oldestOfMost(ofDevice.size) : undefined;
		const waitMs =
			(this.#certificate === undefined && !this.#isComing) ||
			ofDevice.size >= mostOfDevice ||
			(isFull && givesWay === undefined)
				? undefined
				: this.#pacer.take(device, performance.now());
		if (waitMs === undefined) {
			this.#refuse(pending);
			return;
		}
		if (givesWay !== undefined) this.#refuse(givesWay);
		pending.isUnderWay = true;
		this.#underWay.set(device, ofDevice.add(pending));
		this.#underWayCount += 1;
		if (waitMs === 0) this.#makeReady(pending);
		else {
			pending.timer = setTimeout(() => this.#makeReady(pending), waitMs);
			pending.timer.unref();
		}
	}

	/**
	 * What gives way to one of a device that has so many: the oldest of a device
	 * with more. An honest handshake is over long before it is the oldest, even
	 * where as many devices as there are places take one each.
	 */
	#oldestOfMost(ofDevice: number): Pending | undefined {
		let most: ReadonlySet<Pending> | undefined;
		for (const pendings of this.#underWay.values())
			if (pendings.size > (most?.size ?? ofDevice)) most = pendings;
		return most?.values().next().value;
	}

	#refuse(pending: Pending): void {
		this.counts.refused += 1;
		this.#end(pending);
		pending.socket.destroy();
	}

	#makeReady(pending: Pending): void {
		this.#ready.add(pending);
		this.#beginSoon();
	}

	#beginSoon(): void {
		if (this.#isBeginning) return;
		this.#isBeginning = true;
		this.#beginSome();
	}

	#beginSome(): void {
		let begun = 0;
		for (const pending of this.#ready) {
			if (this.#isComing || begun === mostInTurn) break;
			this.#ready.delete(pending);
			const { socket } = pending;
			if (socket.destroyed) continue;
			if (this.#certificate === undefined) {
				this.#refuse(pending);
				continue;
			}
			begun += 1;
			// Or nobody would notice that a client leaves meanwhile.
			socket.allowHalfOpen = false;
			// From here on the system hands what it reads to OpenSSL.
			this.#server?.emit("connection", socket);
		}
		if (this.#isComing || this.#ready.size === 0) this.#isBeginning = false;
		else setImmediate(() => this.#beginSome());
	}

	#finish(socket: TLSSocket): void {
		const id = tupleOf(socket);
		const pending = this.#pending.get(id);
		// Who has gone in this very moment has no address any more.
		if (pending === undefined) return void socket.destroy();
		this.counts.done += 1;
		this.#end(pending);
		// As for plain HTTP, where it is the gate that answers one.
		socket.allowHalfOpen = true;
		const { connection } = pending;
		connection.isEncrypted = true;
		this.#overhead.watch(pending.socket, socket, pending.device);
		pending.taken.encrypted(socket);
	}

	#end(pending: Pending): void {
		if (pending.isEnded) return;
		pending.isEnded = true;
		const { id } = pending;
		if (this.#pending.get(id) === pending) this.#pending.delete(id);
		clearTimeout(pending.timer);
		this.#ready.delete(pending);
		if (!pending.isUnderWay) return;
		const { device } = pending;
		this.#underWayCount -= 1;
		const ofDevice = this.#underWay.get(device);
		ofDevice?.delete(pending);
		if (ofDevice?.size === 0) this.#underWay.delete(device);
	}
}

/** What tells one TCP connection from all others; Node does not say over which one a socket speaks TLS. */
function tupleOf(socket: Socket): string {
	const { remoteAddress, remotePort, localAddress, localPort } = socket;
	return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}
