import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { readOn, stopParsing, watchPieces } from "./connection.ts";
import { whenInTurn } from "./pipelined.ts";

/**
 * A client that was refused may still be sending, and closed with bytes unread
 * its connection would be reset, and the answer lost (RFC 9112, 9.6). So the gate
 * reads on for a while and throws away what comes, no faster than here.
 */
interface Patience {
	/** Without a byte. */
	readonly silenceMs: number;
	/** In all, from the answer on. */
	readonly totalMs: number;
	/** How many connections of one owner are read this fast at once. */
	readonly most: number;
	/** What is read between two breaths: a read costs the same for a byte. */
	readonly bytesPerBreath: number;
	readonly readsPerBreath: number;
}

const strangers: Patience = {
	silenceMs: 3_000,
	totalMs: 3_000,
	most: 4,
	bytesPerBreath: 256 * 1024,
	readsPerBreath: 8,
};
/** As nginx's lingering_timeout and lingering_time. */
const keyHolders: Patience = {
	silenceMs: 5_000,
	totalMs: 30_000,
	most: 8,
	bytesPerBreath: 1024 * 1024,
	readsPerBreath: 24,
};
/** The pause between two reads, and that of those beyond the number that are read fast. */
const breathMs = 25;
const longBreathMs = 250;
/** How many are read fast at once, no matter whose they are. */
const mostInAll = 32;

/** A property of the socket, as its connection is. */
const lingers = Symbol("lingers");
type LingeringSocket = Socket & { [lingers]?: true };

export function isLingering(socket: Socket): boolean {
	return (socket as LingeringSocket)[lingers] === true;
}

const fastOf = new Map<string, number>();
let fastInAll = 0;

/**
 * Stops reading what a connection sends as HTTP. What comes is dropped, at a
 * bounded pace, until the connection is closed: `endLingering` is what does that
 * in the end, also where Node would close it behind its last reply.
 *
 * @param owner the key's name or the address, by whose share it is read
 */
export function linger(socket: Socket, owner: string, isKnown: boolean): void {
	if (isLingering(socket)) return;
	(socket as LingeringSocket)[lingers] = true;
	const patience = isKnown ? keyHolders : strangers;
	const isFast =
		fastInAll < mostInAll && (fastOf.get(owner) ?? 0) < patience.most;
	if (isFast) {
		fastInAll += 1;
		fastOf.set(owner, (fastOf.get(owner) ?? 0) + 1);
	}
	let bytesInBreath = 0;
	let readsInBreath = 0;
	let breath: NodeJS.Timeout | undefined;
	const rest = () => {
		breath = setTimeout(
			() => {
				breath = undefined;
				bytesInBreath = 0;
				readsInBreath = 0;
				readOn(socket);
			},
			isFast ? breathMs : longBreathMs,
		);
	};
	let silence: NodeJS.Timeout | undefined;
	stopParsing(socket, (bytes) => {
		silence?.refresh();
		bytesInBreath += bytes.length;
		readsInBreath += 1;
		if (
			breath === undefined &&
			(!isFast ||
				readsInBreath >= patience.readsPerBreath ||
				bytesInBreath >= patience.bytesPerBreath)
		)
			rest();
		return breath === undefined;
	});
	rest();
	let total: NodeJS.Timeout | undefined;
	const destroy = () => void socket.destroy();
	// What Node calls when the last reply has left; it would close at once.
	socket.destroySoon = () => {
		if (total !== undefined || socket.destroyed) return;
		socket.end();
		total = setTimeout(destroy, patience.totalMs).unref();
		silence = setTimeout(destroy, patience.silenceMs).unref();
	};
	socket.once("close", () => {
		clearTimeout(breath);
		clearTimeout(total);
		clearTimeout(silence);
		if (!isFast) return;
		fastInAll -= 1;
		const left = (fastOf.get(owner) ?? 1) - 1;
		if (left > 0) fastOf.set(owner, left);
		else fastOf.delete(owner);
	});
}

/**
 * Has the rest of a body that nobody wants read once in each breath. The system
 * gathers meanwhile what comes in many packets, so that a client that sends them
 * one by one costs no more than one that does not.
 */
export function readInBreaths(req: IncomingMessage): void {
	const { socket } = req;
	let breath: NodeJS.Timeout | undefined;
	const goOn = () => {
		clearTimeout(breath);
		breath = undefined;
		socket.resume();
	};
	const stopWatching = watchPieces(socket, () => {
		// The next request may come in the same packet.
		if (req.complete) return true;
		if (breath === undefined) {
			socket.pause();
			breath = setTimeout(goOn, breathMs);
		}
		// Handed on, Node would have more of it read at once.
		return false;
	});
	// A connection that breaks off gives its parser to another: nothing may stay on it.
	const stop = () => {
		socket.off("close", stop);
		stopWatching();
		if (breath !== undefined) goOn();
	};
	req.once("end", stop);
	socket.once("close", stop);
}

/**
 * Closes the connection of a request that has been answered and whose body does not
 * come to its end, with the same patience, from the reply's turn on. It is read as
 * HTTP all the while, so that one that does come whole leaves the connection to the
 * next request.
 */
export function closeUnlessComplete(
	req: IncomingMessage,
	res: ServerResponse,
	isKnown: boolean,
): void {
	if (req.complete || req.destroyed || isLingering(req.socket)) return;
	if (!isKnown) readInBreaths(req);
	const patience = isKnown ? keyHolders : strangers;
	whenInTurn(res, () => closeUnlessMoving(req, patience));
}

/** Looks now and then whether something has come, so that no piece costs a timer. */
function closeUnlessMoving(
	req: IncomingMessage,
	{ silenceMs, totalMs }: Patience,
): void {
	const { socket } = req;
	let { bytesRead } = socket;
	let leftMs = totalMs;
	const timer = setInterval(() => {
		leftMs -= silenceMs;
		const isOver = req.complete || isLingering(socket);
		if (!isOver && leftMs > 0 && socket.bytesRead > bytesRead) {
			bytesRead = socket.bytesRead;
			return;
		}
		clearInterval(timer);
		if (!isOver) socket.destroy();
	}, silenceMs);
	timer.unref();
	req.once("close", () => clearInterval(timer));
}
