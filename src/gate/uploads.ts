import { createHash } from "node:crypto";
import type { Credential, Key } from "../keys/keyring.ts";
import type { Route } from "../ollama/routes.ts";
import type { Refusal } from "./refusal.ts";

/** What is remembered; beyond, the oldest is forgotten. */
const maxKeys = 64;
const maxFilesOfKey = 1024;

const blobRoute = "/api/blobs/:digest";

/** One model file on its way to Ollama. */
export interface Upload {
	push(piece: Buffer): void;
	/** All of it has come. */
	finish(): void;
}

/**
 * Which model files each key has sent. To Ollama a file is its digest, no matter who
 * sent it: by a digest alone, a key that may use some models could give an
 * allowed name to the file of any other. So a key with `models` may use those
 * files only that it has had in its hands.
 *
 * Kept in memory, by the credential: after a restart a file has to be sent again.
 */
export class Uploads {
	/** Digests by credential, each in the order in which it was used last. */
	readonly #files = new Map<string, Set<string>>();

	/** Notes that a key has sent a file. */
	add(credentialId: string, digest: string): void {
		const files = this.#files.get(credentialId) ?? new Set();
		this.#files.delete(credentialId);
		this.#files.set(credentialId, files);
		const [oldestKey] = this.#files.keys();
		if (this.#files.size > maxKeys && oldestKey !== undefined)
			this.#files.delete(oldestKey);
		files.delete(digest);
		files.add(digest);
		const [oldest] = files;
		if (files.size > maxFilesOfKey && oldest !== undefined)
			files.delete(oldest);
	}

	/** @param digest as Ollama takes it, with a colon or a hyphen */
	has(credentialId: string, digest: string): boolean {
		return (
			this.#files.get(credentialId)?.has(digest.replace("-", ":")) === true
		);
	}

	/** Reads along a file that a key with `models` sends; `undefined` for any other request. */
	watch(
		{ key, id }: Credential,
		route: Route,
		path: string,
	): Upload | undefined {
		if (key.models === undefined || route.id !== `POST ${blobRoute}`)
			return undefined;
		const digest = digestIn(path);
		const hash = createHash("sha256");
		return {
			push: (piece) => hash.update(piece),
			finish: () => {
				if (`sha256:${hash.digest("hex")}` === digest) this.add(id, digest);
			},
		};
	}

	/** Nor is a key with `models` told which files of others there are: it is to send its own. */
	checkPath(
		{ key, id }: Credential,
		route: Route,
		path: string,
	): Refusal | undefined {
		if (
			key.models === undefined ||
			route.id !== `HEAD ${blobRoute}` ||
			this.has(id, digestIn(path))
		)
			return undefined;
		return {
			status: 404,
			reason: "file",
			message: `the key "${key.name}" has not sent this file`,
		};
	}

	/** Whether a key has sent all the files that it makes a model of. */
	checkFiles(
		key: Key,
		credentialId: string,
		digests: readonly string[],
	): Refusal | undefined {
		const missing = digests.find((digest) => !this.has(credentialId, digest));
		if (missing === undefined) return undefined;
		return {
			status: 403,
			reason: "file",
			message: `the key "${key.name}" may make models of files that it has sent itself, and has not sent ${JSON.stringify(missing)} since llamagate started; send it again`,
		};
	}
}

function digestIn(path: string): string {
	return path.slice(path.lastIndexOf("/") + 1).replace("-", ":");
}
