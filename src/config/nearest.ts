import leven from "leven";

/** The candidate that a person most likely meant, or `undefined` if none is close. */
export function nearest(
	name: string,
	candidates: readonly string[],
): string | undefined {
	let best: string | undefined;
	let bestDistance = Math.max(1, Math.floor(name.length / 3)) + 1;
	for (const candidate of candidates) {
		const distance = leven(name.toLowerCase(), candidate.toLowerCase());
		if (distance < bestDistance) {
			best = candidate;
			bestDistance = distance;
		}
	}
	return best;
}
