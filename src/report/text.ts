import { styleText } from "node:util";
import { visible } from "../visible.ts";
import { readAdvice } from "./advice.ts";
import { type Result, sentenceOf, worstFirst } from "./result.ts";
import { wrap } from "./table.ts";
import { type Tone, toneNames, toneOf } from "./tone.ts";
import { groupUnknowns, rootLine } from "./unknowns.ts";

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
 * what holds of the rest; the fix is below a finding. With `colour` it has
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
	const paint = (style: Style, text: string) =>
		colour ? styleText(style, text) : text;
	const margin = " ".repeat(markWidth + 2);
	const line = (result: Result) =>
		`${paint(colourOf(result), markOf(result).padEnd(markWidth))}  ${oneLine(result.id).padEnd(idWidth)}  ${describe(result)}\n`;
	const advise = (word: string, text: string | undefined) =>
		text === undefined
			? ""
			: readAdvice(text)
					.flatMap(({ kind, text }) =>
						visible(text)
							.split("\n")
							.map((part) => (kind === "command" ? paint("cyan", part) : part)),
					)
					.map(
						(part, at) =>
							`${margin}${at === 0 ? `${word}: ` : " ".repeat(word.length + 2)}${part}\n`,
					)
					.join("");
	const sorted = worstFirst(results);
	const root = rootLine(results);
	const findings = sorted
		.filter(({ state }) => state === "finding")
		.map((result) => `${line(result)}${advise("fix", result.fix)}`);
	const unknown = groupUnknowns(sorted).map(
		({ reason, remedy, results: alike }) => {
			const [first] = alike;
			if (first === undefined) return "";
			if (alike.length === 1)
				return `${line(first)}${advise("to find out", remedy)}`;
			const mark = paint(colourOf(first), markOf(first).padEnd(markWidth));
			const ids = wrap(
				alike.map(({ id }) => oneLine(id)).join(", "),
				listWidth,
			).map((part) => `${margin}${part}\n`);
			return `${mark}  ${alike.length} checks: ${shorten(oneLine(reason))}\n${ids.join("")}${advise("to find out", remedy)}`;
		},
	);
	const rest = sorted
		.filter(({ state }) => state === "ok" || state === "absent")
		.map(line);
	return [
		...(root === undefined ? [] : [`${paint("bold", root)}\n\n`]),
		...findings,
		...unknown,
		...rest,
	].join("");
}

/** Of the ids of checks that could not be made for one reason, in columns. */
const listWidth = 68;

/** Everything about one check, for `--explain`. */
export function explain(result: Result): string {
	const { id, title, state, severity, evidence, why, fix } = result;
	const isFinding = state === "finding";
	const parts = [
		`${oneLine(isFinding ? sentenceOf(result) : title)} (${oneLine(id)})`,
		isFinding
			? `State: ${toneNames[severity]}\nShould be so: ${oneLine(title)}`
			: `State: ${states[state]}`,
	];
	if (evidence.length > (isFinding && !/\n/.test(evidence[0] ?? "") ? 1 : 0))
		parts.push(
			`${state === "unknown" ? "Not seen because" : "Seen"}:\n${evidence.map((line) => indent(line, 2)).join("\n")}`,
		);
	parts.push(`Why it matters:\n${indent(why, 2)}`);
	if (fix !== undefined)
		parts.push(
			`${state === "unknown" ? "How to find out" : "What to do"}:\n${readAdvice(
				fix,
			)
				.map(({ kind, text }) => indent(text, kind === "command" ? 4 : 2))
				.join("\n")}`,
		);
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

function describe(result: Result): string {
	const { state, title, evidence } = result;
	if (state === "finding") return shorten(oneLine(sentenceOf(result)));
	const seen = shorten(oneLine(evidence[0] ?? ""));
	if (state === "unknown" && seen !== "") return `${oneLine(title)}? ${seen}`;
	// The title says what is to be so, which is not so either where nothing is.
	if (state === "absent" && seen !== "") return seen;
	return oneLine(title);
}

/** The first line that says something; with the next where it only announces that. */
function oneLine(text: string): string {
	const [first = "", next] = text
		.split("\n")
		.map((part) => part.replaceAll("\t", " ").trim())
		.filter(Boolean);
	const line =
		first.endsWith(":") && next !== undefined ? `${first} ${next}` : first;
	return visible(line);
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
