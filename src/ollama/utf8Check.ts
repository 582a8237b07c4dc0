import { isUtf8 } from "node:buffer";

/** Tells whether bytes that come in pieces are UTF-8. A piece may end within a character. */
export class Utf8Check {
	/** Bytes of a character that a piece was cut in, three at the most. */
	#rest: Buffer | undefined;

	/** Whether the next piece goes on as UTF-8. */
	accepts(piece: Buffer): boolean {
		const whole =
			this.#rest === undefined ? piece : Buffer.concat([this.#rest, piece]);
		let end = whole.length;
		for (let back = 1; back <= Math.min(3, whole.length); back++) {
			const byte = whole[whole.length - back] ?? 0;
			if (byte < 0x80) break;
			if (byte >= 0xc0) {
				const needed = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
				if (needed > back) end = whole.length - back;
				break;
			}
		}
		const isLegal = isUtf8(
			end === whole.length ? whole : whole.subarray(0, end),
		);
		this.#rest =
			end === whole.length ? undefined : Buffer.from(whole.subarray(end));
		return isLegal;
	}

	/** Whether the last piece ended with a whole character. */
	get isWhole(): boolean {
		return this.#rest === undefined;
	}

	/** Makes ready for other bytes. */
	reset(): void {
		this.#rest = undefined;
	}
}
