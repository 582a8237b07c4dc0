import t from "tap";
import { openBrowser } from "../support/browser.ts";
import { startDashboard } from "../support/dashboard.ts";
import { bearer, eventually, startGate, testKeys } from "../support/gate.ts";
import { ledgerPlace, requestsIn, spawnLedger } from "../support/ledger.ts";
import { requireTool } from "../support/tools.ts";
import { counting } from "./models.ts";
import { startOllama } from "./ollama.ts";

t.test(
	"the page in a browser shows what the real Ollama does, while it does it",
	async (t) => {
		if (!requireTool(t, "chromium")) return;
		const ollama = await startOllama(t);
		const place = await ledgerPlace(t);
		await spawnLedger(t, place);
		const gate = await startGate(t, {
			config: {
				ledger: place.section,
				queue: { mode: "fair", parallel: 1 },
			},
			upstreamUrl: ollama.url,
		});
		const page = await startDashboard(t, gate, { ledgerSocket: place.socket });
		const tab = await openBrowser(t);
		await tab.open(page.url, { width: 1280, scheme: "light" });
		const shows = (part: string, what: RegExp) =>
			eventually(async () =>
				what.test(
					await tab.evaluate(`document.getElementById("${part}").textContent`),
				),
			);
		await shows("requests", /Nobody is at work/);
		await shows("models", /None is loaded/);

		const controller = new AbortController();
		const post = (options: object, signal?: AbortSignal) =>
			fetch(`${gate.url}/api/generate`, {
				method: "POST",
				headers: bearer(testKeys.user),
				body: JSON.stringify({
					...{ model: "smol", raw: true, prompt: counting },
					options: { temperature: 0, stop: ["never"], ...options },
				}),
				...(signal && { signal }),
			});
		const long = await post({ num_predict: -1 }, controller.signal);
		t.teardown(() => controller.abort());
		const waits = post({ num_predict: 4 });
		await shows("now", /At work1.*Waiting1/s);
		await shows(
			"requests",
			/key:userrunningsmol.*\d\.\d.*key:userwaitingsmol/s,
		);
		// Of memory this one says 0 where it runs on the CPU.
		await shows("models", /smolloaded(–|\d.* [MG]iB.*)in \d+ (s|min)111/s);
		await shows("now", /Tokens a second[1-9]/);

		controller.abort();
		await long.text().catch(() => {});
		await (await waits).text();
		await shows("requests", /Nobody is at work/);
		await shows("now", /First token\d.*median of 2 in ten minutes/s);
		await eventually(async () => (await requestsIn(place)) === 2);
		// The ledger is asked every quarter of a minute.
		await shows("share", /key:user 100 %.*2/s);
		t.pass("or it would not have come here");
	},
);
