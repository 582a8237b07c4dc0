import { codexHealth, isCodexHealth } from "../../ollama/codexHealth.ts";
import { knock } from "../../system/httpProbe.ts";

/** How many sockets are asked whether they are Ollama's. Any user may have many. */
export const mostAsked = 100;

const patienceMs = 2_000;

/** Whether what listens there answers as Ollama's server does, by whatever program it comes. */
export async function answersAsOllama(
	address: string,
	port: number,
): Promise<boolean> {
	const root = await knock(address, port, "/", patienceMs);
	if (root.kind !== "answer") return false;
	if (root.body.trim() === "Ollama is running") return true;
	// A proxy may have a page of its own there. Open WebUI has /api/version, too, and not this.
	const models = await knock(address, port, "/api/ps", patienceMs);
	if (
		models.kind === "answer" &&
		models.status === 200 &&
		/^\s*\{\s*"models"\s*:\s*(?:\[|null)/.test(models.body)
	)
		return true;
	// Whatever a proxy keeps back of the rest: no gate passes this on.
	const health = await knock(address, port, codexHealth, patienceMs);
	return health.kind === "answer" && isCodexHealth(health.status, health.body);
}
