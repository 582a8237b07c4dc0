import { isDeepStrictEqual } from "node:util";

/** The configuration that a fresh installation gets: Ollama over the bridge, nothing on the network for counters. */
export const firstConfig = `{
	"upstream": { "url": "unix:/run/llamagate-ollama/ollama.sock" },
	"admin": { "metrics": "off" }
}
`;

/** Whether a configuration says only that, as nobody has put anything into it. */
export function isFirstConfig(text: string): boolean {
	try {
		return isDeepStrictEqual(JSON.parse(text), JSON.parse(firstConfig));
	} catch {
		// Who writes comments has been at work.
		return false;
	}
}
