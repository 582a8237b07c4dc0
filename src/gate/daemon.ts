import { openAdminServer } from "../admin/server.ts";
import { type Settings, typed } from "../config/load.ts";
import type { Keyring } from "../keys/keyring.ts";
import type { Raise } from "../ledger/alarms/alarm.ts";
import { costOf } from "../ledger/budgets.ts";
import { LedgerClient } from "../ledger/client.ts";
import { createLog, flushLog, type Log, type LogSink } from "../log.ts";
import {
	adoptSockets,
	inheritedSocketNames,
	type Listener,
	openListener,
} from "../net/listener.ts";
import { notifySystemd, stopNotifier, watchdogMs } from "../net/systemd.ts";
import { createWhois } from "../tailscale/whois.ts";
import { realClock } from "../tls/clock.ts";
import { CertificateKeeper } from "../tls/keeper.ts";
import { version } from "../version.ts";
import { AccessLog, type Account } from "./accessLog.ts";
import { adminRoutes, metricsRoutes } from "./adminRoutes.ts";
import { restoreBudgets } from "./budgetRestore.ts";
import { localSource } from "./connection.ts";
import { createGate, type Gate } from "./gate.ts";
import { ExpiryWatch } from "./keyExpiry.ts";
import { noteRules } from "./noteRules.ts";
import { Reloader, type ReloadResult } from "./reload.ts";
import type { Rules } from "./rules.ts";
import { takeOver } from "./takeOver.ts";
import { usageRecordOf } from "./usageRecord.ts";

/** How long a gate that ends waits for the ledger to take what is left. */
const ledgerPatienceMs = 2_000;

/** A gate that listens, with its admin servers and its log. */
export interface Daemon {
	/** The addresses that are bound now. */
	bound(): string[];
	/** Reads configuration and keys anew and puts both in force, or neither. */
	reload(): Promise<ReloadResult>;
	/**
	 * Stops accepting, lets streams finish for the drain timeout, then cuts them.
	 *
	 * @param holdMs how long a connection that idles is held open for a request
	 * that may be on its way; none by default
	 */
	stop(holdMs?: number): Promise<void>;
}

/**
 * Starts a daemon.
 *
 * @param load reads the rules, at the start and at every reload
 * @param sink where its log goes
 * @param clock by which certificates are renewed
 * @throws {BadFileError} if the rules would not load
 * @throws {ListenError} if it can never listen where it was told to
 */
export async function startDaemon(
	load: () => Promise<Rules>,
	sink: LogSink,
	clock = realClock,
): Promise<Daemon> {
	const startedAt = new Date();
	const { rules, mark, haveChanged } = await noteRules(load);
	const log = createLog(rules.settings.logLevel, sink);
	const ledger = openLedgerClient(rules.settings, log);
	let rulesNow = () => rules;
	const account = accountTo(ledger, () => [gate, rulesNow().keyring]);
	const accessLog = new AccessLog(log, sink, account);
	const inForce = () => rulesNow();
	const raise = raiseThrough(ledger, inForce);
	const gate = await createGate(rules, accessLog, log, raise);
	// Before anybody is let in.
	const budgets = await restoreBudgets(gate.budgets, inForce, log, ledger);
	const keeper = new CertificateKeeper({
		log,
		clock,
		use: gate.useCertificate,
	});
	followTls(keeper, rules);
	let isStarted = false;
	const listener = await listen(rules.settings, gate, log, () => {
		if (isStarted) notifySystemd(`STATUS=${describe(listener)}`);
	});
	warnOfNoKey(rules, log);
	const expiry = new ExpiryWatch(log, raise);
	const take = takeOver(rules, listener, log);
	const reloader = new Reloader(
		rules,
		{ at: startedAt, mark },
		load,
		(next, previous) => {
			gate.replaceRules(next);
			followTls(keeper, next, previous);
			expiry.look(next);
			void warnOfUselessLogins(next.settings, log);
			budgets.look();
			return take(next, previous);
		},
		log,
	);
	rulesNow = () => reloader.rules;
	void warnOfUselessLogins(rules.settings, log);
	const stopWatch = expiry.start(rulesNow);

	const daemon = {
		startedAt,
		gate,
		listener,
		reloader,
		accessLog,
		ledger,
		doctor: undefined,
		keeper,
		log,
	};
	const adminServers = await openAdminServers(daemon, rules.settings);
	await catchUp(haveChanged, reloader, log);
	log.info(
		{
			version,
			pid: process.pid,
			keys: reloader.rules.keyring.names.length,
			listening: listener.bound(),
		},
		"started",
	);
	isStarted = true;
	notifySystemd("READY=1", `STATUS=${describe(listener)}`);
	const stopWatchdog = startWatchdog();

	return {
		bound: () => listener.bound(),
		reload: () => reloader.reload(),
		async stop(holdMs = 0) {
			log.info({ streams: gate.stats().streams }, "stopping");
			stopWatch();
			keeper.stop();
			budgets.stop();
			listener.close();
			notifySystemd("STOPPING=1");
			await gate.drain(holdMs);
			await ledger?.close(ledgerPatienceMs);
			stopWatchdog();
			closeAdminServers(adminServers);
			await stopNotifier();
			log.info("stopped");
			await flushLog(sink);
		},
	};
}

