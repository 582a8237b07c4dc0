import type { Route } from "../ollama/routes.ts";
import type { Host } from "../upstream/hosts/host.ts";
import type { Refusal } from "./refusal.ts";

/** What no host can answer whether it is up or not, so that nobody need try again. */

/** Whether calls of a path are a host's at all. @param fromGate for another gate: a request goes by way of one at the most, or two could send it round and round */
export function answers(
	{ kind, isBehindGate }: Host,
	path: string,
	fromGate: boolean,
): boolean {
	if (fromGate && isBehindGate) return false;
	return kind === "ollama" || path.startsWith("/v1/");
}

/** The one host that is meant cannot. */
export function hostCannot(host: Host, { id }: Route): Refusal {
	return notFound(
		`the host ${host.name} does not answer ${id}: it ${whyNot(host)}`,
	);
}

/** None can. */
export function noHostCan(hosts: readonly Host[], { id }: Route): Refusal {
	return notFound(
		`none of this gate's hosts answers ${id}: ${hosts.map((host) => `${host.name} ${whyNot(host)}`).join(", ")}`,
	);
}

function whyNot({ kind }: Host): string {
	return kind === "openai"
		? "speaks the calls below /v1 alone"
		: "is behind another gate";
}

function notFound(message: string): Refusal {
	return { status: 404, reason: "no_host", message };
}
