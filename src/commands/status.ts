import { styleText } from "node:util";
import { askGateOn } from "../admin/client.ts";
import { isLiveBudget, type LiveBudget } from "../admin/live.ts";
import { findPlaces } from "../admin/places.ts";
import type {
	GateStatus,
	HostStatus,
	LockedOut,
	QueueStatus,
	StateStatus,
} from "../admin/status.ts";
import { defaultConfigPath, typed } from "../config/load.ts";
import {
	type LastResult,
	lastResultFreshMs,
	readLastResult,
} from "../doctor/lastResult.ts";
import { exitCodes } from "../errors.ts";
import { localSource } from "../gate/connection.ts";
import { priorities } from "../priority.ts";
import { formatAge } from "../report/duration.ts";
import { headline } from "../report/headline.ts";
import { formatJson } from "../report/json.ts";
import {
	hasSeriousFindings,
	type Result,
	worstFirst,
} from "../report/result.ts";
import { toneNames, toneOf } from "../report/tone.ts";
import { noticeMs, type TlsStatus } from "../tls/keeper.ts";
import { visibleLine } from "../visible.ts";
import { servedUntilKnown } from "./budgetKeeping.ts";
import { type Command, readArgs } from "./command.ts";
import { takesRestart } from "./reload.ts";

interface Line {
	readonly subject: string;
	/** `undefined` where it is neither good nor bad. */
	readonly ok: boolean | undefined;
	readonly says: string;
}

export const status: Command = {
	help: `
Usage: sudo llamagate status [--config FILE] [--json]

Asks the running gate over its admin socket, and reads the last result of the
daily "llamagate doctor --changes". It looks at nothing else; doctor does.

  -c, --config FILE  the gate's configuration (default: ${defaultConfigPath})
  --json             print JSON

Exit codes: 0 all is well, 1 something needs attention or could not be asked,
            2 usage, 78 the configuration cannot be read

Example: sudo llamagate status
`,
	async run(args) {
		const { values } = readArgs(args, {
			config: { type: "string", short: "c", default: defaultConfigPath },
			json: { type: "boolean", default: false },
		});
		const { adminSocket, broken } = await findPlaces(values.config);
		const gate = await askGate(adminSocket, values.config);
		const last = await readLastResult();
		const nowMs = Date.now();
		const lines: Line[] = [
			...(broken === undefined
				? []
				: [
						{
							subject: "configuration",
							ok: false,
							says: `${broken.message}; until that is mended, a running gate goes on with its old settings`,
						},
					]),
			...(typeof gate === "string"
				? [{ subject: "gate", ok: false, says: gate }]
				: describeGate(gate, nowMs, values.config)),
			describeLast(last, nowMs),
		];
		const ok = lines.every((line) => line.ok !== false);
		if (values.json)
			process.stdout.write(
				formatJson({
					ok,
					gate: typeof gate === "string" ? null : gate,
					doctor: last.kind === "report" ? summaryOf(last, nowMs) : null,
					lines,
				}),
			);
		else {
			for (const line of lines) process.stdout.write(formatLine(line));
			if (last.kind === "report")
				for (const result of findingsOf(last.report.results))
					process.stdout.write(
						`      ${toneNames[toneOf(result)]}  ${visibleLine(`${result.id}  ${result.evidence[0] ?? result.title}`)}\n`,
					);
		}
		return ok ? exitCodes.ok : exitCodes.finding;
	},
};

/** @returns what it says, or why it says nothing */
async function askGate(
	socket: string | undefined,
	configFile: string,
): Promise<GateStatus | string> {
	if (socket === undefined)
		return 'admin.socket is "off", so the gate cannot be asked; see: systemctl status llamagate';
	const asked = await askGateOn(socket);
	switch (asked.kind) {
		case "status":
			return asked.status;
		case "denied":
			return `${asked.why}; run: sudo ${typed("status", configFile)}`;
		case "silent":
			return `${asked.why}; see: systemctl status llamagate`;
		case "strange":
			return asked.why;
	}
}

