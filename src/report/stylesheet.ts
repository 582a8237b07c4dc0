import { html, type Markup } from "./markup.ts";

/**
 * What every page of the program has. Colours are told for a light screen and for
 * paper; a dark screen has its own. Every pair of them is at least 4.5:1.
 */
export const sharedStyle: Markup = html`
:root {
	color-scheme: light dark;
	--page: #f5f6f8; --card: #fff; --text: #18212c; --muted: #525d6b; --line: #d3d9e1; --sunk: #eef1f5; --link: #1c55a8;
	--critical: #a3122a; --critical-line: #c8233b; --critical-back: #fdecee;
	--high: #97370a; --high-line: #d8590f; --high-back: #fff1e6;
	--warn: #745000; --warn-line: #c28a06; --warn-back: #fff7de;
	--info: #1c4f9c; --info-line: #4480d6; --info-back: #ebf2fd;
	--unknown: #59438f; --unknown-line: #8069bd; --unknown-back: #f3effc;
	--ok: #0f6237; --ok-line: #2f9a5f; --ok-back: #e9f6ee;
	--absent: #525d6b; --absent-line: #a3adba; --absent-back: #f1f3f6;
}
@media screen and (prefers-color-scheme: dark) {
	:root {
		--page: #0f141a; --card: #171e27; --text: #e7ecf2; --muted: #a4afbc; --line: #2d3845; --sunk: #0b0f14; --link: #8fbcff;
		--critical: #ff9eaa; --critical-line: #e8485f; --critical-back: #34141a;
		--high: #ffb78b; --high-line: #e2752f; --high-back: #331e10;
		--warn: #f1cd70; --warn-line: #c3961b; --warn-back: #2d240a;
		--info: #9fc6ff; --info-line: #4f8be0; --info-back: #14243b;
		--unknown: #cbbaf6; --unknown-line: #8f77d1; --unknown-back: #231c37;
		--ok: #88daa9; --ok-line: #36a368; --ok-back: #102a1c;
		--absent: #a4afbc; --absent-line: #596573; --absent-back: #1b222b;
	}
}
.critical { --tone: var(--critical); --tone-line: var(--critical-line); --tone-back: var(--critical-back); }
.high { --tone: var(--high); --tone-line: var(--high-line); --tone-back: var(--high-back); }
.warn { --tone: var(--warn); --tone-line: var(--warn-line); --tone-back: var(--warn-back); }
.info { --tone: var(--info); --tone-line: var(--info-line); --tone-back: var(--info-back); }
.unknown { --tone: var(--unknown); --tone-line: var(--unknown-line); --tone-back: var(--unknown-back); }
.ok { --tone: var(--ok); --tone-line: var(--ok-line); --tone-back: var(--ok-back); }
.absent, .unchecked { --tone: var(--absent); --tone-line: var(--absent-line); --tone-back: var(--absent-back); }

* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1.25rem 1rem 2rem; max-width: 66rem; background: var(--page); color: var(--text); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Arial, sans-serif; overflow-wrap: anywhere; }
h1, h2, h3, p, dl, dd, ul, ol, pre { margin: 0; padding: 0; }
h1 { font-size: 1.5rem; line-height: 1.25; }
h2 { font-size: 1.2rem; line-height: 1.3; }
h3 { font-size: 1.05rem; line-height: 1.4; }
a { color: var(--link); }
a:focus-visible, summary:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 4px; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .875rem; }
bdi { white-space: pre-wrap; }
.shapes { position: absolute; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.icon { flex: none; width: 1em; height: 1em; vertical-align: -.125em; fill: none; stroke: currentColor; stroke-width: 1.6; stroke-linecap: round; stroke-linejoin: round; }
.plain { list-style: none; }
.many { display: inline-block; min-width: 1.6em; padding: 0 .45em; border-radius: 1em; background: var(--line); font-size: .8em; font-weight: 600; text-align: center; }
main > * { margin-top: 1.75rem; }
section > * + * { margin-top: .75rem; }

.about { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; margin-top: .5rem; color: var(--muted); font-size: .9rem; }
.about div { display: flex; gap: .4rem; }
.about dt::after { content: ":"; }
.about dd { color: var(--text); font-weight: 600; }
.headline { display: flex; gap: .8rem; margin-top: 1.25rem; padding: .9rem 1rem; border: 1px solid var(--tone-line); border-left-width: 6px; border-radius: 8px; background: var(--tone-back); color: var(--tone); }
.headline > .icon { width: 1.75rem; height: 1.75rem; margin-top: .1rem; }
.headline .sentence { font-size: 1.25rem; font-weight: 700; line-height: 1.4; }
.badge { display: inline-flex; gap: .35em; align-items: center; margin-right: .25em; padding: .05em .55em; border: 1px solid var(--tone-line); border-radius: 1em; background: var(--tone-back); color: var(--tone); font-size: .8rem; font-weight: 700; line-height: 1.5; vertical-align: .1em; white-space: nowrap; }
footer { margin-top: 2rem; padding-top: .75rem; border-top: 1px solid var(--line); color: var(--muted); font-size: .85rem; }
`;

