import { type Settings, typed } from "../config/load.ts";
import { BadFileError } from "../config/strictJson.ts";
import { createLog, flushLog, type LogSink } from "../log.ts";
import { localSource } from "../net/connections.ts";
import {
	adoptSockets,
	inheritedSocketNames,
	type Listener,
	openListener,
} from "../net/listener.ts";
import { parseAddress } from "../net/ranges.ts";
import { openSideDoor, type SideDoorReply } from "../net/sideDoors.ts";
import { notifySystemd, stopNotifier, watchdogMs } from "../net/systemd.ts";
import { version } from "../version.ts";
import { Ledger } from "./account.ts";
import { createGate, type Gate } from "./gate.ts";
import { renderMetrics } from "./metrics.ts";
import { type Rules, withKeysAnew } from "./rules.ts";

/** How long before its end a key's expiry is told of. */
const expiryNoticeMs = 7 * 86_400_000;

/** A gate that listens, with its side doors and its log. */
export interface Daemon {
	/** The addresses that are bound now. */
	bound(): string[];
	/** Reads configuration and keys anew and puts both in force, or neither. */
	reload(): Promise<ReloadResult>;
	/** Stops accepting, lets streams finish for the drain timeout, then cuts them. */
	stop(): Promise<void>;
}

export type ReloadResult =
	| { readonly ok: true; readonly keys: number }
	| {
			readonly ok: false;
			readonly file: string;
			readonly mistakes: BadFileError["mistakes"];
			/** How many keys were taken over all the same, with the settings that were in force. */
			readonly keys?: number;
	  };

/**
 * Starts a daemon.
 *
 * @param load reads the rules, at the start and at every reload
 * @param sink where its log goes
 * @throws {BadFileError} if the rules would not load
 * @throws {ListenError} if it can never listen where it was told to
 */
