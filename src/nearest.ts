import leven from "leven";

/** The candidate that a person most likely meant, or `undefined` if none is close. */
export function nearest(
	name: string,
	candidates: readonly string[],
): string | undefined {
	let best: string | undefined;
	let bestDistance = Math.max(1, Math.floor(name.length / 3)) + 1;
	for (const candidate of candidates) {
		// The distance is at least this, and takes long to measure for a long name.
		if (Math.abs(name.length - candidate.length) >= bestDistance) continue;
		const distance = distanceBetween(
			name.toLowerCase(),
			candidate.toLowerCase(),
		);
		if (distance < bestDistance) {
			best = candidate;
			bestDistance = distance;
		}
	}
	return best;
}

/** How many slips lie between two words; two letters in each other's place are one. */
function distanceBetween(name: string, candidate: string): number {
	const swapped = Array.from(
		{ length: Math.max(0, Math.min(name.length, 64) - 1) },
		(_, at) =>
			`${name.slice(0, at)}${name[at + 1]}${name[at]}${name.slice(at + 2)}`,
	);
	return Math.min(
		leven(name, candidate),
		...swapped.map((word) => 1 + leven(word, candidate)),
	);
}
