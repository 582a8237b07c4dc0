import type { JsonReport } from "../../src/report/json.ts";
import type { Result } from "../../src/report/result.ts";
import type { BootedHost } from "./bootedHost.ts";

/** Runs `llamagate doctor --json` on a host, for some checks or groups, or for all. */
export async function runDoctor(
	host: BootedHost,
	...only: string[]
): Promise<readonly Result[]> {
	return readReport(host, ["llamagate", "doctor", "--json"], only);
}

/** The same as somebody who is not root. */
export async function runDoctorUnprivileged(
	host: BootedHost,
	...only: string[]
): Promise<readonly Result[]> {
	return readReport(
		host,
		[
			...["setpriv", "--reuid=65534", "--clear-groups"],
			...["llamagate", "doctor", "--json"],
		],
		only,
	);
}

async function readReport(
	host: BootedHost,
	command: readonly string[],
	only: readonly string[],
): Promise<readonly Result[]> {
	const result = await host.run(
		...command,
		...only.flatMap((id) => ["--only", id]),
	);
	if (!result.stdout.startsWith("{"))
		throw new Error(`doctor printed no report: ${result.stderr}`);
	return (JSON.parse(result.stdout) as JsonReport).results;
}

/** What doctor says of one check: `ok`, `finding: high`, and the first line of what it saw. */
export async function lookAt(host: BootedHost, id: string): Promise<Looked> {
	const [result] = await runDoctor(host, id);
	if (result === undefined) throw new Error(`doctor says nothing of ${id}`);
	return {
		state: stateOf(result),
		evidence: result.evidence.join("\n"),
		fix: result.fix ?? "",
	};
}

export interface Looked {
	readonly state: string;
	readonly evidence: string;
	readonly fix: string;
}

/** `ok`, `unknown`, `absent`, or the severity of a finding. */
export function stateOf({ state, severity }: Result): string {
	return state === "finding" ? severity : state;
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
