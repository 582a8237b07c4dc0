import type { Exchange } from "./exchange.ts";

/** By what a user is known. */
export type Proof =
	/** A person, by a token that an app signed. */
	| "jwt"
	/** A person, by headers of an app whose word is taken. */
	| "headers"
	/** A person, by the tailnet's login of the device. */
	| "login"
	/** Nobody in person: whoever has the key. */
	| "key";

/** Somebody who was proved to be behind a request. */
export interface Person {
	/** What stays the same for the same person, unique among all of one `by`. */
	readonly id: string;
	/** For people to read: an e-mail or a login. It is personal data. */
	readonly name: string;
	readonly by: Exclude<Proof, "key">;
	/** What an app calls them, where it says so. */
	readonly email?: string | undefined;
	readonly role?: string | undefined;
	/** What a rule gives this person of the machine, beside others; `undefined` for what the key has. */
	readonly share?: number;
}

/** Whose turn, whose usage and whose budget a request is. */
export interface User {
	/** Unique among all users: `key:laptop`, `jwt:openwebui:…`, `login:me@example.com`. */
	readonly id: string;
	readonly by: Proof;
	/** How much of the machine, beside others who want it. */
	readonly share: number;
}

/**
 * The person behind a request where one is proved, else the key.
 *
 * @throws {Error} before the step that looks at the key has let it through
 */
export function userOf({ person, knownCredential }: Exchange): User {
	const { name, share } = knownCredential.key;
	if (person === undefined) return { id: `key:${name}`, by: "key", share };
	const { by, id } = person;
	return {
		// A device's owner is the same person whichever key is shown.
		id: by === "login" ? `login:${id}` : `${by}:${name}:${id}`,
		by,
		share: person.share ?? share,
	};
}
