import type { Random } from "./random.ts";

const oddBytes = [..."\0\t\n\r \"%'(),-./:;<=>\\{}[]\x7f\x80\xc2\xe2\xff"];

/** Changes a text, a character a byte, in one to six ways; rather in few. */
export function mutate(
	text: string,
	others: readonly string[],
	dictionary: readonly string[],
	random: Random,
): string {
	let changed = text;
	for (let left = random.below(random.below(6) + 1) + 1; left > 0; left--)
		changed = change(changed, others, dictionary, random);
	return changed;
}

function change(
	text: string,
	others: readonly string[],
	dictionary: readonly string[],
	random: Random,
): string {
	const at = random.below(text.length + 1);
	const count = random.below(Math.min(16, text.length - at + 1));
	const before = text.slice(0, at);
	const piece = text.slice(at, at + count);
	const behind = text.slice(at + count);
	switch (random.below(9)) {
		case 0:
			return before + random.pick(oddBytes) + text.slice(at);
		case 1:
			return (
				before + String.fromCharCode(random.below(256)) + text.slice(at + 1)
			);
		case 2:
			return before + behind;
		case 3:
			return before + piece + piece + behind;
		case 4:
			return before + random.pick(dictionary) + text.slice(at);
		case 5:
			return before + random.pick(dictionary) + behind;
		case 6:
			return before + random.pick(others).slice(random.below(64));
		case 7:
			return before + piece.toUpperCase().replace(/[^\0-\xff]/g, "?") + behind;
		default:
			return before + piece.repeat(random.below(20)) + behind;
	}
}
