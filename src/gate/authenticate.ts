import type { Credential, Keyring } from "../keys/keyring.ts";
import { maxKeyLength } from "../keys/newKey.ts";
import {
	type CliSignature,
	clockToleranceMs,
	isSignedBy,
	readCliSignature,
	type SignatureUses,
} from "../ollama/cliSignature.ts";
import type { Refusal } from "./refusal.ts";
import type { Head } from "./requestHead.ts";

/** One thing by which a request says whose it is. */
type Shown =
	| { readonly kind: "key"; readonly key: string; readonly basic: boolean }
	| {
			readonly kind: "signature";
			readonly signature: CliSignature | "no-time";
	  }
	| { readonly kind: "unclear"; readonly message: string };

interface Known {
	readonly kind: "known";
	readonly credential: Credential;
	readonly basic: boolean;
}

/** Who a request comes from, or why it is turned away. */
export type Authentication = (
	| Known
	| {
			readonly kind: "refused";
			readonly refusal: Refusal;
			/** The wrong keys that were shown, each of which may be a guess; they go no further than the lockout. */
			readonly guesses: readonly string[];
	  }
) & {
	/** The name of a canary that was shown; to its finder it is any wrong key. */
	readonly canary?: string;
};

/**
 * Different credentials that are looked at. Clients send one, or their own
 * beside one that was left in the environment; each more is a guess for free.
 */
const maxShown = 8;

// Browsers ask for a password when they see Basic here, and would then send it from any page.
const challenge = 'Bearer realm="llamagate"';

const nothing: readonly Shown[] = [];

/** The request line, which a signature covers. */
export interface RequestLine {
	readonly method: string;
	/** As it came, query and all. */
	readonly target: string;
}

/**
 * Step 4: a key in `Authorization: Bearer`, in `x-api-key`, or as the password
 * of Basic; or the signature of the stock `ollama` command. Of several the one
 * that is known counts, and what is unknown beside it is passed over. Each is
 * looked up whatever came of the others, so the time tells nothing of them.
 *
 * @param uses counts how often each signature has been used
 * @param nowMs epoch milliseconds, which a signature's time is compared with
 */
export function authenticate(
	head: Head,
	line: RequestLine,
	keyring: Keyring,
	uses: SignatureUses,
	nowMs: number,
): Authentication {
	const shown = readShown(head, line);
	const [only] = shown;
	if (only === undefined) return noKey(missingKey(head, line));
	if (shown.length === 1) return judge(only, keyring, uses, nowMs);
	if (shown.length > maxShown)
		return refused(
			"unclear_key",
			`more than ${maxShown} different keys were sent; send one`,
		);
	const judged = shown.map((one) => judge(one, keyring, uses, nowMs));
	const canary = judged.find((one) => one.canary !== undefined)?.canary;
	const answer =
		chooseKnown(judged.filter((one) => one.kind === "known")) ??
		chooseRefusal(judged.filter((one) => one.kind === "refused")) ??
		noKey(missingKey(head, line));
	return canary === undefined ? answer : { ...answer, canary };
}

/** Two keys of different rules leave open which of them hold. One and its replacement are one key. */
function chooseKnown(known: readonly Known[]): Authentication | undefined {
	const [first] = known;
	if (first === undefined) return undefined;
	const other = known.find(
		({ credential }) => credential.key.name !== first.credential.key.name,
	);
	if (other !== undefined)
		return refused(
			"unclear_key",
			`two different keys were sent, "${first.credential.key.name}" and "${other.credential.key.name}"; send one of them`,
		);
	const { credential } = known.reduce((best, one) =>
		one.credential.expiresAtMs > best.credential.expiresAtMs ? one : best,
	);
	// What was also sent in another way was sent on purpose.
	return { ...first, credential, basic: known.every(({ basic }) => basic) };
}

/** Of several refusals the one that says most, with the guesses of all. */
function chooseRefusal(
	refusals: readonly (Authentication & { kind: "refused" })[],
): Authentication | undefined {
	const rank = ({ refusal }: { readonly refusal: Refusal }) =>
		refusal.status === 403 ? 0 : refusal.reason === "wrong_key" ? 1 : 2;
	const [first] = [...refusals].sort((a, b) => rank(a) - rank(b));
	return first && { ...first, guesses: refusals.flatMap((one) => one.guesses) };
}

/** What one credential is worth by itself. */
function judge(
	shown: Shown,
	keyring: Keyring,
	uses: SignatureUses,
	nowMs: number,
): Authentication {
	switch (shown.kind) {
		case "unclear":
			return refused("unclear_key", shown.message);
		case "signature":
			return judgeSignature(shown.signature, keyring, uses, nowMs);
		case "key":
			return judgeKey(shown.key, shown.basic, keyring);
	}
}

function judgeKey(
	key: string,
	basic: boolean,
	keyring: Keyring,
): Authentication {
	const credential = key.length > maxKeyLength ? undefined : keyring.find(key);
	if (credential !== undefined && !credential.key.canary)
		return { kind: "known", credential, basic };
	const stranger = refused("wrong_key", "this key is not known here", [key]);
	// Anyone who found it must not learn that it is one.
	return credential === undefined
		? stranger
		: { ...stranger, canary: credential.key.name };
}

