import type { NameTable } from "./watchedNames.ts";

/**
 * The tokens of JSON as bytes (RFC 8259): what each byte is, and where a token
 * ends. No token becomes an object here.
 */

export const quote = 0x22;
export const backslash = 0x5c;
export const letterU = 0x75;

// Classes of bytes, between tokens.
export const other = 0;
export const space = 1;
export const quotes = 2;
export const open = 3;
export const close = 4;
export const colon = 5;
export const comma = 6;
export const numeral = 7;
export const letter = 8;

export const classOf = new Uint8Array(256).fill(other);
for (const byte of Buffer.from(" \n\r\t")) classOf[byte] = space;
for (const byte of Buffer.from("{[")) classOf[byte] = open;
for (const byte of Buffer.from("}]")) classOf[byte] = close;
for (const byte of Buffer.from("-0123456789")) classOf[byte] = numeral;
for (const byte of Buffer.from("tfn")) classOf[byte] = letter;
classOf[quote] = quotes;
classOf[0x3a] = colon;
classOf[0x2c] = comma;

export const openBrace = 0x7b;
export const closeBrace = 0x7d;

// How far a number has come (RFC 8259, 6), by what may follow.
const afterMinus = 0;
const afterZero = 1;
const inInteger = 2;
const afterPoint = 3;
const inFraction = 4;
const afterE = 5;
const afterSign = 6;
const inExponent = 7;
export const endsNumber = 255;
export const isNumberEnd = new Uint8Array(8);
for (const state of [afterZero, inInteger, inFraction, inExponent])
	isNumberEnd[state] = 1;
/** The next state by `state * 8 + kind`: 0 zero, 1 another digit, 2 point, 3 e, 4 plus, 5 minus. */
const nextInNumber = new Uint8Array(64).fill(endsNumber);
const onDigits = (state: number, zero: number, others = zero) => {
	nextInNumber[state * 8] = zero;
	nextInNumber[state * 8 + 1] = others;
};
onDigits(afterMinus, afterZero, inInteger);
onDigits(inInteger, inInteger);
onDigits(afterPoint, inFraction);
onDigits(inFraction, inFraction);
onDigits(afterE, inExponent);
onDigits(afterSign, inExponent);
onDigits(inExponent, inExponent);
for (const state of [afterZero, inInteger]) {
	nextInNumber[state * 8 + 2] = afterPoint;
	nextInNumber[state * 8 + 3] = afterE;
}
nextInNumber[inFraction * 8 + 3] = afterE;
nextInNumber[afterE * 8 + 4] = afterSign;
nextInNumber[afterE * 8 + 5] = afterSign;
/** 7 for what is not part of any number. */
const kindInNumber = new Uint8Array(256).fill(7);
for (const byte of Buffer.from("123456789")) kindInNumber[byte] = 1;
kindInNumber[0x30] = 0;
kindInNumber[0x2e] = 2;
kindInNumber[0x65] = kindInNumber[0x45] = 3;
kindInNumber[0x2b] = 4;
kindInNumber[0x2d] = 5;

const wordTrue = new Uint8Array(Buffer.from("true"));
const wordFalse = new Uint8Array(Buffer.from("false"));
const wordNull = new Uint8Array(Buffer.from("null"));

/** What one letter behind a backslash means. */
export const unescaped = new Int16Array(256).fill(-1);
for (const [from, to] of [
	'""',
	"\\\\",
	"//",
	"b\b",
	"f\f",
	"n\n",
	"r\r",
	"t\t",
])
	unescaped[from?.charCodeAt(0) ?? 0] = to?.charCodeAt(0) ?? 0;
export const hexOf = new Int8Array(256).fill(-1);
for (const [digit, letter] of [..."0123456789abcdef"].entries())
	for (const form of [letter, letter.toUpperCase()])
		hexOf[form.charCodeAt(0)] = digit;

/** A string is read byte by byte so far; the rest of a longer one is searched. */
export const nearBytes = 128;

/*
 * Where a token that begins here ends, if it does so in this piece and is plain;
 * else -1, and it is read the slow way.
 */

export function endOfString(piece: Buffer, start: number): number {
	const near = Math.min(piece.length, start + nearBytes);
	for (let at = start + 1; at < near; at++) {
		const byte = piece[at];
		if (byte === quote) return at + 1;
		if (byte === backslash) return -1;
	}
	return -1;
}

/** @param names that matter here; what could be one of them is read the slow way */
export function endOfName(
	piece: Buffer,
	start: number,
	names: NameTable | undefined,
): number {
	if (names === undefined) return endOfString(piece, start);
	const near = Math.min(piece.length, start + nearBytes);
	for (let at = start + 1; at < near; at++) {
		const byte = piece[at] ?? 0;
		if (byte === quote)
			return names.couldHave(piece, start + 1, at) ? -1 : at + 1;
		if (byte === backslash || byte < 0x20 || byte >= 0x80) return -1;
	}
	return -1;
}

/** How far a number has come with its first byte. */
export function firstOfNumber(byte: number): number {
	if (byte === 0x2d) return afterMinus;
	return byte === 0x30 ? afterZero : inInteger;
}

/** How far it has come with the next, or `endsNumber` if that is not part of it. */
export function nextOfNumber(state: number, byte: number): number {
	return nextInNumber[state * 8 + (kindInNumber[byte] ?? 7)] ?? endsNumber;
}

export function endOfNumber(piece: Buffer, start: number): number {
	let state = firstOfNumber(piece[start] ?? 0);
	for (let at = start + 1; at < piece.length; at++) {
		const next = nextOfNumber(state, piece[at] ?? 0);
		if (next === endsNumber) return isNumberEnd[state] === 1 ? at : -1;
		state = next;
	}
	return -1;
}

export function endOfLiteral(piece: Buffer, start: number): number {
	const literal = literalOf(piece[start] ?? 0);
	const end = start + literal.length;
	if (end > piece.length) return -1;
	for (let at = start + 1; at < end; at++)
		if (piece[at] !== literal[at - start]) return -1;
	return end;
}

export function literalOf(first: number) {
	if (first === 0x74) return wordTrue;
	return first === 0x66 ? wordFalse : wordNull;
}

/** Where a byte is next, or the piece's end. */
export function indexOf(piece: Buffer, byte: number, from: number): number {
	const at = piece.indexOf(byte, from);
	return at === -1 ? piece.length : at;
}
