/* global uPlot */
// What the page does besides being there: it takes what is new, and draws curves.
// Everything it shows was escaped where it was made, by the server.

const minutes = 10;
const byId = (id) => document.getElementById(id);
const says = byId("says");
const button = byId("pause");

// Where a browser wants it said that a text is fit to be markup, or a script's
// address, this says it. Both are the server's own.
const policy = { createHTML: (text) => text, createScriptURL: (text) => text };
const trusted =
	window.trustedTypes?.createPolicy("llamagate", policy) ?? policy;

/**
 * Makes one element's content that of another, and leaves what is the same as it
 * is: anyone who reads, selects or scrolls there is not disturbed.
 */
function morph(from, to) {
	for (const [at, wanted] of [...to.childNodes].entries()) {
		const moved =
			wanted.id && from.querySelector(`:scope > [id="${wanted.id}"]`);
		if (moved && moved !== from.childNodes[at])
			from.insertBefore(moved, from.childNodes[at] ?? null);
		const here = from.childNodes[at];
		if (here === undefined) from.append(wanted.cloneNode(true));
		else if (
			here.nodeName !== wanted.nodeName ||
			(here.id ?? "") !== (wanted.id ?? "")
		)
			from.insertBefore(wanted.cloneNode(true), here);
		else if (here.nodeType !== Node.ELEMENT_NODE) {
			if (here.data !== wanted.data) here.data = wanted.data;
		} else {
			for (const { name } of [...here.attributes])
				if (!wanted.hasAttribute(name)) here.removeAttribute(name);
			for (const { name, value } of wanted.attributes)
				if (here.getAttribute(name) !== value) here.setAttribute(name, value);
			morph(here, wanted);
		}
	}
	while (from.childNodes.length > to.childNodes.length) from.lastChild.remove();
}

function showSections(sections) {
	for (const [name, markup] of Object.entries(sections)) {
		const parsed = new DOMParser().parseFromString(
			trusted.createHTML(markup),
			"text/html",
		);
		const section = byId(name);
		if (section) morph(section, parsed.body);
	}
}

// A curve's points by columns, as uPlot wants them: times, then what each point has.
let columns = [[], [], [], [], [], []];
const seconds = (value) => (value === null ? "not known" : `${value} s`);
const plain = (value) => (value === null ? "not known" : String(value));
const curves = [
	{ id: "c-speed", names: ["Tokens a second"], from: 1, say: plain },
	{ id: "c-load", names: ["At work", "Waiting"], from: 2, say: plain },
	{
		id: "c-first",
		names: ["Median", "95th percentile"],
		from: 4,
		say: seconds,
	},
];

/** A colour of the style sheet, as it is in this scheme. */
function colourOf(className) {
	const probe = document.createElement("i");
	probe.className = className;
	document.body.append(probe);
	const { color } = getComputedStyle(probe);
	probe.remove();
	return color;
}

function dataOf({ names, from }) {
	return [columns[0], ...names.map((_, at) => columns[from + at])];
}

/** Ten minutes, or two at least where no more is known yet. */
function shownFrom(from, to) {
	return Math.max(to - minutes * 60, Math.min(from, to - 120));
}

function drawCurves() {
	const muted = colourOf("muted");
	const line = colourOf("line");
	const axis = {
		stroke: muted,
		grid: { stroke: line, width: 1 },
		ticks: { stroke: line, width: 1 },
		font: "12px system-ui, sans-serif",
	};
	for (const curve of curves) {
		const place = byId(curve.id);
		curve.plot?.destroy();
		curve.plot = new uPlot(
			{
				width: place.clientWidth,
				height: 150,
				legend: { show: false },
				cursor: { show: false },
				select: { show: false },
				scales: {
					x: { range: (_, from, to) => [shownFrom(from, to), to] },
					y: { range: (_, __, to) => [0, Math.max(1, (to ?? 0) * 1.1)] },
				},
				axes: [
					{
						...axis,
						size: 28,
						space: 70,
						values: (_, ticks) =>
							ticks.map((at) =>
								new Date(at * 1000).toLocaleTimeString([], {
									hour: "2-digit",
									minute: "2-digit",
								}),
							),
					},
					{ ...axis, size: 44, space: 35 },
				],
				series: [
					{},
					...curve.names.map((label, at) => ({
						label,
						stroke: colourOf(at === 0 ? "first" : "second"),
						width: 2,
						dash: at === 0 ? undefined : [5, 4],
						points: { show: false },
					})),
				],
			},
			dataOf(curve),
			place,
		);
	}
}

/** A curve in words, for who does not see it. */
function describe({ names, from, say }) {
	const parts = names.map((name, at) => {
		const known = columns[from + at].filter((value) => value !== null);
		const most = known.length === 0 ? null : Math.max(...known);
		return `${name}: ${say(columns[from + at].at(-1) ?? null)} now, ${say(most)} at most`;
	});
	return `${parts.join("; ")}, in the last ${minutes} minutes`;
}

function showPoints(points, isWhole) {
	if (isWhole) columns = columns.map(() => []);
	for (const point of points)
		for (const [at, value] of point.entries()) columns[at]?.push(value);
	const oldest = (columns[0].at(-1) ?? 0) - minutes * 60;
	const tooOld = columns[0].findIndex((at) => at >= oldest);
	if (tooOld > 0) for (const column of columns) column.splice(0, tooOld);
	for (const curve of curves) {
		curve.plot?.setData(dataOf(curve));
		byId(curve.id).setAttribute("aria-label", describe(curve));
	}
}

let events;
let isPaused = false;

function say(text) {
	// It is read out, so only what is new is said.
	if (says.textContent !== text) says.textContent = text;
}

function watch() {
	events?.close();
	events = new EventSource("events");
	events.addEventListener("look", ({ data }) => {
		const { sections, points, isWhole } = JSON.parse(data);
		showSections(sections);
		showPoints(points, isWhole);
		say("Live");
	});
	events.addEventListener("error", () => {
		say("No connection; what is shown is old. Trying again.");
		// Refused with a status, a browser does not come again by itself.
		if (events.readyState === EventSource.CLOSED)
			setTimeout(() => !isPaused && !document.hidden && watch(), 5_000);
	});
}

function rest() {
	events?.close();
	events = undefined;
}

button.hidden = false;
button.addEventListener("click", () => {
	isPaused = !isPaused;
	button.textContent = isPaused ? "Go on" : "Pause";
	if (isPaused) {
		rest();
		say(`Paused at ${new Date().toLocaleTimeString()}`);
	} else watch();
});
// Nobody sees it then, and nobody has to be asked for it.
document.addEventListener("visibilitychange", () => {
	if (document.hidden) rest();
	else if (!isPaused) watch();
});

/** What draws curves is larger than all the rest, and wanted once that can be read. */
function loadCurves() {
	const curvesSection = byId("curves");
	const script = document.createElement("script");
	script.src = trusted.createScriptURL(curvesSection.dataset.script);
	script.addEventListener("load", () => {
		curvesSection.hidden = false;
		drawCurves();
		matchMedia("(prefers-color-scheme: dark)").addEventListener(
			"change",
			drawCurves,
		);
		new ResizeObserver(() => {
			for (const { id, plot } of curves)
				plot?.setSize({ width: byId(id).clientWidth, height: 150 });
		}).observe(curvesSection);
	});
	document.head.append(script);
}

// Behind the first frame.
requestAnimationFrame(() =>
	setTimeout(() => {
		if (!document.hidden) watch();
		loadCurves();
	}),
);