function judgeSignature(
	signature: CliSignature | "no-time",
	keyring: Keyring,
	uses: SignatureUses,
	nowMs: number,
): Authentication {
	if (signature === "no-time")
		return refused(
			"unclear_key",
			"an Ollama signature needs its time in the query, alone: ?ts=SECONDS",
		);
	// Each signature is another; whose it is stays the same.
	const guesses = [signature.publicKey];
	const signer = keyring.signer(signature.publicKey);
	if (signer === undefined || signer.key.canary) {
		const stranger = refused(
			"wrong_key",
			"this Ollama key is not known here; on the server: llamagate keys add NAME --ollama-key id_ed25519.pub",
			guesses,
		);
		return signer !== undefined && isSignedBy(signature, signer.publicKey)
			? { ...stranger, canary: signer.key.name }
			: stranger;
	}
	if (!isSignedBy(signature, signer.publicKey))
		return refused(
			"wrong_key",
			"the signature does not fit the request",
			guesses,
		);
	// A 401 makes the command say that one should sign in at ollama.com; a 403 it prints as it is.
	const offMs = signature.timeMs - nowMs;
	if (Math.abs(offMs) > clockToleranceMs)
		return forbidden(
			"stale_signature",
			`this computer's clock is ${Math.round(Math.abs(offMs) / 1000)} s ${offMs > 0 ? "ahead of" : "behind"} the server's; set both right (at most ${clockToleranceMs / 1000} s are allowed)`,
		);
	if (!uses.take(signature, nowMs))
		return forbidden(
			"replayed_signature",
			"the same request was made too often within a second; wait one and try again",
		);
	return { kind: "known", credential: signer, basic: false };
}

function forbidden(reason: string, message: string): Authentication {
	return {
		kind: "refused",
		refusal: { status: 403, reason, message },
		guesses: [],
	};
}

function refused(
	reason: string,
	message: string,
	guesses: readonly string[] = [],
): Authentication & { kind: "refused" } {
	const isWrong = reason === "wrong_key";
	return {
		kind: "refused",
		refusal: {
			status: 401,
			reason,
			message,
			headers: [
				"www-authenticate",
				`${challenge}${isWrong ? ', error="invalid_token"' : ""}`,
			],
		},
		guesses,
	};
}

/** What is said where the key is missing: one of a dozen sentences (`missingKey`), each made once. */
const noKeys = new Map<string, Authentication>();

function noKey(message: string): Authentication {
	const known = noKeys.get(message);
	if (known !== undefined) return known;
	const made = refused("no_key", message);
	noKeys.set(message, made);
	return made;
}

/** Everything that a request shows, each thing once; empty headers show nothing. */
function readShown(
	{ authorization, apiKey }: Head,
	line: RequestLine,
): readonly Shown[] {
	const [first] = authorization;
	if (authorization.length + apiKey.length === 0) return nothing;
	if (
		first !== undefined &&
		authorization.length === 1 &&
		apiKey.length === 0
	) {
		const one = readAuthorization(first, line);
		return one === undefined ? nothing : [one];
	}
	const shown: Shown[] = [];
	for (const value of new Set(authorization)) {
		const one = readAuthorization(value, line);
		if (one !== undefined) shown.push(one);
	}
	for (const key of new Set(apiKey))
		if (key !== "") shown.push({ kind: "key", key, basic: false });
	return shown;
}

function readAuthorization(
	value: string,
	{ method, target }: RequestLine,
): Shown | undefined {
	if (value === "") return undefined;
	const signature = readCliSignature(value, method, target);
	if (signature !== undefined) return { kind: "signature", signature };
	const match = /^(Bearer|Basic)(?: +([\x21-\xff]*))?$/i.exec(value);
	const [, scheme, content] = match ?? [];
	if (scheme === undefined)
		return {
			kind: "unclear",
			message:
				"send the key as Authorization: Bearer KEY; this Authorization is of another kind",
		};
	if (content === undefined || content === "") return undefined;
	if (scheme.toLowerCase() === "bearer")
		return { kind: "key", key: content, basic: false };
	const userAndPassword = Buffer.from(content, "base64").toString("latin1");
	const colonAt = userAndPassword.indexOf(":");
	if (colonAt === -1)
		return {
			kind: "unclear",
			message: "Basic carries user:password; the key is the password",
		};
	const key = userAndPassword.slice(colonAt + 1);
	return key === "" ? undefined : { kind: "key", key, basic: true };
}

/** By what names keys are sent in a query elsewhere. What is there is not looked at. */
const keyInQuery =
	/[?&](key|api[_-]?key|access[_-]?token|auth[_-]?token|token)=/i;

/** Says where the key was looked for, and where it may have been put instead. */
function missingKey(
	{ authorization, apiKey, otherKeyHeader }: Head,
	{ target }: RequestLine,
): string {
	const needed = "a key is needed: send it as Authorization: Bearer KEY";
	const [, parameter] = keyInQuery.exec(target) ?? [];
	if (otherKeyHeader !== undefined)
		return `${needed}, or as x-api-key; ${otherKeyHeader} is not read here`;
	if (parameter !== undefined)
		return `${needed}, or as x-api-key; a key in the URL is not read here, and ends up in logs`;
	return authorization.length + apiKey.length > 0
		? `${needed}; the header came without one, so what the client takes it from may be empty`
		: needed;
}
