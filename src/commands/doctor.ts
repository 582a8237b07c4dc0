import { fstatSync } from "node:fs";
import { hostname } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { styleText } from "node:util";
import { askDaemon } from "../admin/client.ts";
import { tellDoctorCounts } from "../admin/doctorCounts.ts";
import { findPlaces } from "../admin/places.ts";
import { defaultConfigPath } from "../config/load.ts";
import { type Examination, examineAll, type Patient } from "../doctor/check.ts";
import {
	changesSince,
	describeChange,
	keepResult,
	lastResultFile,
	priorityOf,
	readLastResult,
} from "../doctor/lastResult.ts";
import { parseDuration } from "../duration.ts";
import { exitCodes, Finding, UsageError } from "../errors.ts";
import { allUnits } from "../host/boot/units.ts";
import { examinations } from "../host/checks.ts";
import { weaknessOf } from "../keys/newKey.ts";
import { nearest } from "../nearest.ts";
import { headline } from "../report/headline.ts";
import { renderReport } from "../report/html.ts";
import { formatJson, type JsonReport, toJson } from "../report/json.ts";
import {
	hasSeriousFindings,
	type Result,
	type Severity,
	severities,
} from "../report/result.ts";
import { formatTable } from "../report/table.ts";
import { colourOf, explain, formatResults } from "../report/text.ts";
import { toneOf } from "../report/tone.ts";
import { findInstallation } from "../system/installation.ts";
import { untilAtRest } from "../system/units.ts";
import { version } from "../version.ts";
import { visibleLine } from "../visible.ts";
import { type Command, readArgs } from "./command.ts";
import { readStandardInput } from "./keyInput.ts";
import { writePage } from "./writePage.ts";

export const doctor: Command = {
	help: `
Usage: sudo llamagate doctor [--only ID] [--explain ID] [--fix ID] [--json]
                             [--html FILE] [--key-stdin] [--changes]
                             [--watch [--every TIME]]
       llamagate doctor --list [--only ID] [--json]

Looks at the sockets, rules, units and settings that are in force on this host,
and changes nothing. What it cannot see, it says. Without root it sees less.

  --only ID          these checks alone: an id, or a group such as ollama; may be
                     given more than once
  --explain ID       all about one check: what was seen, why it matters, what to do
  --fix ID           run the step of "llamagate setup" that mends it; it asks first
  --list             the checks and what they ask; looks at nothing
  --html FILE        write a page to keep, too
  --key-stdin        read a key of the gate from standard input, and try it with
                     one short reply
  --changes          say only what is not as it was the last time, and keep the
                     result in ${lastResultFile}; the daily
                     llamagate-doctor.timer does this
  --watch            go on looking, and say what changes, until Ctrl-C
  --every TIME       how often --watch looks (default: 1m)
  --json             print JSON (docs/report.schema.json)
  -c, --config FILE  the gate's configuration (default: ${defaultConfigPath})

Exit codes: 0 nothing above "warn" was found, 1 something was, 2 usage;
            with --changes 0 whatever was found, 1 it could not look or keep it

Example: sudo llamagate doctor
         sudo llamagate doctor --explain ollama.listening
`,
	async run(args) {
		const { values } = readArgs(args, {
			config: { type: "string", short: "c", default: defaultConfigPath },
			only: { type: "string", multiple: true, default: [] },
			explain: { type: "string" },
			fix: { type: "string" },
			html: { type: "string" },
			json: { type: "boolean", default: false },
			changes: { type: "boolean", default: false },
			watch: { type: "boolean", default: false },
			every: { type: "string" },
			"key-stdin": { type: "boolean", default: false },
			list: { type: "boolean", default: false },
		});
		if (values.list) return list(values);
		if (process.platform !== "linux")
			throw new Finding(
				"doctor looks at a Linux host from the inside; from here, use: llamagate probe",
			);
		if (values.changes) refuseWithChanges(values);
		const everyMs = readEvery(values);
		if (values.fix !== undefined) return fix(values.fix);
		const wanted = values.explain ?? undefined;
		const chosen = choose(wanted === undefined ? values.only : [wanted]);
		const fixed = {
			installation: await findInstallation(),
			// What is printed to be typed holds in any folder.
			configFile: path.resolve(values.config),
			isRoot: process.getuid?.() === 0,
			...(values["key-stdin"] ? { key: await readKey() } : {}),
		};
		if (everyMs !== undefined) return watch(chosen, fixed, everyMs);
		const patient: Patient = { ...fixed, nowMs: Date.now() };
		const results = await look(chosen, patient);
		const report = {
			version,
			at: new Date(patient.nowMs),
			target: hostname(),
			results,
		};
		if (values.changes) {
			await tellChanges(toJson(report));
			await tellGate(fixed.configFile, patient.nowMs, results);
			return exitCodes.ok;
		}
		if (values.html !== undefined)
			await writePage(
				values.html,
				renderReport({ ...report, title: "llamagate doctor" }),
			);
		if (values.json) process.stdout.write(formatJson(toJson(report)));
		else if (wanted !== undefined)
			process.stdout.write(results.map(explain).join("\n"));
		else
			process.stdout.write(`${formatResults(results)}\n${headline(results)}\n`);
		return hasSeriousFindings(results) ? exitCodes.finding : exitCodes.ok;
	},
};

