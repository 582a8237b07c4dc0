import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { askLedger } from "../../src/ledger/ask.ts";
import { LedgerClient } from "../../src/ledger/client.ts";
import type { UsageRecord } from "../../src/ledger/record.ts";
import type { Dimension, UsageRow } from "../../src/ledger/store.ts";
import { createLog } from "../../src/log.ts";
import type { LogLine } from "./gate.ts";
import { program } from "./program.ts";
import { temporaryFolder } from "./temporaryFolder.ts";

interface Teardown {
	teardown(action: () => unknown): unknown;
}

/** A place for a ledger, with its part of a configuration. */
export interface LedgerPlace {
	readonly folder: string;
	readonly file: string;
	readonly socket: string;
	readonly configFile: string;
	/** The section of a gate's configuration. */
	readonly section: { readonly file?: string; readonly socket: string };
}

export async function ledgerPlace(
	t: Teardown,
	settings: Readonly<Record<string, string>> = {},
): Promise<LedgerPlace> {
	const folder = await temporaryFolder(t);
	const file = path.join(folder, "ledger.sqlite");
	const socket = path.join(folder, "ledger.sock");
	const configFile = path.join(folder, "config.json");
	const section = {
		...(settings.url === undefined && { file }),
		...{ socket, ...settings },
	};
	await writeFile(configFile, JSON.stringify({ ledger: section }));
	return { folder, file, socket, configFile, section };
}

export interface TestLedger {
	readonly child: ChildProcess;
	readonly exited: Promise<number | null>;
	readonly log: LogLine[];
}

/** The real `llamagate ledger` in a process of its own, once it is open. */
export async function spawnLedger(
	t: Teardown,
	{ configFile }: LedgerPlace,
	file = program,
	env: NodeJS.ProcessEnv = {},
): Promise<TestLedger> {
	const child = spawn(
		process.execPath,
		[file, "ledger", "--config", configFile],
		{
			stdio: ["ignore", "pipe", "inherit"],
			env: { ...process.env, ...env },
		},
	);
	const exited = once(child, "exit").then(([code]) => code as number | null);
	t.teardown(async () => {
		child.kill("SIGKILL");
		await exited;
	});
	const log: LogLine[] = [];
	const { promise: open, resolve } = Promise.withResolvers<void>();
	createInterface({ input: child.stdout }).on("line", (line) => {
		const parsed = JSON.parse(line) as LogLine;
		log.push(parsed);
		if (parsed.msg === "ledger open") resolve();
	});
	await Promise.race([
		open,
		exited.then((code) => {
			throw new Error(`the ledger ended with ${code}`);
		}),
	]);
	return { child, exited, log };
}

/** A gate's client of a ledger, with what it logs. */
export function startLedgerClient(t: Teardown, { socket }: LedgerPlace) {
	const { log, lines } = collectedLog();
	const client = new LedgerClient(socket, log);
	t.teardown(() => client.close(0));
	return { client, lines };
}

/** Kills a ledger so that it can do nothing any more. */
export async function killLedger({ child, exited }: TestLedger): Promise<void> {
	child.kill("SIGKILL");
	await exited;
}

/** Sums of all time; throws where no ledger answers. */
export async function sumsOf(
	{ socket }: LedgerPlace,
	by: readonly Dimension[] = [],
): Promise<readonly UsageRow[]> {
	const rows = await askLedger(socket, { sinceMs: 0, by });
	if (typeof rows === "string") throw new Error(rows);
	return rows;
}

/** Requests of which the ledger knows. */
export async function requestsIn(place: LedgerPlace): Promise<number> {
	const [row] = await sumsOf(place);
	return row?.requests ?? 0;
}

export function recordOf(over: Partial<UsageRecord> = {}): UsageRecord {
	return {
		time: Date.now(),
		user: "key:laptop",
		userBy: "key",
		key: "laptop",
		node: null,
		model: "qwen3:8b",
		route: "POST /api/chat",
		outcome: "ok",
		requests: 1,
		tokensIn: 10,
		tokensOut: 20,
		gpuMs: 300,
		loadMs: 4,
		queueMs: 5,
		...over,
	};
}

/** A log whose lines a test can look at. */
export function collectedLog() {
	const lines: LogLine[] = [];
	const log = createLog("info", {
		write: (line) => void lines.push(JSON.parse(line) as LogLine),
	});
	return { log, lines };
}
