import { statSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { askLedger } from "../../src/ledger/ask.ts";
import { LedgerClient } from "../../src/ledger/client.ts";
import { createLog } from "../../src/log.ts";
import { cpuSeconds, residentBytes } from "../processes.ts";
import { fixed, mebibytes, whole } from "../report.ts";
import { madeUp, startLedger } from "./start.ts";

const recordsPerSecond = 2_000;

/**
 * Hands the real ledger 2,000 records a second, as a gate does, and reads their
 * sums back at the end.
 *
 * @param folder for its file, of about 60 bytes a record
 */
export async function measureSteady(folder: string, minutes: number) {
	const ledger = await startLedger(folder, "steady");
	const heard: string[] = [];
	const log = createLog("warn", { write: (line) => void heard.push(line) });
	const client = new LedgerClient(ledger.socket, log);
	while (!client.counts.isConnected) await delay(5);
	const sent = { requests: 0, tokensIn: 0, tokensOut: 0, gpuMs: 0 };
	let mostWaiting = 0;
	const startedMs = performance.now();
	const own = process.cpuUsage();
	const cpuBefore = cpuSeconds([ledger.pid]);
	const tookMs = () => performance.now() - startedMs;
	while (tookMs() < minutes * 60_000) {
		// What a busy machine holds up is made up for.
		const due = Math.floor((tookMs() * recordsPerSecond) / 1000);
		while (sent.requests < due) {
			const record = madeUp(sent.requests, Date.now());
			client.record(record);
			sent.requests += 1;
			sent.tokensIn += record.tokensIn;
			sent.tokensOut += record.tokensOut;
			sent.gpuMs += record.gpuMs;
		}
		mostWaiting = Math.max(mostWaiting, client.counts.waiting);
		await delay(25);
	}
	const { user, system } = process.cpuUsage(own);
	const sentIn = tookMs() / 1000;
	while (client.counts.waiting > 0) await delay(5);
	const took = tookMs() / 1000;
	const ledgerCpu = cpuSeconds([ledger.pid]) - cpuBefore;
	const { lost, aggregated } = client.counts;
	const answer = await askLedger(ledger.socket, { sinceMs: 0, by: [] });
	if (typeof answer === "string") throw new Error(answer);
	const [read] = answer;
	const names = ["requests", "tokensIn", "tokensOut", "gpuMs"] as const;
	const wrong = names.filter((name) => read?.[name] !== sent[name]);
	await client.close(1_000);
	const peak = residentBytes([ledger.pid], "VmHWM");
	await ledger.close();
	return {
		title: `${whole(recordsPerSecond)} records a second for ${minutes} minutes`,
		notes: [
			wrong.length === 0
				? "Requests, tokens and GPU time that the ledger tells at the end are those that were sent."
				: `The ledger tells others than were sent: ${wrong.map((name) => `${name} ${read?.[name]} of ${sent[name]}`).join(", ")}.`,
			...(heard.length > 0
				? [`It was said: ${heard.slice(0, 5).join("")}`]
				: []),
		],
		head: ["", "figure"],
		rows: [
			["records sent", whole(sent.requests)],
			["in the ledger", whole(read?.requests ?? 0)],
			["lost", whole(lost)],
			["put together", whole(aggregated)],
			["records a second", whole(sent.requests / sentIn)],
			["most that waited at once", whole(mostWaiting)],
			["ledger's CPU, % of a core", fixed((100 * ledgerCpu) / took)],
			[
				"sender's CPU, making them up included, % of a core",
				fixed((user + system) / 1e4 / took),
			],
			["ledger's peak memory, MiB", mebibytes(peak)],
			["file, MiB", mebibytes(statSync(ledger.file).size)],
		],
	};
}
