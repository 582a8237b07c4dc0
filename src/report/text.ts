import { styleText } from "node:util";
import { visible } from "../visible.ts";
import { type Result, worstFirst } from "./result.ts";
import { type Tone, toneNames, toneOf } from "./tone.ts";

type Style = Parameters<typeof styleText>[0];

/** Longest evidence on a line of the table, in characters; {@link explain} shows all of it. */
const maxEvidenceLength = 160;

const colours: Readonly<Record<Exclude<Tone, "unchecked">, Style>> = {
	critical: ["bold", "red"],
	high: "red",
	warn: "yellow",
	info: "cyan",
	unknown: "magenta",
	ok: "green",
	absent: "dim",
};

/**
 * A line each, worst first: the mark, the id, what was seen of a finding and
 * what holds of the rest; the fix stands below a finding. With `colour` it has
 * colours where standard output takes them.
 */
export function formatResults(
	results: readonly Result[],
	{ colour = true }: { readonly colour?: boolean } = {},
): string {
	const marks = results.map((result) => markOf(result).length);
	const ids = results.map(({ id }) => oneLine(id).length);
	const markWidth = Math.max(0, ...marks);
	const idWidth = Math.max(0, ...ids);
	return worstFirst(results)
		.map((result) => {
			const mark = markOf(result).padEnd(markWidth);
			const marked = colour ? styleText(colourOf(result), mark) : mark;
			const line = `${marked}  ${oneLine(result.id).padEnd(idWidth)}  ${describe(result)}\n`;
			if (result.state !== "finding" || result.fix === undefined) return line;
			const fix = indent(`fix: ${result.fix}`, markWidth + 2, 5);
			return `${line}${colour ? styleText("cyan", fix) : fix}\n`;
		})
		.join("");
}

/** Everything about one check, for `--explain`. */
export function explain(result: Result): string {
	const { id, title, state, severity, evidence, why, fix } = result;
	const parts = [
		`${oneLine(title)} (${oneLine(id)})`,
		`State: ${state === "finding" ? `not so, ${toneNames[severity]}` : states[state]}`,
	];
	if (evidence.length > 0)
		parts.push(
			`${state === "unknown" ? "Not seen because" : "Seen"}:\n${evidence.map((line) => indent(line, 2)).join("\n")}`,
		);
	parts.push(`Why it matters:\n${indent(why, 2)}`);
	if (fix !== undefined) parts.push(`What to do:\n${indent(fix, 2)}`);
	return `${parts.join("\n\n")}\n`;
}

const states = {
	ok: "in order",
	absent: "not here",
	unknown: "unknown, which may be in order or not",
} as const;

/** The colour of a check's answer. */
export function colourOf(result: Result): Style {
	return colours[toneOf(result)];
}

function markOf(result: Result): string {
	const tone = toneOf(result);
	return tone === "absent" ? "not here" : tone;
}

function describe({ state, title, evidence }: Result): string {
	const seen = shorten(oneLine(evidence[0] ?? ""));
	if (state === "finding")
		return seen === "" ? `not so: ${oneLine(title)}` : seen;
	if (state === "unknown" && seen !== "") return `${oneLine(title)}? ${seen}`;
	return oneLine(title);
}

/** The first line that says something. */
function oneLine(text: string): string {
	const line = text.split("\n").find((part) => part.trim() !== "") ?? "";
	return visible(line.replaceAll("\t", " ").trim());
}

function shorten(text: string): string {
	const characters = Array.from(text);
	return characters.length <= maxEvidenceLength
		? text
		: `${characters.slice(0, maxEvidenceLength - 1).join("")}…`;
}

/** So that no line of the text begins where the lines of the table do. */
function indent(text: string, width: number, more = 0): string {
	return visible(text)
		.split("\n")
		.map((line, at) => `${" ".repeat(width + (at === 0 ? 0 : more))}${line}`)
		.join("\n");
}
