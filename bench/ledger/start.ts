import { writeFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { outcomes, type UsageRecord } from "../../src/ledger/record.ts";
import { start, stop } from "../processes.ts";

/** As many users, models and devices as a university has. */
export function madeUp(n: number, timeMs: number): UsageRecord {
	const user = (n * 7919) % 200;
	return {
		time: timeMs,
		user: `login:user${user}@example.com`,
		userBy: "login",
		key: `team${user % 20}`,
		node: `laptop-${user}`,
		model: `model-${(n * 31) % 8}:8b`,
		route: n % 3 === 0 ? "POST /v1/chat/completions" : "POST /api/chat",
		outcome: outcomes[n % 50 === 0 ? (n / 50) % outcomes.length : 0] ?? "ok",
		requests: 1,
		tokensIn: 200 + (n % 3_000),
		tokensOut: 50 + (n % 700),
		gpuMs: 500 + (n % 20_000),
		loadMs: 0,
		queueMs: n % 5_000,
	};
}

export interface Ledger {
	readonly socket: string;
	readonly file: string;
	readonly configFile: string;
	readonly pid: number;
	close(): Promise<void>;
}

/**
 * The real `llamagate ledger`.
 *
 * @param place where it keeps records, in place of a file
 */
export async function startLedger(
	folder: string,
	name: string,
	place?: { readonly url: string; readonly passwordFile: string },
): Promise<Ledger> {
	const file = path.join(folder, `${name}.sqlite`);
	const socket = path.join(folder, `${name}.sock`);
	const configFile = path.join(folder, `${name}.json`);
	writeFileSync(
		configFile,
		JSON.stringify({ ledger: { ...(place ?? { file }), socket } }),
	);
	const child = start(
		[process.execPath, "src/main.ts", "ledger", "--config", configFile],
		{ stdio: ["ignore", "pipe", "inherit"] },
	);
	if (child.stdout === null) throw new Error("the ledger has no output");
	for await (const line of createInterface({ input: child.stdout }))
		if (line.includes('"ledger open"')) break;
	const close = () => stop(child);
	return { socket, file, configFile, pid: child.pid ?? 0, close };
}
