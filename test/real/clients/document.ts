import { readdirSync, readFileSync } from "node:fs";
import { writeOrCheck } from "../../../src/config/madeFiles.ts";
import type { Seen, SeenClient } from "./cases.ts";

/** The part of docs/clients.md that says what each client showed, out of seen/. */

const begin = "<!-- as run: made from test/real/clients by npm run docs -->";
const end = "<!-- as run: end -->";
const page = "docs/clients.md";
const seen = new URL("seen/", import.meta.url);

/** Code in a cell of a table (GFM 4.10): no bar of its own, and a fence that it does not hold. */
function code(text: string): string {
	const cell = text.replaceAll("|", "\\|");
	return cell.includes("`") ? `\`\` ${cell} \`\`` : `\`${cell}\``;
}

function row(name: string, { exit, shows, gate }: Seen): string {
	const usual = name === "abort" ? "what had come" : "its reply";
	const shown =
		shows === undefined
			? usual
			: shows.map(code).join("<br>") || "nothing of its own";
	return `| ${name} | ${shown} | ${exit ?? "–"} | ${gate.map(code).join("<br>")} |`;
}

function renderClient(name: string): string {
	const { title, typed, cases } = JSON.parse(
		readFileSync(new URL(name, seen), "utf8"),
	) as SeenClient;
	return `### ${title}

What was run: ${typed}

| case | what it shows | exit | what the gate logs |
|---|---|---|---|
${Object.entries(cases)
	.map(([one, shown]) => row(one, shown))
	.join("\n")}
`;
}

const text = readFileSync(new URL(`../../../${page}`, import.meta.url), "utf8");
const [before, rest] = text.split(begin);
const after = rest?.split(end)[1];
if (before === undefined || after === undefined)
	throw new Error(`${page} has lost its marks: ${begin} and ${end}`);
writeOrCheck({
	[page]: `${before}${begin}

${readdirSync(seen).sort().map(renderClient).join("\n")}
${end}${after}`,
});
