import type { Ticket } from "../queue/ticket.ts";
import type {
	Upstream,
	UpstreamCall,
	UpstreamFault,
} from "../upstream/client.ts";
import type { Host } from "../upstream/hosts/host.ts";
import { type Facts, goesByBody } from "./bodyFacts.ts";
import { Destination } from "./destination.ts";
import type { Exchange, Outcome } from "./exchange.ts";
import { isGivenUp } from "./givenUp.ts";
import type { HostPool } from "./hostPool.ts";
import type { OneOllama } from "./oneOllama.ts";
import type { Refusal } from "./refusal.ts";
import type { GateState } from "./state.ts";
import { queueHeader, type Turn, waitForTurn } from "./turn.ts";
import { describeFault, faultOf } from "./upstreamFault.ts";
import { wholeBodyBytes } from "./wholeBody.ts";

type Body = UpstreamCall["body"];

/** Who carries a request once it is known where to and when. */
export interface Carrier {
	/** It is its turn. */
	dispatch(body: Body): void;
	/** The gate itself answers, with what all hosts say together. */
	answerMerged(): void;
	refuse(refusal: Refusal): void;
	/** It may be told how many are ahead of it. */
	stillWaits(ahead: number): void;
	/** Ends what runs upstream, without a word to anybody. */
	abort(): void;
	/** Whether nothing of a reply has come, and the body is still where it was: all of it, if it is not kept. */
	maySendAgain(isKept: boolean): boolean;
}

/** What a gate says whose Ollama has broken off, or was silent; any other refusal comes before work. */
const brokeOff = new Set([502, 504]);

/** Where a request goes, of several hosts, and step 6b: when. */
export class Errand implements Turn {
	/** Its place in the queue, where there is one. */
	ticket: Ticket | undefined;
	/** Its turn has not come. */
	isWaiting = false;
	#fault: UpstreamFault["kind"] | undefined;
	readonly #exchange: Exchange;
	readonly #state: GateState;
	readonly #carrier: Carrier;
	/** As it was when it began or was placed, or what its host has become. */
	#one: OneOllama;
	readonly #beganWithHosts: boolean;
	/** `undefined` where it goes to the one Ollama. */
	#destination: Destination | undefined;
	/** What is to be sent, or sent once more. */
	#body: Body;
	#facts: Facts | undefined;
	#isPlaced = false;
	/** The body is small enough to be kept for another host. The memory of a larger one is given back as it is sent. */
	#isKept = false;

	constructor(exchange: Exchange, state: GateState, carrier: Carrier) {
		this.#exchange = exchange;
		this.#state = state;
		this.#carrier = carrier;
		this.#one = state.one;
		this.#beganWithHosts = state.pool !== undefined;
	}

	/** The host that it is with or waits for, of several. */
	get host(): Host | undefined {
		return this.#destination?.host;
	}

	/** Where it is or waits; `undefined` until a host was chosen. */
	get at(): Host | OneOllama | undefined {
		return this.#destination === undefined ? this.#one : this.#destination.host;
	}

	/** It waits where a reload leaves its model no more. */
	get isMisplaced(): boolean {
		return this.isWaiting && this.#destination?.isMisplaced === true;
	}

