import { dropMemory, dropPiece } from "../net/memory.ts";

/** A body up to this size is read whole before a connection to Ollama is taken for it. */
export const wholeBodyBytes = 64 * 1024;
/** By how much the memory of a larger one grows at a time. */
const growthBytes = 2 ** 20;
/** The addresses that are taken for one of which nobody knows how long it gets: there are not endlessly many. */
const mostBytes = 4 * 2 ** 30;

/**
 * A body that is read whole. Its pieces are copied together as they come: kept
 * one by one, a piece of one byte would take some 400.
 *
 * A large one lies in memory that grows in place. Nothing is copied again, and V8
 * counts what has come and not what was announced; sixty megabytes at once would
 * have it go through its whole heap.
 */
export class WholeBody {
	/** Bytes so far. */
	length = 0;
	/** Its length at the most, in bytes. */
	readonly #most: number;
	/** The only piece, or where short ones are gathered. */
	#short: Buffer | undefined;
	/** Where it lies once it is longer than those. */
	#long: ArrayBuffer | undefined;

	/**
	 * @param announced its length in bytes, or Infinity if nobody knows
	 * @param limit its length at the most
	 */
	constructor(announced: number, limit: number) {
		this.#most = Math.min(announced, limit, mostBytes);
	}

	/**
	 * Makes room for so many bytes in all.
	 *
	 * @returns false where the system has none, or a body may not be so long
	 */
	makeRoom(length: number): boolean {
		if (length > this.#most) return false;
		const isInOnePiece = this.length === 0 && length >= this.#most;
		if (length <= wholeBodyBytes || isInOnePiece) return true;
		try {
			this.#longOf(length);
			return true;
		} catch (error) {
			if (error instanceof RangeError) return false;
			throw error;
		}
	}

	/**
	 * Adds a piece; there may be no more than the limit in all.
	 *
	 * @throws RangeError where `makeRoom` has not been asked, and there is none
	 */
	push(piece: Buffer): void {
		const length = this.length + piece.length;
		// The usual body comes in one piece.
		if (this.length === 0 && length >= this.#most) this.#short = piece;
		else if (length <= wholeBodyBytes) {
			this.#short ??= Buffer.allocUnsafeSlow(
				Math.min(wholeBodyBytes, this.#most),
			);
			this.#short.set(piece, this.length);
		} else new Uint8Array(this.#longOf(length)).set(piece, this.length);
		this.length = length;
	}

	/** Gives back the memory of a piece that was added and that nobody else needs. */
	letGo(piece: Buffer): void {
		if (piece !== this.#short) dropPiece(piece);
	}

	get bytes(): Buffer {
		if (this.#long !== undefined)
			return Buffer.from(this.#long, 0, this.length);
		return this.#short?.subarray(0, this.length) ?? Buffer.alloc(0);
	}

	/** Gives its memory back; nobody else may have it. */
	release(): void {
		if (this.#long !== undefined) dropMemory(this.#long);
		this.#long = undefined;
		this.#short = undefined;
		this.length = 0;
	}

	#longOf(length: number): ArrayBuffer {
		if (this.#long === undefined) {
			// Of what may come only the addresses are taken.
			this.#long = new ArrayBuffer(0, { maxByteLength: this.#most });
			this.#long.resize(Math.min(this.#most, length + growthBytes));
			if (this.#short !== undefined)
				new Uint8Array(this.#long).set(this.#short.subarray(0, this.length));
			this.#short = undefined;
		} else if (length > this.#long.byteLength)
			this.#long.resize(Math.min(this.#most, length + growthBytes));
		return this.#long;
	}
}
