import type { Settings } from "../config/load.ts";
import { dated, type Raise } from "../ledger/alarms/alarm.ts";
import { Budgets } from "../ledger/budgets.ts";
import type { Log } from "../log.ts";
import { ActiveSet } from "../net/activeSet.ts";
import { descriptorLimit, roomForClients } from "../net/descriptors.ts";
import { SignatureUses } from "../ollama/cliSignature.ts";
import { FairQueue } from "../queue/queue.ts";
import { createWhois, type Whois } from "../tailscale/whois.ts";
import { askForModels } from "../upstream/ask.ts";
import { Upstream } from "../upstream/client.ts";
import type { AccessLog } from "./accessLog.ts";
import { ConnectionTable } from "./connection.ts";
import { Handshakes } from "./handshakes.ts";
import { HostPool } from "./hostPool.ts";
import { JudgedBodies } from "./judgedBodies.ts";
import { LoadedModels } from "./loadedModels.ts";
import { Lockout } from "./lockout.ts";
import { PieceBudget } from "./pieces.ts";
import { RefusalThrottle } from "./refusalThrottle.ts";
import type { Relay } from "./relay.ts";
import type { Rules } from "./rules.ts";
import type { Shared } from "./shared/shared.ts";
import { Unpackings } from "./unpackings.ts";
import { Uploads } from "./uploads.ts";
import { UpstreamHealth } from "./upstreamHealth.ts";

/** What may happen a thousand times a second is said once in so long. */
const saidAgainAfterMs = 10_000;

