import { type DoctorCounts, readDoctorCounts } from "../admin/doctorCounts.ts";
import type { AdminReply, AdminRoutes } from "../admin/server.ts";
import type { GateStatus } from "../admin/status.ts";
import { shareOf } from "../ledger/budgets.ts";
import type { LedgerClient } from "../ledger/client.ts";
import type { Log } from "../log.ts";
import type { Listener } from "../net/listener.ts";
import { parseAddress } from "../net/ranges.ts";
import type { CertificateKeeper } from "../tls/keeper.ts";
import { version } from "../version.ts";
import type { AccessLog } from "./accessLog.ts";
import type { Gate } from "./gate.ts";
import { budgetsOf } from "./live.ts";
import { type OwnerFacts, renderMetrics } from "./metrics.ts";
import type { Reloader, ReloadResult } from "./reload.ts";

/** What a running daemon can be asked about. */
interface Daemon {
	readonly startedAt: Date;
	readonly gate: Gate;
	readonly listener: Listener;
	readonly reloader: Reloader;
	readonly accessLog: AccessLog;
	readonly ledger: LedgerClient | undefined;
	/** What the daily look found, once it has told. */
	doctor: DoctorCounts | undefined;
	readonly keeper: CertificateKeeper;
	readonly log: Log;
}

/** What the admin socket answers, for root and the daemon's own user. */
export function adminRoutes(daemon: Daemon): AdminRoutes {
	const { reloader } = daemon;
	return {
		"GET /status": () => json(200, statusOf(daemon)),
		// The mark itself would have a secret guessed by who sees the answer.
		"GET /has": (query) =>
			json(200, { has: query.get("mark") === reloader.mark }),
		"GET /live": async () =>
			json(200, await daemon.gate.live(daemon.startedAt)),
		...metricsRoutes(daemon),
		"POST /reload": async () => reloadReply(await reloader.reload()),
		"POST /reload/keys": async () => reloadReply(await reloader.reload(true)),
		"POST /unlock": (query) => unlock(daemon, query),
		"POST /doctor": (query) => takeDoctorCounts(daemon, query),
	};
}

/** What the metrics address answers, for every program of this host. */
export function metricsRoutes(daemon: Daemon): AdminRoutes {
	const { accessLog, gate, ledger, keeper } = daemon;
	return {
		"GET /metrics": () => ({
			status: 200,
			type: "text/plain; version=0.0.4",
			body: renderMetrics(
				accessLog,
				gate.stats(),
				ledger?.counts,
				ownerFacts(daemon),
				keeper.status(),
			),
		}),
	};
}

function ownerFacts({ gate, reloader, doctor }: Daemon): OwnerFacts {
	const { keyring } = reloader.rules;
	const nowMs = Date.now();
	return {
		budgetShares: [...keyring.budgets.values()].map(
			({ account, group, budget }) => [
				group === undefined ? `key="${account}"` : `group="${group}"`,
				shareOf(gate.budgets.look(account, budget, nowMs).standing),
			],
		),
		expiries: keyring.expiring(Number.POSITIVE_INFINITY),
		doctor,
	};
}

function statusOf({
	startedAt,
	gate,
	listener,
	reloader,
	accessLog,
	ledger,
	keeper,
}: Daemon): GateStatus {
	const { rules, last } = reloader;
	const tls = keeper.status();
	return {
		version,
		pid: process.pid,
		startedAt: startedAt.toISOString(),
		listening: listener.bound(),
		keys: rules.keyring.names,
		keyUse: accessLog.keyUses.report(Date.now()),
		lastReload: { at: last.at.toISOString(), ok: last.ok },
		restart: reloader.restart,
		files: {
			config: rules.settings.configFile,
			keys: rules.settings.keysFile,
		},
		...(ledger && { ledger: ledger.counts }),
		...(tls && { tls }),
		budgets: budgetsOf({ budgets: gate.budgets, rules }),
		...gate.stats(),
	};
}

/** `?address=ADDRESS` for one, nothing for all. */
function unlock({ gate, log }: Daemon, query: URLSearchParams): AdminReply {
	const asked = query.get("address");
	const address = asked === null ? undefined : parseAddress(asked)?.toString();
	if (asked !== null && address === undefined)
		return json(400, { error: "that is not an address" });
	const unlocked = gate.unlock(address);
	for (const { addresses, node } of unlocked)
		log.warn(
			{ event: "unlocked", ip: addresses[0] ?? null, addresses, node },
			"let in again by the owner, before its lockout was over",
		);
	return json(200, { unlocked, lockouts: gate.stats().lockouts });
}

/** The gate cannot see what doctor keeps, which is for root alone. */
function takeDoctorCounts(daemon: Daemon, query: URLSearchParams): AdminReply {
	const counts = readDoctorCounts(query);
	if (counts === undefined) return json(400, { error: "those are not counts" });
	daemon.doctor = counts;
	return json(200, {});
}

function reloadReply(result: ReloadResult): AdminReply {
	return json(result.ok ? 200 : 422, result);
}

function json(status: number, value: unknown): AdminReply {
	return {
		status,
		type: "application/json",
		body: `${JSON.stringify(value)}\n`,
	};
}
