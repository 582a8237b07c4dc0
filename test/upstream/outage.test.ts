import t from "tap";
import type { HostState } from "../../src/upstream/hosts/health.ts";
import { Outage } from "../../src/upstream/hosts/outage.ts";

/** What is told while a host is in these states, each for so many seconds; it is looked at once a second. */
function told(...stretches: readonly (readonly [HostState, number])[]) {
	const outage = new Outage();
	const news: string[] = [];
	let second = 0;
	for (const [state, seconds] of stretches)
		for (let n = 0; n < seconds; n += 1, second += 1) {
			const found = outage.look(state, second * 1_000);
			if (found?.kind === "down") news.push(`${second}: down`);
			if (found?.kind === "back")
				news.push(`${second}: back after ${found.awayMs / 1000} s`);
		}
	return news;
}

t.test(
	"a host is told of after half a minute, and once when it is back",
	async (t) => {
		t.strictSame(
			told(
				["up", 10],
				["suspect", 2],
				["down", 100],
				["half-open", 5],
				["up", 50],
			),
			["40: down", "117: back after 107 s"],
		);
	},
);

t.test("a restart is no outage, however often there is one", async (t) => {
	t.strictSame(
		told(
			...Array.from({ length: 20 }, () => [
				["down", 29] as const,
				["up", 1] as const,
			]).flat(),
		),
		[],
	);
});

t.test("one that comes and goes is told of once", async (t) => {
	t.strictSame(
		told(
			...Array.from({ length: 20 }, () => [
				["down", 5] as const,
				["half-open", 5] as const,
			]).flat(),
		),
		["30: down"],
	);
});

t.test("a slow one is told of once it counts as gone", async (t) => {
	t.strictSame(told(["up", 1], ["suspect", 60], ["down", 9]), ["61: down"]);
	t.strictSame(told(["up", 1], ["suspect", 600], ["up", 1]), []);
});
