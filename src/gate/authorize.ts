import type { Credential } from "../keys/keyring.ts";
import type { Route } from "../ollama/routes.ts";
import type { Refusal } from "./refusal.ts";

/** Step 5: what this key may do. The refusal says which rule stood in the way. */
export function checkPolicy(
	credential: Credential,
	route: Route,
	nowMs: number,
): Refusal | undefined {
	const expired = checkExpiry(credential, nowMs);
	if (expired !== undefined) return expired;
	const { key } = credential;
	if (!key.scopes.has(route.scope))
		return {
			status: 403,
			reason: "scope",
			message: `${route.id} needs the scope "${route.scope}"; the key "${key.name}" has ${[...key.scopes].join(", ")}`,
		};
	return undefined;
}

/** The one rule that holds whatever is asked for. */
export function checkExpiry(
	{ key, expiresAtMs, replaced }: Credential,
	nowMs: number,
): Refusal | undefined {
	if (nowMs < expiresAtMs) return undefined;
	const when = Number.isFinite(expiresAtMs)
		? ` on ${new Date(expiresAtMs).toISOString()}`
		: "";
	return {
		status: 403,
		reason: "expired",
		message: replaced
			? `the key "${key.name}" was replaced${when}; use its new one`
			: `the key "${key.name}" expired${when}`,
	};
}

/**
 * A browser sends a Basic password along by itself, also for a page of another
 * else's, so with Basic only the origins in `cors.origins` are heard. The other
 * credentials cannot be sent across origins unless the gate has allowed it.
 */
export function checkOrigin(
	basic: boolean,
	origin: string | undefined,
	allowed: ReadonlySet<string>,
): Refusal | undefined {
	if (!basic || origin === undefined || allowed.has(origin)) return undefined;
	return {
		status: 403,
		reason: "origin",
		message:
			"with Basic, pages of other origins are refused; send Authorization: Bearer, or list the origin in cors.origins",
	};
}
