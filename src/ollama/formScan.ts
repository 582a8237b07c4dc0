import { readBoundary, readPartHead } from "./formHead.ts";

/** What a form says of its model, or why it cannot be judged. */
export type FormResult =
	| { readonly kind: "model"; readonly value: string }
	| { readonly kind: "unclear"; readonly message: string };

const maxParts = 100;
/** What a part's head, and the model's name, may have in bytes. */
const maxKeptBytes = 4096;
/** Twice a delimiter of the longest boundary, with the line's end in front of it. */
const maxSeamBytes = 2 * (2 + 2 + 70);
const carriageReturn = 0x0d;
const lineFeed = 0x0a;
const lineEnd = Buffer.from("\r\n");
const headEnd = Buffer.from("\r\n\r\n");

const notParts = "the form must be its parts and nothing else";
const notApart = "the form's parts are not set apart as they should be";
const twoWays = "a part of the form has a head that could be read in two ways";
const notOneModel = 'the form must have exactly one plain field "model"';

/** What comes next: a delimiter at the very start, what follows one, a part's head or its data. */
type Expecting = "start" | "behindDelimiter" | "head" | "data" | "nothing";

/**
 * Reads the field `model` of a multipart form (RFC 7578) as it arrives, and only
 * of one that every reader takes apart alike: plain boundary, plain heads (formHead),
 * no preamble, parts as long as they say, and the boundary nowhere but between
 * them, each time behind a line's end that is neither a head's nor data.
 *
 * Nothing is kept but a part's head and the model's name, and nothing is read
 * behind the first thing that is wrong.
 */
export class FormScan {
	/** Two hyphens and the boundary. */
	readonly #delimiter: Buffer = Buffer.alloc(0);
	#expecting: Expecting = "start";
	#problem: string | undefined;
	#parts = 0;
	#isModel = false;
	#model: string | undefined;
	/** How much data the part has, and how much its head says. */
	#dataBytes = 0;
	#saidBytes: number | undefined;
	/** A delimiter, a head or a model's name, as far as it has come. */
	readonly #kept = Buffer.allocUnsafe(maxKeptBytes);
	#keptBytes = 0;
	/** The last bytes of a part's data, and room for the next piece's first: a delimiter may lie in both. */
	readonly #seam = Buffer.alloc(maxSeamBytes);
	#seamBytes = 0;

