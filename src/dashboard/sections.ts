import type { GateLive } from "../admin/live.ts";
import type { TopRequest } from "../admin/top.ts";
import { type LastResult, lastResultFreshMs } from "../doctor/lastResult.ts";
import { formatAge } from "../report/duration.ts";
import { countSeverities, headline } from "../report/headline.ts";
import { icon } from "../report/icon.ts";
import { html, Markup } from "../report/markup.ts";
import { worstFirst } from "../report/result.ts";
import { type Tone, toneOf } from "../report/tone.ts";
import { budgets } from "./budgets.ts";
import { models } from "./models.ts";
import { formatLatency, nameOf, type Row, table } from "./parts.ts";
import { share } from "./share.ts";
import type { Snapshot } from "./snapshot.ts";

/** Rows of the table of requests; the rest is counted. */
const maxRows = 100;
const maxReasons = 12;

/** The parts of the page that change, each with its heading; empty where there is nothing to say. */
export const sectionNames = [
	"now",
	"requests",
	"models",
	"share",
	"budgets",
	"refusals",
	"doctor",
] as const;
export type SectionName = (typeof sectionNames)[number];
export type Sections = Readonly<Record<SectionName, string>>;

export function renderSections(snapshot: Snapshot): Sections {
	const { gate } = snapshot;
	const live = gate.kind === "live" ? gate.live : undefined;
	const none = new Markup("");
	const rendered: Record<SectionName, Markup> = {
		now: live === undefined ? away(gate.kind) : now(live, snapshot),
		requests: live === undefined ? none : requests(live, snapshot),
		models: live === undefined ? none : models(live, snapshot.atMs),
		share: share(snapshot.usage),
		budgets: live === undefined ? none : budgets(live.budgets),
		refusals: live === undefined ? none : refusals(live),
		doctor: doctor(snapshot.doctor, snapshot.atMs),
	};
	return Object.fromEntries(
		sectionNames.map((name) => [name, rendered[name].text]),
	) as Sections;
}

/** In words of its own: what was tried is for the owner of the page. */
function away(kind: Snapshot["gate"]["kind"]): Markup {
	const why =
		kind === "strange"
			? "What answers is not a gate of this page's version. On the server: systemctl restart llamagate"
			: kind === "denied"
				? "This page may not ask it. On the server, run it as root."
				: "On the server: systemctl status llamagate";
	return html`<h2 class="unseen" id="h-now">Now</h2>
<div class="headline high">${icon("high")}<div><p class="sentence">The gate does not answer.</p><p>${why}</p></div></div>`;
}

function now(live: GateLive, { tokensPerSecond, atMs }: Snapshot): Markup {
	const { top, firstTokens, refusals: counts } = live;
	const { medianMs, p95Ms, count } = firstTokens.tenMinutes;
	const refused = counts.reduce((sum, one) => sum + one.count, 0);
	const first =
		medianMs === null || p95Ms === null
			? ["–", "no stream in ten minutes"]
			: [
					formatLatency(medianMs),
					`median of ${count} in ten minutes; 95 % within ${formatLatency(p95Ms)}`,
				];
	const up = formatAge(atMs - Date.parse(live.startedAt));
	const tiles: (readonly string[])[] = [
		["At work", String(top.atWork), `gate up for ${up}`],
		["Waiting", String(top.waiting), waitingBy(top.queue?.waiting)],
		["Tokens a second", speed(tokensPerSecond), "of all that runs"],
		["First token", ...first],
		["Refused", String(refused), "in ten minutes"],
	];
	return html`<h2 class="unseen" id="h-now">Now</h2>
<dl class="tiles">${tiles.map(([name, value, more]) => html`<div><dt>${name}</dt><dd><strong>${value}</strong> <small>${more}</small></dd></div>`)}</dl>`;
}

function waitingBy(
	waiting: NonNullable<GateLive["top"]["queue"]>["waiting"] | undefined,
): string {
	if (waiting === undefined) return "nobody has to: queue.mode is off";
	const some = Object.entries(waiting).filter(([, count]) => count > 0);
	return some.length === 0
		? "for a turn at the GPU"
		: some.map(([name, count]) => `${name} ${count}`).join(", ");
}

function speed(tokensPerSecond: number | undefined): string {
	return tokensPerSecond === undefined ? "–" : tokensPerSecond.toFixed(1);
}

