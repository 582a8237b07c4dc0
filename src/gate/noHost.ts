import type { Route } from "../ollama/routes.ts";
import type { Host } from "../upstream/hosts/host.ts";
import { excerpt } from "../visible.ts";
import type { Refusal } from "./refusal.ts";
import { badGateway } from "./upstreamFault.ts";

/** Why no host answers. */

/** Whether calls of a path are a host's at all. @param fromGate for another gate: a request goes by way of one at the most, or two could send it round and round */
export function answers(
	{ kind, isBehindGate }: Host,
	path: string,
	fromGate: boolean,
): boolean {
	if (fromGate && isBehindGate) return false;
	return kind === "ollama" || path.startsWith("/v1/");
}

/** The one host that is meant cannot, whether it is up or not, so that nobody need try again. */
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

/** Those that would answer if they could: that may have the model, or else an Ollama, which says that it has not. */
export function ableTo(
	hosts: readonly Host[],
	model: string | undefined,
): readonly Host[] {
	const holders = hosts.filter((host) => model && host.mayHold(model));
	return holders.length > 0
		? holders
		: hosts.filter(
				(host) =>
					host.kind === "ollama" &&
					(model === undefined || host.mayHave(model)),
			);
}

/** @param described what each host's state is */
export function noneUp(described: string): Refusal {
	return {
		...badGateway("no_host", `no host can answer now: ${described}`),
		headers: ["retry-after", "5"],
	};
}

/** An Ollama would say so of itself; no host was asked, as none has it. @param model `undefined` where the body names none */
export function noModel(model: string | undefined): Refusal {
	const isNamed = model !== undefined;
	return {
		status: isNamed ? 404 : 400,
		reason: "no_model",
		message: isNamed
			? `none of this gate's hosts has the model ${JSON.stringify(excerpt(model))}; /v1/models lists what they have`
			: "the body names no model, or not clearly, and this gate's hosts go by it",
	};
}

/** A host's state, and why, in words. @param isTried whether it has failed this request */
export function describe(
	{ name, health, catalog }: Host,
	isTried: boolean,
): string {
	const { state, why } = health;
	const hasSaidNothing = catalog === undefined;
	if (isTried) return `${name} has failed this request`;
	if (state === "half-open") return `${name} has just come back and is tried`;
	if (state !== "down" && hasSaidNothing)
		return `${name} has not said yet what it has`;
	const unseen = hasSaidNothing ? " and has not said yet what it has" : "";
	return `${name} is ${state}${why === undefined ? "" : ` (${why})`}${unseen}`;
}
