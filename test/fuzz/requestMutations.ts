import { oddJoints, scenarios } from "../conformance/desyncCases.ts";
import type { Case } from "../conformance/judge.ts";
import { chunk } from "../support/raw.ts";
import { Random } from "./random.ts";

/** Text in Latin-1, a character a byte. */
type Mutation = (text: string, random: Random) => string;

const bytesOf = ({ bytes }: Case) => bytes;
const good = scenarios.filter(({ label }) => label === "valid").map(bytesOf);
const other = [...scenarios, ...oddJoints].map(bytesOf);

/** Half of them begin as good requests: what is bad twice over says little. */
function start(random: Random): string {
	return random.pick(random.below(2) === 0 ? good : other);
}

const oddBytes = [..."\0\t\n\v\f\r \"',-.0:;=_\x7f\x80\x85\xa0\xff"];
const lineEnds = ["\r\n", "\n", "\r", "\r\r\n", "\n\r", "\r\n ", "\r\n\t", ""];
const headerLines = [
	"Content-Length: 0",
	"Content-Length: 5",
	"Content-Length: 35",
	"Content-Length: +5",
	"content-length: 5, 5",
	"Content-Length:",
	"Transfer-Encoding: chunked",
	"Transfer-Encoding: identity",
	"Transfer-Encoding: chunked, chunked",
	"transfer-encoding:\tchunked ",
	"Transfer-Encoding:",
	"Connection: close",
	"Connection: keep-alive",
	"Connection: content-length, transfer-encoding",
	"Connection: Upgrade",
	"Upgrade: websocket",
	"Expect: 100-continue",
	"Trailer: X",
	"TE: trailers",
	"Host: other",
	"Content-Encoding: gzip",
	"Content-Type: application/json",
	"User-Agent: x",
	" folded",
];
const numbers = [
	"0",
	"00",
	"1",
	"5",
	"9",
	"a",
	"35",
	"99999",
	"-1",
	"+1",
	"0x5",
	"5;x",
	"4294967301",
	"9007199254740993",
	"18446744073709551621",
];

function cut(text: string, at: number, count: number, instead: string): string {
	return text.slice(0, at) + instead + text.slice(at + count);
}

/** The lines, their ends left on. */
function linesOf(text: string): string[] {
	return text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
}

function changeLine(
	text: string,
	random: Random,
	change: (line: string) => string,
): string {
	const lines = linesOf(text);
	if (lines.length === 0) return text;
	const at = random.below(lines.length);
	lines[at] = change(lines[at] ?? "");
	return lines.join("");
}

const mutations: readonly Mutation[] = [
	(text, random) =>
		cut(text, random.below(text.length + 1), 0, random.pick(oddBytes)),
	(text, random) =>
		cut(text, random.below(text.length + 1), 1, random.pick(oddBytes)),
	(text, random) => cut(text, random.below(text.length + 1), 1, ""),
	(text, random) => changeLine(text, random, (line) => line + line),
	(text, random) => changeLine(text, random, () => ""),
	(text, random) =>
		changeLine(
			text,
			random,
			(line) => line.replace(/\r?\n$/, "") + random.pick(lineEnds),
		),
	(text, random) =>
		changeLine(
			text,
			random,
			(line) => `${line}${random.pick(headerLines)}\r\n`,
		),
	(text, random) =>
		changeLine(text, random, () => `${random.pick(headerLines)}\r\n`),
	(text, random) =>
		changeLine(text, random, (line) =>
			line.replace(
				/:[^\r\n]*/,
				(value) => `:${random.pick(oddBytes)}${value.slice(1)}`,
			),
		),
	(text, random) => {
		const found = [...text.matchAll(/(?<=[: \n])[0-9a-f]{1,6}(?=[\r\n;])/g)];
		if (found.length === 0) return text;
		const { index, 0: number } = random.pick(found);
		return cut(text, index, number.length, random.pick(numbers));
	},
	(text, random) =>
		changeLine(text, random, (line) => {
			const at = random.below(line.length + 1);
			return `${line.slice(0, at)}${random.pick(["\r\n", "\n", "\r\n\r\n"])}${line.slice(at)}`;
		}),
	(text, random) => text.slice(0, random.below(text.length + 1)),
	(text, random) => text + start(random),
	(text, random) =>
		text.slice(0, random.below(text.length + 1)) +
		start(random).slice(random.below(300)),
	(text, random) => {
		const at = text.indexOf("\r\n\r\n");
		if (at === -1) return text;
		const pieces = Array.from({ length: random.below(4) }, () =>
			chunk("x".repeat(random.below(40) + 1)),
		);
		return cut(text, at + 4, 0, `${pieces.join("")}0\r\n\r\n`);
	},
	(text, random) => {
		const at = random.below(text.length + 1);
		const letter = text[at] ?? "";
		const turned = /[a-z]/.test(letter)
			? letter.toUpperCase()
			: letter.toLowerCase();
		return cut(text, at, 1, turned);
	},
];

/** The bytes of one case; the same for the same seed and number. */
export function mutatedRequests(seed: number, number: number): string {
	const random = new Random(Math.imul(seed, 0x9e3779b1) + number);
	// The first numbers after a seed are much alike.
	for (let i = 0; i < 4; i++) random.below(2);
	let text = start(random);
	for (let left = random.below(3) + 1; left > 0; left--)
		text = random.pick(mutations)(text, random);
	return text;
}
