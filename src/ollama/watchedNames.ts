/**
 * Which names of a JSON body matter, and how a name in it is told to be one of
 * them: as Go would, and without making a string of each that is none.
 */

/** What a scan looks for; all names are lower-case ASCII. */
export interface Watched {
	/** Fields at the top, whose value is wanted if it is not an object or list. */
	readonly fields: readonly string[];
	/** Fields at the top of which matters only that they hold an object or a list. */
	readonly containers?: readonly string[];
	/** Keys of the map `options`. */
	readonly options?: readonly string[];
	/** Fields at the top that hold maps of which every value is wanted: `files`. */
	readonly maps?: readonly string[];
	/** What a `type` in the list `tools` may not begin with. */
	readonly toolTypes?: readonly string[];
}

/** A name that matters. */
export interface WatchedName {
	readonly name: string;
	/** Under which a scan reports its value: `model`, `options.num_ctx`. */
	readonly field: string;
	readonly bytes: Uint8Array;
}

/** A name of twice the longest that matters, digests included, is none of them. */
const maxNameBytes = 144;

const letterS = 0x73;
const letterK = 0x6b;
const bytesOf = (text: string) => new Uint8Array(Buffer.from(text));

/** Names by their length, which rules most others out at once. */
export class NameTable {
	readonly #byLength: (WatchedName[] | undefined)[] = [];

	/** @param prefix of the field that a name is reported under */
	constructor(names: Iterable<string>, prefix = "") {
		for (const name of new Set(names)) {
			this.#byLength[name.length] ??= [];
			this.#byLength[name.length]?.push({
				name,
				field: prefix + name,
				bytes: bytesOf(name),
			});
		}
	}

	/** Whether these bytes, plain ASCII, could be taken for one of the names. */
	couldHave(bytes: Uint8Array, start: number, end: number): boolean {
		const candidates = this.#byLength[end - start];
		if (candidates === undefined) return false;
		for (const candidate of candidates) {
			let at = start;
			while (
				at < end &&
				foldAscii(bytes[at] ?? 0) === candidate.bytes[at - start]
			)
				at += 1;
			if (at === end) return true;
		}
		return false;
	}

	/** The name that these bytes are, to the letter. */
	find(bytes: Uint8Array, length: number): WatchedName | undefined {
		const candidates = this.#byLength[length];
		if (candidates === undefined) return undefined;
		for (const candidate of candidates)
			if (isSame(candidate.bytes, bytes, length)) return candidate;
		return undefined;
	}
}

class AnyName extends NameTable {
	override couldHave(): boolean {
		return true;
	}
}

/** Where every name matters. */
export const anyName: NameTable = new AnyName([]);

function foldAscii(byte: number): number {
	return byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte;
}

function isSame(name: Uint8Array, bytes: Uint8Array, length: number): boolean {
	for (let at = 0; at < length; at++) if (name[at] !== bytes[at]) return false;
	return true;
}

/** Where a name is folded, one at a time. */
const foldedName = new Uint8Array(maxNameBytes);

/** Reads one name of a body, byte by byte and in whatever pieces, unescaped. */
export class NameReader {
	// Out of Node's pool; memory of its own is an allocation that costs more than most bodies' reading.
	readonly #bytes = Buffer.allocUnsafe(maxNameBytes);
	#length = 0;
	#isTooLong = false;

	/** Begins the next name. */
	clear(): void {
		this.#length = 0;
		this.#isTooLong = false;
	}

	/** The next byte of UTF-8. Returns whether it may still be a name that matters. */
	add(byte: number): boolean {
		if (this.#length < maxNameBytes) this.#bytes[this.#length++] = byte;
		else this.#isTooLong = true;
		return !this.#isTooLong;
	}

	/** A code unit that was written as `\uXXXX`. Half of a pair is nothing that matters. */
	addUnit(unit: number): void {
		if (unit < 0x80) this.add(unit);
		else if (unit < 0x800) {
			this.add(0xc0 | (unit >> 6));
			this.add(0x80 | (unit & 0x3f));
		} else {
			const isHalf = unit >= 0xd800 && unit < 0xe000;
			const shown = isHalf ? 0xfffd : unit;
			this.add(0xe0 | (shown >> 12));
			this.add(0x80 | ((shown >> 6) & 0x3f));
			this.add(0x80 | (shown & 0x3f));
		}
	}

	/** What was read; empty for what is too long to be any name that matters. */
	get text(): string {
		return this.#isTooLong
			? ""
			: Buffer.from(this.#bytes.subarray(0, this.#length)).toString("utf8");
	}

	/** The name that this is to the letter, as the key of a map is. */
	findIn(table: NameTable): WatchedName | undefined {
		return this.#isTooLong ? undefined : table.find(this.#bytes, this.#length);
	}

	/**
	 * The name that Go takes this for as the field of a struct
	 * (encoding/json/fold.go): letters fold to one case, and two beyond ASCII fold
	 * into it, the long s and the Kelvin sign.
	 */
	findFolded(table: NameTable): WatchedName | undefined {
		if (this.#isTooLong) return undefined;
		const bytes = this.#bytes;
		// Most are spelt as they are documented.
		const exact = table.find(bytes, this.#length);
		if (exact !== undefined) return exact;
		let length = 0;
		for (let at = 0; at < this.#length; at++) {
			const byte = bytes[at] ?? 0;
			let folded = foldAscii(byte);
			if (byte >= 0x80) {
				if (byte === 0xc5 && bytes[at + 1] === 0xbf) {
					folded = letterS;
					at += 1;
				} else if (
					byte === 0xe2 &&
					bytes[at + 1] === 0x84 &&
					bytes[at + 2] === 0xaa
				) {
					folded = letterK;
					at += 2;
				} else return undefined;
			}
			foldedName[length++] = folded;
		}
		return table.find(foldedName, length);
	}

	/** Whether this is written as the name is, not only taken for it. */
	isExactly({ bytes }: WatchedName): boolean {
		return (
			this.#length === bytes.length && isSame(bytes, this.#bytes, this.#length)
		);
	}

	/** Whether it begins with one of these, in whatever case, blanks in front left out. */
	beginsWith(prefixes: readonly Uint8Array[]): boolean {
		let from = 0;
		while (from < this.#length && (this.#bytes[from] ?? 0) <= 0x20) from += 1;
		for (const prefix of prefixes) {
			let at = 0;
			while (
				at < prefix.length &&
				from + at < this.#length &&
				foldAscii(this.#bytes[from + at] ?? 0) === prefix[at]
			)
				at += 1;
			if (at === prefix.length) return true;
		}
		return false;
	}
}

/** `Watched`, prepared once for every body that it is looked for in. */
export class WatchList {
	readonly fields: NameTable;
	readonly containers: ReadonlySet<string>;
	readonly options: NameTable;
	readonly maps: ReadonlySet<string>;
	readonly toolTypes: readonly Uint8Array[];
	readonly toolFields = new NameTable(["type"]);

	constructor({
		fields,
		containers = [],
		options = [],
		maps = [],
		toolTypes = [],
	}: Watched) {
		const places = [
			...(options.length > 0 ? ["options"] : []),
			...(toolTypes.length > 0 ? ["tools"] : []),
		];
		this.fields = new NameTable([...fields, ...containers, ...maps, ...places]);
		this.containers = new Set(containers);
		this.options = new NameTable(options, "options.");
		this.maps = new Set(maps);
		this.toolTypes = toolTypes.map(bytesOf);
	}
}
