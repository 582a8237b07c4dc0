import { createPublicKey, type KeyObject, verify } from "node:crypto";

/**
 * The signature that the stock `ollama` command puts on every request when
 * `OLLAMA_AUTH=1` is set (api/client.go:do, auth/auth.go:Sign). It covers the
 * method, the path and a time in whole seconds; not the body, not the host.
 */
export interface CliSignature {
	/** The public key as field 2 of `~/.ollama/id_ed25519.pub` has it. */
	readonly publicKey: string;
	/** Base64 of the 64 bytes. Equal requests in one second have equal ones: ed25519 draws no lots. */
	readonly signature: string;
	/** What was signed. */
	readonly challenge: string;
	/** The client's time, epoch milliseconds. */
	readonly timeMs: number;
}

/** The base64 of an ed25519 public key in OpenSSH's form: 51 bytes that begin with its type. */
export const ollamaKeyPattern = "^AAAAC3NzaC1lZDI1NTE5AAAAI[A-Za-z0-9+/]{43}$";

const headerPattern = /^([A-Za-z0-9+/]{68}):([A-Za-z0-9+/]{86}==)$/;
const timePattern = /^ts=([0-9]{1,12})$/;

/**
 * Reads a request's signature. It is the one reader of a query: the time is
 * there, alone.
 *
 * @param authorization the header's value
 * @param target the request line's target, as it came
 * @returns `undefined` if this is not a signature, "no-time" if it lacks its time
 */
export function readCliSignature(
	authorization: string,
	method: string,
	target: string,
): CliSignature | "no-time" | undefined {
	const [, publicKey, signature] = headerPattern.exec(authorization) ?? [];
	if (publicKey === undefined || signature === undefined) return undefined;
	// The last letter before the padding has bits that no byte needs: one spelling counts as one signature.
	if (Buffer.from(signature, "base64").toString("base64") !== signature)
		return undefined;
	const queryAt = target.indexOf("?");
	const [, seconds] = timePattern.exec(target.slice(queryAt + 1)) ?? [];
	if (queryAt === -1 || seconds === undefined) return "no-time";
	return {
		publicKey,
		signature,
		challenge: `${method},${target}`,
		timeMs: Number(seconds) * 1000,
	};
}

// RFC 8410: what precedes the 32 bytes of a key in a SubjectPublicKeyInfo.
const spkiPrefix = Buffer.from("302a300506032b6570032100", "hex");

/** The key that verifies; `undefined` if the text is not an ed25519 public key. */
export function parseOllamaKey(text: string): KeyObject | undefined {
	if (!new RegExp(ollamaKeyPattern).test(text)) return undefined;
	const raw = Buffer.from(text, "base64").subarray(-32);
	try {
		return createPublicKey({
			key: Buffer.concat([spkiPrefix, raw]),
			format: "der",
			type: "spki",
		});
	} catch {
		return undefined;
	}
}

/** Whether the signature was made with the key's other half. */
export function isSignedBy(
	{ challenge, signature }: CliSignature,
	key: KeyObject,
): boolean {
	return verify(
		null,
		Buffer.from(challenge, "latin1"),
		key,
		Buffer.from(signature, "base64"),
	);
}

/** How far the client's clock may be off, either way. */
export const clockToleranceMs = 30_000;
/** How often one signature may be used: requests of one second that are alike. */
export const maxUses = 16;

/**
 * Counts how often each signature was used while its time is good. An honest
 * client sends equal signatures when it makes equal requests within a second,
 * so a second use is not a replay yet; a captured one is good for few.
 *
 * Only verified signatures are counted, so that nobody without a key can fill it.
 */
export class SignatureUses {
	readonly #uses = new Map<string, { count: number; goodUntilMs: number }>();

	/** Counts a use. Returns false if there have been too many. */
	take({ signature, timeMs }: CliSignature, nowMs: number): boolean {
		for (const [used, { goodUntilMs }] of this.#uses) {
			// In order of arrival, which is nearly the order of their times.
			if (goodUntilMs > nowMs) break;
			this.#uses.delete(used);
		}
		const known = this.#uses.get(signature);
		if (known === undefined) {
			// Past the time at which its own clock makes it stale, whichever way that was off.
			const goodUntilMs = Math.max(timeMs, nowMs) + 2 * clockToleranceMs;
			this.#uses.set(signature, { count: 1, goodUntilMs });
			return true;
		}
		known.count += 1;
		return known.count <= maxUses;
	}

	get size(): number {
		return this.#uses.size;
	}
}
