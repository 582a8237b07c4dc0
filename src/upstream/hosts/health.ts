/**
 * Whether a host can be given work: what is known of it, and how that changes
 * with what happens. Pure; it is told the time.
 */

export const hostStates = [
	"up",
	/** Something was wrong with it, or nothing is known of it yet: it is asked for only where no other will do. */
	"suspect",
	"down",
	/** It was down and answers again: one request at a time, until it has shown that it can. */
	"half-open",
] as const;
export type HostState = (typeof hostStates)[number];

export type HostEvent =
	/** It has answered a question of the gate's own as it should. */
	| { readonly kind: "answered" }
	/** It has begun to answer a request. */
	| { readonly kind: "served" }
	/** It could not be connected to. */
	| { readonly kind: "unreachable"; readonly why: string }
	/** A request was broken off; a program that crashes on one prompt is not away for the others. */
	| { readonly kind: "died"; readonly why: string }
	/** It is connected to, and says nothing. */
	| { readonly kind: "silent" }
	/** What it says is not what such a host says. */
	| { readonly kind: "nonsense"; readonly why: string };

export interface Health {
	readonly state: HostState;
	/** Since when it is in that state. */
	readonly sinceMs: number;
	/** What was wrong last, for people; `undefined` where nothing is. */
	readonly why: string | undefined;
	/** In a row, without an answer between them. */
	readonly failures: number;
	readonly answers: number;
	/** Since when it has said nothing at all. */
	readonly silentSinceMs: number | undefined;
}

/** One refused connection may be a restart; a second one is not waited out. */
export const failuresToDown = 2;
/** So many answers in a row and it is up again. */
export const answersToUp = 2;
/**
 * How long a host may be silent before it counts as gone. A slow host is not a
 * dead one: while a large model is read from a disk, a small machine answers nobody.
 */
export const silenceToDownMs = 60_000;

/** Of a host that has not been asked yet. */
export function unknownHealth(nowMs: number): Health {
	return {
		state: "suspect",
		sinceMs: nowMs,
		why: "not asked yet",
		failures: 0,
		answers: 0,
		silentSinceMs: undefined,
	};
}

/** What is known of a host once something has happened. */
export function nextHealth(
	health: Health,
	event: HostEvent,
	nowMs: number,
): Health {
	switch (event.kind) {
		case "answered":
		case "served":
			return afterAnswer(health, event.kind, nowMs);
		case "unreachable":
		case "died":
			return afterFailure(health, event, nowMs);
		case "silent":
			return afterSilence(health, nowMs);
		case "nonsense":
			return moved(health, "down", nowMs, { why: event.why });
	}
}

function afterAnswer(
	health: Health,
	kind: "answered" | "served",
	nowMs: number,
): Health {
	// The usual case, with each request.
	if (health.state === "up" && kind === "served") return health;
	const answers = health.answers + 1;
	if (health.state === "down")
		return moved(health, "half-open", nowMs, { why: health.why, answers: 1 });
	if (
		health.state === "half-open" &&
		kind === "answered" &&
		answers < answersToUp
	)
		return { ...health, answers };
	return moved(health, "up", nowMs, { why: undefined, answers });
}

function afterFailure(
	health: Health,
	{
		kind,
		why,
	}: { readonly kind: "unreachable" | "died"; readonly why: string },
	nowMs: number,
): Health {
	const failures = health.failures + (kind === "unreachable" ? 1 : 0);
	const isDown =
		health.state === "down" ||
		health.state === "half-open" ||
		failures >= failuresToDown;
	return moved(health, isDown ? "down" : "suspect", nowMs, { why, failures });
}

function afterSilence(health: Health, nowMs: number): Health {
	const silentSinceMs = health.silentSinceMs ?? nowMs;
	const silentMs = nowMs - silentSinceMs;
	const why = `says nothing for ${Math.round(silentMs / 1000)} s`;
	const { failures } = health;
	const isDown =
		health.state === "down" ||
		health.state === "half-open" ||
		silentMs >= silenceToDownMs;
	return moved(health, isDown ? "down" : "suspect", nowMs, {
		why: silentMs === 0 ? "says nothing" : why,
		failures,
		silentSinceMs,
	});
}

function moved(
	health: Health,
	state: HostState,
	nowMs: number,
	rest: Pick<Health, "why"> &
		Partial<Pick<Health, "failures" | "answers" | "silentSinceMs">>,
): Health {
	return {
		failures: 0,
		answers: 0,
		silentSinceMs: undefined,
		...rest,
		state,
		sinceMs: state === health.state ? health.sinceMs : nowMs,
	};
}
