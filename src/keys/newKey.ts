import { createHash, randomBytes } from "node:crypto";

/** Makes a key: `lg_` and 256 random bits in hex. */
export function generateKey(): string {
	return `lg_${randomBytes(32).toString("hex")}`;
}

/** The digest by which the keys file knows a key. */
export function digestOf(key: string): string {
	return createHash("sha256").update(key, "latin1").digest("hex");
}

/** Longer keys are refused before they are hashed. */
export const maxKeyLength = 512;

/**
 * Why a key made elsewhere cannot be taken, or `undefined` if it can. A key
 * must survive a header unchanged and hold at least 128 bits, counted from its
 * alphabet and length; `openssl rand -hex 32` gives 256.
 */
export function weaknessOf(key: string): string | undefined {
	if (key === "") return "the key is empty";
	// RFC 6750's token68, the characters that every client can send in a Bearer header.
	if (!/^[A-Za-z0-9._~+/=-]+$/.test(key))
		return "the key has characters that a header cannot carry; use letters, digits and . _ ~ + / = -";
	if (key.length > maxKeyLength)
		return `the key is longer than ${maxKeyLength} characters`;
	const random = key.replace(/^lg_/, "").replace(/=+$/, "");
	const bits = bitsOf(random);
	// Thirty-two random hex digits show fewer than eight different ones once in 10^12 times.
	if (bits < 128 || new Set(random).size < 8)
		return `the key holds fewer than 128 bits (about ${bits} by its length); make one with: openssl rand -hex 32`;
	return undefined;
}

/** How many bits a text holds if it was drawn from its alphabet: the most that can be told from outside. */
export function bitsOf(text: string): number {
	const alphabet = /^[0-9]+$/.test(text)
		? 10
		: /^[0-9a-f]+$/i.test(text)
			? 16
			: /^[0-9a-z]+$/i.test(text)
				? 36
				: 64;
	return Math.floor(text.length * Math.log2(alphabet));
}
