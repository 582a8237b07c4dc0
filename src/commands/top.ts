import { setTimeout as delay } from "node:timers/promises";
import { styleText } from "node:util";
import { type AskedLive, askLiveOn, type GateLive } from "../admin/live.ts";
import { type ModelRow, modelRows } from "../admin/models.ts";
import { findPlaces } from "../admin/places.ts";
import { type RateOf, Rates } from "../admin/rates.ts";
import type { TopRequest } from "../admin/top.ts";
import { defaultConfigPath, typed } from "../config/load.ts";
import { parseDuration } from "../duration.ts";
import { exitCodes, Finding, UsageError } from "../errors.ts";
import { formatAge } from "../report/duration.ts";
import { formatJson } from "../report/json.ts";
import { Screen } from "../report/screen.ts";
import { formatTable } from "../report/table.ts";
import { visibleLine } from "../visible.ts";
import { type Command, readArgs } from "./command.ts";
import { formatWaiting } from "./status.ts";

const defaultInterval = "1s";
/** A look is work for the gate. */
const leastIntervalMs = 200;
const mostIntervalMs = 60_000;

export const top: Command = {
	help: `
Usage: sudo llamagate top [--interval 1s] [--config FILE] [--json]

Shows who is at work now and who waits, and the models that are loaded or wanted,
with their memory and when Ollama unloads them if nobody asks. In a terminal it goes on, and q or
Ctrl-C ends it; elsewhere it prints once. WHO is as in "llamagate usage"; a
person is named as far as log.people has it. AHEAD says how many are likely to
go before; TIME is how long it waits, or how long Ollama has had it; TOKENS/S
counts the pieces of a stream that were passed on since the last look, about one
a token, or from the reply's begin where there was none.

  --interval WHEN    how often a terminal is drawn anew, from 200ms to 60s
                     (default: ${defaultInterval})
  --json             print JSON, once
  -c, --config FILE  the gate's configuration (default: ${defaultConfigPath})

Exit codes: 0 done, 1 no gate answers, 2 usage, 78 the configuration cannot be
            read

Example: sudo llamagate top
`,
	async run(args) {
		const { values } = readArgs(args, {
			interval: { type: "string", default: defaultInterval },
			json: { type: "boolean", default: false },
			config: { type: "string", short: "c", default: defaultConfigPath },
		});
		const intervalMs = readInterval(values.interval);
		const { adminSocket } = await findPlaces(values.config);
		if (adminSocket === undefined)
			throw new Finding(
				'admin.socket is "off", so the gate cannot be asked; see: systemctl status llamagate',
			);
		const first = await askLiveOn(adminSocket);
		if (first.kind !== "live")
			throw new Finding(adviceOn(first, values.config));
		if (values.json) process.stdout.write(formatJson(withRates(first.live)));
		else if (process.stdout.isTTY) await watch(adminSocket, first, intervalMs);
		else
			process.stdout.write(
				`${describe(first.live, new Rates().of(first.live.top)).join("\n")}\n`,
			);
		return exitCodes.ok;
	},
};

function adviceOn(
	{ kind, why }: Exclude<AskedLive, { kind: "live" }>,
	configFile: string,
): string {
	switch (kind) {
		case "denied":
			return `${why}; run: sudo ${typed("top", configFile)}`;
		case "silent":
			return `${why}; see: systemctl status llamagate`;
		case "strange":
			return why;
	}
}

function readInterval(text: string): number {
	const intervalMs = parseDuration(text);
	if (
		intervalMs === undefined ||
		intervalMs < leastIntervalMs ||
		intervalMs > mostIntervalMs
	)
		throw new UsageError(
			`--interval ${text} is not a duration from 200ms to 60s, such as 2s`,
		);
	return intervalMs;
}

