import type { Settings } from "../../config/load.ts";
import type { HostSettings } from "../../config/upstreams.ts";
import type { Upstream } from "../client.ts";
import { chooseHost, type Sticky } from "./chooseHost.ts";
import { Conversations } from "./conversation.ts";
import type { Health } from "./health.ts";
import { Host } from "./host.ts";
import { Prober } from "./prober.ts";

/** How long what hosts say is waited for. */
const newsMs = 3_000;

/** What is asked of a host. */
export interface Wanted {
	/** The route's id in the table. */
	readonly route: string;
	/** As a body names it; empty or `undefined` where that says nothing. */
	readonly model: string | undefined;
	/** Whether a host of this kind can answer at all. */
	readonly fits: (host: Host) => boolean;
	/** Of a conversation that may be in a host's cache, with what that saves. */
	readonly conversation?: string | undefined;
	readonly worthMs?: number;
}

/** What the hosts tell of. */
export interface HostsOwner {
	changed(host: Host, before: Health): void;
	/** Whether a request with it has had something of it just now. */
	isHeard(host: Host): boolean;
}

/** The hosts behind the gate: they are asked how they are, and chosen among. */
export class Hosts {
	readonly all: readonly Host[];
	readonly #probers = new Map<Host, Prober>();
	readonly #conversations: Conversations;
	/** Whom hosts tell: always the newest, also those that were there before it. */
	readonly #told: { owner: HostsOwner };

	/** @param before those in force until now; what is known of one that is still there stays */
	constructor(
		settings: readonly HostSettings[],
		limits: Settings["upstream"],
		keys: ReadonlyMap<string, string>,
		owner: HostsOwner,
		before?: Hosts,
	) {
		this.#told = before === undefined ? { owner } : before.#told;
		this.#told.owner = owner;
		const told = this.#told;
		this.#conversations =
			before === undefined ? new Conversations() : before.#conversations;
		const anew = new Set<Host>();
		this.all = settings.map((entry) => {
			const key = keys.get(entry.name);
			const same = before?.all.find((host) => host.isSame(entry, key));
			if (same?.use(entry, limits, key) === true) anew.add(same);
			return (
				same ??
				new Host(entry, limits, key, (host, was) =>
					told.owner.changed(host, was),
				)
			);
		});
		for (const host of this.all) {
			const kept = before === undefined ? undefined : before.#probers.get(host);
			const prober = kept ?? new Prober(host, () => told.owner.isHeard(host));
			this.#probers.set(host, prober);
			if (kept === undefined || anew.has(host)) prober.soon(true);
		}
		if (before !== undefined) before.#leaveAllBut(this.#probers);
	}

	/** Lets go of the hosts that have left the configuration; what runs on them ends by itself. */
	#leaveAllBut(kept: ReadonlyMap<Host, Prober>, inUse?: Upstream): void {
		for (const [host, prober] of this.#probers) {
			if (kept.has(host)) continue;
			prober.stop();
			host.asking.destroy();
			if (host.upstream !== inUse) host.upstream.retire();
		}
	}

	find(name: string): Host | undefined {
		return this.all.find((host) => host.name === name);
	}

	/** The host that a request goes to, of those that have not been tried; `undefined` if none will do. */
	choose(wanted: Wanted, tried: readonly Host[]): Host | undefined {
		const nowMs = performance.now();
		const { route, model, fits, conversation, worthMs = 0 } = wanted;
		const candidates = this.all.map((host) =>
			tried.includes(host) || !fits(host) || !host.mayGet(model)
				? undefined
				: host.asCandidate(route, model, nowMs),
		);
		let sticky: Sticky | undefined;
		if (conversation !== undefined) {
			const name = this.#conversations.find(conversation, nowMs);
			const index = this.all.findIndex((host) => host.name === name);
			if (index !== -1) sticky = { index, worthMs };
		}
		const host = this.all[chooseHost(candidates, sticky)];
		if (host !== undefined && conversation !== undefined)
			this.#conversations.remember(conversation, host.name, nowMs);
		return host;
	}

	/** Something was odd about a host: it is asked at once. @param anew also which models it has */
	look(host: Host, anew = false): void {
		this.#probers.get(host)?.soon(anew);
	}

	/**
	 * Waits until hosts have said which models they have: those that are being asked
	 * for the first time, and those that are up and have not been asked just now.
	 * Three seconds at the most. Never rejects.
	 *
	 * @returns `undefined` where there is nothing to wait for
	 */
	news(hosts: readonly Host[]): Promise<void> | undefined {
		const news = hosts.flatMap((host) => this.#probers.get(host)?.news() ?? []);
		if (news.length === 0) return undefined;
		const { promise, resolve } = Promise.withResolvers<void>();
		const timer = setTimeout(resolve, newsMs);
		void Promise.all(news).then(() => resolve());
		return promise.finally(() => clearTimeout(timer));
	}

	sweep(nowMs: number): void {
		for (const host of this.all) host.sweep(nowMs);
	}

	/** Nobody goes on using them; what runs ends by itself. @param inUse connections that somebody does go on using */
	retire(inUse?: Upstream): void {
		this.#leaveAllBut(new Map(), inUse);
	}

	/** Ends all connections, whatever runs on them. */
	destroy(): void {
		this.retire();
		for (const { upstream } of this.all) upstream.destroy();
	}
}
