import { generateKeyPairSync, type KeyObject, sign } from "node:crypto";

const pairs = new Map<string, { publicKey: string; privateKey: KeyObject }>();

/** A key pair for a name, its public half as `~/.ollama/id_ed25519.pub` writes it. */
export function ollamaKeyPair(name: string) {
	let pair = pairs.get(name);
	if (pair === undefined) {
		const { publicKey, privateKey } = generateKeyPairSync("ed25519");
		const raw = publicKey.export({ format: "der", type: "spki" }).subarray(-32);
		const type = Buffer.from("ssh-ed25519");
		const length = (count: number) => {
			const bytes = Buffer.alloc(4);
			bytes.writeUInt32BE(count);
			return bytes;
		};
		const blob = Buffer.concat([length(type.length), type, length(32), raw]);
		pair = { publicKey: blob.toString("base64"), privateKey };
		pairs.set(name, pair);
	}
	return pair;
}

/** Signs a request as Ollama's client does (api/client.go:do). */
export function signLikeOllama(
	method: string,
	path: string,
	seconds: number,
	name = "cli",
) {
	const { publicKey, privateKey } = ollamaKeyPair(name);
	const challenge = Buffer.from(`${method},${path}?ts=${seconds}`);
	const signature = sign(null, challenge, privateKey).toString("base64");
	return { publicKey, header: `${publicKey}:${signature}` };
}
