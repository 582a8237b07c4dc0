import type { Result } from "../../src/report/result.ts";
import type { BootedHost } from "./bootedHost.ts";
import { asNobody, examine } from "./doctor.ts";

/** What `llamagate doctor` says, of some checks or groups or of all, in its order. */
export async function runDoctor(
	host: BootedHost,
	...ids: string[]
): Promise<readonly Result[]> {
	return [...(await examine(host, ids)).values()];
}

/** The same as somebody who is not root. */
export async function runDoctorUnprivileged(
	host: BootedHost,
	...ids: string[]
): Promise<readonly Result[]> {
	return [...(await examine(host, ids, asNobody)).values()];
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
