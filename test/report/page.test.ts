import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { pathToFileURL } from "node:url";
import t from "tap";
import { renderReport } from "../../src/report/html.ts";
import type { Result } from "../../src/report/result.ts";
import { visible } from "../../src/visible.ts";
import { openBrowser, overflow } from "../support/browser.ts";
import {
	chunkGaps,
	hostileHost,
	hostileTexts,
	lockedHost,
	openHost,
	withoutRoot,
} from "../support/exampleResults.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";
import { requireTool } from "../support/tools.ts";

/** The page as a reader has it: in a real browser. */

// What is open when the size changes is laid out once more, which takes Chromium a second for
// the hostile one's long words; so it is not the last.
const hosts = { hostileHost, lockedHost, openHost, withoutRoot };

function render(results: readonly Result[]): string {
	return renderReport({
		title: "llamagate doctor",
		target: "mini.tail1a2b.ts.net",
		at: new Date("2026-03-03T10:11:12Z"),
		version: "0.1.0",
		results,
		histogram: chunkGaps,
	});
}

const views = [360, 1280].flatMap((width) =>
	(["light", "dark"] as const).map((scheme) => ({ width, scheme })),
);

/** Opens everything that can be opened, and tells what sticks out to the side. */
const findOverflow = `(() => {
	for (const details of document.querySelectorAll("details")) details.open = true;
	return ${overflow(".unseen, .shapes")};
})()`;

/** Texts whose contrast with what is behind them is below WCAG's 4.5:1, by its formula of relative luminance. */
const findLowContrast = `(() => {
	for (const details of document.querySelectorAll("details")) details.open = true;
	const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
	const luminance = (colour) => {
		const [r, g, b] = channels(colour).map((value) => {
			const part = value / 255;
			return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
		});
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const behind = (element) => {
		for (let at = element; at !== null; at = at.parentElement) {
			const { backgroundColor } = getComputedStyle(at);
			if (channels(backgroundColor)[3] !== 0) return backgroundColor;
		}
		return "rgb(255, 255, 255)";
	};
	const low = new Set();
	let seen = 0;
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walker.nextNode()) {
		const element = walker.currentNode.parentElement;
		if (walker.currentNode.data.trim() === "" || element.closest(".unseen")) continue;
		seen += 1;
		const [dark, bright] = [getComputedStyle(element).color, behind(element)].map(luminance).toSorted((a, b) => a - b);
		const ratio = (bright + 0.05) / (dark + 0.05);
		if (ratio < 4.5) low.add(element.tagName + " " + element.className + " " + ratio.toFixed(2));
	}
	return { seen, low: [...low] };
})()`;

t.test("in a browser", async (t) => {
	if (!requireTool(t, "chromium")) return;
	const folder = await temporaryFolder(t);
	const tab = await openBrowser(t);
	const save = async (name: string, page: string) => {
		const file = path.join(folder, `${name}.html`);
		await writeFile(file, page);
		return pathToFileURL(file).href;
	};

	for (const view of views)
		for (const [name, results] of Object.entries(hosts)) {
			const url = await save(name, render(results));
			await t.test(
				`${name} fits on ${view.width} pixels, can be read in the ${view.scheme}, and asks for nothing`,
				async (t) => {
					await tab.open(url, view);
					t.same(await tab.evaluate(findOverflow), []);
					const { seen, low } = await tab.evaluate<{
						seen: number;
						low: string[];
					}>(findLowContrast);
					t.ok(seen > 50, String(seen));
					t.same(low, []);
					t.same(
						tab.requests.filter((request) => request !== "data:,"),
						[url],
					);
					const back = await tab.evaluate<string>(
						"getComputedStyle(document.body).backgroundColor",
					);
					t.equal(
						back,
						view.scheme === "light" ? "rgb(245, 246, 248)" : "rgb(15, 20, 26)",
					);
				},
			);
		}

	await t.test(
		"hostile text stands there to be read and does nothing",
		async (t) => {
			const url = await save("hostile", render(hostileHost));
			await tab.open(url, { width: 1280, scheme: "light" });
			t.match(await tab.evaluate("document.title"), /^llamagate doctor, mini/);
			t.equal(
				await tab.evaluate(
					"document.querySelectorAll('script, img, iframe').length",
				),
				0,
			);
			const texts = await tab.evaluate<string[]>(
				"[...document.querySelectorAll('.card bdi')].map(({ textContent }) => textContent)",
			);
			t.same(
				hostileTexts.filter((text) => !texts.includes(visible(text))),
				[],
			);
		},
	);

	await t.test(
		"what got into the page all the same would neither run nor load",
		async (t) => {
			const asked: string[] = [];
			const server = createServer(({ url }, response) => {
				asked.push(url ?? "");
				response.end();
			}).listen(0, "127.0.0.1");
			await once(server, "listening");
			t.teardown(() => server.close());
			const { port } = server.address() as AddressInfo;
			const page = render(openHost).replace(
				"</main>",
				`<script>document.title = "ran"</script><img src="http://127.0.0.1:${port}/image" onerror="document.title = 'ran'"><link rel="stylesheet" href="http://127.0.0.1:${port}/style"></main>`,
			);
			const openedAs = async (page: string) => {
				await tab.open(await save("injected", page), {
					width: 1280,
					scheme: "light",
				});
				return tab.evaluate<string>("document.title");
			};
			t.match(await openedAs(page), /^llamagate doctor/);
			t.same(asked, []);
			// And without the policy it does both, so that this proves something.
			t.equal(await openedAs(page.replace(/<meta http-equiv.*/, "")), "ran");
			t.same(asked.toSorted(), ["/image", "/style"]);
		},
	);

	await t.test("what is in order is closed, and opens", async (t) => {
		await tab.open(await save("locked", render(lockedHost)), {
			width: 360,
			scheme: "light",
		});
		const text = "document.querySelector('.quiet').innerText";
		t.notMatch(await tab.evaluate(text), "Tailscale is up");
		await tab.evaluate("document.querySelector('.quiet summary').click()");
		t.match(await tab.evaluate(text), "Tailscale is up");
	});

	await t.test("on paper everything is there", async (t) => {
		await tab.open(await save("paper", render(lockedHost)), {
			width: 1280,
			scheme: "dark",
		});
		const shown =
			"({ quiet: document.querySelector('.quiet li').checkVisibility(), colour: getComputedStyle(document.body).color })";
		t.same(await tab.evaluate(shown), {
			quiet: false,
			colour: "rgb(231, 236, 242)",
		});
		t.same(await tab.onPaper(shown), {
			quiet: true,
			colour: "rgb(24, 33, 44)",
		});
	});
});