function describeGate(
	gate: GateStatus,
	nowMs: number,
	configFile: string,
): Line[] {
	const listening = gate.listening.filter((address) => address !== localSource);
	const { at, ok } = gate.lastReload;
	return [
		{
			subject: "gate",
			ok: true,
			says: `llamagate ${gate.version}, process ${gate.pid}, up for ${formatAge(nowMs - Date.parse(gate.startedAt))}`,
		},
		{
			subject: "listening",
			ok: listening.length > 0,
			says:
				listening.length > 0
					? `on ${listening.join(", ")}`
					: "on nothing that the tailnet reaches; see: tailscale status; journalctl -u llamagate-listen -n 20",
		},
		...(gate.tls === undefined ? [] : [describeTls(gate.tls, nowMs)]),
		{
			subject: "keys",
			ok: gate.keys.length > 0,
			says:
				gate.keys.length > 0
					? `${gate.keys.length}: ${gate.keys.join(", ")}`
					: `none, so nobody is let in; make one with: ${typed("keys add NAME", configFile)}`,
		},
		{
			subject: "streams",
			ok: undefined,
			says: `${gate.streams}, on ${gate.connections} connection(s); ${gate.lockedOut === 0 ? "nobody is" : `${gate.lockedOut} device(s) or address(es) are`} locked out`,
		},
		...(gate.hosts ?? []).map(describeHost),
		...(gate.queue === undefined ? [] : describeQueue(gate.queue)),
		...(Array.isArray(gate.budgets) ? gate.budgets : [])
			.filter((one) => isLiveBudget(Object(one)))
			.map((one) => describeBudget(one, gate.ledger !== undefined)),
		...(gate.lockouts ?? []).map(describeLockout),
		...(gate.state === undefined ? [] : [describeState(gate.state)]),
		{
			subject: "files",
			ok,
			says: ok
				? `read ${formatAge(nowMs - Date.parse(at))} ago`
				: `refused ${formatAge(nowMs - Date.parse(at))} ago, and the ones before are in force; run: ${typed("reload", configFile)}`,
		},
		...((gate.restart ?? []).length === 0
			? []
			: [
					{
						subject: "restart",
						ok: false,
						says: takesRestart(gate.restart ?? []),
					},
				]),
	];
}

/** `group:family has used 1440 of 7200 s of the GPU a day; all of it is there again at …` */
function describeBudget(budget: LiveBudget, hasLedger: boolean): Line {
	const { key, per, used, limits, resetsAt } = budget;
	const seconds = (ms: number) => Math.floor(ms / 1000);
	const parts = [
		limits.gpuMs !== undefined &&
			`${seconds(used.gpuMs)} of ${seconds(limits.gpuMs)} s of the GPU`,
		limits.tokens !== undefined &&
			`${Math.floor(used.tokens)} of ${limits.tokens} tokens`,
		limits.requests !== undefined &&
			`${Math.floor(used.requests)} of ${limits.requests} requests`,
	].filter((part) => part !== false);
	return {
		subject: "budget",
		ok: undefined,
		says: `${key} has used ${parts.join(", ")} a ${per}; it begins anew at ${resetsAt}${describeKeeping(budget, hasLedger)}`,
	};
}

function describeKeeping(
	{ isKnown, untilKnown }: LiveBudget,
	hasLedger: boolean,
): string {
	const until = hasLedger ? "until the ledger tells" : "until then";
	const served =
		untilKnown === undefined
			? ""
			: `, and ${until} its requests ${servedUntilKnown[untilKnown]}`;
	return [
		isKnown
			? ""
			: `; what it used before the gate's start is not known${served}`,
		hasLedger
			? ""
			: "; without a ledger it is whole again after each restart (docs/usage.md)",
	].join("");
}

function describeState({ valkey, isConnected, why, gates }: StateStatus): Line {
	return {
		subject: "gates",
		ok: isConnected,
		says: isConnected
			? `${gates} share their limits through ${valkey}`
			: `Valkey at ${valkey} is away (${why ?? "it does not answer"}), so this gate keeps to its part of the limits, as one of ${gates}; see: journalctl -u llamagate -g state_away`,
	};
}

/** One of several hosts. */
function describeHost(host: HostStatus): Line {
	const { name, url, state, forSeconds, why, models, outstanding } = host;
	const since = `${state} for ${formatAge(forSeconds * 1000)}`;
	return {
		subject: "host",
		ok: state === "up" ? true : state === "down" ? false : undefined,
		says: `${name} (${url}) is ${since}${why === null ? "" : `: ${why}`}; ${models === null ? "its models are not known" : `${models} model(s)`}, ${outstanding} request(s) with it or waiting for it`,
	};
}