	/** Where it is to be sent now: a reload may have changed it until it is its turn. */
	get upstream(): Upstream {
		return (this.#destination ?? this.#one).upstream;
	}

	/** The model that it takes a turn for, as it was asked for last. */
	get model(): string | undefined {
		return this.ticket?.model;
	}

	/**
	 * Sends a request on its way.
	 *
	 * @param facts what its body says, where that was read
	 * @param beginning what of the body has come, where there are facts
	 */
	place(body: Body, facts?: Facts, beginning?: Buffer): void {
		if (this.#exchange.ended) return;
		this.#body = body;
		this.#facts = facts;
		const { pool } = this.#state;
		// A reload may have brought hosts since the body was read without a look at its model.
		const isEnough =
			this.#beganWithHosts ||
			facts !== undefined ||
			!goesByBody(this.#state, this.#exchange.routeMatch.route);
		if (pool !== undefined && isEnough) {
			const destination = new Destination(this.#exchange, this.#state, pool);
			if (destination.isMerged) {
				this.#carrier.answerMerged();
				return;
			}
			const news = destination.news(facts);
			if (news === undefined) this.#choose(destination, beginning);
			else
				void news.then(() => {
					// Others may have taken the place of the hosts that it asked.
					if (this.#state.pool === pool) this.#choose(destination, beginning);
					else this.place(body, facts, beginning);
				});
			return;
		}
		if (pool === undefined) this.#one = this.#state.one;
		this.#wait();
	}

	#choose(destination: Destination, beginning: Buffer | undefined): void {
		if (this.#exchange.ended) return;
		const refusal = destination.choose(this.#facts, beginning);
		if (refusal !== undefined) {
			this.#carrier.refuse(refusal);
			return;
		}
		this.#goTo(destination);
		this.#wait();
	}

	#goTo(destination: Destination): void {
		const body = this.#body;
		this.#destination = destination;
		this.#isPlaced = true;
		this.#isKept =
			body === undefined ||
			(Buffer.isBuffer(body) && body.length <= wholeBodyBytes);
	}

	#wait(): void {
		const { queue } = this.#destination ?? this.#one;
		if (queue === undefined || this.#facts === undefined) {
			this.go();
			return;
		}
		this.isWaiting = true;
		this.ticket = waitForTurn(this.#exchange, this.#facts, queue, this);
		// It may have come to an end already.
		if (this.#exchange.ended) this.end();
	}

	go(): void {
		this.isWaiting = false;
		const body = this.#body;
		if (!this.#isKept) this.#body = undefined;
		// What is not read hears of nothing. The exchange ends with its connection.
		if (isGivenUp(this.#exchange)) return;
		this.#carrier.dispatch(body);
	}

	refuse(refusal: Refusal): void {
		const isAway = refusal.reason === "upstream_unreachable";
		if (!isAway || !this.moveOn()) this.#carrier.refuse(refusal);
	}

	stillWaits(ahead: number): void {
		this.#carrier.stillWaits(ahead);
	}

	stop(): void {
		this.#carrier.abort();
		this.end();
	}

	/**
	 * Goes on at another host, once at each, where nothing of a reply has come and
	 * what was sent can be sent again. Returns false if it cannot.
	 *
	 * @param hasWorked whether the host may have worked for it since it was sent
	 */
	moveOn(hasWorked = this.#fault !== "unreachable"): boolean {
		if (
			this.#exchange.ended ||
			!this.#carrier.maySendAgain(this.#isKept) ||
			!this.#chooseAnother()
		)
			return false;
		const { ticket } = this;
		this.#carrier.abort();
		this.ticket = undefined;
		this.isWaiting = false;
		ticket?.end(faultOf(this.#fault));
		this.#fault = undefined;
		const { replyHeaders, dispatchedAtMs } = this.#exchange;
		// A prompt that brings one host down after the other costs what it took of each.
		if (hasWorked && dispatchedAtMs !== undefined)
			this.#exchange.lostMs += performance.now() - dispatchedAtMs;
		// While it waits for the next it runs nowhere.
		this.#exchange.dispatchedAtMs = undefined;
		const at = replyHeaders.indexOf(queueHeader);
		if (at !== -1) replyHeaders.splice(at, 2);
		this.#wait();
		return true;
	}

	#chooseAnother(): boolean {
		if (this.#destination !== undefined)
			return this.#isPlaced && this.#destination.chooseAnother();
		const { pool } = this.#state;
		if (pool === undefined || !this.isWaiting) return false;
		// Hosts have taken the place of the one Ollama that it waits for.
		const destination = new Destination(this.#exchange, this.#state, pool);
		if (destination.choose(this.#facts, undefined, true) !== undefined)
			return false;
		this.#goTo(destination);
		return true;
	}

	/** A host is the one Ollama that it is with, or waits for, and has its place in the queue. */
	settle(host: Host, pool: HostPool): void {
		if (!this.#hasPlace) return;
		const destination = new Destination(this.#exchange, this.#state, pool);
		destination.settle(host, this.#facts);
		// What was sent stays where it is.
		if (this.isWaiting) this.#goTo(destination);
		else this.#destination = destination;
	}

	/** The same the other way: the host that it is with, or waits for, is the one Ollama. */
	settleAt(one: OneOllama): void {
		if (!this.#hasPlace) return;
		this.#destination?.leave(undefined);
		this.#destination = undefined;
		this.#exchange.upstream = undefined;
		this.#isPlaced = false;
		this.#one = one;
	}

	get #hasPlace(): boolean {
		const { ticket } = this;
		return (
			!this.#exchange.ended && ticket !== undefined && ticket.state !== "over"
		);
	}

	/**
	 * Whether a reply with this status is for the client. If not, another host is
	 * asked, or it has been refused.
	 */
	mayPass(status: number): boolean {
		if (this.#destination === undefined) return true;
		const { host } = this;
		const verdict = this.#destination.judge(status);
		// What this says of the host may have moved all that was with it, and this too.
		if (this.host !== host) return false;
		if (verdict !== "pass") {
			if (this.moveOn(brokeOff.has(status))) return false;
			if (verdict !== "elsewhere") {
				this.#carrier.refuse(verdict);
				return false;
			}
		}
		// From now on no other host is asked.
		this.#isPlaced = false;
		this.#body = undefined;
		return true;
	}

	/** The connection has failed. Returns what to say of it, or `undefined` if it goes on elsewhere. */
	failed(fault: UpstreamFault, name: string): Refusal | undefined {
		this.#fault = fault.kind;
		const { host } = this;
		this.#destination?.failed(fault);
		if (this.host !== host || this.moveOn()) return undefined;
		return describeFault(
			fault,
			host === undefined ? name : `${name} (the host ${host.name})`,
		);
	}

	/** Nothing has come for too long. Returns whether it goes on elsewhere. @param why in words */
	wentSilent(why: string): boolean {
		const { host } = this;
		this.#destination?.wentSilent(why);
		return this.host !== host || this.moveOn();
	}

	/** It has ended, as far as the queue is concerned. */
	end(): void {
		this.ticket?.end(faultOf(this.#fault));
	}

	/** Its client has left. Returns whether it is kept, as others want the model that it makes Ollama load. */
	abandon(): boolean {
		return this.ticket?.abandon() === true;
	}

	/** The exchange is over. */
	leave(outcome: Outcome): void {
		if (this.#destination === undefined) return;
		const { dispatchedAtMs, routeMatch } = this.#exchange;
		// What a host has refused, or a client has left, says nothing of the next.
		const isWork = outcome === "ok" && routeMatch.route.scope === "infer";
		this.#destination.leave(
			isWork && dispatchedAtMs !== undefined
				? performance.now() - dispatchedAtMs
				: undefined,
		);
	}
}
