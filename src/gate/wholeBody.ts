/** A body up to this size is read whole before a connection to Ollama is taken for it. */
export const wholeBodyBytes = 64 * 1024;
/** How much larger the next buffer is, for a body of which nobody knows how long it gets. */
const growth = 8;

/**
 * A body that is read whole. Its pieces are copied together as they come: kept
 * one by one, a piece of one byte would take some 400.
 */
export class WholeBody {
	/** Bytes so far. */
	length = 0;
	readonly #announced: number;
	readonly #limit: number;
	#room: Buffer | undefined;

	/**
	 * @param announced its length in bytes, or Infinity if nobody knows
	 * @param limit its length at the most
	 */
	constructor(announced: number, limit: number) {
		this.#announced = announced;
		this.#limit = limit;
	}

	/** Adds a piece; there may be no more than the limit in all. */
	push(piece: Buffer): void {
		const length = this.length + piece.length;
		// The usual body comes in one piece.
		if (this.#room === undefined && length >= this.#announced)
			this.#room = piece;
		else {
			if (this.#room === undefined || length > this.#room.length)
				this.#grow(length);
			this.#room?.set(piece, this.length);
		}
		this.length = length;
	}

	get bytes(): Buffer {
		return this.#room?.subarray(0, this.length) ?? Buffer.alloc(0);
	}

	/** Gives its memory back at once; nobody else may have it. */
	release(): void {
		free(this.#room);
		this.#room = undefined;
		this.length = 0;
	}

	#grow(length: number): void {
		const before = this.#room;
		const wanted =
			before === undefined && length <= wholeBodyBytes
				? wholeBodyBytes
				: Number.isFinite(this.#announced)
					? this.#announced
					: Math.max(length, growth * (before?.length ?? wholeBodyBytes));
		// The system gives pages of it as they are written to.
		const room = Buffer.allocUnsafeSlow(
			Math.max(length, Math.min(wanted, this.#limit, this.#announced)),
		);
		if (before !== undefined) room.set(before.subarray(0, this.length));
		free(before);
		this.#room = room;
	}
}

/** What is large need not wait for the garbage collector, which does not see how large it is. */
function free(room: Buffer | undefined): void {
	if (room !== undefined && room.length > wholeBodyBytes)
		(room.buffer as ArrayBuffer).transfer(0);
}