export async function startDaemon(
	load: () => Promise<Rules>,
	sink: LogSink,
): Promise<Daemon> {
	const startedAt = new Date();
	let rules = await load();
	const log = createLog(rules.settings.logLevel, sink);
	const ledger = new Ledger(log, sink);
	const gate = await createGate(rules, ledger, log);
	let started = false;
	const listener = await listen(rules.settings, gate);
	if (rules.keyring.names.length === 0)
		log.warn(
			`there is no key, so nobody is let in; make one with: ${typed("keys add NAME", rules.settings.configFile)}`,
		);

	const expiryWatch = setInterval(warnOfExpiry, 24 * 3_600_000);
	expiryWatch.unref();
	warnOfExpiry();

	/** A key that is about to run out is told of at the start, at a reload, and every day. */
	function warnOfExpiry(): void {
		const nowMs = Date.now();
		for (const { name, expiresAtMs } of rules.keyring.expiring(
			nowMs + expiryNoticeMs,
		))
			log.warn(
				{
					event: "key_expires",
					key: name,
					expires: new Date(expiresAtMs).toISOString(),
				},
				expiresAtMs <= nowMs
					? "a key has expired; rotate or revoke it"
					: "a key expires within seven days; rotate it",
			);
	}

	let lastReload = { at: startedAt, ok: true };
	const { admin } = rules.settings;
	const doors = [
		admin.socket === undefined
			? undefined
			: await openSideDoor(
					{ path: admin.socket },
					{
						"GET /status": status,
						"GET /metrics": metrics,
						"POST /reload": async () => reloadReply(await reload()),
						"POST /reload/keys": async () => reloadReply(await reload(true)),
						"POST /unlock": unlockReply,
					},
					log,
				),
		admin.metrics === undefined
			? undefined
			: await openSideDoor(admin.metrics, { "GET /metrics": metrics }, log),
	];
	log.info(
		{
			version,
			pid: process.pid,
			keys: rules.keyring.names.length,
			listening: listener.bound(),
		},
		"started",
	);
	started = true;
	notifySystemd("READY=1", `STATUS=${describe()}`);
	// Sent from the event loop that serves: where it hangs, no sign of life comes, and systemd starts anew.
	const patienceMs = watchdogMs(process.env);
	const watchdog =
		patienceMs === undefined
			? undefined
			: setInterval(() => notifySystemd("WATCHDOG=1"), patienceMs / 3);

	async function listen(settings: Settings, gate: Gate): Promise<Listener> {
		const inherited = inheritedSocketNames(process.env);
		const { createServer } = gate;
		if (inherited.length > 0) return adoptSockets(inherited, createServer, log);
		return openListener(settings.listen, createServer, log, () => {
			if (started) notifySystemd(`STATUS=${describe()}`);
		});
	}

	function describe(): string {
		const bound = listener.bound().filter((address) => address !== localSource);
		return bound.length > 0
			? `listening on ${bound.join(", ")}`
			: "waiting for an address to listen on";
	}

	let reloading: Promise<ReloadResult> | undefined;
	let reloadAgain: Promise<ReloadResult> | undefined;
	let keysAtLeastAgain = false;

	/**
	 * A reload asked for while one runs waits for it, so that it reads what was written meanwhile.
	 *
	 * @param keysAtLeast where the configuration is broken, take the keys over all the same
	 */
	function reload(keysAtLeast = false): Promise<ReloadResult> {
		if (reloading === undefined) {
			reloading = reloadOnce(keysAtLeast).finally(() => {
				reloading = undefined;
			});
			return reloading;
		}
		keysAtLeastAgain ||= keysAtLeast;
		reloadAgain ??= reloading.then(() => {
			reloadAgain = undefined;
			const again = keysAtLeastAgain;
			keysAtLeastAgain = false;
			return reload(again);
		});
		return reloadAgain;
	}

	async function reloadOnce(keysAtLeast: boolean): Promise<ReloadResult> {
		let next: Rules;
		try {
			next = await load();
		} catch (error) {
			if (!(error instanceof BadFileError)) throw error;
			const { file, mistakes } = error;
			lastReload = { at: new Date(), ok: false };
			log.error(
				{ file, mistakes },
				"reload refused; what was in force stays in force",
			);
			const result = { ok: false, file, mistakes } as const;
			if (!keysAtLeast || file === rules.settings.keysFile) return result;
			return { ...result, ...(await reloadKeys()) };
		}
		const previous = rules;
		rules = next;
		gate.replaceRules(next);
		log.level = next.settings.logLevel;
		if (
			JSON.stringify(previous.settings.listen) !==
			JSON.stringify(next.settings.listen)
		)
			listener.move(next.settings.listen);
		if (
			JSON.stringify(previous.settings.admin) !==
			JSON.stringify(next.settings.admin)
		)
			log.warn("admin has changed; that takes a restart");
		lastReload = { at: new Date(), ok: true };
		warnOfExpiry();
		log.info({ keys: next.keyring.names.length }, "reloaded");
		return { ok: true, keys: next.keyring.names.length };
	}

	/** A lost key must go although a setting is misspelt. */
	async function reloadKeys(): Promise<{ keys?: number }> {
		try {
			rules = await withKeysAnew(rules);
		} catch (error) {
			if (error instanceof BadFileError) return {};
			throw error;
		}
		gate.replaceRules(rules);
		const keys = rules.keyring.names.length;
		log.warn(
			{ keys },
			"the keys are taken over; the old settings stay in force",
		);
		return { keys };
	}

	function json(status: number, value: unknown): SideDoorReply {
		return {
			status,
			type: "application/json",
			body: `${JSON.stringify(value)}\n`,
		};
	}

	function status(): SideDoorReply {
		return json(200, {
			version,
			pid: process.pid,
			startedAt,
			listening: listener.bound(),
			keys: rules.keyring.names,
			keyUse: ledger.keyUses.report(Date.now()),
			lastReload,
			files: {
				config: rules.settings.configFile,
				keys: rules.settings.keysFile,
			},
			...gate.stats(),
		});
	}

	function reloadReply(result: ReloadResult): SideDoorReply {
		return json(result.ok ? 200 : 422, result);
	}

	/** `?address=ADDRESS` for one, nothing for all. */
	function unlockReply(query: URLSearchParams): SideDoorReply {
		const asked = query.get("address");
		const address =
			asked === null ? undefined : parseAddress(asked)?.toString();
		if (asked !== null && address === undefined)
			return json(400, { error: "that is no address" });
		const unlocked = gate.unlock(address);
		for (const { addresses, node } of unlocked)
			log.warn(
				{ event: "unlocked", ip: addresses[0] ?? null, addresses, node },
				"let in again by the owner, before its lockout was over",
			);
		return json(200, { unlocked, lockouts: gate.stats().lockouts });
	}

	function metrics(): SideDoorReply {
		return {
			status: 200,
			type: "text/plain; version=0.0.4",
			body: renderMetrics(ledger, gate.stats()),
		};
	}

	return {
		bound: () => listener.bound(),
		reload: () => reload(),
		async stop() {
			log.info({ streams: gate.stats().streams }, "stopping");
			clearInterval(expiryWatch);
			listener.close();
			notifySystemd("STOPPING=1");
			await gate.drain();
			clearInterval(watchdog);
			for (const door of doors) {
				door?.close();
				door?.closeAllConnections();
			}
			await stopNotifier();
			log.info("stopped");
			await flushLog(sink);
		},
	};
}
