import type { Lane, Model, Place } from "./model.ts";

/**
 * What waits for a model, in the order in which it is likely to go: the higher
 * class first, and within one each user in turn, the least served first. As many
 * come before a request here as `Turns.aheadOf` says. It may be left early: the
 * first ones cost no look at the others.
 */
export function* inOrder(model: Model): Generator<Place> {
	for (const lane of model.lanes) yield* byRounds(lane);
}

function* byRounds(lane: Lane): Generator<Place> {
	let lines: Iterator<Place>[] = [];
	for (const { places } of lane.lines.inOrder()) {
		const line = places.values();
		const { value } = line.next();
		if (value === undefined) continue;
		yield value;
		lines.push(line);
	}
	while (lines.length > 0) {
		const rest: typeof lines = [];
		for (const line of lines) {
			const { value, done } = line.next();
			if (done === true) continue;
			yield value;
			rest.push(line);
		}
		lines = rest;
	}
}
