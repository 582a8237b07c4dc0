import { styleText } from "node:util";
import { defaultConfigPath, loadConfig } from "../config/load.ts";
import { parseDuration } from "../duration.ts";
import { exitCodes, Finding, UsageError } from "../errors.ts";
import { parseTime } from "../keys/keyFile.ts";
import { askLedger } from "../ledger/ask.ts";
import { type Dimension, dimensions, type UsageRow } from "../ledger/store.ts";
import { formatTime } from "../report/duration.ts";
import { formatJsonLine } from "../report/json.ts";
import { formatTable, widthsOf } from "../report/table.ts";
import { visible, visibleLine } from "../visible.ts";
import { type Command, readArgs } from "./command.ts";

const defaultSince = "7d";
const barColumns = 20;

export const usage: Command = {
	help: `
Usage: sudo llamagate usage [--by LIST] [--since 7d] [--json | --csv]

Asks the ledger who used what. GPU is the time that Ollama read prompts and
generated; WAITED the time in the gate's queue; REFUSED those of the requests
that the gate turned away. Sums are of whole days (UTC) where the time is longer
ago than ledger.retention.

  --by LIST          of ${dimensions.join(",")} (default: user; with
                     --json and --csv: user,key,model)
  --since WHEN       a duration such as 30d, or a time such as
                     2030-01-01T00:00:00Z (default: ${defaultSince})
  --json             print {"rows":[…]}; what was not asked for by is null
  --csv              print comma-separated values
  -c, --config FILE  the configuration (default: ${defaultConfigPath})

Exit codes: 0 done, 1 no ledger answers, 2 usage, 78 bad configuration

Example: sudo llamagate usage --by model --since 30d
`,
	async run(args) {
		const { values } = readArgs(args, {
			by: { type: "string" },
			since: { type: "string", default: defaultSince },
			json: { type: "boolean", default: false },
			csv: { type: "boolean", default: false },
			config: { type: "string", short: "c", default: defaultConfigPath },
		});
		if (values.json && values.csv)
			throw new UsageError("--json and --csv do not go together");
		const sinceMs = readSince(values.since);
		const isTable = !values.json && !values.csv;
		const by = readBy(values.by ?? (isTable ? "user" : "user,key,model"));
		const { ledger } = await loadConfig(values.config);
		if (ledger === undefined)
			throw new Finding(
				`${values.config} has no section "ledger", so nothing is kept; add "ledger": {} and start llamagate-ledger.service`,
			);
		const rows = await askLedger(ledger.socket, { sinceMs, by });
		if (typeof rows === "string")
			throw new Finding(`${rows}. See: systemctl status llamagate-ledger`);
		const sorted = by.includes("day")
			? rows.toSorted((a, b) => (a.day ?? "").localeCompare(b.day ?? ""))
			: rows;
		const print = (text: string) => process.stdout.write(text);
		if (values.json)
			print(formatJsonLine({ rows: sorted.map((row) => plain(row, by)) }));
		else if (values.csv) print(toCsv(sorted, by));
		else print(toTable(sorted, by, values.since));
		return exitCodes.ok;
	},
};

function readSince(text: string): number {
	const durationMs = parseDuration(text);
	const timeMs =
		durationMs === undefined ? parseTime(text) : Date.now() - durationMs;
	if (timeMs === undefined)
		throw new UsageError(
			`--since ${text} is neither a duration such as 30d nor a time such as 2030-01-01T00:00:00Z`,
		);
	return Math.max(0, timeMs);
}

function readBy(text: string): Dimension[] {
	const names = text.split(",");
	const isKnown = (name: string): name is Dimension =>
		dimensions.includes(name as Dimension);
	const unknown = names.find((name) => !isKnown(name));
	if (unknown !== undefined)
		throw new UsageError(
			`--by ${unknown}: expected some of ${dimensions.join(",")}`,
		);
	return [...new Set(names.filter(isKnown))];
}

/** A row as it is printed for programs; a day, a device and a gate are there where they were asked for. */
function plain(row: UsageRow, by: readonly Dimension[]) {
	const { user, key, model, day, node, gate } = row;
	return {
		...(by.includes("day") && { day }),
		...(by.includes("node") && { node }),
		...(by.includes("gate") && { gate }),
		user,
		key,
		model,
		requests: row.requests,
		tokensIn: row.tokensIn,
		tokensOut: row.tokensOut,
		gpuMs: row.gpuMs,
		queueMs: row.queueMs,
		refused: row.refused,
	};
}

const amounts = [
	"requests",
	"tokensIn",
	"tokensOut",
	"gpuMs",
	"queueMs",
	"refused",
] as const;

function toCsv(rows: readonly UsageRow[], by: readonly Dimension[]): string {
	const lines = rows.map((row) =>
		[
			...by.map((name) => csvText(row[name] ?? "")),
			...amounts.map((name) => row[name]),
		].join(","),
	);
	return `${[[...by, ...amounts].join(","), ...lines].join("\r\n")}\r\n`;
}

/** A cell of RFC 4180. What a spreadsheet would take for a formula is made a text, and what is hidden or steers a terminal is shown. */
function csvText(text: string): string {
	const shown = visible(text);
	const safe = /^[=+\-@\t]/.test(shown) ? `'${shown}` : shown;
	return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function toTable(
	rows: readonly UsageRow[],
	by: readonly Dimension[],
	since: string,
): string {
	if (rows.length === 0)
		return `Nobody has used anything ${/^\d{4}-/.test(since) ? "since" : "in the last"} ${since}.\n`;
	const mostMs = rows.reduce((most, { gpuMs }) => Math.max(most, gpuMs), 1);
	const cells = rows.map((row) => [
		...by.map((name) => visibleLine(row[name] ?? "-")),
		formatTime(row.gpuMs),
		bar(row.gpuMs / mostMs),
		...[row.requests, row.refused, row.tokensIn, row.tokensOut].map(String),
		formatTime(row.queueMs),
	]);
	const head = [
		...by.map((name) => (name === "day" ? "DAY (UTC)" : name.toUpperCase())),
		"GPU",
		"",
		"REQUESTS",
		"REFUSED",
		"TOKENS IN",
		"OUT",
		"WAITED",
	];
	const [title = head, ...lines] = alignRight([head, ...cells], by.length);
	return formatTable(title, lines);
}

/** Numbers end in one column. The bars, behind the first of them, begin in one. */
function alignRight(
	rows: readonly (readonly string[])[],
	from: number,
): string[][] {
	const widths = widthsOf(rows, ({ length }) => length);
	return rows.map((row) =>
		row.map((cell, column) =>
			column < from || column === from + 1
				? cell
				: cell.padStart(widths[column] ?? 0),
		),
	);
}

/** In eighths of a column; what is not nothing is to be seen. */
function bar(share: number): string {
	const eighths = Math.round(share * barColumns * 8);
	const whole = "█".repeat(Math.floor(eighths / 8));
	const rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8] ?? "";
	const text = `${whole}${rest}` || (share > 0 ? "▏" : "");
	return text === "" ? "" : styleText("cyan", text);
}
