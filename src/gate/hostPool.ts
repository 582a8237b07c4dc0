import { dated, type Raise } from "../ledger/alarms/alarm.ts";
import type { Log } from "../log.ts";
import type { CommonQueue } from "../queue/common.ts";
import type { Place } from "../queue/model.ts";
import { NamedModels } from "../queue/namedModels.ts";
import { OllamaModels } from "../queue/ollamaModels.ts";
import { FairQueue } from "../queue/queue.ts";
import type { ServiceElsewhere } from "../queue/service.ts";
import type { QueueStats } from "../queue/stats.ts";
import { formatAge } from "../report/duration.ts";
import type { Health } from "../upstream/hosts/health.ts";
import type { Host } from "../upstream/hosts/host.ts";
import { Hosts, type HostsOwner } from "../upstream/hosts/hosts.ts";
import { addUp } from "./hostStats.ts";
import { MergedLists } from "./mergedLists.ts";
import type { OneOllama } from "./oneOllama.ts";
import type { Relay } from "./relay.ts";
import type { Rules } from "./rules.ts";

/** Several hosts in place of one Ollama, each with its slots and the requests that wait for them. */
export class HostPool implements HostsOwner {
	readonly hosts: Hosts;
	readonly lists = new MergedLists(() => this.hosts.all);
	readonly #relays: Iterable<Relay>;
	readonly #log: Log;
	readonly #raise: Raise;
	readonly #queues = new Map<Host, FairQueue>();
	/** Of what a reload has taken out, while something waits there that no other can have yet. */
	readonly #leaving = new Map<Host | OneOllama, FairQueue>();
	readonly #queueSettings: Rules["settings"]["queue"];

