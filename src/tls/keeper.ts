import type { TlsSettings } from "../config/tls.ts";
import { BadFileError } from "../errors.ts";
import type { Log } from "../log.ts";
import { askForPair } from "../tailscale/certificate.ts";
import { createWhois } from "../tailscale/whois.ts";
import { type Certificate, type Names, readPair } from "./certificate.ts";
import type { Clock } from "./clock.ts";
import {
	loadPair,
	namesFor,
	noNames,
	type PairFiles,
	stateOf,
} from "./files.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
/** How often files are looked at. Not by inotify, which misses what a link leads to. */
const filePollMs = 10_000;
/** How often tailscaled is asked what this node is called: a node that is renamed needs another certificate. */
const namePollMs = hourMs;
/** Between two attempts to get a certificate, without one that clients take and with it: the first, and the longest; each is twice the one before. */
const backOff = {
	without: { firstMs: 2_000, mostMs: 5 * minuteMs },
	with: { firstMs: 10 * minuteMs, mostMs: 6 * hourMs },
} as const;
/** From this part of its time on a certificate is renewed, as Caddy and tailscaled have it. */
const renewalPart = 2 / 3;
/** How long before its end a certificate that nobody has renewed is told of, every day. */
export const noticeMs = 14 * dayMs;

const notYet = "tailscaled has no newer certificate yet";

/** What `GET /status` and the metrics say of TLS. */
export interface TlsStatus {
	/** Of the certificate in force, or of the one to come. */
	readonly source: "tailscale" | "files";
	/** Of the certificate in force; none while there is none. */
	readonly names: readonly string[];
	/** ISO 8601; null while there is none. */
	readonly ends: string | null;
	/** Why there is none, or why the newest is not in force; null where all is well. */
	readonly problem: string | null;
}

interface Options {
	readonly log: Log;
	readonly clock: Clock;
	/** Puts a certificate in force for new connections; none has them closed, and one that is asked for has them wait. */
	use(certificate: Certificate | "coming" | undefined): void;
}

/**
 * Keeps a good certificate in force: takes files over when they have changed,
 * has tailscaled renew its own in time, and says what is in the way. What was
 * in force stays so until there is something better, and nothing is written anywhere.
 */
export class CertificateKeeper {
	readonly #log: Log;
	readonly #clock: Clock;
	readonly #use: Options["use"];
	#settings: TlsSettings | undefined;
	#socket = "";
	#current: Certificate | undefined;
	#source: TlsSettings["kind"] | undefined;
	/** Of the node, when the certificate was taken. */
	#name = "";
	#problem: string | null = null;
	#renewAtMs = 0;
	#failures = 0;
	#toldAtMs = Number.NEGATIVE_INFINITY;
	/** Of the files: at the last look, and when they were found good, unless any were refused since. */
	#seen = "";
	#good = "";
	/** By which files were judged last. */
	#names: Names = noNames;
	#cancel = () => {};
	/** What was begun under other settings has no say any more. */
	#turn = 0;

	constructor({ log, clock, use }: Options) {
		this.#log = log;
		this.#clock = clock;
		this.#use = use;
	}

