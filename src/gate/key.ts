import type { Credential, Keyring } from "../keys/keyring.ts";
import { maxKeyLength } from "../keys/newKey.ts";
import {
	type CliSignature,
	clockToleranceMs,
	isSignedBy,
	readCliSignature,
	type SignatureUses,
} from "../ollama/cliSignature.ts";
import type { Head } from "./head.ts";
import type { Refusal } from "./refusal.ts";

/** What a request shows of itself. */
type Presented =
	| { readonly kind: "key"; readonly key: string; readonly basic: boolean }
	| { readonly kind: "none" }
	| { readonly kind: "unclear"; readonly message: string };

/** Who a request comes from, or why it is turned away. */
export type Authentication =
	| {
			readonly kind: "known";
			readonly credential: Credential;
			readonly basic: boolean;
	  }
	/** `wrongKey` is true for a guess, which counts towards the lockout. */
	| {
			readonly kind: "refused";
			readonly refusal: Refusal;
			readonly wrongKey: boolean;
			/** The name of the canary that was shown; its reply is that of any wrong key. */
			readonly canary?: string;
	  };

// Browsers ask for a password when they see Basic here, and would then send it from any page.
const challenge = 'Bearer realm="llamagate"';

/** The request line, which a signature covers. */
export interface RequestLine {
	readonly method: string;
	/** As it came, query and all. */
	readonly target: string;
}

/**
 * Step 4: a key in `Authorization: Bearer`, in `x-api-key`, or as the password
 * of Basic; or the signature of the stock `ollama` command.
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
	const signature = readSignature(head, line);
	const authentication =
		signature === undefined
			? authenticateKey(head, keyring)
			: authenticateSignature(signature, keyring, uses, nowMs);
	if (
		authentication.kind === "refused" ||
		!authentication.credential.key.canary
	)
		return authentication;
	// Whoever found it must not learn that it is one.
	const { name } = authentication.credential.key;
	return { ...unknownKey(), canary: name };
}

function unknownKey() {
	return refused("wrong_key", "this key is not known here", true);
}

function authenticateKey(head: Head, keyring: Keyring): Authentication {
	const presented = readPresented(head);
	if (presented.kind === "key") {
		const credential =
			presented.key.length > maxKeyLength
				? undefined
				: keyring.find(presented.key);
		if (credential !== undefined)
			return { kind: "known", credential, basic: presented.basic };
		return unknownKey();
	}
	return presented.kind === "none"
		? refused(
				"no_key",
				"a key is needed: send it as Authorization: Bearer KEY",
				false,
			)
		: refused("unclear_key", presented.message, false);
}

function readSignature({ authorization, apiKey }: Head, line: RequestLine) {
	const [value] = authorization;
	if (value === undefined || authorization.length > 1 || apiKey.length > 0)
		return undefined;
	return readCliSignature(value, line.method, line.target);
}

function authenticateSignature(
	signature: CliSignature | "no-time",
	keyring: Keyring,
	uses: SignatureUses,
	nowMs: number,
): Authentication {
	if (signature === "no-time")
		return refused(
			"unclear_key",
			"an Ollama signature needs its time in the query, alone: ?ts=SECONDS",
			false,
		);
	const signer = keyring.signer(signature.publicKey);
	if (signer === undefined || signer.key.canary) {
		const stranger = refused(
			"wrong_key",
			"this Ollama key is not known here; on the server: llamagate keys add NAME --ollama-key id_ed25519.pub",
			true,
		);
		return signer !== undefined && isSignedBy(signature, signer.publicKey)
			? { ...stranger, canary: signer.key.name }
			: stranger;
	}
	if (!isSignedBy(signature, signer.publicKey))
		return refused("wrong_key", "the signature does not fit the request", true);
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
		wrongKey: false,
	};
}

function refused(
	reason: string,
	message: string,
	wrongKey: boolean,
): Authentication & { kind: "refused" } {
	const header = `${challenge}${wrongKey ? ', error="invalid_token"' : ""}`;
	return {
		kind: "refused",
		refusal: {
			status: 401,
			reason,
			message,
			headers: ["www-authenticate", header],
		},
		wrongKey,
	};
}

function readPresented({ authorization, apiKey }: Head): Presented {
	if (authorization.length > 1 || apiKey.length > 1)
		return {
			kind: "unclear",
			message: "the header with the key stands twice; send it once",
		};
	const [fromApiKey] = apiKey;
	const inAuthorization = readAuthorization(authorization[0]);
	if (
		fromApiKey === undefined ||
		fromApiKey === "" ||
		inAuthorization.kind === "unclear"
	)
		return inAuthorization;
	if (inAuthorization.kind === "key" && inAuthorization.key !== fromApiKey)
		return {
			kind: "unclear",
			message: "Authorization and x-api-key disagree; send one of them",
		};
	return { kind: "key", key: fromApiKey, basic: false };
}

function readAuthorization(value: string | undefined): Presented {
	if (value === undefined || value === "") return { kind: "none" };
	const match = /^(Bearer|Basic)(?: +([\x21-\xff]*))?$/i.exec(value);
	const [, scheme, content] = match ?? [];
	if (scheme === undefined)
		return {
			kind: "unclear",
			message:
				"send the key as Authorization: Bearer KEY; this Authorization is of another kind",
		};
	if (content === undefined || content === "") return { kind: "none" };
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
	return key === "" ? { kind: "none" } : { kind: "key", key, basic: true };
}
