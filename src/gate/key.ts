import type { Credential, Keyring } from "../keys/keyring.ts";
import { maxKeyLength } from "../keys/newKey.ts";
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
	  };

// Browsers ask for a password when they see Basic here, and would then send it from any page.
const challenge = 'Bearer realm="llamagate"';

/** Step 4: a key in `Authorization: Bearer`, in `x-api-key`, or as the password of Basic. */
export function authenticate(head: Head, keyring: Keyring): Authentication {
	const presented = readPresented(head);
	if (presented.kind === "key") {
		const credential =
			presented.key.length > maxKeyLength
				? undefined
				: keyring.find(presented.key);
		if (credential !== undefined)
			return { kind: "known", credential, basic: presented.basic };
		return refused(
			"wrong_key",
			"this key is not known here",
			true,
			`${challenge}, error="invalid_token"`,
		);
	}
	return presented.kind === "none"
		? refused(
				"no_key",
				"a key is needed: send it as Authorization: Bearer KEY",
				false,
				challenge,
			)
		: refused("unclear_key", presented.message, false, challenge);
}

function refused(
	reason: string,
	message: string,
	wrongKey: boolean,
	wwwAuthenticate: string,
): Authentication {
	return {
		kind: "refused",
		refusal: {
			status: 401,
			reason,
			message,
			headers: ["www-authenticate", wwwAuthenticate],
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
