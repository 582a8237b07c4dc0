import { readAdvice } from "./advice.ts";
import { countSeverities, headline } from "./headline.ts";
import { drawHistogram, type HistogramBin } from "./histogram.ts";
import { badge, icon, iconShapes } from "./icon.ts";
import { html, type Markup } from "./markup.ts";
import { drawLayers, layerNames } from "./picture.ts";
import { type Result, sentenceOf, worstFirst } from "./result.ts";
import { stylesheet } from "./stylesheet.ts";
import { type Tone, toneOf } from "./tone.ts";
import { groupUnknowns, rootLine } from "./unknowns.ts";

/** Longest line of evidence on the page, in UTF-16 code units. */
const maxEvidenceLength = 2_000;

/** What a report is about. */
export interface Report {
	/** Of the page: "llamagate doctor". */
	readonly title: string;
	/** The host that was looked at. */
	readonly target: string;
	/** When. */
	readonly at: Date;
	/** Of llamagate. */
	readonly version: string;
	readonly results: readonly Result[];
	/** What a reader wants to know first besides, such as how fast a reply came. */
	readonly lead?: string;
	/** Of the gaps between the chunks of a streamed reply, if one was made. */
	readonly histogram?: readonly HistogramBin[];
}

/**
 * One page that needs only itself: no script, no request. What comes
 * from results is shown as text, whatever it holds.
 */
