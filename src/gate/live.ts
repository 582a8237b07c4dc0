import { type GateLive, maxLiveEntries } from "../admin/live.ts";
import { shareOf } from "../ledger/budgets.ts";
import type { GateState } from "./state.ts";
import { topOf } from "./top.ts";

const minuteMs = 60_000;

/** All that `top` and the live page show of the gate: `GET /live` of the admin socket. */
export async function liveOf(
	state: GateState,
	startedAt: Date,
): Promise<GateLive> {
	const nowMs = performance.now();
	const { recent } = state.accessLog;
	const loaded = await state.loadedModels.list(nowMs);
	let pieces = recent.pieces;
	for (const { exchange } of state.relays)
		if (exchange.routeMatch.route.scope === "infer")
			pieces += exchange.piecesOut;
	return {
		startedAt: startedAt.toISOString(),
		top: topOf(state),
		pieces,
		firstTokens: {
			lastMinute: recent.firstTokens(minuteMs, nowMs),
			tenMinutes: recent.firstTokens(10 * minuteMs, nowMs),
		},
		refusals: recent.refusals(nowMs),
		lockedOut: state.lockout.lockedCount(nowMs),
		budgets: budgetsOf(state),
		loaded,
	};
}

/** What is used of each budget, the fullest first. */
export function budgetsOf({
	budgets,
	rules,
}: Pick<GateState, "budgets" | "rules">): GateLive["budgets"] {
	const nowMs = Date.now();
	return [...rules.keyring.budgets]
		.map(([key, { budget }]) => ({
			key,
			per: budget.per,
			...budgets.look(key, budget, nowMs),
		}))
		.sort((a, b) => shareOf(b.standing) - shareOf(a.standing))
		.slice(0, maxLiveEntries)
		.map(({ key, per, standing, isBlind }) => ({
			key,
			per,
			used: standing.used,
			limits: standing.limits,
			resetsAt: new Date(standing.resetsAtMs).toISOString(),
			isKnown: !isBlind,
			...(isBlind && { untilKnown: rules.settings.budgets.withoutLedger }),
		}));
}
