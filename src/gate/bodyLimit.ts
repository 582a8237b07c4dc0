import type { Settings } from "../config/load.ts";
import { type Route, smallBodyBytes } from "../ollama/routes.ts";
import type { Exchange } from "./exchange.ts";
import type { Refusal } from "./refusal.ts";
import { bodyLengthOf } from "./route.ts";

/** The refusal of a body whose length says that it is too large. */
export function checkBody(
	exchange: Exchange,
	settings: Settings,
): Refusal | undefined {
	if (exchange.route === undefined) return undefined;
	const limit = bodyLimitOf(exchange.route, settings.limits.bodyBytes);
	const length = bodyLengthOf(exchange.head);
	// A chunked body has no length yet; the relay counts it.
	return Number.isFinite(length) && length > limit
		? bodyTooLarge(limit)
		: undefined;
}

/** The refusal of a body that is too large, found early or late. */
export function bodyTooLarge(limitBytes: number): Refusal {
	return {
		status: 413,
		reason: "body_too_large",
		message: `the body may have at most ${limitBytes} byte${limitBytes === 1 ? "" : "s"}`,
	};
}

/** The largest body that a route takes. */
export function bodyLimitOf(route: Route, inferenceBytes: number): number {
	switch (route.body) {
		case "none":
			return 0;
		case "small":
			return smallBodyBytes;
		case "inference":
			return inferenceBytes;
		case "blob":
			return Number.POSITIVE_INFINITY;
	}
}

/** There is no room for one more that has to be held. */
export const tooManyLargeBodies: Refusal = {
	status: 503,
	reason: "busy",
	message: "too many large bodies are being read; try again",
	headers: ["retry-after", "5"],
};
