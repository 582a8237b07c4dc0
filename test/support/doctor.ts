import type { Test } from "tap";
import type { Result } from "../../src/report/result.ts";
import type { BootedHost } from "./bootedHost.ts";
import { becomes } from "./namespaces.ts";

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

/** `ok`, `unknown`, `absent`, or the severity of a finding. */
export function stateOf({ state, severity }: Result): string {
	return state === "finding" ? severity : state;
}

/** The same for each check, by its id. */
export function statesOf(findings: Findings): Record<string, string> {
	return Object.fromEntries(
		[...findings.values()].map((result) => [result.id, stateOf(result)]),
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

/** What it says of some checks or groups or of all, in its order. */
export async function runDoctor(
	host: BootedHost,
	...ids: string[]
): Promise<readonly Result[]> {
	return [...(await examine(host, ids)).values()];
}

/** One check, as a test compares it. */
export interface Looked {
	readonly state: string;
	readonly evidence: string;
	readonly fix: string;
}

export async function lookAt(host: BootedHost, id: string): Promise<Looked> {
	const result = (await examine(host, [id])).get(id);
	if (result === undefined) throw new Error(`doctor says nothing of ${id}`);
	return {
		state: stateOf(result),
		evidence: result.evidence.join("\n"),
		fix: result.fix ?? "",
	};
}

/** Runs a fix as it is printed, each line of it, on a host that has no sudo. */
export async function follow(host: BootedHost, fix: string): Promise<void> {
	for (const line of fix.split("\n"))
		await host.sh(
			line
				.replaceAll("sudo ", "")
				.replace(/^(llamagate setup .*)/, "$1 --yes >/dev/null"),
		);
}

/** Waits until some checks come out so: a restart or a log line takes its moment. */
export function comesOut(
	t: Test,
	host: BootedHost,
	wanted: Record<string, string>,
	message: string,
): Promise<void> {
	return becomes(
		t,
		async () => statesOf(await examine(host, Object.keys(wanted))),
		wanted,
		message,
	);
}