function requests({ top }: GateLive, { rateOf }: Snapshot): Markup {
	const shown = top.requests.slice(0, maxRows);
	const unlisted = top.atWork + top.waiting - shown.length;
	const hasDevices = shown.some(({ node }) => node !== null);
	const hasHosts = shown.some(({ host }) => host !== undefined);
	const head = [
		"Who",
		"State",
		"Model",
		...(hasHosts ? ["Host"] : []),
		"Time",
		"Tokens/s",
		"Ahead",
		"Class",
		...(hasDevices ? ["Device"] : []),
		"Call",
	];
	const rows = shown.map(
		(request): Row => ({
			id: `r-${request.id.replace(/[^\w-]/g, "")}`,
			cells: [
				nameOf(request.person ?? request.user),
				html`<span class="state ${stateOf(request)}">${stateOf(request)}</span>`,
				nameOf(request.model ?? "–"),
				...(hasHosts ? [nameOf(request.host ?? "–")] : []),
				formatAge(timeOf(request)),
				rateOf(request)?.toFixed(1) ?? "–",
				request.ahead ?? "–",
				nameOf(request.priority ?? "–"),
				...(hasDevices ? [nameOf(request.node ?? "–")] : []),
				nameOf(request.route),
			],
		}),
	);
	return html`<h2 id="h-requests">Requests</h2>
${
	rows.length === 0
		? html`<p>Nobody is at work, and nobody waits.</p>`
		: table("Requests", head, rows)
}
${unlisted > 0 ? html`<p>And ${unlisted} more.</p>` : undefined}`;
}

/** It becomes a class: one of those that are known. */
function stateOf({ state }: TopRequest): string {
	return ["receiving", "waiting", "loading", "running"].includes(state)
		? state
		: "running";
}

/** How long it has been as it is. */
function timeOf({ state, waitedMs, runsMs, ageMs }: TopRequest): number {
	return (state === "waiting" ? waitedMs : runsMs) ?? ageMs;
}

function refusals({ refusals: counts, lockedOut }: GateLive): Markup {
	const shown = counts.slice(0, maxReasons);
	const rest = counts
		.slice(maxReasons)
		.reduce((sum, { count }) => sum + count, 0);
	const rows = [
		...shown.map(
			({ reason, count }): Row => ({ cells: [nameOf(reason), count] }),
		),
		...(rest > 0 ? [{ cells: ["others", rest] }] : []),
	];
	const locked =
		lockedOut === 0
			? undefined
			: html`<p>${lockedOut} ${lockedOut === 1 ? "device or address is" : "devices or addresses are"} locked out after wrong keys.</p>`;
	return html`<h2 id="h-refusals">Refused in ten minutes</h2>
${rows.length === 0 ? html`<p>Nothing.</p>` : table("Refusals", ["Reason", "Requests"], rows)}
${locked}`;
}

/** How it is; where the host is weak is for its root alone. */
function doctor(last: LastResult, nowMs: number): Markup {
	const { tone, sentence, more } = describe(last, nowMs);
	return html`<h2 id="h-doctor">Doctor</h2>
<div class="headline ${tone}">${icon(tone)}<div><p class="sentence">${sentence}</p>${more.map((line) => html`<p>${line}</p>`)}</div></div>`;
}

function describe(
	last: LastResult,
	nowMs: number,
): { tone: Tone; sentence: string; more: string[] } {
	if (last.kind === "none")
		return {
			tone: "unchecked",
			sentence: "Has not looked at this host yet.",
			more: ["On the server: sudo llamagate doctor --changes"],
		};
	if (last.kind !== "report")
		return {
			tone: "unknown",
			sentence: "Its last result cannot be read.",
			more: ["On the server: sudo llamagate status"],
		};
	const { results, at } = last.report;
	const worst = worstFirst(results)[0];
	const ageMs = nowMs - Date.parse(at);
	const isOld = ageMs > lastResultFreshMs;
	const severities = countSeverities(results);
	const tone = worst === undefined ? "unchecked" : toneOf(worst);
	return {
		// That all was well then says nothing of now.
		tone: isOld && (tone === "ok" || tone === "absent") ? "unknown" : tone,
		sentence: headline(results),
		more: [
			`${severities === "" ? "" : `${severities}; `}looked ${formatAge(ageMs)} ago${isOld ? ", and should every day" : ""}.`,
			...(severities === ""
				? []
				: ["What it is, on the server: sudo llamagate doctor"]),
		],
	};
}
