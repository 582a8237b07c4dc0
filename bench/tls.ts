import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { describeMachine } from "./machine.ts";
import { compile } from "./native.ts";
import {
	cpuSeconds,
	start,
	stop,
	stopAll,
	stopAllOnSignals,
} from "./processes.ts";
import { fixed, median } from "./report.ts";
import { key, type Stage, type Target, withTargets } from "./targets.ts";

const help = `
Usage: node bench/tls.ts [--quick]

The CPU that a streamed chunk costs over TLS: the gate with listen.tls, and Caddy
where it is installed, in the same rounds. 64 streams of 50 tokens a second; half
a minute. Needs gcc, libc6-dev and openssl.

  --quick  one round of two seconds
`;

const { values } = parseArgs({
	options: {
		quick: { type: "boolean", default: false },
		help: { type: "boolean", short: "h", default: false },
	},
});
if (values.help) {
	process.stdout.write(help);
	process.exit(0);
}
stopAllOnSignals();

const streams = 64;
const rounds = values.quick ? 1 : 5;
const measureMs = values.quick ? 2_000 : 3_000;
const intervalUs = 20_000;

/** Microseconds of CPU that a chunk costs the target. */
async function measure({ port, pids }: Target): Promise<number> {
	const load = start(
		[
			process.execPath,
			fileURLToPath(new URL("tlsLoad.ts", import.meta.url)),
			...[port, key, streams, 1_000_000, intervalUs].map(String),
		],
		{ stdio: ["ignore", "pipe", "inherit"] },
	);
	try {
		const lines = createInterface({
			input: load.stdout as NodeJS.ReadableStream,
		});
		await Promise.race([
			once(lines, "line"),
			once(load, "exit").then(() => {
				throw new Error("the streams could not be opened");
			}),
		]);
		await delay(500);
		const count = async () => {
			load.kill("SIGUSR2");
			const [line] = (await once(lines, "line")) as [string];
			return Number(line);
		};
		const before = await count();
		const cpuBefore = cpuSeconds(pids);
		await delay(measureMs);
		const cpu = cpuSeconds(pids) - cpuBefore;
		return (1e6 * cpu) / ((await count()) - before);
	} finally {
		await stop(load);
	}
}

const folder = await mkdtemp(path.join(tmpdir(), "llamagate-tls-"));
try {
	const pair = {
		certFile: path.join(folder, "cert.pem"),
		keyFile: path.join(folder, "key.pem"),
	};
	execFileSync(
		"openssl",
		[
			...["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"],
			...["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=localhost"],
			...["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
			...["-keyout", pair.keyFile, "-out", pair.certFile],
		],
		{ stdio: "ignore" },
	);
	const stage: Stage = {
		quick: values.quick,
		folder,
		native: compile(folder),
		against: undefined,
		peerLog: true,
		progress: (text) => process.stderr.write(`${text}\n`),
	};
	const found = new Map<string, number[]>();
	await withTargets(
		stage,
		async (targets, notes) => {
			for (const note of notes) stage.progress(note);
			for (let round = 0; round < rounds; round++)
				for (const target of targets) {
					if (target.name === "direct") continue;
					const microseconds = await measure(target);
					stage.progress(
						`round ${round + 1}, ${target.name}: ${microseconds.toFixed(1)} µs a chunk`,
					);
					found.set(target.name, [
						...(found.get(target.name) ?? []),
						microseconds,
					]);
				}
		},
		{ names: ["gate", "caddy"], tls: pair },
	);
	for (const [name, value] of describeMachine(stage))
		process.stdout.write(`${name}: ${value}\n`);
	process.stdout.write(
		`\n${streams} streams over TLS 1.3, median of ${rounds} round(s) of ${measureMs / 1000} s\n\n| | CPU a chunk, µs |\n| --- | --: |\n`,
	);
	for (const [name, all] of found)
		process.stdout.write(`| ${name} | ${fixed(median(all), 1)} |\n`);
	const gate = found.get("gate");
	const caddy = found.get("caddy");
	if (gate !== undefined && caddy !== undefined)
		process.stdout.write(
			`\ngate / caddy: ${fixed(median(gate) / median(caddy), 2)} (goal: at most 1.25)\n`,
		);
} finally {
	await stopAll();
	await rm(folder, { recursive: true, force: true });
}
