import type { DoctorCounts } from "../admin/doctorCounts.ts";
import type { StateStatus } from "../admin/status.ts";
import type { LedgerCounts } from "../ledger/client.ts";
import type { QueueStats } from "../queue/stats.ts";
import { severities } from "../report/result.ts";
import type { TlsStatus } from "../tls/keeper.ts";
import type { AccessLog } from "./accessLog.ts";
import type { GateStats } from "./gate.ts";
import type { HandshakeCounts } from "./handshakes.ts";
import { hostFamilies } from "./hostMetrics.ts";
import type { Family } from "./metricFamily.ts";

/** What else an owner may want to be woken for. */
export interface OwnerFacts {
	/** Which part of each budget is used, by the label that says whose it is; 1 is all of it. */
	readonly budgetShares: Iterable<readonly [label: string, share: number]>;
	/** Keys that expire; epoch milliseconds. */
	readonly expiries: Iterable<{
		readonly name: string;
		readonly expiresAtMs: number;
	}>;
	/** `undefined` where doctor has not looked since the start. */
	readonly doctor: DoctorCounts | undefined;
}

/** The counters in Prometheus's text format (version 0.0.4). */
export function renderMetrics(
	accessLog: AccessLog,
	stats: GateStats,
	ledger: LedgerCounts | undefined,
	owner: OwnerFacts,
	tls: TlsStatus | undefined,
): string {
	const lines: string[] = [];
	const family: Family = (name, type, help, samples) => {
		lines.push(
			`# HELP llamagate_${name} ${help}`,
			`# TYPE llamagate_${name} ${type}`,
		);
		for (const [labels, value] of samples)
			lines.push(`llamagate_${name}${labels} ${value}`);
	};
	requestFamilies(accessLog, family);
	gateFamilies(accessLog, stats, family);
	if (ledger !== undefined) ledgerFamilies(ledger, family);
	if (stats.state !== undefined) stateFamilies(stats.state, family);
	if (stats.hosts !== undefined) hostFamilies(stats.hosts, family);
	if (tls !== undefined) tlsFamilies(tls, stats.handshakes, family);
	if (stats.queue !== undefined) queueFamilies(stats.queue, family);
	ownerFamilies(owner, family);
	return `${lines.join("\n")}\n`;
}

/** Of the requests that have ended, by key, route, status and outcome. */
function requestFamilies(accessLog: AccessLog, family: Family): void {
	const tallies = [...accessLog.tallies.values()];
	// Names of keys are restricted when the keys file is read; nothing here needs escaping.
	const per = (value: (tally: (typeof tallies)[number]) => number) =>
		tallies.map((tally): [string, number] => [
			`{key="${tally.key}",route="${tally.route}",status="${tally.status}",outcome="${tally.outcome}"}`,
			value(tally),
		]);
	family(
		"requests_total",
		"counter",
		"Requests that have ended.",
		per(({ requests }) => requests),
	);
	family(
		"request_seconds_total",
		"counter",
		"Time that they took.",
		per(({ durationMs }) => durationMs / 1000),
	);
	family(
		"received_bytes_total",
		"counter",
		"Bytes of request bodies.",
		per(({ bytesIn }) => bytesIn),
	);
	family(
		"sent_bytes_total",
		"counter",
		"Bytes of reply bodies.",
		per(({ bytesOut }) => bytesOut),
	);
	family(
		"prompt_tokens_total",
		"counter",
		"Prompt tokens that Ollama counted.",
		per(({ tokensIn }) => tokensIn),
	);
	family(
		"cached_prompt_tokens_total",
		"counter",
		"Prompt tokens that Ollama had in its cache; they are among the prompt tokens.",
		per(({ tokensCached }) => tokensCached),
	);
	family(
		"generated_tokens_total",
		"counter",
		"Tokens that Ollama generated.",
		per(({ tokensOut }) => tokensOut),
	);
}

/** Of the gate itself. */
function gateFamilies(
	accessLog: AccessLog,
	stats: GateStats,
	family: Family,
): void {
	family("auth_failures_total", "counter", "Requests with a wrong key.", [
		["", accessLog.authFailures],
	]);
	family(
		"bad_persons_total",
		"counter",
		"Requests with a good key whose token about a person was not.",
		[["", accessLog.badPersons]],
	);
	family(
		"log_lines_lost_total",
		"counter",
		"Log lines that were dropped since nobody took them.",
		[["", accessLog.lostLines]],
	);
	family("canary_uses_total", "counter", "Times that a canary key was shown.", [
		["", accessLog.canaryUses],
	]);
	family("upstream_up", "gauge", "Whether Ollama answered the last request.", [
		["", Number(stats.isUpstreamUp)],
	]);
	family("connections", "gauge", "Open client connections.", [
		["", stats.connections],
	]);
	family("streams", "gauge", "Requests that are with Ollama.", [
		["", stats.streams],
	]);
	family(
		"locked_out_addresses",
		"gauge",
		"Devices, or addresses, locked out after wrong keys.",
		[["", stats.lockedOut]],
	);
}

