import { backslash, hexOf, letterU, quote, unescaped } from "./jsonTokens.ts";
import { NameReader } from "./watchedNames.ts";

// How far the text of a string has been read.
const unfinished = 0;
export const ended = 1;
export const malformed = 2;
/** No name that matters is so long; the string goes on. */
export const tooLong = 3;

/** Reads a string of which its text is wanted: a key, or a value in a watched map. */
export class EscapedText {
	readonly text = new NameReader();
	state = unfinished;
	/** Behind a backslash, until what it begins is whole. */
	#isEscaping = false;
	/** Digits that are still to come of a `\uXXXX`, and what they say so far. */
	#hexLeft = 0;
	#unit = 0;

	/** A string has begun. */
	begin(): void {
		this.text.clear();
		this.state = unfinished;
		this.#isEscaping = false;
		this.#hexLeft = 0;
	}

	/**
	 * Reads on, and returns the place behind what it has read; `state` says why it ends there.
	 *
	 * @param isKey whether a text that is too long to matter need not be read
	 */
	read(piece: Buffer, start: number, isKey: boolean): number {
		const { text } = this;
		for (let at = start; at < piece.length; at++) {
			const byte = piece[at] ?? 0;
			if (this.#isEscaping) {
				if (!this.#readEscape(byte)) return this.#stop(malformed, at);
			} else if (byte === quote) return this.#stop(ended, at + 1);
			else if (byte === backslash) this.#isEscaping = true;
			else if (byte < 0x20) return this.#stop(malformed, at);
			else if (!text.add(byte) && isKey) return this.#stop(tooLong, at + 1);
		}
		return piece.length;
	}

	/** Reads a byte behind a backslash. Returns whether it may stand there. */
	#readEscape(byte: number): boolean {
		if (this.#hexLeft > 0) {
			const digit = hexOf[byte] ?? -1;
			this.#unit = (this.#unit << 4) | digit;
			this.#hexLeft -= 1;
			if (this.#hexLeft === 0 && digit >= 0) this.text.addUnit(this.#unit);
			this.#isEscaping = this.#hexLeft > 0;
			return digit >= 0;
		}
		if (byte === letterU) {
			this.#hexLeft = 4;
			this.#unit = 0;
			return true;
		}
		this.#isEscaping = false;
		const plain = unescaped[byte] ?? -1;
		if (plain >= 0) this.text.add(plain);
		return plain >= 0;
	}

	#stop(state: number, at: number): number {
		this.state = state;
		return at;
	}
}