export function renderReport({
	title,
	target,
	at,
	version,
	results,
	lead,
	histogram,
}: Report): string {
	const sorted = worstFirst(results);
	const of = (state: Result["state"]) =>
		sorted.filter((result) => result.state === state);
	const anchorOf = (result: Result) => `check-${sorted.indexOf(result) + 1}`;
	const worst = sorted[0];
	const tone: Tone = worst === undefined ? "unchecked" : toneOf(worst);
	const summary = headline(results);
	const root = rootLine(results);
	return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<meta name="robots" content="noindex">
<meta name="format-detection" content="telephone=no, address=no, email=no">
<link rel="icon" href="data:,">
<title>${title}, ${target}: ${summary}</title>
<style>${stylesheet}</style>
</head>
<body>
${iconShapes()}
<header>
<h1>${title}</h1>
<dl class="about">
<div><dt>Host</dt><dd><bdi>${target}</bdi></dd></div>
<div><dt>Time</dt><dd>${formatTime(at)}</dd></div>
<div><dt>llamagate</dt><dd>${version}</dd></div>
</dl>
</header>
<main>
<div class="headline ${tone}">${icon(tone)}<div><p class="sentence">${summary}</p><p>${tally(results)}</p>${[root, lead].map((line) => (line === undefined ? undefined : html`<p>${line}</p>`))}</div></div>
${drawLayers(results, anchorOf)}
${renderFindings(of("finding"), anchorOf)}
${renderUnknown(of("unknown"), anchorOf)}
${renderQuiet("In order", of("ok"))}
${renderQuiet("Not here", of("absent"))}
${histogram === undefined || histogram.length === 0 ? undefined : drawHistogram(histogram)}
</main>
<footer><p>Made by llamagate ${version}. This page loads nothing and runs nothing. It names addresses and programs of this host: think before you pass it on.</p></footer>
</body>
</html>
`.text;
}

function formatTime(at: Date): Markup {
	const iso = at.toISOString();
	return html`<time datetime="${iso}">${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC</time>`;
}

function tally(results: readonly Result[]): string {
	const many = (state: Result["state"]) =>
		results.filter((result) => result.state === state).length;
	return [
		countSeverities(results),
		...(
			[
				["unknown", "unknown"],
				["ok", "in order"],
				["absent", "not here"],
			] as const
		).map(([state, name]) =>
			many(state) === 0 ? "" : `${many(state)} ${name}`,
		),
	]
		.filter((part) => part !== "")
		.join(" · ");
}

function renderFindings(
	findings: readonly Result[],
	anchorOf: (result: Result) => string,
): Markup | undefined {
	if (findings.length === 0) return undefined;
	const cards = findings.map(
		(
			result,
		) => html`<article class="card ${toneOf(result)}" id="${anchorOf(result)}">
<h3>${badge(toneOf(result))} <bdi>${shorten(sentenceOf(result))}</bdi></h3>
${renderId(result)}
<dl class="facts">
<div><dt>Should be so</dt><dd><bdi>${result.title}</bdi></dd></div>
${renderEvidence("Seen", result, 1)}
<div><dt>Why it matters</dt><dd><bdi>${result.why}</bdi></dd></div>
${renderAdvice("What to do", result.fix)}
</dl>
</article>
`,
	);
	return html`<section aria-labelledby="findings">
<h2 id="findings">Findings <span class="many">${findings.length}</span></h2>
${cards}</section>`;
}

function renderUnknown(
	unknown: readonly Result[],
	anchorOf: (result: Result) => string,
): Markup | undefined {
	if (unknown.length === 0) return undefined;
	const rows = groupUnknowns(unknown).map(({ reason, remedy, results }) => {
		const [first] = results;
		return first !== undefined && results.length === 1
			? html`<li class="card unknown" id="${anchorOf(first)}">
<h3>${badge("unknown")} <bdi>${first.title}</bdi></h3>
${renderId(first)}
<dl class="facts">
${renderEvidence("Not seen because", first)}
<div><dt>Why it matters</dt><dd><bdi>${first.why}</bdi></dd></div>
${renderAdvice("How to find out", remedy)}
</dl>
</li>
`
			: html`<li class="card unknown">
<h3>${badge("unknown")} ${results.length} checks: <bdi>${shorten(reason)}</bdi></h3>
<dl class="facts">
${renderAdvice("How to find out", remedy)}
</dl>
<ul class="plain" role="list">
${results.map(
	(
		result,
	) => html`<li id="${anchorOf(result)}"><p><bdi>${result.title}</bdi></p>
${renderId(result)}</li>
`,
)}</ul>
</li>
`;
	});
	return html`<section aria-labelledby="unknown">
<h2 id="unknown">Unknown <span class="many">${unknown.length}</span></h2>
<p>What could not be seen may be in order or not.</p>
<ul class="plain" role="list">
${rows}</ul>
</section>`;
}

/** What asks nothing of the reader, closed until it is opened. */
function renderQuiet(
	heading: string,
	results: readonly Result[],
): Markup | undefined {
	if (results.length === 0) return undefined;
	const rows = results.map(
		(
			result,
		) => html`<li class="${toneOf(result)}">${icon(toneOf(result))}<div><p><bdi>${result.title}</bdi></p>
${result.evidence.map((line) => html`<p class="seen"><bdi>${shorten(line)}</bdi></p>`)}
${renderId(result)}</div></li>
`,
	);
	return html`<details class="quiet">
<summary><h2>${heading} <span class="many">${results.length}</span></h2></summary>
<ul class="plain" role="list">
${rows}</ul>
</details>`;
}

function renderId({ id, layer }: Result): Markup {
	return html`<p class="id"><span class="unseen">Check </span><code>${id}</code> <span>${layerNames[layer]}</span></p>`;
}

/** @param from of which line on; those before stand elsewhere */
function renderEvidence(
	name: string,
	{ evidence }: Result,
	from = 0,
): Markup | undefined {
	const lines = evidence
		.slice(from)
		.map((line) => html`<li><bdi>${shorten(line)}</bdi></li>`);
	if (lines.length === 0) return undefined;
	return html`<div><dt>${name}</dt><dd><ul class="evidence" role="list">${lines}</ul></dd></div>`;
}

/** Browsers take seconds to lay out very long words, and nobody reads them. */
function shorten(line: string): string {
	const more = line.length - maxEvidenceLength;
	return more <= 0
		? line
		: `${line.slice(0, maxEvidenceLength)}… (${more} more characters)`;
}

/** Words as words, and each run of commands to be copied as it is. */
function renderAdvice(
	name: string,
	text: string | undefined,
): Markup | undefined {
	if (text === undefined) return undefined;
	const blocks: { kind: "prose" | "command"; lines: string[] }[] = [];
	for (const { kind, text: line } of readAdvice(text)) {
		const last = blocks.at(-1);
		if (last?.kind === kind) last.lines.push(line);
		else blocks.push({ kind, lines: [line] });
	}
	return html`<div><dt>${name}</dt><dd>${blocks.map(({ kind, lines }) =>
		kind === "command"
			? html`<pre>${lines.join("\n")}</pre>`
			: lines.map((line) => html`<p><bdi>${line}</bdi></p>`),
	)}</dd></div>`;
}
