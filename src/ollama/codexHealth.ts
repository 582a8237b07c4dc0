/**
 * A sign of an Ollama that nobody guards: 0.34.0 and newer answer this to
 * everybody, as a part of the proxy for a desktop client (server/codex_proxy.go).
 * No gate passes it on.
 */
export const codexHealth = "/api/codex/_health";

/** Whether this is what Ollama answers there, and not some page's 200. */
export function isCodexHealth(status: number, body: string): boolean {
	return status === 200 && /^\s*\{\s*"ok"\s*:\s*true\s*\}\s*$/.test(body);
}
