import { readFile } from "node:fs/promises";
import { Socket } from "node:net";
import { Client } from "pg";
import type { DatabasePlace } from "../../config/databaseUrl.ts";
import { Finding } from "../../errors.ts";
import { TooSlow } from "./errors.ts";
import { readPassword } from "./password.ts";

/** How long a connection may take to be there. */
const connectMs = 5_000;
/** How long a server that answers at all has to say itself that it took too long. */
const graceMs = 2_000;
/** How long a connection may take to be closed. */
const closeMs = 1_000;

export interface ConnectionOptions extends DatabasePlace {
	/** How long a statement may run, and a half of it wait for a lock. */
	readonly statementMs: number;
}

/** Does what is to be done before a connection is used. */
export type Prepare = (client: Client) => Promise<void>;

/**
 * One connection to a database, made when it is wanted. What is asked of it goes
 * one after the other. It is thrown away at the first thing that goes wrong, and
 * made anew for the next; none of it waits for longer than it is told to.
 */
export class Connection {
	readonly #options: ConnectionOptions;
	readonly #prepare: Prepare;
	#open: { client: Client; socket: Socket } | undefined;
	#last: Promise<unknown> = Promise.resolve();
	#isClosed = false;

	constructor(options: ConnectionOptions, prepare: Prepare) {
		this.#options = options;
		this.#prepare = prepare;
	}

	/** @throws what the action throws, `TooSlow`, or why it cannot connect */
	run<T>(action: (client: Client) => Promise<T>): Promise<T> {
		const result = this.#last.then(() => this.#attempt(action));
		this.#last = result.catch(() => {});
		return result;
	}

	async #attempt<T>(action: (client: Client) => Promise<T>): Promise<T> {
		const { statementMs } = this.#options;
		try {
			const client = this.#open?.client ?? (await this.#connect());
			return await this.#within(statementMs + graceMs, () => action(client));
		} catch (error) {
			this.#drop();
			throw error;
		}
	}

	async #connect(): Promise<Client> {
		if (this.#isClosed) throw new Error("the ledger is being closed");
		const { database, passwordFile, statementMs } = this.#options;
		const { host, port, user, name, caFile, tls } = database;
		const socket = new Socket();
		const client = new Client({
			host,
			port,
			user,
			database: name,
			// Without one of these pg would look into the environment and the home.
			password: () => readPassword(passwordFile),
			ssl: tls && (await tlsOptions(caFile)),
			stream: () => socket,
			application_name: "llamagate-ledger",
			keepAlive: true,
		});
		this.#open = { client, socket };
		// It says so when it ends in between; the next one to ask is told.
		client.on("error", () => this.#forget(client));
		client.on("end", () => this.#forget(client));
		await this.#within(connectMs + statementMs + graceMs, async () => {
			await this.#within(connectMs, () => client.connect());
			// Of those that it cannot finish the server is rid too. A pooler may not know
			// them as parameters of the connection.
			await client.query(`SET statement_timeout = ${statementMs};
				SET lock_timeout = ${statementMs / 2};
				SET idle_in_transaction_session_timeout = ${statementMs};
				SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`);
			await this.#prepare(client);
		});
		return client;
	}

	/** Has something end in time, if need be by taking the connection away from it. */
	async #within<T>(limitMs: number, action: () => Promise<T>): Promise<T> {
		const { promise: tooLate, reject } = Promise.withResolvers<never>();
		const timer = setTimeout(() => {
			reject(
				new TooSlow(
					`the database did not answer in ${Math.round(limitMs / 1000)} s`,
				),
			);
			this.#drop();
		}, limitMs);
		const done = action();
		// What becomes of it later on is of no interest.
		done.catch(() => {});
		try {
			return await Promise.race([done, tooLate]);
		} finally {
			clearTimeout(timer);
		}
	}

	#forget(client: Client): void {
		if (this.#open?.client === client) this.#drop();
	}

	#drop(): void {
		this.#open?.socket.destroy();
		this.#open = undefined;
	}

	/** Lets what runs come to an end, for a moment, and closes it. */
	async close(): Promise<void> {
		this.#isClosed = true;
		const timer = setTimeout(() => this.#drop(), closeMs);
		await this.#last;
		await this.#open?.client.end().catch(() => {});
		clearTimeout(timer);
		this.#drop();
	}
}

/** pg checks the certificate against the host. */
async function tlsOptions(caFile: string | undefined) {
	if (caFile === undefined) return { rejectUnauthorized: true };
	try {
		return { rejectUnauthorized: true, ca: await readFile(caFile, "utf8") };
	} catch (error) {
		throw new Finding(
			`cannot read ${caFile}, the sslrootcert of ledger.url (${(error as NodeJS.ErrnoException).code})`,
		);
	}
}
