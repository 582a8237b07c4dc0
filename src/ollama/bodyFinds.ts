import {
	anyName,
	type NameReader,
	type NameTable,
	type WatchedName,
	type WatchList,
} from "./watchedNames.ts";

/** A value that is at the top of a body, or in its `options`. */
export type Scalar = string | number | boolean | null;

/** What was found by name. There are few, so that a map would cost more: it makes its table anew for each body. */
export class Fields {
	readonly #names: string[] = [];
	readonly #values: (Scalar | undefined)[] = [];
	#size = 0;

	has(name: string): boolean {
		return this.#indexOf(name) !== -1;
	}

	/** A value; `undefined` for an object or a list, and where there is none. */
	get(name: string): Scalar | undefined {
		const at = this.#indexOf(name);
		return at === -1 ? undefined : this.#values[at];
	}

	set(name: string, value: Scalar | undefined): void {
		let at = this.#indexOf(name);
		if (at === -1) at = this.#size++;
		this.#names[at] = name;
		this.#values[at] = value;
	}

	clear(): void {
		this.#size = 0;
	}

	*[Symbol.iterator](): Generator<[string, Scalar | undefined]> {
		for (let at = 0; at < this.#size; at++)
			yield [this.#names[at] ?? "", this.#values[at]];
	}

	#indexOf(name: string): number {
		for (let at = 0; at < this.#size; at++)
			if (this.#names[at] === name) return at;
		return -1;
	}
}

/** What a scan found in a body that can be judged. */
export interface Found {
	/** `model`, `options.num_ctx`; an object or a list is `undefined` here. */
	readonly fields: Fields;
	/** The values in the watched maps; what is not a string, or too long, is empty here. */
	readonly mapped: readonly string[];
	/** The first tool whose type begins with a watched one. */
	readonly toolType: string | undefined;
}

const maxScalarBytes = 4096;
/** A text of so many bytes is remembered: the next body mostly names the same model. */
const maxKnownBytes = 128;
/** Values that the watched maps may have together. */
const maxMapped = 1024;

// Where a container is, as far as that matters.
const elsewhere = 0;
const atTop = 1;
const inOptions = 2;
const inMap = 3;
const inTools = 4;
const inTool = 5;

/** Deeper in, all is elsewhere: the top, `tools`, one of them. */
const maxPlaces = 4;

// Why a value is wanted.
export const unwanted = 0;
const asField = 1;
const asMapped = 2;
const asToolType = 3;
const asContainer = 4;

/** What is wrong with a body for what was found in it; `undefined` if nothing is. */
type Problem = string | undefined;

/**
 * What a scan looks for in a JSON body, where it is as far as that matters, and
 * what it has found. The scan reads tokens and tells of each here.
 *
 * What a scan asks for each token is a plain property, for the reason that
 * `plainJson.ts` gives.
 */
export class BodyFinds {
	readonly #watched: WatchList;
	readonly fields = new Fields();
	readonly mapped: string[] = [];
	toolType: string | undefined;

	/** The place of the innermost container. */
	place = elsewhere;
	/** Those of the ones around it that can be anywhere but elsewhere. */
	readonly #places = new Uint8Array(maxPlaces);

	/** Why the value that comes next is wanted. */
	wanted = unwanted;
	/** The field whose value comes next, if it is a watched one. */
	#field: WatchedName | undefined;
	/** The bytes of a watched value, as they stand in the body; they begin at `#rawStart`. */
	#raw: Buffer | undefined;
	#rawStart = 0;
	#rawBytes = 0;
	/** For values that do not stand whole in one piece. */
	#gathered: Buffer | undefined;
	/** The last text of a field that was plain, and its bytes. */
	#knownText = "";
	readonly #known = new Uint8Array(maxKnownBytes);
	#knownBytes = -1;

	constructor(watched: WatchList) {
		this.#watched = watched;
	}

	/** Makes ready for another body. */
	reset(): void {
		this.fields.clear();
		this.mapped.length = 0;
		this.toolType = undefined;
		this.place = elsewhere;
		this.#field = undefined;
		this.wanted = unwanted;
	}

	/** Whether nothing that matters can be in the innermost container. */
	get isElsewhere(): boolean {
		return this.place === elsewhere;
	}

	/** The names that matter as keys here; `undefined` where none does. */
	get names(): NameTable | undefined {
		switch (this.place) {
			case elsewhere:
				return undefined;
			case atTop:
				return this.#watched.fields;
			case inOptions:
				return this.#watched.options;
			case inTool:
				return this.#watched.toolFields;
			case inMap:
				return anyName;
			default:
				return undefined;
		}
	}

	/** A container opens within `depth` others. */
	enter(isObject: boolean, depth: number): Problem {
		let place = elsewhere;
		let problem: Problem;
		if (this.place !== elsewhere || depth === 0) {
			place = this.#placeInside(isObject, depth);
			problem = this.#noteContainer();
		}
		this.place = place;
		if (depth + 1 < maxPlaces) this.#places[depth + 1] = place;
		return problem;
	}

	/** A container has ended; `depth` are open still. */
	leave(depth: number, floor: number): void {
		this.place =
			depth >= floor ? elsewhere : (this.#places[depth] ?? elsewhere);
	}

	/** The place of a container that opens here. */
	#placeInside(isObject: boolean, depth: number): number {
		if (depth === 0) return atTop;
		if (this.place === inTools && isObject) return inTool;
		if (this.place !== atTop || this.#field === undefined) return elsewhere;
		const { name } = this.#field;
		if (name === "options") return isObject ? inOptions : elsewhere;
		if (name === "tools") return isObject ? elsewhere : inTools;
		return isObject && this.#watched.maps.has(name) ? inMap : elsewhere;
	}

	/** A wanted value turns out to be an object or a list. */
	#noteContainer(): Problem {
		let problem: Problem;
		if (
			(this.wanted === asField || this.wanted === asContainer) &&
			this.#field !== undefined
		)
			this.fields.set(this.#field.field, undefined);
		else if (this.wanted === asMapped) problem = this.#noteMapped("");
		this.#field = undefined;
		this.wanted = unwanted;
		return problem;
	}

	/** A key begins. Returns whether its name could matter. */
	beginKey(): boolean {
		this.wanted = this.place === inMap ? asMapped : unwanted;
		return (
			this.place === atTop || this.place === inOptions || this.place === inTool
		);
	}

	/** A key that could matter has come to its end. */
	endKey(name: NameReader): Problem {
		if (this.place === inTool) {
			// By whatever spelling, and each of several: any of them counts.
			if (name.findFolded(this.#watched.toolFields) !== undefined)
				this.wanted = asToolType;
			return undefined;
		}
		const found =
			this.place === inOptions
				? name.findIn(this.#watched.options)
				: name.findFolded(this.#watched.fields);
		if (found === undefined) return undefined;
		this.#field = found;
		this.wanted = this.#watched.containers.has(found.name)
			? asContainer
			: asField;
		if (!name.isExactly(found))
			return `the body has ${JSON.stringify(name.text)}, which Ollama takes for "${found.name}"; write it as that`;
		return this.fields.has(found.field)
			? `the body has "${found.field}" twice`
			: undefined;
	}

	/** Whether only the text is wanted of the string that begins; else its bytes are kept. */
	beginString(): boolean {
		// A prompt may be long, and nothing of it is wanted.
		if (this.wanted === asContainer) {
			this.#field = undefined;
			this.wanted = unwanted;
		}
		if (this.wanted > asField) return true;
		this.#rawBytes = 0;
		return false;
	}

	/** A string of which only the text was wanted has come to its end. */
	endText(text: NameReader): Problem {
		let problem: Problem;
		if (this.wanted === asMapped) problem = this.#noteMapped(text.text);
		else if (text.beginsWith(this.#watched.toolTypes))
			this.toolType ??= text.text;
		this.wanted = unwanted;
		return problem;
	}

	/** The first byte of a number or a literal has been read: it says which it is. */
	beginRaw(byte: number): void {
		if (this.wanted !== asField) return;
		this.#gathered ??= Buffer.allocUnsafe(256);
		this.#gathered[0] = byte;
		this.#raw = this.#gathered;
		this.#rawStart = 0;
		this.#rawBytes = 1;
	}

	/** More bytes of a value. */
	keep(piece: Buffer, start: number, end: number): void {
		if (this.wanted !== asField) return;
		const before = this.#rawBytes;
		this.#rawBytes += end - start;
		// Too long to be a value that matters; its end is still looked for.
		if (this.#rawBytes > maxScalarBytes) return;
		if (
			this.#gathered === undefined ||
			this.#gathered.length < this.#rawBytes
		) {
			const grown = Buffer.allocUnsafe(Math.max(256, 2 * this.#rawBytes));
			this.#gathered?.copy(grown, 0, 0, before);
			this.#gathered = grown;
		}
		piece.copy(this.#gathered, before, start, end);
		this.#raw = this.#gathered;
		this.#rawStart = 0;
	}

	/** The last bytes of a string; `endValue` follows, so that one that stands in one piece need not be copied. */
	keepLast(piece: Buffer, start: number, end: number): void {
		if (this.wanted !== asField) return;
		if (this.#rawBytes > 0) {
			this.keep(piece, start, end);
			return;
		}
		this.#raw = piece;
		this.#rawStart = start;
		this.#rawBytes = end - start;
	}

	/** A value that is wanted has come to its end; what was kept of it is between these marks. */
	endValue(mark: "" | '"'): Problem {
		let problem: Problem;
		if (this.wanted === asMapped) problem = this.#noteMapped("");
		else if (this.wanted === asField && this.#field !== undefined)
			problem = this.#noteField(this.#field, mark);
		this.#field = undefined;
		this.wanted = unwanted;
		return problem;
	}

	#noteField({ field }: WatchedName, mark: "" | '"'): Problem {
		const scalar =
			this.#rawBytes > maxScalarBytes ? undefined : this.#scalarOf(mark);
		// It may be a piece of somebody's body.
		this.#raw = undefined;
		if (scalar === undefined) return `the body's "${field}" cannot be read`;
		this.fields.set(field, scalar);
		return undefined;
	}

	#scalarOf(mark: "" | '"'): Scalar | undefined {
		if (mark === '"' && this.#isKnown()) return this.#knownText;
		const text =
			this.#raw?.toString(
				"utf8",
				this.#rawStart,
				this.#rawStart + this.#rawBytes,
			) ?? "";
		if (mark !== '"' || escapedOrControl.test(text))
			return parseScalar(mark + text + mark);
		if (this.#raw !== undefined && this.#rawBytes <= maxKnownBytes) {
			this.#knownText = text;
			this.#knownBytes = this.#rawBytes;
			for (let at = 0; at < this.#rawBytes; at++)
				this.#known[at] = this.#raw[this.#rawStart + at] ?? 0;
		}
		return text;
	}

	/** Whether it is the text that was read before it, byte for byte. */
	#isKnown(): boolean {
		if (this.#rawBytes !== this.#knownBytes) return false;
		for (let at = 0; at < this.#knownBytes; at++)
			if (this.#known[at] !== this.#raw?.[this.#rawStart + at]) return false;
		return true;
	}

	#noteMapped(text: string): Problem {
		if (this.mapped.length >= maxMapped)
			return `the body names more than ${maxMapped} files`;
		this.mapped.push(text);
		return undefined;
	}
}

/** What in a string is not what it looks like, or may not be there (RFC 8259, 7). */
// biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is looked for
const escapedOrControl = /[\\\u0000-\u001f]/;

function parseScalar(text: string): Scalar | undefined {
	try {
		return JSON.parse(text) as Scalar;
	} catch {
		return undefined;
	}
}
