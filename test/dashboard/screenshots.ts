import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { keepResult } from "../../src/doctor/lastResult.ts";
import { digestOf, generateKey } from "../../src/keys/newKey.ts";
import { LedgerClient } from "../../src/ledger/client.ts";
import { toJson } from "../../src/report/json.ts";
import { openBrowser } from "../support/browser.ts";
import { startDashboard } from "../support/dashboard.ts";
import { lockedHost } from "../support/exampleResults.ts";
import { bearer, eventually, startGate } from "../support/gate.ts";
import {
	collectedLog,
	ledgerPlace,
	recordOf,
	spawnLedger,
} from "../support/ledger.ts";

/**
 * `node test/dashboard/screenshots.ts` takes the pictures of docs/dashboard.md
 * anew: a real gate with a ledger, before the stand-in for Ollama, on which five
 * clients work for as long as it is given in seconds (60), in Debian's chromium.
 */
const seconds = Number(process.argv[2] ?? 60);
const folder = path.join(import.meta.dirname, "../../docs/dashboard");

const endings: (() => unknown)[] = [];
const t = {
	teardown(action: () => unknown) {
		endings.unshift(action);
	},
};
const keys = {
	laptop: generateKey(),
	phone: generateKey(),
	"open-webui": generateKey(),
	"night-run": generateKey(),
};

const place = await ledgerPlace(t);
await spawnLedger(t, place);
const gate = await startGate(t, {
	keys: [
		{
			name: "laptop",
			sha256: digestOf(keys.laptop),
			budget: { gpu: "2h", per: "day" },
		},
		{ name: "phone", sha256: digestOf(keys.phone) },
		{
			name: "open-webui",
			sha256: digestOf(keys["open-webui"]),
			priority: "interactive",
		},
		{
			name: "night-run",
			sha256: digestOf(keys["night-run"]),
			priority: "batch",
			budget: { tokens: 100_000, requests: 500, per: "week" },
		},
	],
	standIn: {
		parallel: 2,
		loadMs: 1_500,
		firstTokenMs: 300,
		tokenIntervalMs: 35,
	},
	config: { ledger: place.section, queue: { mode: "fair", parallel: 2 } },
});
// Of earlier today.
const ledger = new LedgerClient(place.socket, collectedLog().log);
for (const [key, minutes, requests] of [
	["laptop", 41, 96],
	["open-webui", 27, 210],
	["phone", 6, 31],
	["night-run", 74, 402],
] as const)
	ledger.record(
		recordOf({
			...{ user: `key:${key}`, key, requests },
			gpuMs: minutes * 60_000,
			tokensOut: minutes * 1_000,
		}),
	);
await ledger.close(10_000);
const doctorFile = path.join(gate.folder, "doctor.json");
await keepResult(
	toJson({
		...{ version: "0.1.0", target: "mini", results: lockedHost },
		at: new Date(Date.now() - 5 * 3_600_000),
	}),
	doctorFile,
);

let isOver = false;
async function work(key: string, model: string): Promise<void> {
	while (!isOver) {
		const reply = await fetch(`${gate.url}/api/generate`, {
			method: "POST",
			headers: bearer(key),
			body: JSON.stringify({ model, prompt: "a" }),
		});
		await reply.text();
	}
}
const workers = [
	work(keys.laptop, "qwen3:8b"),
	work(keys.laptop, "qwen3:8b"),
	work(keys["open-webui"], "qwen3:8b"),
	work(keys["open-webui"], "qwen3:8b"),
	work(keys["night-run"], "qwen3:8b"),
];
for (const wrong of [undefined, generateKey()])
	await fetch(`${gate.url}/api/tags`, {
		headers: wrong === undefined ? {} : bearer(wrong),
	});

const page = await startDashboard(t, gate, {
	ledgerSocket: place.socket,
	doctorFile,
});
const tab = await openBrowser(t);
await mkdir(folder, { recursive: true });
const first = { width: 1280, scheme: "light" } as const;
await tab.open(page.url, first);
await new Promise((resolve) => setTimeout(resolve, seconds * 1_000));
for (const [name, view, maxHeight] of [
	["desktop", first, 1_150],
	["phone", { width: 390, scheme: "dark" }, 1_300],
] as const) {
	await tab.open(page.url, view);
	await eventually(
		async () =>
			(await tab.evaluate(
				"document.getElementById('says').textContent === 'Live' && document.querySelectorAll('canvas').length === 3",
			)) === true,
	);
	await writeFile(
		path.join(folder, `${name}.png`),
		await tab.screenshot(maxHeight),
	);
}
isOver = true;
await Promise.allSettled(workers);
for (const end of endings) await end();
process.exit();
