import type { Wire } from "../support/wire.ts";
import { mutatedRequests } from "./requestMutations.ts";

/** A case that the gate and the reference read differently. */
export interface Disagreement {
	readonly number: number;
	readonly bytes: string;
	readonly faults: readonly string[];
}

export interface DifferentialRun {
	readonly cases: number;
	/** Cases of which something reached the upstream whole. */
	readonly forwarded: number;
	readonly disagreements: readonly Disagreement[];
}

/**
 * Sends mutated requests until `isEnough` says so, and compares what reached
 * the upstream with what a reader like Go's makes of the same bytes.
 */
export async function fuzzRequests(
	wire: Wire,
	seed: number,
	isEnough: (cases: number) => boolean,
): Promise<DifferentialRun> {
	const disagreements: Disagreement[] = [];
	let cases = 0;
	let forwarded = 0;
	for (; !isEnough(cases); cases++) {
		const bytes = mutatedRequests(seed, cases);
		const traffic = await wire.send(bytes);
		if (traffic.forwarded.length > 0) forwarded += 1;
		if (traffic.faults.length > 0)
			disagreements.push({ number: cases, bytes, faults: traffic.faults });
	}
	return { cases, forwarded, disagreements };
}
