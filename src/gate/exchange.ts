import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Credential } from "../keys/keyring.ts";
import type { Reservation } from "../ledger/budgets.ts";
import type { Outcome } from "../ledger/record.ts";
import type { Usage } from "../ollama/replyCounts.ts";
import type { Family, Match, Route } from "../ollama/routes.ts";
import type { TailscaleNode } from "../tailscale/localApi.ts";
import type { AccessLog } from "./accessLog.ts";
import { type Connection, idleMs } from "./connection.ts";
import type { Refusal } from "./refusal.ts";
import type { Head } from "./requestHead.ts";
import type { Person } from "./user.ts";

export type { Outcome };

const processId = randomBytes(4).toString("hex");
let exchangeCount = 0;

const closes: readonly string[] = ["connection", "close"];
const stays = {
	stranger: keepAlive(idleMs.stranger),
	known: keepAlive(idleMs.known),
};

function keepAlive(ms: number): readonly string[] {
	return ["connection", "keep-alive", "keep-alive", `timeout=${ms / 1000}`];
}

/** Most requests have none, so this is one for all of them. */
const noReservations: readonly Reservation[] = [];

/** What is relayed of Ollama's reply. */
interface RelayedReply {
	/** The client has had its last words, though its end has not come. */
	readonly saidAll: boolean;
	usage(): Usage | undefined;
	/** Tokens that passed without a count of Ollama's. */
	untoldTokens(): number;
}

/** One request and its reply, from arrival to its line in the log. */
export class Exchange {
	/** Unique in this process's life, and told to the client as `x-request-id`. */
	readonly id = `${processId}-${(++exchangeCount).toString(36)}`;
	readonly startedAtMs = performance.now();
	/** Header lines that every reply to this request carries, names and values in turn. */
	readonly replyHeaders: string[] = [
		"x-request-id",
		this.id,
		"x-content-type-options",
		"nosniff",
	];
	readonly req: IncomingMessage;
	readonly res: ServerResponse;
	readonly connection: Connection;
	readonly head: Head;
	readonly match: Match;
	/** Whether the client waits for `100 Continue` before it sends its body. */
	readonly expectsContinue: boolean;
	/** What is wrong with the request's framing; said only behind the key. */
	misframed: Refusal | undefined;
	credential: Credential | undefined;
	/** Who was proved to be behind it, beyond the key; whose it counts as says `userOf`. */
	person: Person | undefined;
	/** The key came as the password of Basic. */
	isBasic = false;
	/** The connection is to be closed soon: behind this reply, unless another request is carried out behind it. */
	parting = false;
	status = 0;
	reason: string | undefined;
	ttftMs: number | undefined;
	bytesIn = 0;
	bytesOut = 0;
	/** Pieces of the reply that were passed on; of a stream about one for each token. */
	piecesOut = 0;
	/** The host that it was sent to, of several. */
	upstream: string | undefined;
	/** When it was sent to Ollama; `performance.now()`. */
	dispatchedAtMs: number | undefined;
	/** When the reply had come to its end, which its client may not have for a while; `performance.now()`. */
	repliedAtMs: number | undefined;
	/** How long hosts worked for it that then failed it, in milliseconds. */
	lostMs = 0;
	usage: Usage | undefined;
	/** How long it has waited for its turn, where it had to have one. */
	queueMs: number | undefined;
	/** The tailnet device, where it was looked up. */
	node: TailscaleNode | undefined;
	/** What the tailnet's policy grants the device, as it is there. */
	grants: readonly unknown[] | undefined;
	/** Why no device was found. */
	identityFault: string | undefined;
	/** A path that is not in the table, fit for the log; of requests with a key alone. */
	wrongPath: string | undefined;
	/** Its parts of its key's budgets. */
	reservations = noReservations;
	/** Its class is `batch`, whatever its key's is: the budget is used up, or not known. */
	isDemoted = false;
	reply: RelayedReply | undefined;
	ended = false;
	index = -1;
	#closes = false;
	/** What must be given back or stopped at the end: a slot, an upstream request. */
	readonly #atEnd: ((outcome: Outcome) => void)[] = [];
	readonly #log: AccessLog;

	constructor(
		log: AccessLog,
		req: IncomingMessage,
		res: ServerResponse,
		connection: Connection,
		head: Head,
		match: Match,
		expectsContinue: boolean,
	) {
		this.#log = log;
		this.req = req;
		this.res = res;
		this.connection = connection;
		this.head = head;
		this.match = match;
		this.expectsContinue = expectsContinue;
		connection.exchanges.add(this);
	}

	/** @throws {Error} before the step that looks at the key has let it through */
	get knownCredential(): Credential {
		if (this.credential === undefined)
			throw new Error("a request without a credential was let through");
		return this.credential;
	}

	/** @throws {Error} before the step that looks at the route has let it through */
	get routeMatch(): Extract<Match, { kind: "route" }> {
		if (this.match.kind !== "route")
			throw new Error("a request that matches no route was let through");
		return this.match;
	}

	get route(): Route | undefined {
		return this.match.kind === "route" ? this.match.route : undefined;
	}

	get family(): Family {
		return this.match.kind === "route"
			? this.match.route.family
			: this.match.family;
	}

	/** Whether the connection is to be closed behind the reply. */
	get closing(): boolean {
		return (
			this.#closes || (this.parting && this.connection.latest === this.req)
		);
	}

	set closing(closes: boolean) {
		this.#closes = closes;
	}

	/**
	 * Only its reply will say whether the connection stays open: one in HTTP/1.0 has no
	 * end without a length, and a refusal of what expects leave to go on closes.
	 */
	get mayYetClose(): boolean {
		const { req, res, head } = this;
		const isUnclear = req.httpVersion === "1.0" || head.expect.length > 0;
		return isUnclear && !res.headersSent;
	}

	atEnd(action: (outcome: Outcome) => void): void {
		if (this.ended) action("client_gone");
		else this.#atEnd.push(action);
	}

	/** The header lines that say how long the connection stays open; where it closes, what follows the reply is not looked at. */
	connectionLines(): readonly string[] {
		const { connection } = this;
		if (this.closing) {
			this.#closes = true;
			connection.closing = true;
			return closes;
		}
		return connection.key === undefined ? stays.stranger : stays.known;
	}

	/** The client's connection is gone. Some close it as soon as they have a stream's last event (Codex). */
	abandon(): void {
		if (this.reply?.saidAll === true) {
			this.end("ok");
			return;
		}
		// Nobody was sent this status; it is nginx's and Ollama's word for it in a log.
		if (this.status === 0) this.status = 499;
		this.end("client_gone");
	}

	/**
	 * Closes the account, once: gives everything back, counts and logs. What fails of
	 * that must not keep the rest from being given back, nor end the process.
	 */
	end(outcome: Outcome): void {
		if (this.ended) return;
		this.ended = true;
		this.connection.exchanges.delete(this);
		for (const action of this.#atEnd)
			try {
				action(outcome);
			} catch (error) {
				this.#log.enterFault(error, this.id);
			}
		try {
			this.#log.enter(this, outcome);
		} catch (error) {
			this.#log.enterFault(error, this.id);
		}
	}
}
