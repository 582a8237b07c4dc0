import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { judgeGoals } from "./goals.ts";
import { bars, lines } from "./plot.ts";
import { renderSection, type Section } from "./report.ts";

interface Plot {
	readonly file: string;
	/** The section behind which it stands. */
	readonly section: string;
	readonly title: string;
	draw(section: Section): string;
}

/** A bar for each target's figure. */
function barPlot(
	section: string,
	figure: string,
	title: string,
	unit: string,
): Plot {
	return {
		file: `${section.replace(/\W+/g, "-")}-${figure}.svg`,
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
		file: `${section.replace(/\W+/g, "-")}-${figure}.svg`,
		section,
		title,
		draw: ({ figures }) =>
			lines(
				title,
				units,
				[
					{
						name: title,
						points: Object.values(figures).map(
							(values) => [values.x ?? 0, values[figure] ?? 0] as const,
						),
					},
				],
				logarithmic,
			),
	};
}

const plots: readonly Plot[] = [
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

/** Puts a run's report, its plots and its figures into the documents. */
export async function writeDocuments(
	docs: string,
	machine: readonly (readonly [string, string])[],
	sections: readonly Section[],
	readText: (file: string) => Promise<string>,
): Promise<void> {
	const folder = path.join(docs, "performance");
	await mkdir(folder, { recursive: true });
	for (const section of sections)
		for (const plot of plotsOf(section))
			await writeFile(path.join(folder, plot.file), plot.draw(section));
	await writeFile(
		path.join(folder, "figures.json"),
		`${JSON.stringify({ machine: Object.fromEntries(machine), sections }, undefined, "\t")}\n`,
	);
	const file = path.join(docs, "performance.md");
	const [written = ""] = (await readText(file)).split(begin);
	await writeFile(
		file,
		`${written}${begin}\n\n${renderReport(machine, sections, "performance")}`,
	);
}