/** Draws it anew until the reader has seen enough. A gate that is away may come back. */
async function watch(
	socket: string,
	first: AskedLive,
	intervalMs: number,
): Promise<void> {
	const ended = Promise.withResolvers<undefined>();
	const screen = new Screen(process.stdout, process.stdin, () =>
		ended.resolve(undefined),
	);
	const rates = new Rates();
	screen.open();
	try {
		let asked: AskedLive | undefined = first;
		while (asked !== undefined) {
			screen.draw(
				asked.kind === "live"
					? describe(asked.live, rates.of(asked.live.top))
					: [visibleLine(asked.why)],
			);
			asked = await Promise.race([
				ended.promise,
				delay(intervalMs).then(() => askLiveOn(socket)),
			]);
		}
	} finally {
		screen.close();
	}
}

function withRates({ top, loaded }: GateLive) {
	const rateOf = new Rates().of(top);
	return {
		...top,
		requests: top.requests.map((request) => ({
			...request,
			tokensPerSecond: round(rateOf(request)) ?? null,
		})),
		loaded,
	};
}

function describe(live: GateLive, rateOf: RateOf): string[] {
	const { version, queue, requests, atWork, waiting } = live.top;
	const models = modelRows(live, Date.now());
	const sum =
		queue === undefined
			? "nobody waits here, queue.mode is off"
			: formatWaiting(queue.waiting);
	const unlisted = atWork + waiting - requests.length;
	return [
		`llamagate ${visibleLine(version)}: ${atWork} at work, ${sum}`,
		...(models.length === 0 ? [] : ["", ...table(...modelTable(models))]),
		...(live.loaded === null ? ["", "Ollama does not say what is loaded"] : []),
		...(requests.length === 0
			? []
			: ["", ...table(...requestTable(requests, rateOf))]),
		...(unlisted > 0 ? [`and ${unlisted} more`] : []),
	];
}

type Table = [head: string[], rows: string[][]];

function modelTable(models: readonly ModelRow[]): Table {
	const hasHosts = models.some(({ host }) => host !== undefined);
	return [
		[
			"MODEL",
			...(hasHosts ? ["HOST"] : []),
			"STATE",
			"MEMORY",
			"UNLOADS",
			"SLOTS",
			"AT WORK",
			"WAITING",
		],
		models.map(({ name, host, state, memory, unloads, queued }) => [
			name,
			...(hasHosts ? [host ?? ""] : []),
			state,
			memory ?? "",
			unloads ?? "",
			...[queued?.slots, queued?.running, queued?.waiting].map((count) =>
				String(count ?? ""),
			),
		]),
	];
}

function requestTable(requests: readonly TopRequest[], rateOf: RateOf): Table {
	const hasDevices = requests.some(({ node }) => node !== null);
	const hasHosts = requests.some(({ host }) => host !== undefined);
	return [
		[
			"STATE",
			"WHO",
			...(hasDevices ? ["DEVICE"] : []),
			"CLASS",
			"MODEL",
			...(hasHosts ? ["HOST"] : []),
			"AHEAD",
			"TIME",
			"TOKENS/S",
			"CALL",
		],
		requests.map((request) => [
			request.state,
			request.person ?? request.user,
			...(hasDevices ? [request.node ?? ""] : []),
			request.priority ?? "",
			request.model ?? "",
			...(hasHosts ? [request.host ?? ""] : []),
			request.ahead === null ? "" : String(request.ahead),
			formatAge(timeOf(request)),
			round(rateOf(request))?.toFixed(1) ?? "",
			request.route,
		]),
	];
}

/** How long it has been as it is. */
function timeOf({ state, waitedMs, runsMs, ageMs }: TopRequest): number {
	return (state === "waiting" ? waitedMs : runsMs) ?? ageMs;
}

function round(rate: number | undefined): number | undefined {
	return rate === undefined ? undefined : Math.round(rate * 10) / 10;
}

function table(head: string[], rows: string[][]): string[] {
	const [title = "", ...lines] = formatTable(
		head,
		rows.map((row) => row.map((cell) => visibleLine(cell))),
	)
		.trimEnd()
		.split("\n");
	return [styleText("bold", title), ...lines];
}
