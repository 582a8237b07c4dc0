import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { UploadTask } from "../helpers/uploadClient.ts";
import {
	cpuSeconds,
	resetPeak,
	residentBytes,
	runHelper,
} from "../processes.ts";
import { fixed, mebibytes, median, type Section, whole } from "../report.ts";
import { freshStarts, measureEach, type Samples, toData } from "../rounds.ts";
import { key, type Stage, type Target, withTargets } from "../targets.ts";

const streamCount = 500;

/** What a large upload and many open streams take in memory. */
export async function memory(stage: Stage): Promise<Section[]> {
	const uploadBytes = (stage.quick ? 0.25 : 2) * 2 ** 30;
	const uploads = await withTargets(stage, "streamUpstream.ts", async (all) => {
		return measureEach(stage, all, 0, "memory: upload", (target) =>
			upload(target, uploadBytes),
		);
	});
	const starts = stage.quick ? 1 : 3;
	// Each time from fresh processes: freed memory stays resident.
	const openings = await freshStarts(starts, (round) =>
		withTargets(stage, "streamUpstream.ts", (all) =>
			measureEach(
				stage,
				all.filter(({ pids }) => pids.length > 0),
				round,
				`memory: ${streamCount} streams`,
				openStreams,
			),
		),
	);
	return [uploadSection(uploads, uploadBytes), streamSection(openings, starts)];
}

interface Upload {
	readonly baseBytes: number;
	readonly peakBytes: number;
	readonly seconds: number;
	readonly cpu: number;
}

async function upload(
	{ port, pids }: Target,
	uploadBytes: number,
): Promise<Upload> {
	await useOnce(port);
	resetPeak(pids);
	const baseBytes = residentBytes(pids, "VmRSS");
	const cpuBefore = cpuSeconds(pids);
	const { received, seconds } = await runHelper<{
		received: number;
		seconds: number;
	}>(
		"uploadClient.ts",
		{ port, key, bytes: uploadBytes } satisfies UploadTask,
		90_000,
	);
	if (received !== uploadBytes)
		throw new Error(`${received} of ${uploadBytes} bytes arrived`);
	return {
		baseBytes,
		peakBytes: residentBytes(pids, "VmHWM"),
		seconds,
		cpu: cpuSeconds(pids) - cpuBefore,
	};
}

function uploadSection(
	results: readonly Samples<Upload>[],
	uploadBytes: number,
): Section {
	return {
		title: `Memory: relaying an upload of ${uploadBytes / 2 ** 30} GiB in chunks`,
		notes: [
			"resident memory before, and the highest meanwhile (VmHWM, reset before; nginx: master and worker together)",
		],
		head: ["", "before", "peak", "grown by", "MiB/s", "CPU s a GiB"],
		rows: results.map((result) => {
			const { name, pids } = result.target;
			if ("failure" in result) return [name, result.failure];
			const [one] = result.samples;
			if (one === undefined) return [name];
			const { baseBytes, peakBytes, seconds, cpu } = one;
			const speed = whole(uploadBytes / 2 ** 20 / seconds);
			if (pids.length === 0) return [name, "", "", "", speed];
			return [
				name,
				mebibytes(baseBytes),
				mebibytes(peakBytes),
				mebibytes(peakBytes - baseBytes),
				speed,
				fixed(cpu / (uploadBytes / 2 ** 30), 2),
			];
		}),
		data: toData(results),
	};
}

interface Opening {
	readonly baseBytes: number;
	readonly openBytes: number;
}

async function openStreams({ port, pids }: Target): Promise<Opening> {
	const sockets: Socket[] = [];
	try {
		// Once before, so that code and pools that are made for any stream at all do not count.
		sockets.push(await openStream(port));
		for (let i = 0; i < 50; i++) await useOnce(port);
		await delay(300);
		const baseBytes = residentBytes(pids, "VmRSS");
		for (let i = 0; i < streamCount; i++) sockets.push(await openStream(port));
		await delay(1_000);
		return { baseBytes, openBytes: residentBytes(pids, "VmRSS") };
	} finally {
		for (const socket of sockets) socket.destroy();
		await delay(200);
	}
}

function streamSection(
	results: readonly Samples<Opening>[],
	starts: number,
): Section {
	return {
		title: `Memory: ${streamCount} open streams`,
		notes: [
			`resident memory with 1 stream open and with ${streamCount} more, each with 5 tokens/s; median of ${starts} fresh start(s); garbage that is not collected yet is among it`,
		],
		head: ["", "before", `with ${streamCount}`, "KiB a stream", "each time"],
		rows: results.map((result) => {
			const { name } = result.target;
			if ("failure" in result) return [name, result.failure];
			const { samples } = result;
			const each = samples.map(
				({ baseBytes, openBytes }) =>
					(openBytes - baseBytes) / 1024 / streamCount,
			);
			return [
				name,
				mebibytes(median(samples.map(({ baseBytes }) => baseBytes))),
				mebibytes(median(samples.map(({ openBytes }) => openBytes))),
				fixed(median(each)),
				each.map((value) => fixed(value)).join(", "),
			];
		}),
		data: toData(results),
	};
}

async function useOnce(port: number): Promise<void> {
	const reply = await fetch(`http://127.0.0.1:${port}/api/tags`, {
		headers: { authorization: `Bearer ${key}` },
	});
	if (!reply.ok) throw new Error(`it answered ${reply.status}`);
	await reply.arrayBuffer();
}

/** A stream that has had its first token and goes on until it is left. */
async function openStream(port: number): Promise<Socket> {
	const body = JSON.stringify({
		model: "bench",
		bench: { tokens: 1_000_000, intervalMs: 200 },
	});
	const socket = connect(port, "127.0.0.1");
	socket.write(
		`POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
	);
	const [first] = (await once(socket, "data")) as [Buffer];
	if (!first.toString("latin1").startsWith("HTTP/1.1 200"))
		throw new Error("a stream was refused");
	socket.resume();
	return socket;
}
