import type { Route } from "../ollama/routes.ts";
import type { FairQueue } from "../queue/queue.ts";
import type { Upstream, UpstreamFault } from "../upstream/client.ts";
import { conversationOf, worthOf } from "../upstream/hosts/conversation.ts";
import type { Host } from "../upstream/hosts/host.ts";
import type { Wanted } from "../upstream/hosts/hosts.ts";
import { eventOf } from "../upstream/hosts/look.ts";
import type { Facts } from "./bodyFacts.ts";
import type { Exchange } from "./exchange.ts";
import type { HostPool } from "./hostPool.ts";
import {
	ableTo,
	answers,
	describe,
	hostCannot,
	noHostCan,
	noModel,
	noneUp,
} from "./noHost.ts";
import type { Refusal } from "./refusal.ts";
import type { GateState } from "./state.ts";
import { badGateway, busy } from "./upstreamFault.ts";

/** Where a request goes, of several hosts: chosen once, and again where that one fails it. */

/** Lists that are put together of what all hosts say. */
const mergedPaths = new Set(["/api/tags", "/api/ps", "/v1/models"]);
/** Of what is below /v1 in the table: Ollama's own alone. */
const onlyOllama = new Set(["/v1/responses/compact"]);
/** Replies that another host may have a better answer to: it has too much to do, or nobody is signed in there. */
const notThere = new Set([401, 429, 503]);
const behindIsAway = new Set([502, 504]);
const unknownRoute = new Set([404, 405, 501]);

export class Destination {
	host: Host | undefined;
	/** The list that it is for is put together of what all hosts say. */
	readonly isMerged: boolean;
	readonly #exchange: Exchange;
	readonly #route: Route;
	readonly #path: string;
	readonly #state: GateState;
	/** As it was when a host was chosen. */
	#pool: HostPool;
	/** One that the client has named, or the only one that will do. */
	readonly #isFixed: boolean;
	readonly #tried: Host[] = [];
	#wanted: Wanted | undefined;

	constructor(exchange: Exchange, state: GateState, pool: HostPool) {
		const { route, path } = exchange.routeMatch;
		this.#exchange = exchange;
		this.#route = route;
		this.#path = path;
		this.#state = state;
		this.#pool = pool;
		const isNamed = exchange.head.upstream.length > 0;
		this.isMerged = !isNamed && mergedPaths.has(route.path);
		this.#isFixed =
			isNamed || route.scope === "manage" || route.scope === "account";
	}

	/** Once there is a host. */
	get upstream(): Upstream {
		return this.#known.upstream;
	}

	/** Where it waits for its turn, if it has to. */
	get queue(): FairQueue | undefined {
		return this.#route.scope === "infer"
			? this.#pool.queueOf(this.#known)
			: undefined;
	}

