import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import path from "node:path";
import t from "tap";
import type { GateLive } from "../../src/admin/live.ts";
import { keepResult } from "../../src/doctor/lastResult.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import { toJson } from "../../src/report/json.ts";
import { openBrowser, overflow } from "../support/browser.ts";
import {
	idleLive,
	runningRequest,
	startDashboard,
	startFakeGate,
} from "../support/dashboard.ts";
import { lockedHost } from "../support/exampleResults.ts";
import { bearer, eventually, startGate, testKeys } from "../support/gate.ts";
import { ledgerPlace, requestsIn, spawnLedger } from "../support/ledger.ts";
import { requireTool } from "../support/tools.ts";

/** The page as a reader has it: in a real browser, before a real gate. */

const axe = await readFile(
	createRequire(import.meta.url).resolve("axe-core/axe.min.js"),
	"utf8",
);

const views = [390, 1280].flatMap((width) =>
	(["light", "dark"] as const).map((scheme) => ({ width, scheme })),
);

/** What sticks out to the side; what is in a table's own scrolled box does not. */
const findOverflow = overflow(".unseen, .shapes, .scroll table");

/** What axe-core finds wrong, its best practices too. */
const findBarriers = `axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) =>
	violations.map(({ id, help, nodes }) => id + ": " + help + ": " + nodes.map(({ html }) => html).join(" ")))`;

const textOf = (selector: string) =>
	`document.querySelector(${JSON.stringify(selector)})?.textContent ?? ""`;

/** A gate with a ledger on which something of everything has happened, and goes on. */
async function busyGate(t: Parameters<typeof openBrowser>[0]) {
	const place = await ledgerPlace(t);
	await spawnLedger(t, place);
	const gate = await startGate(t, {
		keys: [
			{
				name: "laptop",
				sha256: digestOf(testKeys.user),
				budget: { gpu: "2h", requests: 8, per: "week" },
			},
			{ name: "phone", sha256: digestOf(testKeys.worker) },
		],
		standIn: {
			parallel: 1,
			tokenIntervalMs: 2,
			misbehave: ({ headers }) =>
				headers["user-agent"] === "holds" ? "stall-mid-stream" : undefined,
		},
		config: {
			ledger: place.section,
			queue: { mode: "fair", parallel: 1 },
		},
	});
	const send = (key: string, agent: string) => {
		const controller = new AbortController();
		t.teardown(() => controller.abort());
		return fetch(`${gate.url}/api/generate`, {
			method: "POST",
			headers: { ...bearer(key), "user-agent": agent },
			body: JSON.stringify({ model: "qwen3:8b", prompt: "a" }),
			signal: controller.signal,
		});
	};
	await (await send(testKeys.user, "a")).text();
	await (await send(testKeys.worker, "a")).text();
	await fetch(`${gate.url}/api/tags`);
	await eventually(async () => (await requestsIn(place)) === 2);
	const held = await send(testKeys.user, "holds");
	// Until the end: fetch closes what nobody holds.
	t.teardown(() => held.body?.cancel().catch(() => {}));
	send(testKeys.worker, "a").catch(() => {});
	const doctorFile = path.join(gate.folder, "doctor.json");
	await keepResult(
		toJson({
			version: "0.1.0",
			at: new Date(),
			target: "mini",
			results: lockedHost,
		}),
		doctorFile,
	);
	const page = await startDashboard(t, gate, {
		ledgerSocket: place.socket,
		doctorFile,
	});
	return { page };
}