/** Of the ledger, where there is one. */
function ledgerFamilies(ledger: LedgerCounts, family: Family): void {
	const one = (
		name: string,
		type: "counter" | "gauge",
		help: string,
		value: number,
	) => family(`ledger_${name}`, type, help, [["", value]]);
	one(
		"connected",
		"gauge",
		"Whether the ledger takes records.",
		Number(ledger.isConnected),
	);
	one(
		"requests_waiting",
		"gauge",
		"Requests whose usage is not in the ledger's file yet.",
		ledger.waiting,
	);
	one(
		"requests_written_total",
		"counter",
		"Requests whose usage is in the ledger's file.",
		ledger.written,
	);
	one(
		"requests_aggregated_total",
		"counter",
		"Requests whose usage was put together by the hour, as no ledger took it.",
		ledger.aggregated,
	);
	one(
		"requests_lost_total",
		"counter",
		"Requests whose usage is lost, as no ledger took it.",
		ledger.lost,
	);
}

/** Of the other gates, where there are any. */
function stateFamilies(state: StateStatus, family: Family): void {
	const plain: [string, "counter" | "gauge", string, number][] = [
		[
			...(["state_connected", "gauge"] as const),
			"Whether Valkey answers, so that limits are shared.",
			Number(state.isConnected),
		],
		[
			...(["state_gates", "gauge"] as const),
			"Gates that share their limits, as last counted.",
			state.gates,
		],
		[
			...(["state_losses_total", "counter"] as const),
			"Times that Valkey went away.",
			state.losses,
		],
		[
			...(["state_unanswered_total", "counter"] as const),
			"Questions that Valkey did not answer in time.",
			state.unanswered,
		],
		[
			...(["state_locked_out_addresses", "gauge"] as const),
			"Addresses locked out by any of the gates.",
			state.lockedOut,
		],
	];
	for (const [name, type, help, value] of plain)
		family(name, type, help, [["", value]]);
}

/** Of HTTPS, where it is spoken. */
function tlsFamilies(
	{ ends, problem }: TlsStatus,
	handshakes: HandshakeCounts | undefined,
	family: Family,
): void {
	family(
		"certificate_in_force",
		"gauge",
		"Whether there is a certificate; without one every connection is closed.",
		[["", Number(ends !== null)]],
	);
	// Left out while there is none: 0 would be a date.
	if (ends !== null)
		family(
			"certificate_expiry_timestamp_seconds",
			"gauge",
			"When the certificate in force ends, in seconds since 1970.",
			[["", Date.parse(ends) / 1000]],
		);
	family(
		"certificate_refused",
		"gauge",
		"Whether the newest certificate could not be had, or would not do.",
		[["", Number(problem !== null)]],
	);
	if (handshakes !== undefined)
		family(
			"tls_handshakes_total",
			"counter",
			"TLS handshakes that have ended.",
			Object.entries(handshakes).map(([name, count]) => [
				`{result="${name === "notTls" ? "not_tls" : name}"}`,
				count,
			]),
		);
}

/** Of the queue, where there is one. */
function queueFamilies(queue: QueueStats, family: Family): void {
	family(
		"queue_waiting",
		"gauge",
		"Requests that wait for their turn.",
		Object.entries(queue.waiting).map(([name, count]) => [
			`{class="${name}"}`,
			count,
		]),
	);
	const plain: [string, "counter" | "gauge", string, number][] = [
		["queue_running", "gauge", "Requests whose turn it is.", queue.running],
		[
			...(["queue_turns_total", "counter"] as const),
			"Requests that had a turn, or needed none.",
			queue.dispatched,
		],
		[
			...(["queue_wait_seconds_total", "counter"] as const),
			"Time that they waited for it, and that those waited who left before it.",
			queue.waitedMs / 1000,
		],
		[
			...(["queue_left_total", "counter"] as const),
			"Requests that left before their turn: the client did, it was cut, or it went to another host.",
			queue.left,
		],
		[
			...(["queue_refused_total", "counter"] as const),
			"Requests that got no turn.",
			queue.refused,
		],
		[
			...(["queue_loads_total", "counter"] as const),
			"Requests that had Ollama load a model.",
			queue.loads,
		],
		[
			...(["queue_ignored_priorities_total", "counter"] as const),
			"Requests that asked for a higher class than their key's.",
			queue.ignoredPriorities,
		],
	];
	for (const [name, type, help, value] of plain)
		family(name, type, help, [["", value]]);
}

/** Of keys, whose names are restricted, and of this host. Each is there where there is something to tell. */
function ownerFamilies(
	{ budgetShares, expiries, doctor }: OwnerFacts,
	family: Family,
): void {
	const gauge = (name: string, help: string, samples: [string, number][]) => {
		if (samples.length > 0) family(name, "gauge", help, samples);
	};
	gauge(
		"budget_used_ratio",
		"Part of a budget, a key's or a group's, that is used; 1 is all of it.",
		[...budgetShares].map(([label, share]) => [`{${label}}`, share]),
	);
	gauge(
		"key_expiry_timestamp_seconds",
		"When a key expires.",
		[...expiries].map(({ name, expiresAtMs }) => [
			`{key="${name}"}`,
			expiresAtMs / 1000,
		]),
	);
	if (doctor === undefined) return;
	gauge("doctor_last_run_timestamp_seconds", "When doctor looked last.", [
		["", doctor.atMs / 1000],
	]);
	gauge(
		"doctor_findings",
		"What doctor found in its last look.",
		severities.map((severity) => [
			`{severity="${severity}"}`,
			doctor.findings[severity],
		]),
	);
}