type Given = Readonly<Record<string, unknown>>;

/** The first of these options that was given. */
function givenOf(values: Given, ...names: string[]): string | undefined {
	return names.find(
		(name) => values[name] !== undefined && values[name] !== false,
	);
}

/** @returns milliseconds between two looks; `undefined` for one look */
function readEvery(
	values: Given & {
		readonly watch: boolean;
		readonly every?: string | undefined;
	},
): number | undefined {
	if (!values.watch) {
		if (values.every !== undefined)
			throw new UsageError("--every goes with --watch");
		return undefined;
	}
	const given = givenOf(values, "explain", "fix", "html", "json", "changes");
	if (given !== undefined)
		throw new UsageError(`--watch goes without --${given}`);
	const everyMs = parseDuration(values.every ?? "1m");
	if (everyMs === undefined || everyMs < 1_000)
		throw new UsageError(
			"--every wants a time of a second or more, such as 30s or 5m",
		);
	return everyMs;
}

/** Looks once services are at rest: one that is just being started would be found not to run. */
async function look(
	chosen: readonly Examination[],
	patient: Patient,
): Promise<Result[]> {
	await untilAtRest(
		// For as long as this runs in it, this one is on its way.
		allUnits.filter((name) => name !== "llamagate-doctor.service"),
	);
	return examineAll(chosen, patient);
}

/** Looks again and again, and prints what changes, until it is told to stop. @returns the exit code of the last look */
async function watch(
	chosen: readonly Examination[],
	fixed: Omit<Patient, "nowMs">,
	everyMs: number,
): Promise<number> {
	const stopping = new AbortController();
	const stop = () => stopping.abort();
	// Once each: who asks twice need not wait for a look to end.
	process.once("SIGINT", stop);
	process.once("SIGTERM", stop);
	let known: readonly Result[] | undefined;
	while (!stopping.signal.aborted) {
		const nowMs = Date.now();
		const results = await look(chosen, { ...fixed, nowMs });
		// Ctrl-C ends the programs that were asked as well, and what they did not say is not a change.
		if (stopping.signal.aborted) break;
		if (known === undefined)
			process.stdout.write(
				`${formatResults(results)}\n${headline(results)}\nFrom now on, what changes:\n`,
			);
		else
			for (const change of changesSince(known, results))
				process.stdout.write(
					`${new Date(nowMs).toISOString()}  ${styleText(colourOf(change.now), describeChange(change))}\n`,
				);
		known = results;
		await delay(everyMs, undefined, { signal: stopping.signal }).catch(
			() => undefined,
		);
	}
	return known !== undefined && hasSeriousFindings(known)
		? exitCodes.finding
		: exitCodes.ok;
}

/** Only a look at everything, by a user who sees it, can be compared with another. */
function refuseWithChanges({
	only,
	...others
}: Given & { readonly only: readonly string[] }): void {
	const given = givenOf(others, "explain", "fix", "html", "json");
	if (only.length > 0 || given !== undefined)
		throw new UsageError(
			`--changes looks at everything and goes without --${given ?? "only"}`,
		);
	if (process.getuid?.() !== 0)
		throw new Finding(
			"--changes needs root; run: sudo llamagate doctor --changes",
		);
}