t.test("in a browser", async (t) => {
	if (!requireTool(t, "chromium")) return;
	const tab = await openBrowser(t);
	const { page } = await busyGate(t);
	const isLive = () =>
		eventually(async () => (await tab.evaluate(textOf("#says"))) === "Live");

	for (const view of views)
		await t.test(
			`it fits on ${view.width} pixels, has no barrier in the ${view.scheme}, and asks nobody else`,
			async (t) => {
				await tab.open(page.url, view);
				await isLive();
				await eventually(async () =>
					/waiting/.test(await tab.evaluate(textOf("#requests"))),
				);
				for (const [part, what] of [
					["#now", /At work1.*Waiting1/],
					["#models", /qwen3:8bloaded\d.* GiB/],
					["#share", /key:laptop.*key:phone/s],
					["#budgets", /laptop.* of 8 requests a week/],
					["#refusals", /no_key/],
					["#doctor", /1 finding, worst: info/],
				] as const)
					t.match(await tab.evaluate(textOf(part)), what, part);
				await eventually(
					async () =>
						(await tab.evaluate<number>(
							"document.querySelectorAll('canvas').length",
						)) === 3,
				);
				t.same(await tab.evaluate(findOverflow), []);
				await tab.evaluate(axe);
				t.same(await tab.evaluate(findBarriers), []);
				t.same(
					tab.requests.filter(
						(url) => url !== "data:," && !url.startsWith(page.url),
					),
					[],
				);
				t.equal(
					await tab.evaluate("getComputedStyle(document.body).backgroundColor"),
					view.scheme === "light" ? "rgb(245, 246, 248)" : "rgb(15, 20, 26)",
				);
			},
		);

	await t.test(
		"without script it says the same, and how to look again",
		async (t) => {
			await tab.allowScripts(false);
			await tab.open(page.url, { width: 390, scheme: "light" });
			await tab.allowScripts(true);
			t.match(await tab.evaluate(textOf("#says")), /^As of 20/);
			t.match(await tab.evaluate(textOf("#now")), /At work1.*Waiting1/);
			t.equal(
				await tab.evaluate(
					"document.querySelector('#pause').checkVisibility()",
				),
				false,
			);
			t.equal(
				await tab.evaluate(
					"document.querySelector('#curves').checkVisibility()",
				),
				false,
			);
			t.same(await tab.evaluate(findOverflow), []);
			t.equal(page.viewers(), 0);
		},
	);

	await t.test(
		"the keyboard alone reaches everything, and sees where it is",
		async (t) => {
			await tab.open(page.url, { width: 390, scheme: "dark" });
			await isLive();
			const seen: string[] = [];
			for (;;) {
				await tab.press("Tab");
				const at = await tab.evaluate<{ name: string; outline: string }>(
					"({ name: document.activeElement.id || document.activeElement.ariaLabel || document.activeElement.tagName, outline: getComputedStyle(document.activeElement).outlineStyle })",
				);
				if (at.name === "BODY" || seen.includes(at.name)) break;
				t.equal(at.outline, "solid", at.name);
				seen.push(at.name);
			}
			t.same(seen, [
				...["pause", "Requests", "Models", "Share of the GPU today"],
				...["Share of the GPU this week", "Budgets", "Refusals"],
			]);
			await tab.evaluate("document.querySelector('#requests .scroll').focus()");
			await tab.press("ArrowRight");
			await eventually(
				async () =>
					(await tab.evaluate<number>(
						"document.querySelector('#requests .scroll').scrollLeft",
					)) > 0,
			);
			t.equal(
				await tab.evaluate("document.activeElement.ariaLabel"),
				"Requests",
				"what is new takes the focus from nobody",
			);
		},
	);

	await t.test("a pause is a pause, for the gate too", async (t) => {
		await tab.open(page.url, { width: 1280, scheme: "light" });
		await isLive();
		await tab.evaluate("document.getElementById('pause').focus()");
		await tab.press("Enter");
		await eventually(() => page.viewers() === 0);
		t.match(await tab.evaluate(textOf("#says")), /^Paused at /);
		t.equal(await tab.evaluate(textOf("#pause")), "Go on");
		await tab.press("Enter");
		await isLive();
		t.equal(page.viewers(), 1);
		t.equal(await tab.evaluate(textOf("#pause")), "Pause");
	});

	await t.test(
		"what is new comes by itself, and the rest stays as it is",
		async (t) => {
			let live: GateLive = idleLive();
			const show = (ids: readonly string[]) => {
				live = {
					...idleLive(),
					top: {
						...idleLive().top,
						atWork: ids.length,
						requests: ids.map((id) =>
							runningRequest({ id, user: `key:${id}` }),
						),
					},
				};
			};
			show(["a", "b", "c"]);
			const gate = await startFakeGate(t, () => live);
			const page = await startDashboard(t, gate, {
				freshMs: 10,
				limits: { intervalMs: 10 },
			});
			await tab.open(page.url, { width: 1280, scheme: "light" });
			await isLive();
			await tab.evaluate("window.kept = document.getElementById('r-b'); 0");
			const users =
				"[...document.querySelectorAll('#requests tbody th')].map(({ textContent }) => textContent).join()";
			show(["b", "c", "d"]);
			await eventually(
				async () => (await tab.evaluate(users)) === "key:b,key:c,key:d",
			);
			show(["d", "b"]);
			await eventually(
				async () => (await tab.evaluate(users)) === "key:d,key:b",
			);
			t.equal(
				await tab.evaluate("window.kept === document.getElementById('r-b')"),
				true,
			);
			gate.isAway = true;
			await eventually(async () =>
				/does not answer/.test(await tab.evaluate(textOf("#now"))),
			);
			t.equal(await tab.evaluate(textOf("#requests")), "");
			gate.isAway = false;
			show([]);
			await eventually(async () =>
				/Nobody is at work/.test(await tab.evaluate(textOf("#requests"))),
			);
			page.close();
			await eventually(async () =>
				/^No connection/.test(await tab.evaluate(textOf("#says"))),
			);
		},
	);

	await t.test("a hostile name runs nothing, comes how it may", async (t) => {
		const evil =
			"<img src=x onerror=\"document.title='ran'\"><script>document.title='ran'</script>";
		let user = "key:laptop";
		const gate = await startFakeGate(t, () => ({
			...idleLive(),
			top: {
				...idleLive().top,
				requests: [runningRequest({ user, model: user })],
			},
		}));
		const page = await startDashboard(t, gate, {
			freshMs: 10,
			limits: { intervalMs: 10 },
		});
		await tab.open(page.url, { width: 1280, scheme: "light" });
		await isLive();
		user = evil;
		await eventually(
			async () => (await tab.evaluate(textOf("#requests tbody bdi"))) === evil,
		);
		t.equal(await tab.evaluate("document.title"), "llamagate on mini");
		t.equal(await tab.evaluate("document.querySelectorAll('img').length"), 0);
	});

	await t.test("a page of another site learns nothing of it", async (t) => {
		const { port } = page;
		const asked = `http://127.0.0.1:${port}`;
		const other = createServer((_, res) => {
			res.setHeader("content-type", "text/html");
			res.end(`<!doctype html><title>other</title><iframe src="${asked}/"></iframe>
<script>
window.run = [];
window.onerror = () => true;
const take = (name) => () => window.run.push(name);
const script = document.createElement("script");
script.src = "${asked}/page.js";
script.onload = take("script");
document.body.append(script);
new EventSource("${asked}/events").addEventListener("look", take("events"));
window.tried = Promise.allSettled([
	fetch("${asked}/").then(take("fetch")),
	fetch("${asked}/", { mode: "no-cors" }).then(take("opaque")),
]);
</script>`);
		});
		await once(other.listen(0, "127.0.0.1"), "listening");
		t.teardown(() => other.close());
		const { port: otherPort } = other.address() as AddressInfo;
		await tab.open(`http://localhost:${otherPort}/`, {
			width: 800,
			scheme: "light",
		});
		await tab.evaluate("window.tried.then(() => 0)");
		t.same(await tab.evaluate("window.run"), []);
		t.equal(page.viewers(), 0);
	});
});
