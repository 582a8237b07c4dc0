import t from "tap";
import { simulate } from "../../bench/queue/simulate.ts";
import { traces } from "../../bench/queue/traces.ts";

/** What a group's figures are. */
const outcome = (
	trace: keyof typeof traces,
	policy: Parameters<typeof simulate>[1],
	group: string,
) => {
	const { groups } = simulate(traces[trace], policy, 1);
	const found = groups[group];
	if (found === undefined) throw new Error(`no request of ${group}`);
	return found;
};

t.test("a trace has one outcome for each seed", async (t) => {
	const run = (seed: number) => simulate(traces.models, "fair", seed);
	t.same(run(1), run(1));
	t.notSame(run(1), run(2));
});

t.test("without a queue a user of another model starves", async (t) => {
	const { worst, gpuShare } = outcome("models", "ollama", "user of b");
	t.equal(worst, traces.models.seconds);
	t.equal(gpuShare, 0);
});

t.test("turns starve nobody and load seldom", async (t) => {
	const turns = simulate(traces.models, "fair with turns", 1);
	const { room, parallel, loadMs } = traces.models.gpu;
	t.same([room, parallel], [1, 1]);
	for (const { worst, gpuShare } of Object.values(turns.groups)) {
		t.ok(worst < (2 * 8 * loadMs) / 1000, "nobody waits for two turns");
		t.ok(Math.abs(gpuShare - 0.5) < 0.01);
	}
	t.ok(turns.loads * 5 < simulate(traces.models, "fair", 1).loads);
	t.ok(turns.usedShare > 0.8);
});

t.test("a turn goes on while whoever has it reads the reply", async (t) => {
	const { gpu, seconds } = traces.chats;
	const { loads } = simulate(traces.chats, "fair with turns", 1);
	t.ok((loads * gpu.loadMs) / 1000 < seconds / 7);
	t.ok(loads * 5 < simulate(traces.chats, "fifo", 1).loads);
});

t.test("slots are learnt, and none too many", async (t) => {
	for (const name of ["batch", "shares"] as const) {
		const trace = {
			...traces[name],
			gpu: { ...traces[name].gpu, parallel: 4 },
		};
		const { groups, usedShare } = simulate(trace, "the same, slots learnt", 1);
		const known = simulate(trace, "fair with turns", 1);
		t.ok(Math.abs(usedShare - known.usedShare) < 0.01);
		t.ok(usedShare > 0.9, `${usedShare}`);
		for (const [group, { gpuShare }] of Object.entries(groups))
			t.ok(Math.abs(gpuShare - (known.groups[group]?.gpuShare ?? 0)) < 0.01);
	}
});

t.test("turns are kept where everybody has waited for too long", async (t) => {
	const { gpu, seconds } = traces.overload;
	const { groups, loads } = simulate(traces.overload, "fair with turns", 1);
	t.ok((groups.people?.wait50 ?? 0) > 600, "longer than their class may be");
	t.ok((loads * gpu.loadMs) / 1000 < seconds / 9);
});

t.test(
	"beside a batch a person waits for one request, not for twelve",
	async (t) => {
		const [fifo, fair] = [
			outcome("batch", "fifo", "person"),
			outcome("batch", "fair with turns", "person"),
		];
		t.ok(fifo.wait50 > 3);
		t.ok(fair.wait95 * 8 < fifo.wait95);
		t.ok(fair.worst < fifo.worst / 2);
		const { usedShare } = simulate(traces.batch, "fair with turns", 1);
		t.ok(usedShare > 0.99, "and the GPU never rests");
	},
);

t.test("users get the GPU by their shares, whatever they ask", async (t) => {
	const { groups } = simulate(traces.shares, "fair", 1);
	for (const share of [1, 2, 4]) {
		const part = groups[`share ${share}`]?.gpuShare ?? 0;
		t.ok(Math.abs(part - share / 7) < 0.01, `${share} of 7`);
	}
});
