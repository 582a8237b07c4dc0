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
	return (await hearOllama(address, port)) === "yes";
}

/** The same; `unclear` where a TLS port answers to those alone who know its name. */
export async function hearOllama(
	address: string,
	port: number,
): Promise<"yes" | "no" | "unclear"> {
	const root = await knock(address, port, "/", patienceMs);
	if (root.kind === "nameless") return "unclear";
	if (root.kind !== "answer") return "no";
	if (root.body.trim() === "Ollama is running") return "yes";
	// A proxy may have a page of its own there. Open WebUI has /api/version, too, and not this.
	const models = await knock(address, port, "/api/ps", patienceMs);
	if (
		models.kind === "answer" &&
		models.status === 200 &&
		/^\s*\{\s*"models"\s*:\s*(?:\[|null)/.test(models.body)
	)
		return "yes";
	// Whatever a proxy keeps back of the rest: no gate passes this on.
	const health = await knock(address, port, codexHealth, patienceMs);
	return health.kind === "answer" && isCodexHealth(health.status, health.body)
		? "yes"
		: "no";
}

/** That Ollama may be behind places that only know those who know their name. */
export function nameless(places: readonly string[]): string[] {
	return places.map(
		(place) =>
			`${place}: TLS for those alone who know its name, so whether it leads to Ollama is not seen here; from outside: llamagate probe --public NAME --ports PORT`,
	);
}
