import { dropPiece } from "../net/memory.ts";
import { type Unpacked, unpack } from "../ollama/zstd.ts";
import type { JudgedBodies } from "./judgedBodies.ts";
import { TurnsByKey } from "./turnsByKey.ts";
import { wholeBodyBytes } from "./wholeBody.ts";

/** Of different keys; each holds a window of up to 8 MiB. */
const mostAtOnce = 4;
/** Of one key, beside the one that is under way. */
const mostWaiting = 64;

/**
 * The packed bodies that are unpacked to be read: of one key one at a time, so
 * that others find a place beside it, and of all together a few. The rest wait,
 * the keys by turns.
 */
export class Unpackings {
	readonly #bodies: JudgedBodies;
	/** The keys that have one under way. */
	readonly #underWay = new Set<string>();
	readonly #waiting = new TurnsByKey<() => void>();

	/** @param bodies by whose turns large ones go on */
	constructor(bodies: JudgedBodies) {
		this.#bodies = bodies;
	}

	/**
	 * Unpacks a body when its turn has come. A kilobyte may become megabytes, which
	 * are read by turns with those of other large bodies.
	 *
	 * @param take reads a piece, whose memory is gone after it; false if no more are wanted
	 * @param signal that nobody waits for it any more: it is neither begun nor gone on with
	 * @returns "left" behind the signal, and "too_many" where too many of the key wait already
	 */
	async unpack(
		key: string,
		body: Buffer,
		take: (piece: Buffer) => boolean,
		signal: AbortSignal,
	): Promise<Unpacked | "too_many" | "left"> {
		if (this.#mayGo(key)) this.#underWay.add(key);
		else if (this.#waiting.countOf(key) >= mostWaiting) return "too_many";
		else if (!(await this.#turn(key, signal))) return "left";
		let sizeBytes = 0;
		const read = (piece: Buffer) => {
			sizeBytes += piece.length;
			const isLarge = sizeBytes > wholeBodyBytes;
			return isLarge ? this.#inTurn(key, piece, take) : take(piece);
		};
		try {
			const end = await unpack(body, read, signal);
			return signal.aborted ? "left" : end;
		} finally {
			this.#underWay.delete(key);
			this.#waiting.next((other) => this.#mayGo(other))?.();
		}
	}

	#mayGo(key: string): boolean {
		return this.#underWay.size < mostAtOnce && !this.#underWay.has(key);
	}

	/** Resolves when its turn has come; false if it is wanted no more by then. */
	#turn(key: string, signal: AbortSignal): Promise<boolean> {
		const { promise, resolve } = Promise.withResolvers<boolean>();
		const go = () => {
			this.#underWay.add(key);
			resolve(true);
		};
		this.#waiting.add(key, go);
		signal.addEventListener("abort", () => {
			if (this.#waiting.drop(key, go)) resolve(false);
		});
		return promise;
	}

	#inTurn(
		key: string,
		piece: Buffer,
		take: (piece: Buffer) => boolean,
	): Promise<boolean> {
		const { promise, resolve } = Promise.withResolvers<boolean>();
		let wantsMore = false;
		const judge = () => {
			wantsMore = take(piece);
			dropPiece(piece);
		};
		const go = () => resolve(wantsMore);
		this.#bodies.inTurn(key, piece.length, judge, go);
		return promise;
	}
}
