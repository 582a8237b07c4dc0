import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import type { Pace, StreamEvent } from "../helpers/streamUpstream.ts";
import { nextMessage } from "../processes.ts";
import { fixed, quantile, type Section } from "../report.ts";
import { measureEach, type Samples, toData } from "../rounds.ts";
import { key, type Stage, withTargets } from "../targets.ts";

const timeoutMs = 5_000;

/** How long Ollama goes on working for a client that has left. */
export function cancel(stage: Stage): Promise<Section[]> {
	const tries = stage.quick ? 20 : 50;
	return withTargets(
		stage,
		"streamUpstream.ts",
		async (targets, notes, upstream) => {
			const measure = async (port: number, tokens: number) => {
				const milliseconds: number[] = [];
				for (let i = 0; i < tries; i++)
					milliseconds.push(await leave(port, tokens, upstream));
				return milliseconds;
			};
			const before = await measureEach(
				stage,
				targets,
				0,
				"cancel before headers",
				({ port }) => measure(port, 0),
			);
			const after = await measureEach(
				stage,
				targets,
				0,
				"cancel in mid-stream",
				({ port }) => measure(port, 1_000_000),
			);
			return [
				{
					title: "Cancel: from the client's close to the upstream's notice",
					notes: [
						`milliseconds; ${tries} tries each, one at a time; before headers: the upstream is silent; in mid-stream: after the third read of a stream of 50 tokens/s`,
						...notes,
					],
					head: [
						"",
						"before headers p50",
						"max",
						"in mid-stream p50",
						"max",
						"within 100 ms",
					],
					rows: targets.map(({ name }, index) => [
						name,
						...cells(before[index]),
						...cells(after[index]),
						within(before[index], after[index]),
					]),
					data: { before: toData(before), after: toData(after) },
				},
			];
		},
	);
}

function cells(result: Samples<number[]> | undefined): string[] {
	if (result === undefined) return ["", ""];
	if ("failure" in result) return [result.failure, ""];
	const all = result.samples.flat();
	return [fixed(quantile(all, 0.5), 2), fixed(Math.max(...all), 2)];
}

function within(...results: (Samples<number[]> | undefined)[]): string {
	const all = results.flatMap((result) =>
		result !== undefined && "samples" in result ? result.samples.flat() : [],
	);
	return `${all.filter((value) => value <= 100).length} of ${all.length}`;
}

/** Leaves a request and returns how many milliseconds later the upstream saw it. */
async function leave(
	port: number,
	tokens: number,
	upstream: ChildProcess,
): Promise<number> {
	const bench: Pace = { tokens, intervalMs: 20, report: true };
	const body = JSON.stringify({ model: "bench", bench });
	const arrived = nextMessage<StreamEvent>(upstream, timeoutMs);
	const socket = connect({ port, host: "127.0.0.1", noDelay: true });
	socket.on("error", () => socket.destroy());
	socket.write(
		`POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
	);
	await arrived;
	for (let read = 0; tokens > 0 && read < 3; read++) await once(socket, "data");
	const gone = nextMessage<StreamEvent>(upstream, timeoutMs);
	const leftAtNs = Number(process.hrtime.bigint());
	socket.destroy();
	const event = await gone;
	if (event.kind !== "gone") throw new Error("another request came first");
	return (event.atNs - leftAtNs) / 1e6;
}
