import fc from "fast-check";
import t from "tap";
import { readAdvice } from "../../src/report/advice.ts";
import { renderReport } from "../../src/report/html.ts";
import {
	layers,
	type Result,
	severities,
	worstFirst,
} from "../../src/report/result.ts";
import {
	chunkGaps,
	hostileHost,
	hostileTexts,
	lockedHost,
	openHost,
	withoutRoot,
} from "../support/exampleResults.ts";

const about = {
	title: "llamagate doctor",
	target: "mini.tail1a2b.ts.net",
	at: new Date("2026-03-03T10:11:12Z"),
	version: "0.1.0",
};

/** What a page is made of: its tags, with their classes and links and without any text. */
function markupOf(page: string): string[] {
	return page.match(/<[^>]*>/g) ?? [];
}

t.test(
	"it says on top what was found, where, when and with what",
	async (t) => {
		const page = renderReport({ ...about, results: openHost });
		t.match(page, "<h1>llamagate doctor</h1>");
		t.match(page, "<bdi>mini.tail1a2b.ts.net</bdi>");
		t.match(
			page,
			'<time datetime="2026-03-03T10:11:12.000Z">2026-03-03 10:11:12 UTC</time>',
		);
		t.match(page, "<dt>llamagate</dt><dd>0.1.0</dd>");
		t.match(page, "8 findings, worst: critical; 1 check could not be made.");
		t.match(
			page,
			"2 critical, 4 high, 1 warning, 1 info · 1 unknown · 1 in order · 4 not here",
		);
	},
);

t.test(
	"findings stand worst first, then what is unknown, then the rest",
	async (t) => {
		for (const results of [lockedHost, openHost, withoutRoot]) {
			const page = renderReport({ ...about, results });
			const ids = [...page.matchAll(/<code>([^<]*)<\/code>/g)].map(
				([, id]) => id,
			);
			t.same(
				ids,
				worstFirst(results).map(({ id }) => id),
			);
		}
	},
);

t.test(
	"a finding has what was seen, why it matters and what to do",
	async (t) => {
		const page = renderReport({ ...about, results: openHost });
		t.match(
			page,
			"<bdi>OLLAMA_HOST=0.0.0.0 in /etc/systemd/system/ollama.service.d/override.conf</bdi>",
		);
		t.match(
			page,
			"<bdi>Ollama asks nobody for a key: who reaches it may run, pull and delete models.</bdi>",
		);
		t.match(page, "<pre>sudo llamagate setup --only ollama</pre>");
	},
);

t.test("the picture has each layer's worst", async (t) => {
	const stateOf = (results: readonly Result[], name: string) =>
		new RegExp(`class="box (\\w+)"[^>]*><span class="name">${name}<`).exec(
			renderReport({ ...about, results }),
		)?.[1];
	const names = [
		"Internet",
		"UFW firewall",
		"Tailscale",
		"llamagate",
		"Ollama",
		"Open WebUI",
		"Host",
	];
	const picture = (results: readonly Result[]) =>
		names.map((name) => stateOf(results, name));
	t.same(picture(lockedHost), ["ok", "ok", "ok", "info", "ok", "absent", "ok"]);
	t.same(picture(openHost), [
		"critical",
		"high",
		"warn",
		"absent",
		"critical",
		"high",
		"high",
	]);
	t.same(picture(withoutRoot), [
		"ok",
		"unknown",
		"ok",
		"unknown",
		"unknown",
		"absent",
		"unknown",
	]);
	t.same(picture([]), Array(layers.length).fill("unchecked"));
});

