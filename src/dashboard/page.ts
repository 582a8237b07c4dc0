import { iconShapes } from "../report/icon.ts";
import { html, Markup } from "../report/markup.ts";
import { nameOf } from "./parts.ts";
import { type Sections, sectionNames } from "./sections.ts";

/** What the page says of itself. */
export interface Page {
	/** The machine that it is about. */
	readonly host: string;
	/** Of llamagate. */
	readonly version: string;
	readonly at: Date;
	/** Who reads it, where tailscale serve proved that. */
	readonly login: string | undefined;
	readonly sections: Sections;
	/** In the addresses of its files, so that no old one is taken for new. */
	readonly assetVersion: string;
}

/** The whole page, as it is before its script runs, and where none runs. */
export function renderPage({
	host,
	version,
	at,
	login,
	sections,
	assetVersion,
}: Page): string {
	const part = (name: keyof Sections) =>
		html`<section id="${name}" aria-labelledby="h-${name}">${new Markup(sections[name])}</section>
`;
	const [first, ...rest] = sectionNames;
	const iso = at.toISOString();
	return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<link rel="icon" href="data:,">
<title>llamagate on ${host}</title>
<link rel="stylesheet" href="page.css?${assetVersion}">
<script src="page.js?${assetVersion}" defer></script>
</head>
<body>
${iconShapes()}
<header>
<div>
<h1>llamagate</h1>
<dl class="about">
<div><dt>Host</dt><dd>${nameOf(host)}</dd></div>
${login === undefined ? undefined : html`<div><dt>Signed in as</dt><dd>${nameOf(login)}</dd></div>`}
</dl>
</div>
<div class="live"><p role="status" id="says">As of <time datetime="${iso}">${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC</time></p><button type="button" id="pause" hidden>Pause</button><noscript><p>Without script this page does not change by itself: <a href="./">look again</a></p></noscript></div>
</header>
<main>
${part(first)}${curves(assetVersion)}
${rest.map(part)}</main>
<footer><p>llamagate ${version}. This page changes nothing, and loads nothing from elsewhere. It names who uses this machine: think before you pass it on.</p></footer>
</body>
</html>
`.text;
}

const key = (name: string, which: "first" | "second") =>
	html`<span class="key"><svg viewBox="0 0 24 8" aria-hidden="true"><path class="${which}" d="M0 4h24"/></svg> ${name}</span>`;

const figure = (id: string, title: string, keys: readonly Markup[]) =>
	html`<figure class="panel"><figcaption>${title} ${keys}</figcaption><div class="curve" id="${id}" role="img" aria-label="${title}"></div></figure>`;

/** Drawn by the script, and not there without it. */
const curves = (assetVersion: string) =>
	html`<section id="curves" aria-labelledby="h-curves" data-script="curves.js?${assetVersion}" hidden>
<h2 id="h-curves">The last ten minutes</h2>
<div class="curves">
${figure("c-speed", "Tokens a second", [])}
${figure("c-load", "Requests", [key("at work", "first"), key("waiting", "second")])}
${figure("c-first", "First token, seconds", [key("median", "first"), key("95 %", "second")])}
</div>
<p class="note">As far as anybody watched: while nobody does, nobody counts.</p>
</section>`;
