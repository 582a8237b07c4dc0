import type { Period } from "../config/budget.ts";

export type { Period } from "../config/budget.ts";

export interface BudgetWindow {
	/** Epoch milliseconds. */
	readonly startMs: number;
	/** The first moment of the next. */
	readonly endMs: number;
}

const dayMs = 86_400_000;

/**
 * The day, week (from Monday) or month of a time zone that a moment is in. It
 * begins with the first moment of its date there, which is not midnight where
 * the clocks are put forward then.
 *
 * @throws {RangeError} if the zone is unknown
 */
export function windowOf(
	period: Period,
	timezone: string,
	nowMs: number,
): BudgetWindow {
	const local = localClock(timezone);
	const today = new Date(local(nowMs));
	const [year, month, day] = [
		today.getUTCFullYear(),
		today.getUTCMonth(),
		today.getUTCDate(),
	];
	const startOf = (y: number, m: number, d: number) =>
		firstMoment(Date.UTC(y, m, d), local);
	if (period === "month")
		return {
			startMs: startOf(year, month, 1),
			endMs: startOf(year, month + 1, 1),
		};
	const length = period === "week" ? 7 : 1;
	const first = period === "week" ? day - ((today.getUTCDay() + 6) % 7) : day;
	return {
		startMs: startOf(year, month, first),
		endMs: startOf(year, month, first + length),
	};
}

/** What clocks of a zone show at a moment, as if they stood in UTC. */
function localClock(timezone: string): (timeMs: number) => number {
	const format = new Intl.DateTimeFormat("en-US", {
		timeZone: timezone,
		hourCycle: "h23",
		...({ year: "numeric", month: "numeric", day: "numeric" } as const),
		...({ hour: "numeric", minute: "numeric", second: "numeric" } as const),
	});
	return (timeMs) => {
		const parts = new Map(
			format.formatToParts(timeMs).map(({ type, value }) => [type, value]),
		);
		const part = (type: Intl.DateTimeFormatPartTypes) =>
			Number(parts.get(type));
		return Date.UTC(
			part("year"),
			part("month") - 1,
			...([part("day"), part("hour"), part("minute"), part("second")] as const),
		);
	};
}

/** @param midnightMs of a date, as if it were in UTC */
function firstMoment(
	midnightMs: number,
	local: (timeMs: number) => number,
): number {
	// The clocks may be put forward or back on that date: its offset is one of these two.
	const moments = [midnightMs - dayMs, midnightMs + dayMs].map(
		(near) => midnightMs - (local(near) - near),
	);
	const there = moments.filter((timeMs) => local(timeMs) >= midnightMs);
	return Math.min(...(there.length > 0 ? there : moments));
}
