import { startLoad, type Upstream } from "../native.ts";
import { fixed, quantile, type Section } from "../report.ts";
import { measureEach, type Samples, samplesOf, toData } from "../rounds.ts";
import { key, type Stage, type Target, withTargets } from "../targets.ts";

/** How long Ollama goes on working for a client that has left. */
export function cancel(stage: Stage): Promise<Section[]> {
	const tries = stage.quick ? 20 : 100;
	return withTargets(stage, async (targets, notes, upstream) => {
		const measured = (name: string, after: number) =>
			measureEach(stage, targets, 0, name, (target) =>
				leave(stage, target, upstream, tries, after),
			);
		const silent = await measured("cancel before headers", 0);
		const running = await measured("cancel in mid-stream", 3);
		const valuesOf = (results: readonly Samples<number[]>[], name: string) =>
			(samplesOf(results, name) ?? []).flat();
		const figures: Record<string, Record<string, number>> = {};
		for (const { name } of targets) {
			const [before, after] = [valuesOf(silent, name), valuesOf(running, name)];
			if (before.length === 0 || after.length === 0) continue;
			figures[name] = {
				silent50: quantile(before, 0.5),
				running50: quantile(after, 0.5),
				worst: Math.max(...before, ...after),
			};
		}
		const cells = (results: readonly Samples<number[]>[], name: string) => {
			const all = valuesOf(results, name);
			const failed = results.find(({ target }) => target.name === name);
			return all.length === 0
				? [
						failed !== undefined && "failure" in failed ? failed.failure : "",
						"",
					]
				: [fixed(quantile(all, 0.5), 2), fixed(Math.max(...all), 2)];
		};
		return [
			{
				name: "cancel",
				title: "Cancel: from the client's close to the upstream's notice",
				notes: [
					`milliseconds; ${tries} tries each, one at a time; before headers: the upstream is silent; in mid-stream: after the third read of a stream of 50 tokens/s`,
					...notes,
				],
				head: ["", "before headers p50", "max", "in mid-stream p50", "max"],
				rows: targets.map(({ name }) => [
					name,
					...cells(silent, name),
					...cells(running, name),
				]),
				figures,
				data: { silent: toData(silent), running: toData(running) },
			},
		];
	});
}

/** Leaves requests one after the other; milliseconds until the upstream saw each go. */
async function leave(
	{ native }: Stage,
	{ port }: Target,
	upstream: Upstream,
	tries: number,
	after: number,
): Promise<number[]> {
	upstream.events.length = 0;
	const options = { mode: "cancel", port, key, tries, after };
	const closed = (await startLoad(native, options).lines).map((line) =>
		Number(line.split(" ")[1]),
	);
	const gone = upstream.events.flatMap((line) =>
		line.startsWith("gone ") ? [Number(line.slice(5))] : [],
	);
	if (gone.length !== closed.length)
		throw new Error(
			`of ${closed.length} cancels the upstream saw ${gone.length}`,
		);
	return closed.map((atNs, index) => ((gone[index] ?? 0) - atNs) / 1e6);
}