	/**
	 * @param common what its queues share with those before them
	 * @param before the hosts until now; those that are still there stay what they are
	 */
	constructor(
		{ settings, hostKeys }: Rules,
		relays: Iterable<Relay>,
		log: Log,
		raise: Raise,
		common: CommonQueue,
		before?: HostPool,
	) {
		this.#relays = relays;
		this.#log = log;
		this.#raise = raise;
		this.hosts = new Hosts(
			settings.hosts ?? [],
			settings.upstream,
			hostKeys,
			this,
			before?.hosts,
		);
		const { queue } = settings;
		this.#queueSettings = queue;
		for (const host of this.hosts.all) {
			const kept = before === undefined ? undefined : before.#queues.get(host);
			if (before !== undefined) before.#queues.delete(host);
			if (queue.mode === "off") {
				kept?.open();
				continue;
			}
			kept?.use(queue);
			const sourceOf = host.kind === "openai" ? modelsByName : modelsOfOllama;
			this.#queues.set(
				host,
				kept ?? new FairQueue(queue, () => host.upstream, common, sourceOf),
			);
		}
	}

	queueOf(host: Host): FairQueue | undefined {
		return this.#queues.get(host);
	}

	get queues(): Iterable<FairQueue> {
		return this.#entries.map(([, queue]) => queue);
	}

	get #entries(): [Host | OneOllama, FairQueue][] {
		return [...this.#queues, ...this.#leaving];
	}

	/** Counts what other gates serve, and tells them of what is served here. */
	shareWith(elsewhere: ServiceElsewhere): void {
		// The counters are common to all queues, so what is heard counts once.
		for (const queue of this.#queues.values()) queue.shareWith(elsewhere);
	}

	/** Requests that wait for their turn. */
	get waiting(): number {
		let count = 0;
		for (const queue of this.queues) count += queue.waiting;
		return count;
	}

	/** What waits, on all hosts together; `undefined` if nothing has to. */
	stats(): QueueStats | undefined {
		return addUp(
			this.#entries.map(([{ name }, queue]) => {
				const stats = queue.stats();
				const models = stats.models.map((model) => ({ ...model, host: name }));
				return { ...stats, models };
			}),
		);
	}

	changed(host: Host, before: Health): void {
		const { state, why } = host.health;
		const facts = {
			event: "upstream_state",
			upstream: host.name,
			from: before.state,
			to: state,
			why: why ?? null,
		};
		if (state === "down") this.#log.warn(facts, "a host is down");
		else if (state === "up") this.#log.info(facts, "a host is up");
		else this.#log.debug(facts, "a host has changed its state");
		if (state === "down") this.#leave(host);
		else if (before.state === "down") this.#comeBack(host);
		else if (state === "suspect") this.hosts.look(host);
		// A sweep may come too late to see that it was up for a moment.
		this.#tellOf(host, performance.now());
	}

	isHeard(host: Host): boolean {
		for (const relay of this.#relays)
			if (relay.errand.host === host && relay.isHeard) return true;
		return false;
	}

	/** A stream outlives a listener: what goes on keeps its place. */
	#comeBack(host: Host): void {
		const heard = new Set<Place | undefined>();
		for (const { errand, isHeard } of this.#relays)
			if (errand.host === host && isHeard) heard.add(errand.ticket?.place);
		this.#queueAt(host)?.back((place) => heard.has(place));
	}

	/** Also of one that a reload has taken out. */
	#queueAt(host: Host): FairQueue | undefined {
		return this.#queues.get(host) ?? this.#leaving.get(host);
	}

	/** What is with a host, or waits for it, and has had nothing of it goes on at another. */
	#leave(host: Host): void {
		// First what waits: each that runs and moves leaves a place, which is nobody's now.
		this.#moveWaiting(host);
		for (const relay of this.#relays)
			if (relay.errand.host === host) relay.errand.moveOn();
		// What no other can have waits behind what may never end.
		this.#queueAt(host)?.away();
	}

	/** Tells the owner of a host that has gone for longer than a restart takes, and that it is back. */
	#tellOf(host: Host, nowMs: number): void {
		const { name, health, outage } = host;
		const { all } = this.hosts;
		const news = outage.look(health.state, nowMs);
		// One that a reload has taken out may still end what ran there.
		if (news === undefined || !all.includes(host)) return;
		if (news.kind === "down") {
			const up = all.filter(({ health: { state } }) => state === "up").length;
			const says = `the host "${name}" has been down for half a minute; ${up} of ${all.length} hosts are up`;
			const facts = { upstream: name, why: health.why ?? null };
			this.#log.error({ event: "upstream_down", ...facts }, says);
			this.#raise("upstream_down", dated(says), { host: name });
			return;
		}
		const says = `the host "${name}" is up again after ${formatAge(news.awayMs)}`;
		this.#log.info({ event: "upstream_back", upstream: name }, says);
		const about = { host: name, isOver: true } as const;
		this.#raise("upstream_down", dated(says), about);
	}

	sweep(nowMs: number): void {
		this.hosts.sweep(nowMs);
		for (const host of this.hosts.all) this.#tellOf(host, nowMs);
		for (const queue of this.#queues.values()) queue.sweep(nowMs);
		for (const [host, queue] of this.#leaving) {
			this.#moveWaiting(host);
			queue.sweep(nowMs);
			if (queue.waiting > 0) continue;
			this.#leaving.delete(host);
			queue.open();
		}
	}

	/**
	 * It has taken the place of one Ollama. Where that is one of its hosts, its
	 * connections and its queue go on as that host's; else what waits keeps its turn until a host has its model.
	 */
	follows(one: OneOllama): void {
		const { queue, upstream } = one;
		const host = this.#hostAt(one);
		if (host === undefined) upstream.retire();
		else host.takeOver(upstream);
		if (queue === undefined) return;
		if (host === undefined || !this.#queues.has(host)) {
			if (staysOpen(queue, this.#queueSettings)) this.#leaving.set(one, queue);
			return;
		}
		// What runs there has places that no other request is to have.
		queue.upstream = () => host.upstream;
		queue.isHeard = undefined;
		queue.use(this.#queueSettings);
		this.#queues.set(host, queue);
		for (const { errand } of this.#relays) {
			if (errand.at === one) errand.settle(host, this);
			if (errand.isMisplaced) errand.moveOn();
		}
	}

	/** One Ollama takes its place, and has the connections of the host that it is. */
	handConnections(one: OneOllama, limits: Rules["settings"]["upstream"]): void {
		const host = this.#hostAt(one);
		if (host === undefined) return;
		one.upstream = host.upstream;
		one.upstream.use(limits);
	}

	/** The same with its queue, which is returned and goes on as that of the one Ollama. */
	handOver(one: OneOllama): FairQueue | undefined {
		const host = this.#hostAt(one);
		const queue = host && this.#queues.get(host);
		if (host === undefined || queue === undefined) return undefined;
		// Nobody else says any more whether it is away.
		this.#comeBack(host);
		this.#queues.delete(host);
		for (const { errand } of this.#relays)
			if (errand.at === host) errand.settleAt(one);
		return queue;
	}

	#hostAt(one: OneOllama): Host | undefined {
		return this.hosts.all.find((host) => isWhere(host, one));
	}

	/**
	 * Another pool has taken its place, or one Ollama. What waits for a host that is
	 * gone goes on at another, and where it cannot, it keeps its turn.
	 *
	 * @param one the one Ollama, as it is now
	 * @returns the queues of its hosts in which something waits and that no other pool looks after
	 */
	replaced(
		next: HostPool | undefined,
		one: OneOllama,
		settings: Rules["settings"]["queue"],
	): readonly FairQueue[] {
		const left: FairQueue[] = [];
		for (const [place, queue] of this.#entries) {
			// What runs there goes on.
			if (next !== undefined) this.#moveWaiting(place);
			if (!staysOpen(queue, settings)) continue;
			if (next === undefined) left.push(queue);
			else next.#leaving.set(place, queue);
		}
		if (next === undefined) this.hosts.retire(one.upstream);
		else
			for (const relay of this.#relays)
				if (relay.errand.isMisplaced) relay.errand.moveOn();
		return left;
	}

	#moveWaiting(place: Host | OneOllama): void {
		for (const relay of this.#relays)
			if (relay.errand.at === place && relay.errand.isWaiting)
				relay.errand.moveOn();
	}

	/** At the end: whatever waits goes. */
	close(): void {
		for (const queue of this.queues) queue.open();
		this.hosts.destroy();
	}
}

/** Whether a host is what the one Ollama was. */
function isWhere({ kind, hasKey, upstream }: Host, one: OneOllama): boolean {
	return kind === "ollama" && !hasKey && upstream.name === one.upstream.name;
}

/** Whether something goes on waiting in a queue that a reload has taken out; else it takes no more part. */
function staysOpen(
	queue: FairQueue,
	settings: Rules["settings"]["queue"],
): boolean {
	if (settings.mode === "off" || queue.waiting === 0) {
		queue.open();
		return false;
	}
	queue.use(settings);
	return true;
}

const modelsByName = (upstream: ConstructorParameters<typeof NamedModels>[0]) =>
	new NamedModels(upstream);
const modelsOfOllama = (
	upstream: ConstructorParameters<typeof OllamaModels>[0],
) => new OllamaModels(upstream);
