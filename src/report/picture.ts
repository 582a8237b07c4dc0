import { count } from "./headline.ts";
import { icon } from "./icon.ts";
import { html, type Markup } from "./markup.ts";
import { type Layer, type Result, worstFirst } from "./result.ts";
import { type Tone, toneNames, toneOf } from "./tone.ts";

export const layerNames: Readonly<Record<Layer, string>> = {
	internet: "Internet",
	firewall: "UFW firewall",
	tailscale: "Tailscale",
	gate: "llamagate",
	ollama: "Ollama",
	"open-webui": "Open WebUI",
	host: "Host",
};

/** What each of them is there for, whether it does it or not. */
const roles: Readonly<Record<Layer, string>> = {
	internet: "anybody",
	firewall: "judges packets",
	tailscale: "judges devices",
	gate: "judges keys",
	ollama: "runs models",
	"open-webui": "for people, beside the gate",
	host: "the machine itself",
};

/** The layers from outside to Ollama, each with the worst that is known of it, and a link to that. */
export function drawLayers(
	results: readonly Result[],
	anchorOf: (result: Result) => string,
): Markup {
	const box = (layer: Layer) => {
		const here = results.filter((result) => result.layer === layer);
		const worst = worstFirst(here)[0];
		const tone = worst === undefined ? "unchecked" : toneOf(worst);
		const inside = html`<span class="name">${layerNames[layer]}</span>
<span class="role">${roles[layer]}</span>
<span class="state">${icon(tone)}<span>${describeTone(tone, here)}</span></span>`;
		return worst?.state === "finding" || worst?.state === "unknown"
			? html`<a class="box ${tone}" href="#${anchorOf(worst)}">${inside}</a>`
			: html`<div class="box ${tone}">${inside}</div>`;
	};
	return html`<section aria-labelledby="layers">
<h2 id="layers">Layers</h2>
<ol class="way" role="list" aria-label="From the internet to Ollama">
<li class="outside">${box("internet")}</li>
<li class="host">${arrow}
<div class="frame">
${box("host")}
<ol class="inner" role="list">
<li>${box("firewall")}</li>
<li>${arrow}${box("tailscale")}</li>
<li>${arrow}${box("gate")}</li>
<li>${arrow}${box("ollama")}</li>
</ol>
<div class="beside">${box("open-webui")}</div>
</div></li>
</ol>
</section>`;
}

/** "critical" and, on a line of its own, "2 findings". */
function describeTone(tone: Tone, here: readonly Result[]): Markup {
	const findings = here.filter(({ state }) => state === "finding").length;
	return findings === 0
		? html`${toneNames[tone]}`
		: html`${toneNames[tone]}<span class="unseen">, </span><small>${count(findings, "finding")}</small>`;
}

const arrow = html`<svg class="arrow" viewBox="0 0 24 12" aria-hidden="true"><path d="M1 6h20M16 1.5L21.5 6 16 10.5"/></svg>`;