/** The certificate, and what keeps a newer one away. */
function describeTls(
	{ source, names, ends, problem }: TlsStatus,
	nowMs: number,
): Line {
	const subject = "https";
	const why = problem === null ? "" : `; ${problem}`;
	if (ends === null)
		return {
			subject,
			ok: false,
			says: `no certificate yet, so every connection is closed${why}`,
		};
	const leftMs = Date.parse(ends) - nowMs;
	return {
		subject,
		ok: problem === null && leftMs > noticeMs,
		says: `${names.join(", ")}, by ${source}, ${leftMs > 0 ? `until ${ends.slice(0, 10)}` : `ended on ${ends.slice(0, 10)}: clients refuse it`}${why}`,
	};
}

/** Who waits for a turn, and the models that matter to it. */
function describeQueue({ waiting, running, models }: QueueStatus): Line[] {
	return [
		{
			subject: "queue",
			ok: undefined,
			says: `fair; ${running} at work, ${formatWaiting(waiting)}`,
		},
		...models.map((model) => ({
			subject: "model",
			ok: undefined,
			says: `${model.name} is ${model.state}${model.host === undefined ? "" : ` on ${model.host}`}; ${model.running} at work in ${model.slots} slot(s), ${model.waiting} waiting`,
		})),
	];
}

/** "5 waiting (interactive 1, normal 4)". */
export function formatWaiting(waiting: QueueStatus["waiting"]): string {
	const some = priorities.filter((name) => waiting[name] > 0);
	const sum = some.reduce((count, name) => count + waiting[name], 0);
	const parts = some.map((name) => `${name} ${waiting[name]}`).join(", ");
	return `${sum} waiting${parts === "" ? "" : ` (${parts})`}`;
}

/** Wrong keys of one that must come in are for a person to look at; no reason to call the gate unwell. */
function describeLockout(lockedOut: LockedOut): Line {
	return {
		subject: "locked out",
		ok: undefined,
		says: `${nameLockedOut(lockedOut)} for another ${formatLeft(lockedOut.secondsLeft)}, after wrong keys; to let it in: sudo llamagate unlock ${lockedOut.addresses[0] ?? "--all"}`,
	};
}

/** "laptop (100.64.0.7, fd7a:115c:a1e0::7)", or the address alone. */
export function nameLockedOut({ addresses, node }: LockedOut): string {
	const all = addresses.join(", ");
	return node === null ? all : `${node} (${all})`;
}

/** "45 s", "4 min 10 s", "2 h 5 min". */
function formatLeft(seconds: number): string {
	if (seconds < 60) return `${seconds} s`;
	const minutes = Math.floor(seconds / 60);
	return minutes < 60
		? `${minutes} min ${seconds % 60} s`
		: `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** What the daily look found last. That it has not looked yet is neither good nor bad; that it has stopped is bad. */
export function describeLast(last: LastResult, nowMs: number): Line {
	const subject = "doctor";
	if (last.kind === "denied") return { subject, ok: undefined, says: last.why };
	if (last.kind === "unreadable")
		return {
			subject,
			ok: false,
			says: `${last.why}; to have it made anew: sudo llamagate doctor --changes`,
		};
	if (last.kind === "none")
		return {
			subject,
			ok: undefined,
			says: "has not looked yet; run: sudo llamagate doctor --changes",
		};
	const { at, results } = last.report;
	const ageMs = nowMs - Date.parse(at);
	const isOld = ageMs > lastResultFreshMs;
	return {
		subject,
		ok: !isOld && !hasSeriousFindings(results),
		says: `${headline(results).replace(/\.$/, "")} (${formatAge(ageMs)} ago)${isOld ? "; it should look every day, see: systemctl status llamagate-doctor.timer" : ""}`,
	};
}

/** What a reader would act on. */
function findingsOf(results: readonly Result[]): Result[] {
	return worstFirst(results).filter(
		({ state, severity }) => state === "finding" && severity !== "info",
	);
}

function summaryOf(
	{ report }: Extract<LastResult, { kind: "report" }>,
	nowMs: number,
) {
	return {
		at: report.at,
		ageSeconds: Math.round((nowMs - Date.parse(report.at)) / 1000),
		ok: report.ok,
		findings: findingsOf(report.results),
	};
}

function formatLine({ subject, ok, says }: Line): string {
	const mark =
		ok === undefined
			? "    "
			: ok
				? styleText("green", "ok  ")
				: styleText("yellow", "look");
	return `${mark}  ${subject}: ${visibleLine(says)}\n`;
}
