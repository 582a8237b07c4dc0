/** A piece of a body that is smaller goes on with others: each write costs as much as one of some thousand bytes. */
const smallPieceBytes = 1024;
const mostSmallPieces = 1000;

/** Small pieces of a body on their way to Ollama: all that come in one turn of the event loop go on as one. */
export class SmallPieces {
	readonly #send: (pieces: Buffer) => void;
	#pieces: Buffer[] = [];

	constructor(send: (pieces: Buffer) => void) {
		this.#send = send;
	}

	/** Keeps a piece until the event loop's next turn, or until there are many. A large one goes on at once, behind what was kept. */
	push(piece: Buffer): void {
		if (piece.length >= smallPieceBytes) {
			this.flush();
			this.#send(piece);
			return;
		}
		if (this.#pieces.length === 0) setImmediate(() => this.flush());
		this.#pieces.push(piece);
		if (this.#pieces.length >= mostSmallPieces) this.flush();
	}

	/** Sends what is kept. */
	flush(): void {
		if (this.#pieces.length === 0) return;
		const pieces = Buffer.concat(this.#pieces);
		this.#pieces = [];
		this.#send(pieces);
	}
}