/** A report's. */
export const stylesheet: Markup = html`${sharedStyle}
.way, .inner { list-style: none; }
.way li { display: flex; flex-direction: column; align-items: center; }
.arrow { flex: none; width: 24px; height: 12px; margin: 8px 0; transform: rotate(90deg); fill: none; stroke: var(--muted); stroke-width: 1.8; stroke-linecap: round; stroke-linejoin: round; }
.box { display: grid; grid-template-columns: 1fr auto; gap: 0 .75rem; width: 100%; padding: .5rem .75rem; border: 1px solid var(--tone-line); border-left-width: 5px; border-radius: 8px; background: var(--tone-back); color: var(--text); text-decoration: none; }
.box.unknown, .box.absent, .box.unchecked { border-style: dashed; border-left-style: solid; }
a.box:hover .name { text-decoration: underline; }
.box .name { font-weight: 700; }
.box .role { grid-row: 2; color: var(--muted); font-size: .85rem; }
.box .state { display: flex; gap: .35rem; grid-row: 1 / 3; grid-column: 2; align-items: center; color: var(--tone); font-size: .875rem; font-weight: 600; line-height: 1.25; }
.box .state .icon { width: 1.25rem; height: 1.25rem; }
.box .state > span { min-width: 5.25rem; }
.box small { display: block; font-size: .8rem; font-weight: 400; }
.frame { width: 100%; padding: .75rem; border: 1px solid var(--line); border-radius: 10px; background: var(--card); }
.frame > .box { margin-bottom: .75rem; }
.beside { margin-top: .75rem; }

.card { padding: .9rem 1rem; border: 1px solid var(--line); border-left: 5px solid var(--tone-line); border-radius: 8px; background: var(--card); scroll-margin-top: .75rem; }
.card:target { outline: 3px solid var(--tone-line); outline-offset: 2px; }
.card + .card { margin-top: .75rem; }
.id { margin-top: .15rem; color: var(--muted); font-size: .85rem; }
.id code { font-size: inherit; }
.id span:last-child::before { content: "· "; }
.facts { display: grid; gap: .6rem; margin-top: .7rem; }
.facts dt { color: var(--muted); font-size: .85rem; font-weight: 600; }
.facts dd { min-width: 0; }
.facts dd > * + * { margin-top: .4rem; }
.card .plain { display: grid; gap: .4rem; margin-top: .7rem; }
.evidence { list-style: none; }
.evidence li + li { margin-top: .2rem; }
pre { padding: .6rem .75rem; border: 1px solid var(--line); border-radius: 6px; background: var(--sunk); line-height: 1.5; white-space: pre-wrap; user-select: all; -webkit-user-select: all; unicode-bidi: isolate; direction: ltr; }
.quiet { border: 1px solid var(--line); border-radius: 8px; background: var(--card); }
.quiet + .quiet { margin-top: .75rem; }
.quiet summary { padding: .75rem 1rem; cursor: pointer; }
.quiet summary h2 { display: inline; }
.quiet ul { padding: 0 1rem .5rem; }
.quiet li { display: flex; gap: .6rem; padding: .6rem 0; border-top: 1px solid var(--line); }
.quiet li > .icon { margin-top: .25rem; color: var(--tone); }
.quiet li > div { min-width: 0; }
.quiet .seen { color: var(--muted); font-size: .925rem; }

.histogram { width: 100%; max-width: 40rem; border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
.histogram th { padding: .15rem .75rem .15rem 0; color: var(--muted); font-weight: 400; text-align: right; white-space: nowrap; }
.histogram thead th { font-weight: 600; }
.histogram .bar { width: 100%; }
.histogram svg { display: block; width: 100%; height: .9rem; background: var(--sunk); fill: var(--info-line); }
.histogram .count, .histogram thead th:last-child { padding: .15rem 0 .15rem .75rem; text-align: right; }

@media (min-width: 48rem) {
	body { padding: 2rem 2rem 3rem; }
	.way, .inner { display: flex; align-items: stretch; }
	.way li { flex-direction: row; align-items: center; flex: 1 1 0; }
	.way > .outside { flex: 0 0 9rem; }
	.arrow { margin: 0 4px; transform: none; }
	.way .box { min-width: 0; }
	.outside .box, .inner .box { display: flex; flex-direction: column; padding: .6rem .7rem; border-width: 5px 1px 1px; }
	.inner .box { height: 100%; }
	.outside .box, .inner .box { min-height: 7rem; }
	.outside .state, .inner .state { margin-top: auto; padding-top: .5rem; }
	.outside .unknown, .outside .absent, .outside .unchecked, .inner .unknown, .inner .absent, .inner .unchecked { border-style: solid dashed dashed; }
	.frame > .box, .beside > .box { grid-template-columns: auto 1fr auto; align-items: center; }
	.frame > .box .role, .beside .role { grid-row: 1; grid-column: 2; }
	.frame > .box .state, .beside .state { grid-row: 1; grid-column: 3; }
	.frame > .box .state > span, .beside .state > span { min-width: 0; }
	.frame > .box small, .beside small { display: inline; margin-left: .5em; }
	.inner > li:first-child { flex: .82 1 0; }
	.facts > div { display: grid; grid-template-columns: 9rem minmax(0, 1fr); gap: 1rem; }
	.facts dt { padding-top: .1rem; }
}
@media print {
	html { font-size: 10pt; }
	body { max-width: none; padding: 0; background: none; }
	.card, .box, .headline, .frame, .quiet li, .histogram tr { break-inside: avoid; }
	h2, h3 { break-after: avoid; }
	.quiet::details-content { content-visibility: visible; block-size: auto; }
	a { color: inherit; text-decoration: none; }
}
`;
