import { spawnSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { temporaryFolder } from "../support/temporaryFolder.ts";
import { requireTool } from "../support/tools.ts";

const rules = path.resolve("monitoring/prometheus/llamagate.rules.yml");

/** A series and its values, one a minute, in promtool's notation: `0+1x5` counts up five times. */
type Series = readonly [name: string, values: string];

/** What a gate says while an alert has to be raised, and while it must not be. */
interface Case {
	readonly fires: readonly Series[];
	readonly quiet: readonly Series[];
	/** When it is looked; by default after half an hour. */
	readonly at?: string;
}

const gate = '{job="llamagate",instance="host"}';
const on = (metric: string, more = "") =>
	`llamagate_${metric}{${more === "" ? "" : `${more},`}job="llamagate",instance="host"}`;
const up: Series = [`up${gate}`, "1x3200"];
const only = (...series: Series[]) => [up, ...series];

/** A counter that stands at 5 and counts once; and one that only stands. */
const counts = (metric: string): Case => ({
	fires: only([on(metric), "5x25 6x20"]),
	quiet: only([on(metric), "5x45"]),
});
const above = (metric: string, fires: string, quiet: string, more = "") => ({
	fires: only([on(metric, more), `${fires}x45`]),
	quiet: only([on(metric, more), `${quiet}x45`]),
});

/** By the alert's name. */
const cases: Readonly<Record<string, Case>> = {
	LlamagateDown: { fires: [[`up${gate}`, "0x45"]], quiet: only() },
	LlamagateUpstreamDown: above("upstream_up", "0", "1"),
	LlamagateHostDown: {
		fires: only(
			[on("host_up", 'upstream="minipc"'), "1x5 0x40"],
			[on("host_up", 'upstream="workstation"'), "1x45"],
		),
		// A restart of it.
		quiet: only([on("host_up", 'upstream="minipc"'), "1x29 0 1x9"]),
	},
	LlamagateNoHostUp: {
		fires: only(
			[on("host_up", 'upstream="minipc"'), "0x45"],
			[on("host_up", 'upstream="workstation"'), "0x45"],
		),
		quiet: only(
			[on("host_up", 'upstream="minipc"'), "0x45"],
			[on("host_up", 'upstream="workstation"'), "1x45"],
		),
	},
	LlamagateCanaryUsed: counts("canary_uses_total"),
	LlamagateLockedOut: above("locked_out_addresses", "1", "0"),
	LlamagateWrongKeys: {
		fires: only([on("auth_failures_total"), "3+2x45"]),
		quiet: only([on("auth_failures_total"), "3+1x45"]),
	},
	LlamagateQueueFull: counts("queue_refused_total"),
	LlamagateLongWaits: {
		fires: only(
			[on("queue_wait_seconds_total"), "0+120x45"],
			[on("queue_turns_total"), "0+0.5x45"],
			[on("queue_left_total"), "0+0.5x45"],
		),
		quiet: only(
			[on("queue_wait_seconds_total"), "0+120x45"],
			[on("queue_turns_total"), "0+2x45"],
			[on("queue_left_total"), "0+2x45"],
		),
	},
	LlamagateStreamsCut: {
		fires: only(
			[on("requests_total", 'outcome="cut",key="a"'), "0+0.3x45"],
			[on("requests_total", 'outcome="upstream_error",key="b"'), "0+0.3x45"],
		),
		quiet: only(
			[on("requests_total", 'outcome="cut",key="a"'), "0+0.3x45"],
			[on("requests_total", 'outcome="ok",key="b"'), "0+9x45"],
		),
	},
	LlamagateLedgerAway: {
		fires: only([on("ledger_connected"), "0x45"]),
		// A restart of it.
		quiet: only([on("ledger_connected"), "1x27 0x2 1x9"]),
	},
	LlamagateUsageLost: counts("ledger_requests_lost_total"),
	LlamagateLogLinesLost: counts("log_lines_lost_total"),
	LlamagateBudgetLow: {
		fires: only([on("budget_used_ratio", 'key="lab"'), "0.9x45"]),
		quiet: only([on("budget_used_ratio", 'key="lab"'), "1.1x45"]),
	},
	LlamagateBudgetReached: above("budget_used_ratio", "1", "0.9", 'key="lab"'),
	// In promtool the clock begins with 1970.
	LlamagateKeyExpires: above(
		"key_expiry_timestamp_seconds",
		String(6 * 86_400),
		String(8 * 86_400),
		'key="lab"',
	),
	LlamagateCertificateEnds: above(
		"certificate_expiry_timestamp_seconds",
		String(9 * 86_400),
		String(12 * 86_400),
	),
	LlamagateNoCertificate: above("certificate_in_force", "0", "1"),
	LlamagateDoctorFindings: {
		// The gate was started anew, and has not been told since.
		fires: only([on("doctor_findings", 'severity="high"'), "1x5 _x600"]),
		quiet: only(
			[on("doctor_findings", 'severity="high"'), "0x600"],
			[on("doctor_findings", 'severity="warn"'), "3x600"],
		),
		at: "600m",
	},
	LlamagateDoctorSilent: {
		fires: only([on("doctor_last_run_timestamp_seconds"), "1x5 _x3200"]),
		quiet: only([on("doctor_last_run_timestamp_seconds"), "1x3200"]),
		at: "3100m",
	},
};

function promtool(...args: string[]) {
	const { status, stdout, stderr } = spawnSync("promtool", args, {
		encoding: "utf8",
	});
	return { status, said: stdout + stderr };
}

/** A file of promtool's, which reads YAML and so JSON. @param every how often the rules are evaluated */
function testFile(
	file: string,
	alerts: readonly (readonly [string, Case])[],
	every = "1m",
): string {
	const tests = alerts.flatMap(([alert, { fires, quiet, at = "30m" }]) =>
		[fires, quiet].map((series) => ({
			interval: "1m",
			input_series: series.map(([name, values]) => ({ series: name, values })),
			promql_expr_test: [
				{
					expr: `count(ALERTS{alertname="${alert}",alertstate="firing"})`,
					eval_time: at,
					exp_samples: series === fires ? [{ labels: "{}", value: 1 }] : [],
				},
			],
		})),
	);
	return JSON.stringify({
		rule_files: [file],
		evaluation_interval: every,
		tests,
	});
}

t.test("Prometheus takes the rules", async (t) => {
	if (!requireTool(t, "promtool")) return;
	const { status, said } = promtool("check", "rules", rules);
	t.equal(status, 0, said);
});

t.test("each alert fires when it has to, and not before", async (t) => {
	if (!requireTool(t, "promtool")) return;
	const text = await readFile(rules, "utf8");
	const names = [...text.matchAll(/- alert: (\w+)/g)].map(([, name]) => name);
	t.strictSame(Object.keys(cases).sort(), names.toSorted(), "each has a case");
	const folder = await temporaryFolder(t);
	const isLong = ([, { at }]: readonly [string, Case]) => at !== undefined;
	const all = Object.entries(cases);
	for (const [name, some, every] of [
		["half an hour", all.filter((one) => !isLong(one)), "1m"],
		["days", all.filter(isLong), "10m"],
	] as const) {
		const file = path.join(folder, "alerts.json");
		await writeFile(file, testFile(rules, some, every));
		const { status, said } = promtool("test", "rules", file);
		t.equal(status, 0, `${name}: ${said}`);
	}
});

t.test("an absent gate is one that is down", async (t) => {
	if (!requireTool(t, "promtool")) return;
	const file = path.join(await temporaryFolder(t), "absent.json");
	const absent: Case = { fires: [['up{job="other"}', "1x45"]], quiet: only() };
	await writeFile(file, testFile(rules, [["LlamagateDown", absent]]));
	const { status, said } = promtool("test", "rules", file);
	t.equal(status, 0, said);
});