	/**
	 * Follows settings from now on. What files held stays in force until tailscaled has given
	 * its own.
	 *
	 * @param loaded what their files hold
	 * @param socket tailscaled's
	 */
	follow(
		settings: TlsSettings | undefined,
		loaded: Certificate | undefined,
		socket: string,
	): void {
		this.#turn += 1;
		this.#cancel();
		this.#settings = settings;
		this.#socket = socket;
		this.#failures = 0;
		this.#problem = null;
		if (settings?.kind !== "tailscale") this.#current = undefined;
		if (settings?.kind === "files") {
			this.#good = this.#seen = "";
			this.#names = noNames;
			if (loaded !== undefined) this.#take(loaded);
			this.#later(filePollMs, () => this.#lookAtFiles(settings));
		} else if (settings?.kind === "tailscale")
			this.#later(0, () => this.#lookAtTailscale());
		if (this.#current === undefined)
			this.#use(settings?.kind === "tailscale" ? "coming" : undefined);
	}

	stop(): void {
		this.#turn += 1;
		this.#cancel();
	}

	/** `undefined` where the gate speaks plain HTTP. */
	status(): TlsStatus | undefined {
		if (this.#settings === undefined) return undefined;
		const { names = [], notAfterMs } = this.#current ?? {};
		return {
			source:
				this.#current === undefined
					? this.#settings.kind
					: (this.#source ?? this.#settings.kind),
			names,
			ends:
				notAfterMs === undefined ? null : new Date(notAfterMs).toISOString(),
			problem: this.#problem,
		};
	}

	#later(delayMs: number, look: () => Promise<void>): void {
		const turn = this.#turn;
		this.#cancel = this.#clock.after(delayMs, () => {
			if (turn === this.#turn) void look();
		});
	}

	#take(next: Certificate): void {
		// The same one may come with others that vouch for it.
		const isNew =
			next.cert !== this.#current?.cert || next.key !== this.#current?.key;
		this.#current = next;
		this.#source = this.#settings?.kind;
		this.#problem = null;
		if (!isNew) return;
		this.#failures = 0;
		this.#use(next);
		this.#log.info(
			{ names: next.names, ends: new Date(next.notAfterMs).toISOString() },
			"certificate in force",
		);
		this.#toldAtMs = Number.NEGATIVE_INFINITY;
	}

	/** Says what keeps a new certificate away, once as long as it is the same. */
	#fail(problem: string, facts: object): void {
		this.#failures += 1;
		if (this.#problem === problem) return;
		this.#problem = problem;
		this.#log.error(
			{ event: "certificate_refused", ...facts, why: problem },
			this.#current === undefined
				? "the certificate is missing, so every connection is closed; it is tried again"
				: "no new certificate; the one before stays in force, and it is tried again",
		);
	}

	#warnOfEnd(): void {
		const nowMs = this.#clock.nowMs();
		const { notAfterMs } = this.#current ?? {};
		if (
			notAfterMs === undefined ||
			notAfterMs - nowMs > noticeMs ||
			nowMs - this.#toldAtMs < dayMs
		)
			return;
		this.#toldAtMs = nowMs;
		this.#log.warn(
			{
				event: "certificate_ends",
				ends: new Date(notAfterMs).toISOString(),
				why: this.#problem,
			},
			notAfterMs <= nowMs
				? "the certificate has ended, and clients refuse it; renew it"
				: "the certificate ends within 14 days; renew it",
		);
	}

	async #lookAtFiles(files: PairFiles): Promise<void> {
		const turn = this.#turn;
		const state = await stateOf(files);
		// Of two files that are replaced one after the other, neither fits the other's past.
		const isStill = state === this.#seen;
		this.#seen = state;
		// Those that were refused are read again, as they are: the time for which they
		// are good may come, the node be renamed, or the disk be back.
		if (isStill && state !== this.#good)
			await this.#readFiles(files, state, turn);
		if (turn !== this.#turn) return;
		this.#warnOfEnd();
		this.#later(filePollMs, () => this.#lookAtFiles(files));
	}

	async #readFiles(
		files: PairFiles,
		state: string,
		turn: number,
	): Promise<void> {
		// What was refused for its name is not let in because tailscaled is away.
		const names = await namesFor(files, this.#socket, this.#names);
		if (turn !== this.#turn) return;
		this.#names = names;
		try {
			const pair = await loadPair(files, names, this.#clock.nowMs());
			if (turn !== this.#turn) return;
			this.#good = state;
			this.#take(pair);
		} catch (error) {
			if (!(error instanceof BadFileError)) throw error;
			if (turn !== this.#turn) return;
			// They may be back with nothing changed, as where a disk was away.
			this.#good = "";
			const { file, mistakes } = error;
			this.#fail(error.message, { file, mistakes });
		}
	}

	async #lookAtTailscale(): Promise<void> {
		const turn = this.#turn;
		if (this.#current === undefined) this.#use("coming");
		const problem = await this.#renew(turn);
		if (turn !== this.#turn) return;
		if (this.#current === undefined) this.#use(undefined);
		if (problem === notYet) this.#failures += 1;
		else if (problem !== undefined) this.#fail(problem, {});
		this.#warnOfEnd();
		this.#later(this.#delayMs(), () => this.#lookAtTailscale());
	}

	/** @returns what is in the way */
	async #renew(turn: number): Promise<string | undefined> {
		const answer = await createWhois({ socket: this.#socket }).status();
		if (turn !== this.#turn) return undefined;
		if (answer.kind !== "status") return answer.reason;
		const { dnsName, backendState } = answer.status;
		if (dnsName === "")
			return `this node has no name, as tailscaled is in the state ${backendState}; see: tailscale status`;
		const nowMs = this.#clock.nowMs();
		if (
			this.#isTailscales &&
			this.#name === dnsName &&
			nowMs < this.#renewAtMs
		) {
			this.#problem = null;
			this.#failures = 0;
			return undefined;
		}
		const pair = await askForPair(this.#socket, dnsName);
		if (turn !== this.#turn) return undefined;
		if (pair.kind !== "pair") return pair.reason;
		const read = readPair(
			pair.pem,
			pair.pem,
			{ dnsNames: [dnsName], addresses: [] },
			nowMs,
		);
		if ("of" in read)
			return `what tailscaled gave will not do: ${read.message}`;
		const isSame = read.fingerprint === this.#current?.fingerprint;
		this.#name = dnsName;
		if (!isSame || !this.#isTailscales) this.#renewAtMs = this.#renewalOf(read);
		this.#take(read);
		// It gives what it has, and gets another meanwhile.
		return isSame && nowMs >= this.#renewAtMs ? notYet : undefined;
	}

	/** Whether the certificate in force is tailscaled's, and none that files held before. */
	get #isTailscales(): boolean {
		return this.#current !== undefined && this.#source === "tailscale";
	}

	/** Not the same moment for every gate: a tenth of the last third sooner or later. */
	#renewalOf({ notBeforeMs, notAfterMs }: Certificate): number {
		const lastMs = (notAfterMs - notBeforeMs) * (1 - renewalPart);
		return notAfterMs - lastMs * (0.9 + 0.2 * this.#clock.random());
	}

	#delayMs(): number {
		const nowMs = this.#clock.nowMs();
		if (this.#failures === 0)
			return Math.min(namePollMs, Math.max(this.#renewAtMs - nowMs, 1_000));
		const leftMs = (this.#current?.notAfterMs ?? nowMs) - nowMs;
		const { firstMs, mostMs } =
			backOff[leftMs > 0 && this.#isTailscales ? "with" : "without"];
		const fullMs = Math.min(firstMs * 2 ** (this.#failures - 1), mostMs);
		const delayMs = fullMs * (0.5 + this.#clock.random() / 2);
		// Nobody gets in with one that has ended, so its end is not slept through.
		return leftMs > 0 ? Math.min(delayMs, leftMs) : delayMs;
	}
}
