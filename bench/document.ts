import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { judgeGoals } from "./goals.ts";
import { bars, type Dots, dots, lines } from "./plot.ts";
import { renderSection, type Section } from "./report.ts";

interface Plot {
	readonly file: string;
	/** The section behind which it stands. */
	readonly section: string;
	readonly title: string;
	draw(section: Section): string;
}

const fileOf = (section: string, figure: string) =>
	`${section.replace(/\W+/g, "-")}-${figure}.svg`;

/** A bar for each target's figure. */
function barPlot(
	section: string,
	figure: string,
	title: string,
	unit: string,
): Plot {
	return {
		file: fileOf(section, figure),
		section,
		title,
		draw: ({ figures }) =>
			bars(
				title,
				unit,
				Object.entries(figures).flatMap(([name, values]) => {
					const value = values[figure];
					return value === undefined ? [] : [[name, value] as const];
				}),
			),
	};
}

/** A line of one figure over `x`. */
function linePlot(
	section: string,
	figure: string,
	title: string,
	units: readonly [string, string],
	logarithmic = false,
): Plot {
	return {
		file: fileOf(section, figure),
		section,
		title,
		draw: ({ figures }) =>
			lines(
				title,
				units,
				Object.values(figures).map(
					(values) => [values.x ?? 0, values[figure] ?? 0] as const,
				),
				logarithmic,
			),
	};
}

/** A dot for each request of a section whose data are waits by way and user: when it began, how long it waited. */
function waitPlot(section: string, title: string): Plot {
	return {
		file: fileOf(section, "waits"),
		section,
		title,
		draw: ({ data }) =>
			dots(
				title,
				["s", "s from a request to its first token"],
				data as Readonly<Record<string, Dots>>,
			),
	};
}

const plots: readonly Plot[] = [
	...[1, 4].map((parallel) =>
		waitPlot(
			`fair, ${parallel}`,
			`Who waits when, OLLAMA_NUM_PARALLEL=${parallel}`,
		),
	),
	waitPlot("fair, two models", "Who waits when, two models, room for one"),
	barPlot("requests", "cpu", "CPU of a small request", "µs"),
	barPlot(
		"streams, 64",
		"chunk50Added",
		"Added to a token's way, 64 streams, p50",
		"µs",
	),
	barPlot(
		"streams, 64",
		"chunk99Added",
		"Added to a token's way, 64 streams, p99",
		"µs",
	),
	barPlot(
		"flood, no key",
		"flooded99",
		"A token's way under a flood, p99",
		"ms",
	),
	barPlot("memory", "perStream", "Memory of an open stream", "KiB"),
	linePlot("scale, keys", "cpu", "CPU of a request by keys", ["keys", "µs"]),
	linePlot("scale, streams", "memory", "Memory by open streams", [
		"streams",
		"MiB",
	]),
	linePlot("scale, streams", "cpu", "CPU of a token by streams", [
		"streams",
		"µs",
	]),
	linePlot(
		"scale, body down",
		"cpu",
		"CPU by a reply's size",
		["bytes", "s"],
		true,
	),
	linePlot("scale, body down", "memory", "Memory by a reply's size", [
		"bytes",
		"MiB",
	]),
	linePlot(
		"scale, body up",
		"cpu",
		"CPU by a body's size",
		["bytes", "s"],
		true,
	),
	linePlot("soak", "memory", "Memory by streams so far", ["streams", "MiB"]),
	linePlot(
		"soak, small heap",
		"memory",
		"Memory by streams so far, small heap",
		["streams", "MiB"],
	),
	linePlot("scale, body up", "memory", "Memory by a body's size", [
		"bytes",
		"MiB",
	]),
];

const begin = "<!-- measured: written by npm run bench -->";

/** The report in Markdown: machine, goals, tables. */
export function renderReport(
	machine: readonly (readonly [string, string])[],
	sections: readonly Section[],
	plotFolder?: string,
): string {
	const goals = judgeGoals(sections);
	const table =
		goals.length === 0
			? ""
			: `\n## Goals\n\n| | goal | measured | |\n| --- | --: | --: | --- |\n${goals
					.map((cells) => `| ${cells.join(" | ")} |\n`)
					.join("")}`;
	const body = sections.map((section) => {
		const pictures =
			plotFolder === undefined
				? []
				: plotsOf(section).map(
						({ title, file }) => `\n![${title}](${plotFolder}/${file})\n`,
					);
		return `\n${renderSection(section)}${pictures.join("")}`;
	});
	return `${machine.map(([name, value]) => `- ${name}: ${value}`).join("\n")}\n${table}${body.join("")}`;
}

function plotsOf({ name, figures }: Section): Plot[] {
	return Object.keys(figures).length === 0
		? []
		: plots.filter(({ section }) => section === name);
}

/**
 * Puts a run's report, its plots and its figures into the documents. Sections
 * that this run did not measure stay as they were.
 *
 * @param machine what the figures depend on; stays as it was where a section's own notes say it
 */
export async function writeDocuments(
	docs: string,
	machine: readonly (readonly [string, string])[] | undefined,
	measured: readonly Section[],
): Promise<void> {
	const folder = path.join(docs, "performance");
	await mkdir(folder, { recursive: true });
	const figuresFile = path.join(folder, "figures.json");
	const before = await readFigures(figuresFile);
	const sections = replaceSections(before.sections, measured);
	const described = machine ?? Object.entries(before.machine);
	for (const section of measured)
		for (const plot of plotsOf(section))
			await writeFile(path.join(folder, plot.file), plot.draw(section));
	await writeFile(
		figuresFile,
		`${JSON.stringify({ machine: Object.fromEntries(described), sections }, undefined, "\t")}\n`,
	);
	const file = path.join(docs, "performance.md");
	const [written = ""] = (await readFile(file, "utf8")).split(begin);
	await writeFile(
		file,
		`${written}${begin}\n\n${renderReport(described, sections, "performance")}`,
	);
}

interface Figures {
	readonly machine: Readonly<Record<string, string>>;
	readonly sections: readonly Section[];
}

async function readFigures(file: string): Promise<Figures> {
	try {
		return JSON.parse(await readFile(file, "utf8")) as Figures;
	} catch (error) {
		if ((error as NodeJS.ErrnoException).code === "ENOENT")
			return { machine: {}, sections: [] };
		throw error;
	}
}

/** Each in its old place, and what is new behind them. */
function replaceSections(
	before: readonly Section[],
	measured: readonly Section[],
): Section[] {
	const anew = new Map(measured.map((section) => [section.name, section]));
	const kept = before.map((section) => {
		const replaced = anew.get(section.name) ?? section;
		anew.delete(section.name);
		return replaced;
	});
	return [...kept, ...anew.values()];
}
