import {
	classOf,
	close,
	closeBrace,
	colon,
	comma,
	endOfLiteral,
	endOfName,
	endOfNumber,
	endOfString,
	letter,
	numeral,
	open,
	openBrace,
	other,
	quotes,
	space,
} from "./jsonTokens.ts";
import type { NameTable } from "./watchedNames.ts";

/**
 * Crosses JSON that nobody wants. Hostile bodies have a token every other byte,
 * so this is a function of its own over plain properties: V8 gives the code of a
 * long loop up, again and again, over a private name behind it.
 */

// What may come next.
export const value = 0;
export const valueOrEnd = 1;
export const keyOrEnd = 2;
export const key = 3;
export const aColon = 4;
export const commaOrEnd = 5;
export const nothing = 6;

/** As deep as Go reads (encoding/json/scanner.go:maxNestingDepth). */
export const maxDepth = 10_000;

/** Within what a scan is, and what may come next there. */
export class Nesting {
	expecting = value;
	/** Open containers. */
	depth = 0;
	/** From this depth on, nothing that matters can stand. */
	floor = maxDepth + 1;
	/** What follows a comma in the innermost. */
	afterComma = value;
	/** For each container whether it is an object. */
	objects = new Uint8Array(64);

	/** Makes ready for another text. */
	reset(): void {
		this.expecting = value;
		this.depth = 0;
		this.floor = maxDepth + 1;
		this.afterComma = value;
	}

	/** Goes a level deeper; there must be one. */
	enter(isObject: boolean): void {
		const { depth } = this;
		if (depth >= this.objects.length) {
			const grown = new Uint8Array(maxDepth);
			grown.set(this.objects);
			this.objects = grown;
		}
		this.objects[depth] = isObject ? 1 : 0;
		this.depth = depth + 1;
		this.expecting = isObject ? keyOrEnd : valueOrEnd;
		this.afterComma = isObject ? key : value;
	}

	/** Whether the innermost may end here, by this kind of mark. */
	mayLeave(isObject: boolean): boolean {
		return (
			this.depth > 0 &&
			this.objects[this.depth - 1] === (isObject ? 1 : 0) &&
			(this.expecting === commaOrEnd ||
				this.expecting === (isObject ? keyOrEnd : valueOrEnd))
		);
	}

	/** Goes back a level. */
	leave(): void {
		this.depth -= 1;
		if (this.depth < this.floor) this.floor = maxDepth + 1;
		this.afterComma = this.objects[this.depth - 1] === 1 ? key : value;
		this.expecting = this.depth === 0 ? nothing : commaOrEnd;
	}
}

/**
 * Reads on between tokens, over those that are plain and lie whole in this piece.
 *
 * @param isPlain whether the value that comes next, if one does, is not wanted
 * @param names that matter as keys here; `undefined` if none does
 * @returns where something is that has to be looked at, or the piece's end
 */
export function crossPlain(
	piece: Buffer,
	start: number,
	nesting: Nesting,
	isPlain: boolean,
	names: NameTable | undefined,
): number {
	const { floor } = nesting;
	const end = piece.length;
	let { expecting } = nesting;
	let at = start;
	while (at < end) {
		const byte = piece[at] ?? 0;
		const kind = classOf[byte] ?? other;
		if (kind === space) {
			at += 1;
			continue;
		}
		if (kind === comma && expecting === commaOrEnd) {
			expecting = nesting.afterComma;
			at += 1;
			continue;
		}
		if (kind === colon && expecting === aColon) {
			expecting = value;
			at += 1;
			continue;
		}
		if (!isPlain) break;
		if (expecting <= valueOrEnd) {
			let next = -1;
			if (kind === quotes) next = endOfString(piece, at);
			else if (kind === numeral) next = endOfNumber(piece, at);
			else if (kind === letter) next = endOfLiteral(piece, at);
			if (next !== -1) {
				expecting = commaOrEnd;
				at = next;
				continue;
			}
		} else if (kind === quotes && expecting <= key) {
			const next = endOfName(piece, at, names);
			if (next === -1) break;
			expecting = aColon;
			at = next;
			continue;
		}
		nesting.expecting = expecting;
		if (
			kind === open &&
			expecting <= valueOrEnd &&
			nesting.depth >= floor &&
			nesting.depth < maxDepth
		)
			nesting.enter(byte === openBrace);
		else if (
			kind === close &&
			nesting.depth > floor &&
			nesting.mayLeave(byte === closeBrace)
		)
			nesting.leave();
		else break;
		({ expecting } = nesting);
		at += 1;
	}
	nesting.expecting = expecting;
	return at;
}