	/** @param contentType of the request */
	constructor(contentType: string | undefined) {
		const boundary = readBoundary(contentType);
		if (boundary === undefined)
			this.#refuse(
				"the form's Content-Type must be multipart/form-data with one plain boundary",
			);
		else this.#delimiter = Buffer.from(`--${boundary}`);
	}

	/** Reads the next piece. Returns false once the form is known to be refused. */
	push(piece: Buffer): boolean {
		let at = 0;
		while (at < piece.length && this.#problem === undefined)
			at =
				this.#expecting === "data"
					? this.#readData(piece, at)
					: this.#readMarks(piece, at);
		return this.#problem === undefined;
	}

	/** Ends the form. */
	finish(): FormResult {
		if (this.#problem === undefined && !this.#isWhole()) this.#refuse(notParts);
		if (this.#problem === undefined && this.#model === undefined)
			this.#refuse(notOneModel);
		return this.#problem === undefined && this.#model !== undefined
			? { kind: "model", value: this.#model }
			: { kind: "unclear", message: this.#problem ?? notOneModel };
	}

	#refuse(message: string): void {
		this.#problem ??= message;
	}

	/** The last delimiter has two more hyphens, and at the most a line's end behind them. */
	#isWhole(): boolean {
		if (this.#expecting === "nothing") return true;
		return this.#expecting === "behindDelimiter" && this.#keptText() === "--";
	}

	#keptText(): string {
		return this.#kept.toString("latin1", 0, this.#keptBytes);
	}

	#expect(next: Expecting): void {
		this.#expecting = next;
		this.#keptBytes = 0;
	}

	/** All that is not data is short, and read byte by byte. */
	#readMarks(piece: Buffer, start: number): number {
		for (let at = start; at < piece.length; at++) {
			if (this.#expecting === "nothing" || this.#keptBytes === maxKeptBytes) {
				this.#refuse(
					this.#expecting === "nothing"
						? notParts
						: "a part of the form has a head of more than 4 KiB",
				);
				return at;
			}
			const byte = piece[at] ?? 0;
			this.#kept[this.#keptBytes++] = byte;
			if (this.#expecting === "start") this.#readStart();
			else if (this.#expecting === "behindDelimiter") this.#readBehind();
			else if (byte === lineFeed && this.#endsWith(headEnd)) {
				this.#readHead(this.#kept.toString("latin1", 0, this.#keptBytes - 4));
				this.#expect("data");
				// A delimiter right behind the head, without a line's end of its own, ends an empty part to some readers, and is data to others.
				this.#seamBytes = 0;
				return at + 1;
			}
			if (this.#problem !== undefined) return at;
		}
		return piece.length;
	}

	#readStart(): void {
		const length = this.#keptBytes;
		if (this.#kept[length - 1] !== this.#delimiter[length - 1])
			this.#refuse(notParts);
		else if (length === this.#delimiter.length) this.#expect("behindDelimiter");
	}

	/** Behind a delimiter comes a line's end, or two hyphens and the form's end. */
	#readBehind(): void {
		const text = this.#keptText();
		if (text === "\r\n") {
			this.#parts += 1;
			if (this.#parts > maxParts)
				this.#refuse(`the form has more than ${maxParts} parts`);
			this.#expect("head");
		} else if (text === "--\r\n") this.#expect("nothing");
		else if (!"\r\n".startsWith(text) && !"--\r\n".startsWith(text))
			this.#refuse(notApart);
	}

	#endsWith(end: Buffer): boolean {
		const from = this.#keptBytes - end.length;
		return from >= 0 && end.equals(this.#kept.subarray(from, this.#keptBytes));
	}

	#readHead(head: string): void {
		const part = head.includes(this.#delimiter.toString("latin1"))
			? undefined
			: readPartHead(head);
		if (part === undefined) {
			this.#refuse(twoWays);
			return;
		}
		this.#saidBytes = part.dataBytes;
		this.#dataBytes = 0;
		// To PHP and others `model[0]` is the field `model`.
		const field = part.name.split("[", 1)[0] ?? "";
		this.#isModel = field.trim().toLowerCase() === "model";
		if (!this.#isModel) return;
		if (!part.isPlainText) this.#refuse(twoWays);
		if (part.name !== "model" || part.hasFilename || this.#model !== undefined)
			this.#refuse(notOneModel);
	}

	/** A part's data, up to the next delimiter: megabytes of sound, in a search. */
	#readData(piece: Buffer, start: number): number {
		const delimiter = this.#delimiter;
		const seam = this.#seam;
		const before = this.#seamBytes;
		// One that began in an earlier piece ends within its own length here.
		const joined =
			before +
			piece.copy(
				seam,
				before,
				start,
				start + delimiter.length + lineEnd.length,
			);
		const inSeam = seam.indexOf(delimiter);
		const isInSeam = inSeam !== -1 && inSeam + delimiter.length <= joined;
		const inPiece = isInSeam ? -1 : piece.indexOf(delimiter, start);
		if (!isInSeam && inPiece === -1) {
			this.#keepModel(piece, start, piece.length);
			this.#keepTail(piece, start, joined);
			this.#dataBytes += piece.length - start;
			return piece.length;
		}
		// Before this piece's start where most of it came earlier.
		const found = isInSeam ? start + inSeam - before : inPiece;
		const end = Math.max(start, found);
		this.#keepModel(piece, start, end);
		if (
			this.#byteBefore(piece, start, found - 2) !== carriageReturn ||
			this.#byteBefore(piece, start, found - 1) !== lineFeed
		) {
			this.#refuse(notApart);
			return end;
		}
		this.#checkLength(this.#dataBytes + found - start - lineEnd.length);
		this.#endModel(start - found);
		this.#expect("behindDelimiter");
		return found + delimiter.length;
	}

	/** Keeps as much of the data's end as a delimiter and the line's end in front of it have. */
	#keepTail(piece: Buffer, start: number, joined: number): void {
		const wanted = this.#delimiter.length + lineEnd.length;
		const seam = this.#seam;
		if (piece.length - start >= wanted)
			this.#seamBytes = piece.copy(seam, 0, piece.length - wanted);
		else {
			const from = Math.max(0, joined - wanted);
			seam.copyWithin(0, from, joined);
			this.#seamBytes = joined - from;
		}
	}

	/** A byte of this piece's data, or of what came before it. */
	#byteBefore(piece: Buffer, start: number, at: number): number | undefined {
		return at >= start ? piece[at] : this.#seam[this.#seamBytes - (start - at)];
	}

	#checkLength(dataBytes: number): void {
		const said = this.#saidBytes;
		if (said !== undefined && said !== dataBytes)
			this.#refuse("a part of the form is not as long as its head says");
	}

	#keepModel(piece: Buffer, start: number, end: number): void {
		if (!this.#isModel) return;
		if (this.#keptBytes + end - start > maxKeptBytes)
			this.#refuse("the form's model is not a name that Ollama would take");
		else this.#keptBytes += piece.copy(this.#kept, this.#keptBytes, start, end);
	}

	/** @param early how many bytes of the delimiter have been kept for a part of the name */
	#endModel(early: number): void {
		if (!this.#isModel) return;
		this.#isModel = false;
		const lineEndBytes = lineEnd.length;
		const length = this.#keptBytes - Math.max(0, early) - lineEndBytes;
		this.#model = this.#kept.toString("latin1", 0, Math.max(0, length));
	}
}
