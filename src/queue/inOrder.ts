import { isBefore, type Lane, type Model, type Place } from "./model.ts";

/**
 * What waits for a model, in the order in which it is likely to go: the higher
 * class first, and within one each user in turn, the least served first. As many
 * come before a request here as `aheadOf` says. It may be left early: the
 * first ones cost no look at the others.
 */
export function* inOrder(model: Model): Generator<Place> {
	for (const lane of model.lanes) yield* byRounds(lane);
}

/** What waits, at most so many of each model, and how many are likely to go before each. */
export function lineUp<T>(
	models: Iterable<Model>,
	waiting: ReadonlyMap<Place, T>,
	limit: number,
): Map<T, number> {
	const ahead = new Map<T, number>();
	for (const model of models) {
		let count = 0;
		for (const place of inOrder(model)) {
			if (count === limit) break;
			const one = waiting.get(place);
			if (one !== undefined) ahead.set(one, count);
			count += 1;
		}
	}
	return ahead;
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

/** How many are likely to go before a request that waits, at most all that wait. */
export function aheadOf(place: Place): number {
	const { line } = place;
	if (place.state !== "waiting" || line === undefined) return 0;
	let own = 0;
	for (const other of line.places) {
		if (other === place) break;
		own += 1;
	}
	let ahead = own;
	for (let rank = 0; rank < place.rank; rank += 1)
		ahead += place.model.lanes[rank]?.arrivals.size ?? 0;
	for (const other of line.lane.lines) {
		if (other === line) continue;
		const rounds = own + (isBefore(other.account, line.account) ? 1 : 0);
		ahead += Math.min(other.places.size, rounds);
	}
	return ahead;
}
