import { type Severity, severities } from "../report/result.ts";

/** What the daily look at the host found, as the gate is told it. */
export interface DoctorCounts {
	/** When it looked; epoch milliseconds. */
	readonly atMs: number;
	readonly findings: Readonly<Record<Severity, number>>;
}

/** The line by which a gate is told, for `askDaemon`. */
export function tellDoctorCounts({ atMs, findings }: DoctorCounts): string {
	const query = new URLSearchParams({ at: String(atMs) });
	for (const severity of severities)
		query.set(severity, String(findings[severity]));
	return `POST /doctor?${query}`;
}

/** @returns `undefined` where a number is missing, or is none */
export function readDoctorCounts(
	query: URLSearchParams,
): DoctorCounts | undefined {
	const number = (name: string) => {
		const text = query.get(name) ?? "";
		return /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
	};
	const findings = Object.fromEntries(
		severities.map((severity) => [severity, number(severity)]),
	) as Record<Severity, number>;
	const atMs = number("at");
	return [atMs, ...Object.values(findings)].every(Number.isFinite)
		? { atMs, findings }
		: undefined;
}
