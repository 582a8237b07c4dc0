import { type Address, parseAddress, parseRange } from "../../net/ranges.ts";

/** Addresses from `first` to `last`, both included, of one family. */
export interface Span {
	readonly family: 4 | 6;
	readonly first: bigint;
	readonly last: bigint;
}

/** Spans that neither touch nor overlap, IPv4 first, lowest first. */
export type AddressSet = readonly Span[];

/** Reads an address, `100.64.0.0/10`, or a range such as `192.0.2.1-192.0.2.9`; `undefined` if it is none. */
export function parseSpan(text: string): Span | undefined {
	// Most names are none, which the parser of addresses is slow to say.
	if (!/^[\da-f:][\da-f.:]*(?:[/-][\da-f.:]+)?$/i.test(text)) return undefined;
	const dash = text.indexOf("-");
	if (dash !== -1) {
		const first = parseAddress(text.slice(0, dash));
		const last = parseAddress(text.slice(dash + 1));
		if (first === undefined || last === undefined) return undefined;
		const span = { ...spanOf(first), last: spanOf(last).last };
		return first.kind() === last.kind() && span.first <= span.last
			? span
			: undefined;
	}
	if (!text.includes("/")) {
		const quad =
			/^([1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/.exec(
				text,
			);
		const [a, b, c, d] = (quad ?? []).slice(1).map(Number);
		if (
			a !== undefined &&
			b !== undefined &&
			c !== undefined &&
			d !== undefined &&
			Math.max(a, b, c, d) < 256
		) {
			const value = BigInt(((a * 256 + b) * 256 + c) * 256 + d);
			return { family: 4, first: value, last: value };
		}
		const address = parseAddress(text);
		return address && spanOf(address);
	}
	const range = parseRange(text);
	if (range === undefined) return undefined;
	const [base, bits] = range;
	const { family, first } = spanOf(base);
	const size = 1n << BigInt((family === 4 ? 32 : 128) - bits);
	const start = (first / size) * size;
	return { family, first: start, last: start + size - 1n };
}

/** The set of one address. */
export function spanOf(address: Address): Span {
	const value = address
		.toByteArray()
		.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
	return {
		family: address.kind() === "ipv4" ? 4 : 6,
		first: value,
		last: value,
	};
}

/** All addresses that lie in any of the spans. */
export function union(spans: readonly Span[]): AddressSet {
	const sorted = spans.toSorted(
		(a, b) =>
			a.family - b.family ||
			(a.first < b.first ? -1 : a.first > b.first ? 1 : 0),
	);
	const merged: Span[] = [];
	for (const span of sorted) {
		const before = merged.at(-1);
		if (before?.family === span.family && span.first <= before.last + 1n)
			merged[merged.length - 1] = {
				...before,
				last: span.last > before.last ? span.last : before.last,
			};
		else merged.push(span);
	}
	return merged;
}

/** The addresses of the first set that are not in the second. */
export function subtract(from: AddressSet, what: AddressSet): AddressSet {
	const left: Span[] = [];
	let at = 0;
	for (const span of from) {
		let { first } = span;
		while (at < what.length && isBelow(what[at], span.family, first)) at += 1;
		for (let next = at; next < what.length; next += 1) {
			const gone = what[next];
			if (gone?.family !== span.family || gone.first > span.last) break;
			if (gone.first > first)
				left.push({ ...span, first, last: gone.first - 1n });
			first = gone.last + 1n;
		}
		if (first <= span.last) left.push({ ...span, first });
	}
	return left;
}

function isBelow(
	span: Span | undefined,
	family: Span["family"],
	first: bigint,
): boolean {
	return (
		span !== undefined &&
		(span.family < family || (span.family === family && span.last < first))
	);
}

/** The addresses that both sets have. */
export function intersect(a: AddressSet, b: AddressSet): AddressSet {
	return subtract(a, subtract(a, b));
}

/** Whether two sets have an address in common. */
export function overlap(a: AddressSet, b: AddressSet): boolean {
	let at = 0;
	for (const span of a) {
		while (at < b.length && isBelow(b[at], span.family, span.first)) at += 1;
		const other = b[at];
		if (other?.family === span.family && other.first <= span.last) return true;
	}
	return false;
}

/** How many addresses are in the set. */
export function sizeOf(set: AddressSet): bigint {
	return set.reduce((sum, { first, last }) => sum + last - first + 1n, 0n);
}

/** Whether every address of the second set is in the first. */
export function holds(set: AddressSet, what: AddressSet): boolean {
	return subtract(what, set).length === 0;
}
