/** The longest list of models that is filtered. */
const maxListBytes = 16 * 2 ** 20;

/** A reply that waits for its end: a list, or what may yet turn out to be an error. */
export class HeldReply {
	readonly status: number;
	/** Names and values in turn. */
	readonly headers: readonly string[];
	readonly #chunks: Buffer[] = [];
	#sizeBytes = 0;

	constructor(status: number, headers: readonly string[]) {
		this.status = status;
		this.headers = headers;
	}

	get whole(): Buffer {
		return Buffer.concat(this.#chunks);
	}

	/** Keeps a copy of a piece. Returns false if there is more than any list has. */
	push(buffer: Buffer, start: number, end: number): boolean {
		this.#chunks.push(Buffer.from(buffer.subarray(start, end)));
		this.#sizeBytes += end - start;
		return this.#sizeBytes <= maxListBytes;
	}
}
