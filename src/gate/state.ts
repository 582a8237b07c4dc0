import type { Settings } from "../config/load.ts";
import { dated, type Raise } from "../ledger/alarms/alarm.ts";
import { Budgets } from "../ledger/budgets.ts";
import type { Log } from "../log.ts";
import { ActiveSet } from "../net/activeSet.ts";
import { descriptorLimit, roomForClients } from "../net/descriptors.ts";
import { SignatureUses } from "../ollama/cliSignature.ts";
import { CommonQueue } from "../queue/common.ts";
import { FairQueue } from "../queue/queue.ts";
import type { QueueStats } from "../queue/stats.ts";
import { createWhois, type Whois } from "../tailscale/whois.ts";
import { askForModels } from "../upstream/ask.ts";
import { Upstream } from "../upstream/client.ts";
import type { AccessLog } from "./accessLog.ts";
import { ConnectionTable } from "./connection.ts";
import { Handshakes } from "./handshakes.ts";
import { HostPool } from "./hostPool.ts";
import { addUp } from "./hostStats.ts";
import { JudgedBodies } from "./judgedBodies.ts";
import { LoadedModels } from "./loadedModels.ts";
import { Lockout } from "./lockout.ts";
import { OneOllama } from "./oneOllama.ts";
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
			? (await askForModels(this.upstream, "/api/ps"))?.map((entry) => ({
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
	#one: OneOllama;
	#whois: Whois;
	#shared: Shared | undefined;
	#pool: HostPool | undefined;
	/** What users have had, whatever a reload makes of the queues. */
	readonly #common = new CommonQueue();
	/** Of hosts in whose place one Ollama has come, while something waits there. */
	readonly #emptying = new Set<FairQueue>();
	readonly #saidAtMs = new Map<string, number>();

	/** Tells the owner at once, where the owner wants that. */
	readonly raise: Raise;

	constructor(rules: Rules, accessLog: AccessLog, log: Log, raise: Raise) {
		this.raise = raise;
		this.#rules = rules;
		this.#one = new OneOllama(new Upstream(rules.settings.upstream));
		this.#whois = openWhois(rules.settings);
		this.#one.queue = this.#openQueue(this.#one);
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

	/** The one Ollama; where there are several hosts, nothing goes there. */
	get one(): OneOllama {
		return this.#one;
	}

	get upstream(): Upstream {
		return this.#one.upstream;
	}

	get whois(): Whois {
		return this.#whois;
	}

	/** The hosts, where there are several in place of one Ollama; each has its own queue then. */
	get pool(): HostPool | undefined {
		return this.#pool;
	}

	/** Where what comes waits for a turn. */
	get line(): HostPool | FairQueue | undefined {
		return this.#pool ?? this.queue;
	}

	/** All in which something may wait. */
	get queues(): readonly FairQueue[] {
		const own = this.#pool?.queues ?? (this.queue ? [this.queue] : []);
		return [...own, ...this.#emptying];
	}

	/** Requests that wait for their turn. */
	get waiting(): number {
		return this.queues.reduce((sum, { waiting }) => sum + waiting, 0);
	}

	/** What waits, all together; `undefined` if nothing has to. */
	queueStats(): QueueStats | undefined {
		const own = this.line?.stats();
		const left = [...this.#emptying].map((queue) => queue.stats());
		return addUp(own === undefined ? left : [own, ...left]);
	}

	/** Where requests wait for the one Ollama; `undefined` if they do not. */
	get queue(): FairQueue | undefined {
		return this.#one.queue;
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

	/** Puts new rules in force. What was sent ends where it was sent to. */
	replaceRules(next: Rules): void {
		const { settings: former } = this.#rules;
		const { settings } = next;
		this.#rules = next;
		this.budgets.follow(next.keyring.budgets, Date.now());
		this.#tellLog(next);
		this.#whois = openWhois(settings);
		const [one, pool] = [this.#one, this.#pool];
		this.#pool = this.#openPool(pool);
		if (pool === undefined && this.#pool !== undefined) {
			this.#one = new OneOllama(new Upstream(settings.upstream));
			this.#pool.follows(one);
		} else this.#useOne(former, settings, pool);
		const left = pool?.replaced(this.#pool, this.#one, settings.queue) ?? [];
		for (const queue of left) this.#emptying.add(queue);
	}

	#useOne(
		former: Settings,
		{ upstream, queue }: Settings,
		before: HostPool | undefined,
	): void {
		const one = this.#one;
		const { target } = former.upstream;
		// What is known of the same Ollama stays, as does what runs there.
		if (JSON.stringify(target) === JSON.stringify(upstream.target))
			one.upstream.use(upstream);
		else {
			one.upstream.retire();
			one.upstream = new Upstream(upstream);
			one.queue?.upstreamChanged();
		}
		if (this.#pool === undefined) before?.handConnections(one, upstream);
		if (isQueuedHere(former) !== isQueuedHere(this.settings)) {
			one.queue?.open();
			one.queue = this.#openQueue(one, before);
		} else one.queue?.use(queue);
	}

	/** Looks after time: called at a fixed interval. */
	sweep(nowMs: number): void {
		this.upstream.sweep(nowMs);
		this.line?.sweep(nowMs);
		for (const queue of this.#emptying) {
			queue.sweep(nowMs);
			if (queue.waiting > 0) continue;
			this.#emptying.delete(queue);
			queue.open();
		}
	}

	/** At the end: whatever waits goes, and all connections end. */
	async close(): Promise<void> {
		for (const queue of this.queues) queue.open();
		this.#pool?.close();
		this.upstream.destroy();
		await this.#shared?.close();
	}

	#openPool(before?: HostPool): HostPool | undefined {
		if (this.settings.hosts === undefined) return undefined;
		const opened = new HostPool(
			this.#rules,
			this.relays,
			this.log,
			this.raise,
			this.#common,
			before,
		);
		if (this.#shared !== undefined) opened.shareWith(this.#shared.service);
		return opened;
	}

	/** @param before the hosts in whose place it comes */
	#openQueue(one: OneOllama, before?: HostPool): FairQueue | undefined {
		const { queue } = this.settings;
		if (!isQueuedHere(this.settings)) return undefined;
		const upstream = () => one.upstream;
		const opened =
			before?.handOver(one) ?? new FairQueue(queue, upstream, this.#common);
		opened.upstream = upstream;
		opened.use(queue);
		opened.isHeard = () =>
			[...this.relays].some(
				({ errand, isHeard }) => errand.at === one && isHeard,
			);
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