t.test("every link leads to something on the page", async (t) => {
	for (const results of [[], lockedHost, openHost, withoutRoot]) {
		const page = renderReport({ ...about, results, histogram: chunkGaps });
		const ids = [...page.matchAll(/ id="([^"]*)"/g)].map(([, id]) => id);
		t.same(new Set(ids).size, ids.length, "no id twice");
		for (const [, reference] of page.matchAll(
			/ (?:href="#|aria-labelledby=")([^"]*)"/g,
		))
			t.ok(ids.includes(reference), String(reference));
	}
});

t.test("the gaps are drawn when there are some", async (t) => {
	const page = renderReport({ ...about, results: [], histogram: chunkGaps });
	t.match(page, /20–50 ms<\/th>.*width="100".*<td class="count">611</);
	t.match(page, /500–1000 ms<\/th>.*width="0".*<td class="count">0</);
	t.match(page, "1000 ms and more");
	for (const results of [{}, { histogram: [] }])
		t.notMatch(
			renderReport({ ...about, results: [], ...results }),
			"Gaps between chunks",
		);
});

t.test("the page's policy forbids what the page does not need", async (t) => {
	const page = renderReport({ ...about, results: hostileHost });
	t.match(
		page,
		/<meta charset="utf-8">\s*<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'">/,
	);
	const forbidden = [
		/^<(?:script|iframe|object|embed|form|base|img|foreignObject)/i,
		/\s(?:on\w+|src|style|srcset|action)=/i,
		/(?:href=|url\()(?!"#|"data:,")/i,
	];
	t.same(
		markupOf(page).filter((tag) => forbidden.some((kind) => kind.test(tag))),
		[],
	);
});

/**
 * The same results with harmless text in place of theirs. What the page is built
 * by stays: which are unknown for one reason, and which lines are commands.
 */
function tame(results: readonly Result[]): Result[] {
	const reasons = [
		...new Set(results.map(({ evidence }) => evidence[0]?.trim())),
	];
	return results.map((result) => ({
		...result,
		id: "a",
		group: "a",
		title: "a",
		why: "a",
		evidence: result.evidence.map((line, at) =>
			at === 0 && line.trim() === ""
				? ""
				: at === 0
					? `a${reasons.indexOf(line.trim())}`
					: "a",
		),
		...(result.fix === undefined
			? {}
			: {
					fix: readAdvice(result.fix)
						.map(({ kind }) => (kind === "command" ? "sudo a" : "a"))
						.join("\n"),
				}),
	}));
}

t.test("whatever the results say, it is text", async (t) => {
	t.same(
		markupOf(renderReport({ ...about, results: hostileHost })),
		markupOf(renderReport({ ...about, results: tame(hostileHost) })),
	);
	const text = fc.oneof(
		fc.string({ unit: "binary" }),
		fc.string({ unit: fc.constantFrom(..."<>\"'`&/=!-; \n\u0000\u202ea") }),
		fc.constantFrom(...hostileTexts),
	);
	fc.assert(
		fc.property(
			fc.array(
				fc.record({
					id: text,
					group: text,
					layer: fc.constantFrom(...layers),
					title: text,
					severity: fc.constantFrom(...severities),
					why: text,
					state: fc.constantFrom("ok", "finding", "absent", "unknown"),
					evidence: fc.array(text, { maxLength: 3 }),
					fix: text,
				}),
				{ maxLength: 5 },
			),
			text,
			text,
			text,
			(results, title, target, version) => {
				const page = renderReport({
					title,
					target,
					at: about.at,
					version,
					results,
				});
				t.same(
					markupOf(page),
					markupOf(renderReport({ ...about, results: tame(results) })),
				);
				t.notMatch(page, /(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/u);
			},
		),
	);
});

t.test("what is unknown for one reason stands on one card", async (t) => {
	const [one, two] = withoutRoot.filter(({ state }) => state === "unknown");
	const results = [one as Result, two as Result].map((result) => ({
		...result,
		evidence: ["only root can see this"],
		fix: "look as root: sudo llamagate doctor",
	}));
	const page = renderReport({ ...about, results });
	t.match(page, "2 checks: <bdi>only root can see this</bdi>");
	t.match(page, "<p>Run with sudo: 2 of 2 checks need it.</p>");
	t.match(
		page,
		"How to find out</dt><dd><p><bdi>look as root:</bdi></p><pre>sudo llamagate doctor</pre>",
		"words and commands apart",
	);
	t.equal(page.split("<pre>").length, 2, "said once");
});

t.test("what a reader wants to know first stands on top", async (t) => {
	const lead = "First token after 306 ms, then 23 tokens a second.";
	const page = renderReport({ ...about, results: openHost, lead });
	t.ok(page.indexOf(lead) < page.indexOf('id="layers"'));
});

t.test("a line that is too long is cut, and says by how much", async (t) => {
	const page = renderReport({
		...about,
		results: openHost.map((result) => ({
			...result,
			evidence: ["x".repeat(3_000), "y".repeat(2_000)],
		})),
	});
	t.match(page, `<bdi>${"x".repeat(2_000)}… (1000 more characters)</bdi>`);
	t.match(page, `<bdi>${"y".repeat(2_000)}</bdi>`);
});

t.test("a page is small", async (t) => {
	const page = renderReport({
		...about,
		results: openHost,
		histogram: chunkGaps,
	});
	t.ok(Buffer.byteLength(page) < 40_000, String(Buffer.byteLength(page)));
});
