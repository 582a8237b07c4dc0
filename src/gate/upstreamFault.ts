import type { UpstreamFault } from "../upstream/client.ts";
import type { Refusal } from "./refusal.ts";

/** What is said where Ollama could not answer, or was not asked in the end. */

/** The refusal of a request beyond `upstream.maxConnections`. */
export function busy(maxConnections: number): Refusal {
	return {
		status: 503,
		reason: "busy",
		message: `server busy: ${maxConnections} requests are with Ollama already`,
		headers: ["retry-after", "5"],
	};
}

/** What of a fault tells the queue that Ollama may be away. */
export function faultOf(
	kind: UpstreamFault["kind"] | undefined,
): "unreachable" | "died" | undefined {
	return kind === "garbage" ? undefined : kind;
}

export function badGateway(reason: string, message: string): Refusal {
	return { status: 502, reason, message };
}

/** Puts what became of a request into words. */
export function describeFault(
	{ kind, detail }: UpstreamFault,
	name: string,
): Refusal {
	if (kind === "garbage")
		return badGateway(
			"upstream_garbage",
			`Ollama's answer was not valid HTTP: ${detail}`,
		);
	if (kind === "died")
		return badGateway(
			"upstream_died",
			"Ollama closed the connection in the middle of the request",
		);
	return badGateway(
		"upstream_unreachable",
		detail === "EMFILE" || detail === "ENFILE"
			? `llamagate has no file descriptor left to reach Ollama by (${detail})`
			: `llamagate cannot reach Ollama at ${name} (${detail}); is it running?`,
	);
}

export const redirected: Refusal = badGateway(
	"upstream_redirect",
	"Ollama answered with a redirect, which is never followed",
);

/** Node's parser lets no such header in. Should it ever, it gets no further. */
export const oddHeader: Refusal = {
	status: 400,
	reason: "malformed",
	message: "a header of this request cannot be passed on",
};

/** @param how the body has failed to come */
export function stalled(how: string): Refusal {
	return {
		status: 408,
		reason: "body_stalled",
		message: `the request's body ${how}`,
	};
}