	get #known(): Host {
		if (this.host === undefined) throw new Error("no host was chosen");
		return this.host;
	}

	/**
	 * Chooses a host.
	 *
	 * @param facts what the body says, where it was read
	 * @param beginning what has come of the body, where it is to tell a conversation
	 * @param mustHave only one will do that has said that it has the model
	 */
	choose(
		facts?: Facts,
		beginning?: Buffer,
		mustHave = false,
	): Refusal | undefined {
		if (this.#isFixed) return this.#chooseFixed();
		this.#wanted = this.#wantedFor(facts, beginning, mustHave);
		const host = this.#pool.hosts.choose(this.#wanted, this.#tried);
		if (host === undefined || this.#isForOthers(host)) return this.#nobody();
		this.#enter(host);
		return undefined;
	}

	/**
	 * What its placing waits for: what hosts say that may have its model, where none
	 * is known to. `undefined` where that is known. Never rejects.
	 */
	news(facts?: Facts): Promise<void> | undefined {
		const { hosts } = this.#pool;
		if (this.#isFixed) {
			const meant = this.#meant;
			return meant?.hasShownItself === false ? hosts.news([meant]) : undefined;
		}
		const model = named(facts?.model ?? this.#modelInPath());
		const fitting = hosts.all.filter(
			(host) =>
				this.#fits(host) && (model === undefined || host.mayHave(model)),
		);
		const isKnown = fitting.some(
			(host) =>
				host.hasShownItself &&
				(model === undefined ||
					(host.catalog !== undefined && host.mayHold(model))),
		);
		return isKnown ? undefined : hosts.news(fitting);
	}

	/** It is with a host already, or waits for it. */
	settle(host: Host, facts: Facts | undefined): void {
		this.#wanted = this.#wantedFor(facts);
		this.#enter(host);
	}

	#wantedFor(facts?: Facts, beginning?: Buffer, mustHave = false): Wanted {
		const model = facts?.model ?? this.#modelInPath();
		return {
			route: this.#route.id,
			model,
			fits: (host) =>
				this.#fits(host) &&
				this.#hasRoom(host) &&
				(!mustHave || hasSaid(host, model)),
			...(this.#route.scope === "infer" &&
				stickiness(this.#exchange, model, beginning)),
		};
	}

	/** A reload has left its model to others since it was chosen. */
	get isMisplaced(): boolean {
		const { host } = this;
		return (
			this.#wanted !== undefined && host?.mayGet(this.#wanted.model) === false
		);
	}

	/** Another host than those that have been tried; false if there is none. */
	chooseAnother(): boolean {
		const { host } = this;
		const { pool } = this.#state;
		// Where there is one Ollama by now, no other host is to have it.
		if (this.#wanted === undefined || host === undefined || pool === undefined)
			return false;
		this.#pool = pool;
		const tried = [...this.#tried, host];
		const next = this.#pool.hosts.choose(this.#wanted, tried);
		// One that does not have the model would only say so.
		if (next === undefined || !this.#isAsGood(next, host)) return false;
		this.leave(undefined);
		host.counts.moved += 1;
		this.#tried.push(host);
		this.#enter(next);
		return true;
	}

	#isAsGood(next: Host, host: Host): boolean {
		const model = this.#wanted?.model;
		return (
			next.knows(this.#route.id, model, performance.now()) &&
			!this.#isForOthers(next, host)
		);
	}

	/**
	 * It would say that there is no such model, which another may have that cannot answer now.
	 *
	 * @param former a host that a reload may have taken out
	 */
	#isForOthers(host: Host, former?: Host): boolean {
		const model = named(this.#wanted?.model);
		if (model === undefined || host.mayHold(model)) return false;
		return (
			former?.mayHold(model) === true ||
			this.#pool.hosts.all.some((one) => this.#fits(one) && one.mayHold(model))
		);
	}

	#enter(host: Host): void {
		this.host = host;
		this.#exchange.upstream = host.name;
		host.enter(this.#wanted?.model, performance.now());
	}

	/** It is there no more. @param serviceMs what it took of the GPU's time; `undefined` if that says nothing */
	leave(serviceMs: number | undefined): void {
		const { host } = this;
		if (host === undefined) return;
		host.leave(serviceMs);
		this.host = undefined;
		const { status } = this.#exchange;
		// It may have other models now.
		if (this.#route.scope === "manage" && status !== 0 && status < 400)
			this.#pool.hosts.look(host, true);
	}

	/** The connection has failed. */
	failed(fault: UpstreamFault): void {
		const { host } = this;
		if (host === undefined) return;
		host.counts.failed += 1;
		const event = eventOf(fault);
		if (event === undefined) return;
		// What one prompt makes it say is not the host's word on itself.
		host.note(
			event.kind === "nonsense" ? { kind: "died", why: event.why } : event,
		);
		this.#pool.hosts.look(host);
	}

	/** It has not answered in time, and may yet be well for others. */
	wentSilent(why: string): void {
		const { host } = this;
		if (host === undefined) return;
		host.counts.failed += 1;
		host.note({ kind: "died", why });
		this.#pool.hosts.look(host);
	}

	/**
	 * What to make of a reply's status: pass it on, or ask another host; where none
	 * can be asked, it is passed on after all, or what is returned is said in its place.
	 */
	judge(status: number): "pass" | "elsewhere" | Refusal {
		const { host } = this;
		if (host === undefined) return "pass";
		if (host.hasKey && (status === 401 || status === 403)) {
			host.counts.failed += 1;
			// An Ollama there says 401 too, for a model of an account. Whether the key is good the gate asks itself.
			if (status === 401) this.#pool.hosts.look(host);
			// It is this gate's key that is refused there, and none of the client's.
			return badGateway(
				"upstream_refuses",
				`the host "${host.name}" refuses this to this gate's own key (${status}); its owner knows why`,
			);
		}
		if (host.hasKey && behindIsAway.has(status)) {
			host.counts.failed += 1;
			// It may be this one prompt's.
			this.#pool.hosts.look(host);
			return "elsewhere";
		}
		if (notThere.has(status)) return "elsewhere";
		host.note({ kind: "served" });
		const { model } = this.#wanted ?? {};
		if (host.kind === "openai") {
			if (status < 400) host.serves(this.#route.id, model);
			if (!unknownRoute.has(status)) return "pass";
			host.lacks(this.#route.id, model, performance.now());
		} else if (status !== 404 || model === undefined || !host.hasModel(model))
			return "pass";
		// It had the model when it was asked last.
		if (status === 404) this.#pool.hosts.look(host, true);
		return "elsewhere";
	}

	/** Manage calls go to one host: the one that the client names, or else the first. */
	#chooseFixed(): Refusal | undefined {
		const { all } = this.#pool.hosts;
		if (this.#route.scope === "infer")
			return bad(
				"x-llamagate-upstream chooses a host for lists and for managing models; which one answers a prompt is for this gate to say",
			);
		const host = this.#meant;
		if (host === undefined)
			return this.#exchange.head.upstream.length === 0
				? noHostCan(all, this.#route)
				: bad(
						`x-llamagate-upstream names one of this gate's hosts: ${all.map((one) => one.name).join(", ")}`,
					);
		if (!this.#fits(host)) return hostCannot(host, this.#route);
		if (host.health.state === "down" || !host.hasShownItself)
			return noneUp(describe(host, false));
		this.#enter(host);
		return undefined;
	}

	/** The one host that will do, of a call that goes to one. */
	get #meant(): Host | undefined {
		const [name, ...more] = this.#exchange.head.upstream;
		const { hosts } = this.#pool;
		if (name === undefined)
			return hosts.all.find(({ kind }) => kind === "ollama");
		return more.length === 0 ? hosts.find(name.trim()) : undefined;
	}

	/** Whether a host of its kind can answer at all. */
	#fits(host: Host): boolean {
		const { head } = this.#exchange;
		if (!answers(host, this.#route.path, head.hop.length > 0)) return false;
		if (host.kind === "ollama") return true;
		return (
			!onlyOllama.has(this.#route.path) && head.contentEncoding[0] !== "zstd"
		);
	}

	/** Whether it takes one more, or has a queue to wait in. */
	#hasRoom(host: Host): boolean {
		return (
			!host.upstream.isFull ||
			(this.#route.scope === "infer" && this.#pool.queueOf(host) !== undefined)
		);
	}

	/** Why no host will do. */
	#nobody(): Refusal {
		const { all } = this.#pool.hosts;
		const fitting = all.filter((host) => this.#fits(host));
		if (fitting.length === 0) return noHostCan(all, this.#route);
		const model = named(this.#wanted?.model);
		const able = ableTo(fitting, model);
		if (able.length === 0) return noModel(model);
		const full = able.filter(
			(host) => host.health.state !== "down" && !this.#hasRoom(host),
		);
		if (full.length > 0)
			return busy(
				full.reduce((sum, { upstream }) => sum + upstream.maxConnections, 0),
			);
		return noneUp(
			able.map((host) => describe(host, this.#tried.includes(host))).join("; "),
		);
	}

	#modelInPath(): string | undefined {
		return this.#route.path.endsWith("/:model")
			? this.#path.slice(this.#path.lastIndexOf("/") + 1)
			: undefined;
	}
}

/** Empty where a body says nothing. */
function named(model: string | undefined): string | undefined {
	return model === "" ? undefined : model;
}

function hasSaid(host: Host, text: string | undefined): boolean {
	const model = named(text);
	if (model === undefined) return host.catalog !== undefined;
	return host.hasModel(model) === true;
}

function bad(message: string): Refusal {
	return { status: 400, reason: "bad_upstream", message };
}

function stickiness(
	{ knownCredential }: Exchange,
	model: string | undefined,
	beginning: Buffer | undefined,
): Pick<Wanted, "conversation" | "worthMs"> {
	if (model === undefined || beginning === undefined) return {};
	return {
		conversation: conversationOf(knownCredential.key.name, model, beginning),
		worthMs: worthOf(beginning.length),
	};
}
