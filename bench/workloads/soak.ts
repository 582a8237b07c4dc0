import { runLoad, type StreamTimes } from "../native.ts";
import { residentBytes } from "../processes.ts";
import { mebibytes, type Section, whole } from "../report.ts";
import { type GateOptions, key, type Stage, withTargets } from "../targets.ts";

/** With Node's own bounds garbage may pile up; what stays when it may not is in use. */
const smallOldHeapMiB = 64;

/**
 * A day's streams and more through one gate: short ones, as many as a core
 * relays, while its memory is watched.
 */
export async function soak(stage: Stage): Promise<Section[]> {
	return [
		await soakOne(stage, "soak", {}, "as it comes"),
		await soakOne(
			stage,
			"soak, small heap",
			{ oldHeapMiB: smallOldHeapMiB },
			`with no more than ${smallOldHeapMiB} MiB for V8's old heap`,
		),
	];
}

function soakOne(
	stage: Stage,
	name: string,
	gateOptions: GateOptions,
	how: string,
): Promise<Section> {
	const wanted = stage.quick ? 100_000 : 1_000_000;
	const tokens = 3;
	return withTargets(
		stage,
		async (targets, notes) => {
			const gate = targets.find(({ name }) => name === "gate");
			if (gate === undefined) throw new Error("the gate did not start");
			const rows: string[][] = [];
			const figures: Record<string, Record<string, number>> = {};
			let streams = 0;
			for (let step = 0.05; streams < wanted; step = Math.min(1, 2 * step)) {
				stage.progress(
					`${name}: ${whole(streams)} of ${whole(wanted)} streams`,
				);
				const { received, lost } = await runLoad<StreamTimes>(stage.native, {
					mode: "streams",
					port: gate.port,
					key,
					streams: 250,
					tokens,
					intervalUs: 1_000,
					warmUpMs: 0,
					measureMs: 20_000 * step,
				});
				if (lost > 0) throw new Error(`${lost} streams were cut`);
				streams += received / tokens;
				const bytes = residentBytes(gate.pids, "VmRSS");
				rows.push([whole(streams), mebibytes(bytes)]);
				figures[String(streams)] = { x: streams, memory: bytes / 2 ** 20 };
			}
			return {
				name,
				title: `Soak: ${whole(wanted)} streams, 250 at a time, ${how}`,
				notes: [
					"each of 3 tokens, through one gate; somebody who starts a stream every 20 s needs 230 days for a million",
					...notes,
				],
				head: ["streams so far", "resident memory"],
				rows,
				figures,
				data: null,
			};
		},
		{ names: ["gate"], gate: gateOptions },
	);
}
