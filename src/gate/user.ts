import { createHmac, randomBytes } from "node:crypto";
import type { Settings } from "../config/load.ts";
import type { Key } from "../keys/keyring.ts";
import type { Exchange } from "./exchange.ts";

type ShownPeople = Settings["logPeople"];

/** By what a user is known. */
export type Proof =
	/** A person, by a token that an app signed. */
	| "jwt"
	/** A person, by headers of an app whose word is taken. */
	| "headers"
	/** A person, by the tailnet's login of the device. */
	| "login"
	/** Nobody in person: anyone who has the key. */
	| "key";

/** The person who was proved to be behind a request. */
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

/** Keys as users, by their names: most requests are those of a key that asked before. */
const keyUsers = new Map<string, User>();
const maxKeyUsers = 1_000;

function keyUser({ name, share }: Key): User {
	const known = keyUsers.get(name);
	if (known?.share === share) return known;
	if (keyUsers.size >= maxKeyUsers) keyUsers.clear();
	const user: User = { id: `key:${name}`, by: "key", share };
	keyUsers.set(name, user);
	return user;
}

/**
 * The person behind a request where one is proved, else the key.
 *
 * @throws {Error} before the step that looks at the key has let it through
 */
export function userOf({ person, knownCredential }: Exchange): User {
	const { key } = knownCredential;
	if (person === undefined) return keyUser(key);
	const { name, share } = key;
	const { by, id } = person;
	return {
		// A device's owner is the same person whichever key is shown.
		id: by === "login" ? `login:${id}` : `${by}:${name}:${id}`,
		by,
		share: person.share ?? share,
	};
}

/** Of an e-mail a plain hash would tell anyone who guesses it; this lives as long as the process. */
const pseudonymKey = randomBytes(32);

/** Who the person behind a request is, as far as the owner wants that to be seen; `undefined` if not at all. */
export function shownPerson(
	exchange: Exchange,
	people: ShownPeople,
): string | undefined {
	const { person } = exchange;
	if (person === undefined || people === "off") return undefined;
	return people === "on" ? person.name : pseudonymOf(userOf(exchange).id);
}

/** The user's id, with no more of a person in it than the owner wants to be seen: `jwt:openwebui` at the least. */
export function shownUser(exchange: Exchange, people: ShownPeople): string {
	const { id, by } = userOf(exchange);
	if (exchange.person === undefined || people === "on") return id;
	const known =
		by === "login" ? by : `${by}:${exchange.knownCredential.key.name}`;
	return people === "off" ? known : `${known}:${pseudonymOf(id)}`;
}

function pseudonymOf(id: string): string {
	return createHmac("sha256", pseudonymKey)
		.update(id)
		.digest("hex")
		.slice(0, 16);
}
