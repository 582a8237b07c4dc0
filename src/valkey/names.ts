import { createHmac } from "node:crypto";

/** Names that are remembered; then they are made anew. */
const maxRemembered = 10_000;

/**
 * What things are called in Valkey. Whatever a client or a person has to do with
 * it (names of keys, addresses, users) goes in as a keyed hash of fixed length: no
 * name can be made to meet another's, and a list of them says nothing to anyone who
 * has not the password that they are keyed with.
 */
export class Names {
	readonly #prefix: string;
	readonly #secret: string;
	readonly #known = new Map<string, string>();

	/**
	 * @param prefix the name space, as `state.prefix` has it
	 * @param secret the same for all gates of a name space: the password, or nothing
	 */
	constructor(prefix: string, secret: string) {
		// In braces, so that a server that spreads names keeps those of a script together.
		this.#prefix = `{${prefix}}`;
		this.#secret = secret;
	}

	/** Something that there is once. */
	one(kind: string): string {
		return `${this.#prefix}:${kind}`;
	}

	/** Something that there is for each name. */
	of(kind: string, name: string): string {
		return `${this.#prefix}:${kind}:${this.hash(name)}`;
	}

	/** 22 characters of base64url: 128 bits. */
	hash(name: string): string {
		let hash = this.#known.get(name);
		if (hash !== undefined) return hash;
		hash = createHmac("sha256", `llamagate ${this.#prefix} ${this.#secret}`)
			.update(name)
			.digest("base64url")
			.slice(0, 22);
		if (this.#known.size >= maxRemembered) this.#known.clear();
		this.#known.set(name, hash);
		return hash;
	}
}
