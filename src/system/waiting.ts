import { setTimeout as delay } from "node:timers/promises";
import { outsideOfLooks } from "./memo.ts";

/** How long a service that has just been started is given to show its effect. */
const patienceMs = 20_000;

/** Looks again and again until something is so, or until patience ends. */
export async function becomesTrue(
	look: () => Promise<boolean>,
	withinMs = patienceMs,
): Promise<boolean> {
	const deadline = performance.now() + withinMs;
	for (;;) {
		if (await outsideOfLooks(look)) return true;
		if (performance.now() > deadline) return false;
		await delay(250);
	}
}
