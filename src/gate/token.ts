import type { Named } from "../keys/people.ts";
import type { Refusal } from "./refusal.ts";

/** Far more than claims about a person take; a longer token is not looked at. */
const maxTokenLength = 4096;
/** How far the app's clock may be off, either way. */
const leewaySeconds = 60;
const maxTextLength = 256;

/** Whom a token, or a header, names. */
export interface Identified extends Named {
	/** What stays the same for the same person of an app. */
	readonly id: string;
}

/** Whom a token names, or what is wrong with it, which ends the sentence "the token …". */
export type Verdict =
	| { readonly kind: "person"; readonly person: Identified }
	| { readonly kind: "bad"; readonly what: string };

/** Judges the tokens of one key. It promises to never reject, and keeps no token. */
export type TokenJudge = (token: string, nowMs: number) => Promise<Verdict>;

/**
 * A judge of JWTs that are signed with HS256 (RFC 7519, RFC 7518 section 3.2).
 * Every other algorithm is refused, `none` first of all. `exp`, `iat` and `sub`
 * must be there. The signature is compared by WebCrypto, in constant time.
 *
 * @param secret at least 256 bits
 * @param issuer what `iss` must be
 */
export async function createTokenJudge(
	secret: Uint8Array<ArrayBuffer>,
	issuer: string,
): Promise<TokenJudge> {
	// Anyone who has no such key has nothing of it in memory.
	const { errors, jwtVerify } = await import("jose");
	// Imported once: with the bytes, jose would do that for each token.
	const key = await crypto.subtle.importKey(
		"raw",
		secret,
		{ name: "HMAC", hash: "SHA-256" },
		false,
		["verify"],
	);
	return async (token, nowMs) => {
		if (token.length > maxTokenLength) return bad("is too long");
		try {
			const { payload } = await jwtVerify(token, key, {
				algorithms: ["HS256"],
				issuer,
				clockTolerance: leewaySeconds,
				currentDate: new Date(nowMs),
				requiredClaims: ["exp", "iat", "sub"],
			});
			const { exp = Number.NaN, iat = Number.NaN } = payload;
			// JSON's 1e999 is a number without end.
			if (!Number.isFinite(exp)) return bad('has no good "exp"');
			if (!Number.isFinite(iat)) return bad('has no good "iat"');
			// jose looks whether it is too old, which `exp` has said, and not whether it is from the future.
			if (iat > nowMs / 1000 + leewaySeconds)
				return bad("is from the future; set the clocks right");
			return readPerson(payload.sub, payload.email, payload.role);
		} catch (error) {
			// Whatever is wrong with it, nobody is let in on it. The error has its claims.
			if (error instanceof errors.JWTExpired)
				return bad("has expired; set the clocks right");
			if (error instanceof errors.JWSSignatureVerificationFailed)
				return bad("is not signed with this key's secret");
			if (error instanceof errors.JOSEAlgNotAllowed)
				return bad("is not signed by HS256");
			if (
				error instanceof errors.JWTClaimValidationFailed &&
				["exp", "iat", "iss", "nbf", "sub"].includes(error.claim)
			)
				return bad(`has no good "${error.claim}"`);
			return bad("cannot be read");
		}
	};
}

/** Whom these claims name. They go on into logs and sums, so they must be short and plain. */
export function readPerson(
	id: unknown,
	email: unknown,
	role: unknown,
): Verdict {
	if (!isPlain(id)) return bad('has no good "sub"');
	// Open WebUI writes an empty text where it has none (utils/headers.py).
	const [mail, part] = [email, role].map((value) => value || undefined);
	if (mail !== undefined && !isPlain(mail)) return bad('has no good "email"');
	if (part !== undefined && !isPlain(part)) return bad('has no good "role"');
	return { kind: "person", person: { id, email: mail, role: part } };
}

function isPlain(value: unknown): value is string {
	return (
		typeof value === "string" &&
		value !== "" &&
		value.length <= maxTextLength &&
		// Neither control characters nor what turns the direction of a line, nor half a character.
		!/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u.test(value)
	);
}

function bad(what: string): Verdict & { kind: "bad" } {
	return { kind: "bad", what };
}

/** A refusal of a token that is not good; its key is, so this is not a guess. */
export function badToken(what: string): Refusal {
	return {
		status: 401,
		reason: "bad_person",
		message: `who is asking is not proved: the token ${what}`,
		headers: ["www-authenticate", 'Bearer realm="llamagate"'],
	};
}
