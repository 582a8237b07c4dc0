import type { Settings } from "../config/load.ts";
import type { Raise } from "../ledger/alarms/alarm.ts";
import { Budgets } from "../ledger/budgets.ts";
import type { Log } from "../log.ts";
import { ActiveSet } from "../net/activeSet.ts";
import { descriptorLimit, roomForClients } from "../net/descriptors.ts";
import { SignatureUses } from "../ollama/cliSignature.ts";
import { FairQueue } from "../queue/queue.ts";
import { createWhois, type Whois } from "../tailscale/localApi.ts";
import { Upstream } from "../upstream/client.ts";
import type { AccessLog } from "./accessLog.ts";
import { ConnectionTable } from "./connection.ts";
import { JudgedBodies } from "./judgedBodies.ts";
import { LoadedModels } from "./loadedModels.ts";
import { Lockout } from "./lockout.ts";
import { PieceBudget } from "./pieces.ts";
import { RefusalThrottle } from "./refusalThrottle.ts";
import type { Relay } from "./relay.ts";
import type { Rules } from "./rules.ts";
import type { Shared } from "./shared/shared.ts";
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
		roomForClients(this.descriptors, this.upstream.maxConnections),
	);
	readonly lockout = new Lockout();
	readonly refusalThrottle = new RefusalThrottle();
	readonly signatureUses = new SignatureUses();
	readonly relays = new ActiveSet<Relay>();
	readonly pieces = new PieceBudget();
	readonly judgedBodies = new JudgedBodies();
	readonly uploads = new Uploads();
	readonly budgets = new Budgets(Date.now());
	readonly loadedModels = new LoadedModels(() => this.#upstream);
	readonly upstreamHealth = new UpstreamHealth();
	/** The gate answers what runs, and takes nothing new. */
	draining = false;
	#rules: Rules;
	#upstream: Upstream;
	#whois: Whois;
	#queue: FairQueue | undefined;
	#shared: Shared | undefined;
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

	/** Where requests wait for their turn; `undefined` if they do not. */
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
		this.#queue?.shareWith(shared.service);
	}

	/** Puts new rules in force. What was sent to the old upstream ends there. */
	replaceRules(next: Rules): void {
		const { upstream: previous, queue: before } = this.#rules.settings;
		this.#rules = next;
		this.#tellLog(next);
		this.#whois = openWhois(next.settings);
		const { upstream, queue } = next.settings;
		if (JSON.stringify(previous) !== JSON.stringify(upstream)) {
			this.#upstream.retire();
			this.#upstream = new Upstream(upstream);
			this.#queue?.upstreamChanged();
		}
		if (before.mode !== queue.mode) {
			this.#queue?.open();
			this.#queue = this.#openQueue();
		} else this.#queue?.use(queue);
	}

	#openQueue(): FairQueue | undefined {
		const { queue } = this.settings;
		if (queue.mode === "off") return undefined;
		const opened = new FairQueue(queue, () => this.#upstream);
		if (this.#shared !== undefined) opened.shareWith(this.#shared.service);
		return opened;
	}

	#tellLog({ settings }: Rules): void {
		this.accessLog.people = settings.logPeople;
		this.accessLog.hidesOwners = settings.identity.mode === "login";
	}

	/** Ollama could not be reached, broke off or was silent for too long. */
	noteUpstreamFailure(): void {
		if (!this.upstreamHealth.failed(performance.now())) return;
		const says = "Ollama has answered no request for half a minute";
		this.log.error({ event: "upstream_down" }, says);
		this.raise("upstream_down", says);
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

/** The cache of answers starts anew with it, so that a reload also forgets who was who. */
function openWhois({ identity }: Settings): Whois {
	return createWhois({ socket: identity.socket });
}
