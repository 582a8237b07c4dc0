import fc from "fast-check";
import t from "tap";
import { priorities } from "../../src/priority.ts";
import { aheadOf, inOrder } from "../../src/queue/inOrder.ts";
import { isBefore, type Place } from "../../src/queue/model.ts";
import { Turns } from "../../src/queue/turns.ts";

/** Whether another user who waits in its class stands as it does. */
function hasEqual({ line, rank }: Place, waiting: readonly Place[]): boolean {
	return waiting.some(({ line: other, rank: otherRank }) => {
		if (line === undefined || other === undefined || other === line)
			return false;
		const isOrdered =
			isBefore(line.account, other.account) ||
			isBefore(other.account, line.account);
		return rank === otherRank && !isOrdered;
	});
}

const hourMs = 3_600_000;

t.test(
	"what waits is in the order of how many are ahead, whoever has had what",
	async () => {
		const asked = fc.record({
			user: fc.constantFrom("a", "b", "c", "d", "e"),
			share: fc.integer({ min: 1, max: 3 }),
			priority: fc.constantFrom(...priorities),
			model: fc.constant("m"),
			isStream: fc.boolean(),
			/** How long the one that runs goes on, before this one comes. */
			runsMs: fc.option(fc.integer({ min: 1, max: 9_000 })),
		});
		fc.assert(
			fc.property(fc.array(asked, { maxLength: 60 }), (requests) => {
				const turns = new Turns({
					parallel: 1,
					maxWaitMs: {
						interactive: hourMs,
						normal: hourMs,
						batch: hourMs,
					},
					turnFactor: 8,
				});
				let nowMs = 0;
				let running: Place | undefined;
				const places: Place[] = [];
				for (const { runsMs, ...request } of requests) {
					places.push(turns.arrived(request, nowMs));
					if (runsMs === null) continue;
					nowMs += runsMs;
					if (running !== undefined) {
						turns.firstByte(running, nowMs);
						turns.finished(running, nowMs);
					}
					running = turns.next(nowMs);
				}
				const waiting = places.filter(({ state }) => state === "waiting");
				const [model] = turns.models;
				const order = model === undefined ? [] : [...inOrder(model)];
				return (
					order.length === waiting.length &&
					order.every((place, ahead) => {
						const said = aheadOf(place);
						// Of two that are equal neither counts as ahead of the other.
						return said === ahead || (said < ahead && hasEqual(place, waiting));
					})
				);
			}),
		);
	},
);