/**
 * Who changed the keys while there was nobody to tell was told that no daemon is
 * running: what has changed since it was read is read anew, the keys at least.
 */
async function catchUp(
	haveChanged: () => Promise<boolean>,
	reloader: Reloader,
	log: Log,
): Promise<void> {
	if (!(await haveChanged())) return;
	log.info("a file has changed while the gate started; all are read anew");
	await reloader.reload(true);
}

function openLedgerClient(
	{ ledger }: Settings,
	log: Log,
): LedgerClient | undefined {
	return ledger === undefined
		? undefined
		: new LedgerClient(ledger.socket, log);
}

/** What is told at once goes by the ledger, which may reach the network. */
function raiseThrough(
	ledger: LedgerClient | undefined,
	rulesNow: () => Rules,
): Raise {
	return (subject, text, about) => {
		const { alarms } = rulesNow().settings;
		if (alarms.some(({ on }) => on?.includes(subject) ?? true))
			ledger?.alarm({ subject, text, ...about });
	};
}

function accountTo(
	ledger: LedgerClient | undefined,
	now: () => readonly [Gate, Keyring],
): Account {
	return (exchange, outcome) => {
		const { reservations, credential } = exchange;
		const [gate, keyring] = now();
		const charges = keyring.chargesOf(credential?.key.name ?? "");
		if (ledger === undefined && reservations.length + charges.length === 0)
			return;
		const record = usageRecordOf(exchange, outcome);
		if (record === undefined) return;
		const refused = outcome === "refused" ? 1 : 0;
		gate.settle(exchange, costOf({ ...record, refused }), record.time);
		ledger?.record(record);
	};
}

function warnOfNoKey({ keyring, settings }: Rules, log: Log): void {
	if (keyring.names.length === 0)
		log.warn(
			`no key exists, so nobody is let in; make one with: ${typed("keys add NAME", settings.configFile)}`,
		);
}

async function openAdminServers(
	daemon: Parameters<typeof adminRoutes>[0],
	{ admin: { socket, metrics } }: Settings,
) {
	const { log } = daemon;
	return [
		socket === undefined
			? undefined
			: await openAdminServer({ path: socket }, adminRoutes(daemon), log),
		metrics === undefined
			? undefined
			: await openAdminServer(metrics, metricsRoutes(daemon), log),
	];
}

function closeAdminServers(
	servers: Awaited<ReturnType<typeof openAdminServers>>,
): void {
	for (const server of servers) {
		server?.close();
		server?.closeAllConnections();
	}
}

/** @param moved is called when the bound addresses have changed */
async function listen(
	settings: Settings,
	{ createServer }: Gate,
	log: Log,
	moved: () => void,
): Promise<Listener> {
	const inherited = inheritedSocketNames(process.env);
	if (inherited.length > 0) return adoptSockets(inherited, createServer, log);
	return openListener(settings.listen, createServer, log, moved);
}

function describe(listener: Listener): string {
	const bound = listener.bound().filter((address) => address !== localSource);
	return bound.length > 0
		? `listening on ${bound.join(", ")}`
		: "waiting for an address to listen on";
}

function followTls(
	keeper: CertificateKeeper,
	{ settings, certificate }: Rules,
	previous?: Rules,
): void {
	// Where the keys alone were read, these rules have the certificate of an
	// earlier reload, and the keeper may have taken a newer one since.
	if (settings === previous?.settings) return;
	keeper.follow(settings.tls, certificate, settings.identity.socket);
}

/** Without a tunnel device tailscaled brings its peers from loopback, where no login counts. */
async function warnOfUselessLogins(
	{ identity }: Settings,
	log: Log,
): Promise<void> {
	if (identity.mode !== "login") return;
	const { socket } = identity;
	const answer = await createWhois({ socket }).status();
	if (answer.kind === "status" && !answer.status.userspace) return;
	log.warn(
		{
			event: "login_useless",
			why:
				answer.kind === "status"
					? "tailscaled has no tunnel device, so every peer comes from loopback"
					: answer.reason,
		},
		"identity.mode is login, and nobody is let in by it now; anyone who has a key is",
	);
}

/** Sent from the event loop that serves: where it hangs, no sign of life comes, and systemd starts anew. */
function startWatchdog(): () => void {
	const patienceMs = watchdogMs(process.env);
	if (patienceMs === undefined) return () => {};
	const timer = setInterval(() => notifySystemd("WATCHDOG=1"), patienceMs / 3);
	return () => clearInterval(timer);
}
