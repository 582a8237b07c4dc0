import { stripVTControlCharacters } from "node:util";

// ECMA-48 and xterm's private modes: another page for as long as it lasts, no cursor, no wrapping.
const enter = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const leave = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const home = "\x1b[H";
const clearLine = "\x1b[K";
const clearBelow = "\x1b[J";
/** Ctrl-C, Ctrl-D, q. */
const endKeys = ["\x03", "\x04", "q", "Q"];

type Output = Pick<
	NodeJS.WriteStream,
	"write" | "rows" | "columns" | "on" | "off"
>;
type Input = Pick<
	NodeJS.ReadStream,
	"isTTY" | "setRawMode" | "on" | "off" | "resume" | "pause"
>;

/**
 * The whole terminal, for what is drawn anew again and again. What stood there
 * before is back when it is closed.
 */
export class Screen {
	readonly #output: Output;
	readonly #input: Input;
	readonly #wantsEnd: () => void;
	#lines: readonly string[] = [];
	#isOpen = false;

	/** @param wantsEnd called for Ctrl-C, q and a signal */
	constructor(output: Output, input: Input, wantsEnd: () => void) {
		this.#output = output;
		this.#input = input;
		this.#wantsEnd = wantsEnd;
	}

	open(): void {
		this.#isOpen = true;
		this.#output.write(enter);
		this.#output.on("resize", this.#paint);
		for (const signal of signals) process.on(signal, this.#wantsEnd);
		if (!this.#input.isTTY) return;
		// Or what is typed would stand in the picture.
		this.#input.setRawMode(true);
		this.#input.on("data", this.#read);
		this.#input.resume();
	}

	/** Shows these lines, as many and as much of them as there is room for. */
	draw(lines: readonly string[]): void {
		this.#lines = lines;
		this.#paint();
	}

	close(): void {
		if (!this.#isOpen) return;
		this.#isOpen = false;
		this.#output.off("resize", this.#paint);
		for (const signal of signals) process.off(signal, this.#wantsEnd);
		if (this.#input.isTTY) {
			this.#input.off("data", this.#read);
			this.#input.setRawMode(false);
			this.#input.pause();
		}
		this.#output.write(leave);
	}

	readonly #read = (typed: Buffer | string): void => {
		const text = String(typed);
		if (endKeys.some((key) => text.includes(key))) this.#wantsEnd();
	};

	readonly #paint = (): void => {
		if (!this.#isOpen) return;
		// A terminal that does not know its size says 0.
		const rows = this.#output.rows || 24;
		const columns = this.#output.columns || 80;
		const all = this.#lines;
		const shown =
			all.length <= rows
				? all
				: [
						...all.slice(0, rows - 1),
						`and ${all.length - rows + 1} more lines`,
					];
		const text = shown.map((line) => cut(line, columns) + clearLine);
		this.#output.write(home + text.join("\r\n") + clearBelow);
	};
}

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** A line that is cut loses its colours, too. */
function cut(line: string, columns: number): string {
	const plain = stripVTControlCharacters(line);
	return plain.length <= columns ? line : `${plain.slice(0, columns - 1)}…`;
}