/** The rules in force, and what the gate remembers between requests. */
export class GateState {
	readonly accessLog: AccessLog;
	readonly log: Log;
	readonly descriptors = descriptorLimit();
	readonly connections = new ConnectionTable(() =>
		roomForClients(
			this.descriptors,
			this.upstream.maxConnections * (this.settings.hosts?.length ?? 1),
		),
	);
	readonly lockout = new Lockout();
	readonly handshakes = new Handshakes(
		() => this.settings.limits.perSource.requestsPerMinute / 60,
		(address) => this.lockout.placesOf(address)[0] ?? address,
	);
	readonly refusalThrottle = new RefusalThrottle();
	readonly signatureUses = new SignatureUses();
	readonly relays = new ActiveSet<Relay>();
	readonly pieces = new PieceBudget();
	readonly judgedBodies = new JudgedBodies();
	readonly unpackings = new Unpackings(this.judgedBodies);
	readonly uploads = new Uploads();
	readonly budgets = new Budgets();
	readonly loadedModels = new LoadedModels(async () =>
		this.#pool === undefined
			? (await askForModels(this.#upstream, "/api/ps"))?.map((entry) => ({
					entry,
				}))
			: this.#pool.lists.entriesOfHosts("/api/ps"),
	);
	readonly upstreamHealth = new UpstreamHealth();
	/** The gate answers what runs, and each reply that begins closes its connection. */
	draining = false;
	/** What comes on an open connection is refused. */
	refusesNew = false;
	#rules: Rules;
	#upstream: Upstream;
	#whois: Whois;
	#queue: FairQueue | undefined;
	#shared: Shared | undefined;
	#pool: HostPool | undefined;
	readonly #saidAtMs = new Map<string, number>();

	/** Tells the owner at once, where the owner wants that. */
	readonly raise: Raise;

	constructor(rules: Rules, accessLog: AccessLog, log: Log, raise: Raise) {
		this.raise = raise;
		this.#rules = rules;
		this.#upstream = new Upstream(rules.settings.upstream);
		this.#whois = openWhois(rules.settings);
		this.#queue = this.#openQueue();
		this.accessLog = accessLog;
		this.#tellLog(rules);
		this.log = log;
		this.#pool = this.#openPool();
	}

	get rules(): Rules {
		return this.#rules;
	}

	get settings(): Settings {
		return this.#rules.settings;
	}

	get upstream(): Upstream {
		return this.#upstream;
	}

	get whois(): Whois {
		return this.#whois;
	}

	/** The hosts, where there are several in place of one Ollama; each has its own queue then. */
	get pool(): HostPool | undefined {
		return this.#pool;
	}

	/** All that waits for a turn, wherever that is. */
	get line(): HostPool | FairQueue | undefined {
		return this.#pool ?? this.#queue;
	}

	/** Where requests wait for the one Ollama; `undefined` if they do not. */
	get queue(): FairQueue | undefined {
		return this.#queue;
	}

	/** What is shared with other gates; `undefined` where nothing is. */
	get shared(): Shared | undefined {
		return this.#shared;
	}

	/** Shares with other gates from now on. */
	share(shared: Shared): void {
		this.#shared = shared;
		this.line?.shareWith(shared.service);
	}

	/** Puts new rules in force. What was sent to the old upstream ends there. */
	replaceRules(next: Rules): void {
		const { settings: former } = this.#rules;
		const { upstream: previous } = former;
		const isQueued = isQueuedHere(former);
		this.#rules = next;
		this.#tellLog(next);
		this.#whois = openWhois(next.settings);
		const { upstream, queue } = next.settings;
		if (JSON.stringify(previous) !== JSON.stringify(upstream)) {
			this.#upstream.retire();
			this.#upstream = new Upstream(upstream);
			this.#queue?.upstreamChanged();
		}
		if (isQueued !== isQueuedHere(next.settings)) {
			this.#queue?.open();
			this.#queue = this.#openQueue();
		} else this.#queue?.use(queue);
		const pool = this.#pool;
		this.#pool = this.#openPool(pool);
		pool?.replaced(this.#pool);
	}

	/** At the end: whatever waits goes, and all connections end. */
	async close(): Promise<void> {
		this.#queue?.open();
		this.#pool?.close();
		this.#upstream.destroy();
		await this.#shared?.close();
	}

	#openPool(before?: HostPool): HostPool | undefined {
		if (this.settings.hosts === undefined) return undefined;
		const opened = new HostPool(
			this.#rules,
			this.relays,
			this.log,
			this.raise,
			before,
		);
		if (this.#shared !== undefined) opened.shareWith(this.#shared.service);
		return opened;
	}

	#openQueue(): FairQueue | undefined {
		const { queue } = this.settings;
		if (!isQueuedHere(this.settings)) return undefined;
		const opened = new FairQueue(queue, () => this.#upstream);
		opened.isHeard = () => [...this.relays].some(({ isHeard }) => isHeard);
		if (this.#shared !== undefined) opened.shareWith(this.#shared.service);
		return opened;
	}

	#tellLog({ settings }: Rules): void {
		this.accessLog.people = settings.logPeople;
		this.accessLog.hidesOwners = settings.identity.mode === "login";
	}

	/** Ollama, or one of several hosts, has answered, whatever it said. */
	noteUpstreamAnswer(): void {
		if (!this.upstreamHealth.answered()) return;
		const says = "Ollama answers requests again";
		this.log.info({ event: "upstream_back" }, says);
		this.raise("upstream_down", dated(says), { isOver: true });
	}

	/** It could not be reached, broke off or was silent for too long. */
	noteUpstreamFailure(): void {
		if (!this.upstreamHealth.failed(performance.now())) return;
		const says = "Ollama has answered no request for half a minute";
		this.log.error({ event: "upstream_down" }, says);
		this.raise("upstream_down", dated(says));
	}

	/** Logs a warning that an attacker could cause as often as it likes. */
	warnNowAndThen(facts: object, message: string): void {
		const nowMs = performance.now();
		const saidAtMs = this.#saidAtMs.get(message) ?? Number.NEGATIVE_INFINITY;
		if (nowMs - saidAtMs < saidAgainAfterMs) return;
		this.#saidAtMs.set(message, nowMs);
		this.log.warn(facts, message);
	}
}

/** Whether requests for the one Ollama wait; of several hosts, each has its queue. */
function isQueuedHere({ queue, hosts }: Settings): boolean {
	return queue.mode !== "off" && hosts === undefined;
}

/** The cache of answers starts anew with it, so that a reload also forgets who was who. */
function openWhois({ identity }: Settings): Whois {
	return createWhois({ socket: identity.socket });
}
