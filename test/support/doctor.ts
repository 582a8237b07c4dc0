import type { Result } from "../../src/report/result.ts";
import type { BootedHost } from "./bootedHost.ts";

/** What `llamagate doctor --json` finds on a host, by the id of the check. */
export type Findings = ReadonlyMap<string, Result>;

/** Runs it for some checks or groups. @param launcher a command that runs the command that follows it */
export async function examine(
	host: BootedHost,
	ids: readonly string[],
	launcher: readonly string[] = [],
): Promise<Findings> {
	const { stdout, stderr } = await host.run(
		...launcher,
		...["llamagate", "doctor", "--json"],
		...ids.flatMap((id) => ["--only", id]),
	);
	if (!stdout.startsWith("{"))
		throw new Error(`doctor printed no report: ${stdout}${stderr}`);
	const { results } = JSON.parse(stdout) as { results: Result[] };
	return new Map(results.map((result) => [result.id, result]));
}

/** The state of each, with the severity of what was found: `finding high`. */
export function statesOf(findings: Findings): Record<string, string> {
	return Object.fromEntries(
		[...findings.values()].map(({ id, state, severity }) => [
			id,
			state === "finding" ? `finding ${severity}` : state,
		]),
	);
}

/** All that was seen, as one text. */
export function evidenceOf(findings: Findings, id: string): string {
	return findings.get(id)?.evidence.join("\n") ?? "";
}

/** Runs a program as nobody, who may see what any user may. */
export const asNobody = ["setpriv", "--reuid=65534", "--clear-groups"];

/** A fix as root types it. */
export function commandOf(findings: Findings, id: string): string {
	return findings.get(id)?.fix?.replaceAll("sudo ", "") ?? "false";
}
