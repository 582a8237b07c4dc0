import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
	appendFileSync,
	chownSync,
	existsSync,
	readdirSync,
	writeFileSync,
} from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { Client } from "pg";
import {
	type Database,
	readDatabaseUrl,
} from "../../src/config/databaseUrl.ts";
import { freePort } from "./freePort.ts";
import { temporaryFolder } from "./temporaryFolder.ts";

interface Teardown {
	teardown(action: () => unknown): unknown;
}

const versions = "/usr/lib/postgresql";
const newest = existsSync(versions)
	? readdirSync(versions)
			.filter((name) => existsSync(path.join(versions, name, "bin/initdb")))
			.sort((a, b) => Number(a) - Number(b))
			.at(-1)
	: undefined;
const isRoot = process.getuid?.() === 0;

/** The option of tests that need Debian's postgresql. */
export function postgres(): { skip: string | false } {
	return {
		skip:
			newest === undefined &&
			"PostgreSQL is not installed: apt-get install postgresql",
	};
}

const owner = "owner";
const password = "correct horse";

/** A PostgreSQL of a test's own, on loopback and a Unix socket. */
export interface TestPostgres {
	readonly folder: string;
	readonly port: number;
	/** Holds the password of its user. */
	readonly passwordFile: string;
	readonly password: string;
	/** Makes an empty database. */
	createDatabase(options?: string): Promise<TestDatabase>;
	/** Does something as its owner. */
	sql(database: string, text: string): Promise<Record<string, unknown>[]>;
	start(options?: readonly string[]): Promise<void>;
	/** @param how "fast" breaks connections off, "immediate" is a crash */
	stop(how?: "fast" | "immediate"): Promise<void>;
	readonly pid: number;
}

export interface TestDatabase {
	readonly name: string;
	readonly url: string;
	readonly database: Database;
}

interface PostgresOptions {
	/** Where it listens. */
	readonly address?: string;
	/** What runs it, such as `ip netns exec`. */
	readonly launcher?: readonly string[];
	/** More of its own, such as `fsync=on`, which a crash of the machine would need. */
	readonly settings?: readonly string[];
}

/** Starts one; the test's end stops it. */
export async function startPostgres(
	t: Teardown,
	{
		address = "127.0.0.1",
		launcher = [],
		settings: always = [],
	}: PostgresOptions = {},
): Promise<TestPostgres> {
	const folder = await temporaryFolder(t);
	const passwordFile = path.join(folder, "password");
	writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 });
	giveToServer(folder);
	giveToServer(passwordFile);
	const data = path.join(folder, "data");
	execFileSync(
		...asServer(
			...["initdb", "-D", data, "-U", owner, "-E", "UTF8", "--no-sync"],
			...["--auth=scram-sha-256", `--pwfile=${passwordFile}`],
			"--no-locale",
		),
		{ stdio: ["ignore", "ignore", "inherit"] },
	);
	appendFileSync(
		path.join(data, "pg_hba.conf"),
		"host all all 0.0.0.0/0 scram-sha-256\n",
	);
	const port = await freePort();
	let child: ChildProcess | undefined;
	const start = async (more: readonly string[] = []) => {
		const settings = [
			...["fsync=off", `listen_addresses=${address}`, "max_connections=40"],
			...[`port=${port}`, `unix_socket_directories=${folder}`],
			...[...always, ...more],
		].flatMap((one) => ["-c", one]);
		const [server, args] = asServer("postgres", "-D", data, ...settings);
		const [file = "", ...rest] = [...launcher, server, ...args];
		child = spawn(file, rest, {
			stdio: ["ignore", "ignore", "pipe"],
			cwd: folder,
		});
		const said: string[] = [];
		const { promise: ready, resolve } = Promise.withResolvers<void>();
		// It never stands still for want of a reader.
		if (child.stderr !== null)
			createInterface({ input: child.stderr }).on("line", (line) => {
				said.push(line);
				if (line.includes("ready to accept connections")) resolve();
			});
		await Promise.race([
			ready,
			once(child, "exit").then(() => {
				throw new Error(`PostgreSQL did not start: ${said.join("\n")}`);
			}),
		]);
	};
	const stop = async (how: "fast" | "immediate" = "fast") => {
		if (child === undefined || child.exitCode !== null) return;
		const exited = once(child, "exit");
		child.kill(how === "fast" ? "SIGINT" : "SIGQUIT");
		await exited;
	};
	t.teardown(() => {
		child?.kill("SIGCONT");
		return stop("immediate");
	});
	const sql = async (database: string, text: string) => {
		const client = new Client({
			...{ host: folder, port, user: owner, password, database },
		});
		await client.connect();
		try {
			const result = await client.query(text);
			return result.rows as Record<string, unknown>[];
		} finally {
			await client.end();
		}
	};
	await start();
	let databases = 0;
	return {
		folder,
		port,
		passwordFile,
		password,
		sql,
		start,
		stop,
		get pid() {
			return child?.pid ?? 0;
		},
		async createDatabase(how = "") {
			databases += 1;
			const name = `ledger${databases}`;
			await sql("postgres", `CREATE DATABASE ${name} ${how}`);
			const url = `postgres://${owner}@${address}:${port}/${name}`;
			const database = readDatabaseUrl(url);
			if (typeof database === "string") throw new Error(database);
			return { name, url, database };
		},
	};
}

/** Makes a file or folder the server's. */
export function giveToServer(file: string): void {
	if (!isRoot) return;
	const id = (flag: string) =>
		Number(execFileSync("id", [flag, "postgres"], { encoding: "utf8" }));
	chownSync(file, id("-u"), id("-g"));
}

/** The server refuses to run as root. */
function asServer(program: string, ...args: string[]): [string, string[]] {
	const file = path.join(versions, newest ?? "", "bin", program);
	return isRoot
		? [
				"setpriv",
				[
					...["--reuid=postgres", "--regid=postgres", "--init-groups"],
					...[file, ...args],
				],
			]
		: [file, args];
}