/** Prints a line for each check whose answer has changed since the last time, and keeps the new answers. */
async function tellChanges(report: JsonReport): Promise<void> {
	const last = await readLastResult();
	if (last.kind === "denied" || last.kind === "unreadable")
		process.stderr.write(`${visibleLine(last.why)}; it is replaced\n`);
	const before = last.kind === "report" ? last.report : undefined;
	const changes = changesSince(before?.results ?? [], report.results);
	const forJournal = isJournal();
	for (const change of changes)
		process.stdout.write(
			`${forJournal ? priorityOf(change) : ""}${describeChange(change)}\n`,
		);
	if (!forJournal && changes.length === 0)
		process.stdout.write(
			before === undefined
				? "Nothing found; from now on this is what is compared with.\n"
				: `Nothing has changed since ${before.at}.\n`,
		);
	await keepResult(report).catch((error: Error) => {
		throw new Finding(`the result cannot be kept: ${error.message}`);
	});
}

/** Has the gate's counters say what was found; a gate that is not there is a finding already. */
async function tellGate(
	configFile: string,
	atMs: number,
	results: readonly Result[],
): Promise<void> {
	const places = await findPlaces(configFile).catch(() => undefined);
	if (places?.adminSocket === undefined) return;
	const findings = Object.fromEntries(
		severities.map((severity) => [
			severity,
			results.filter((result) => toneOf(result) === severity).length,
		]),
	) as Record<Severity, number>;
	await askDaemon(places.adminSocket, tellDoctorCounts({ atMs, findings }));
}

/** Whether standard output goes to journald itself (systemd.exec(5), $JOURNAL_STREAM). */
function isJournal(): boolean {
	const { dev, ino } = fstatSync(1);
	return process.env.JOURNAL_STREAM === `${dev}:${ino}`;
}

/** @throws {Finding} that does not repeat it */
async function readKey(): Promise<string> {
	const key = await readStandardInput();
	const weakness = weaknessOf(key);
	if (weakness !== undefined)
		throw new Finding(
			`what is on standard input is not a key of llamagate: ${weakness.split(";")[0]}`,
		);
	return key;
}

/** Prints the checks that there are. */
function list(
	values: Given & { readonly only: readonly string[]; readonly json: boolean },
): number {
	const given = givenOf(
		values,
		"explain",
		"fix",
		"html",
		"changes",
		"watch",
		"every",
		"key-stdin",
	);
	if (given !== undefined)
		throw new UsageError(`--list goes without --${given}`);
	const chosen = choose(values.only);
	process.stdout.write(
		values.json
			? formatJson({
					checks: chosen.map(
						({ id, group, layer, title, severity, why, step, needsRoot }) => ({
							id,
							group,
							layer,
							title,
							severity,
							why,
							needsRoot: needsRoot === true,
							...(step === undefined ? {} : { step }),
						}),
					),
				})
			: `${formatTable(
					["CHECK", "SEVERITY", "ROOT", "WHAT IS TO BE SO"],
					chosen.map(({ id, severity, needsRoot, title }) => [
						id,
						severity,
						needsRoot ? "yes" : "",
						title,
					]),
				)}\nAll about one: sudo llamagate doctor --explain ID\n`,
	);
	return exitCodes.ok;
}

function choose(ids: readonly string[]) {
	if (ids.length === 0) return examinations;
	const known = [
		...new Set(examinations.flatMap((one) => [one.id, one.group])),
	];
	for (const id of ids) {
		if (known.includes(id)) continue;
		// By its last part alone, as people remember it; else by the spelling.
		const meant = known.filter((name) => name.endsWith(`.${id}`));
		const near = meant.length > 0 ? meant.join(" or ") : nearest(id, known);
		throw new UsageError(
			`unknown check ${JSON.stringify(id)}${near === undefined ? "." : `; did you mean ${near}?`} All of them: llamagate doctor --list`,
		);
	}
	return examinations.filter(
		({ id, group }) => ids.includes(id) || ids.includes(group),
	);
}

async function fix(id: string): Promise<number> {
	const [examination] = choose([id]);
	if (examination?.id !== id || examination.step === undefined)
		throw new Finding(
			`no step of setup mends ${id}${examination === undefined ? "" : `; do this: ${examination.fix}`}`,
		);
	const { setup } = await import("./setup.ts");
	return setup.run(["--only", examination.step]);
}
