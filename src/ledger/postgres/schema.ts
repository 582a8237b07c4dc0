import type { Client } from "pg";
import { Finding } from "../../errors.ts";

/** What this llamagate reads and writes. */
export const schemaVersion = 1;
/** Ledgers that start at once make the tables one after the other. */
const lockKey = 0x4c476c65;

const amounts = `requests bigint NOT NULL,
	tokensIn bigint NOT NULL,
	tokensOut bigint NOT NULL,
	gpuMs bigint NOT NULL,
	loadMs bigint NOT NULL,
	queueMs bigint NOT NULL`;

const rollUp = (name: string) => `CREATE TABLE llamagate.${name} (
	bucket bigint NOT NULL,
	party bigint NOT NULL,
	refused bigint NOT NULL,
	${amounts},
	PRIMARY KEY (bucket, party)
);`;

/**
 * As in the file of one host. A party is found by a digest of its names, since an
 * index takes no names as long as these may be.
 */
const statements = `
CREATE TABLE llamagate.version (form integer NOT NULL);
INSERT INTO llamagate.version VALUES (${schemaVersion});
CREATE TABLE llamagate.gates (
	name text PRIMARY KEY,
	retentionMs bigint NOT NULL,
	seen bigint NOT NULL
);
CREATE TABLE llamagate.parties (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	digest bytea NOT NULL UNIQUE,
	gate text NOT NULL,
	"user" text NOT NULL,
	userBy text NOT NULL,
	key text NOT NULL,
	node text NOT NULL,
	model text NOT NULL,
	route text NOT NULL
);
CREATE TABLE llamagate.records (
	time bigint NOT NULL,
	party bigint NOT NULL,
	outcome smallint NOT NULL,
	${amounts}
);
CREATE INDEX ON llamagate.records (time);
${rollUp("hours")}
${rollUp("days")}
CREATE TABLE llamagate.sources (
	name text PRIMARY KEY,
	batch bigint NOT NULL,
	seen bigint NOT NULL
);
`;

/**
 * Makes the tables where there are none, in a schema of their own.
 *
 * @throws {Finding} if a newer llamagate has made them, or if they are another program's
 */
export async function prepareSchema(client: Client): Promise<void> {
	if (await isOurs(client)) return;
	await client.query("BEGIN");
	await client.query("SELECT pg_advisory_xact_lock($1)", [lockKey]);
	if (!(await isOurs(client))) {
		// Anyone who may not make it may have been given one.
		const { rows } = await client.query(
			"SELECT FROM pg_namespace WHERE nspname = 'llamagate'",
		);
		if (rows.length === 0) await client.query("CREATE SCHEMA llamagate");
		await client.query(statements);
	}
	await client.query("COMMIT");
}

async function isOurs(client: Client): Promise<boolean> {
	const { rows } = await client.query<{
		encoding: string;
		versions: boolean;
		tables: string;
	}>(`SELECT current_setting('server_encoding') AS encoding,
		to_regclass('llamagate.version') IS NOT NULL AS versions,
		(SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('llamagate')) AS tables`);
	const [found] = rows;
	if (found?.encoding !== "UTF8")
		throw new Finding(
			`the database's encoding is ${found?.encoding}, and names may be in any script; make one with: createdb --encoding=UTF8 --template=template0 NAME`,
		);
	if (!found.versions) {
		if (found.tables !== "0")
			throw new Finding(
				'the database has a schema "llamagate" that is another program\'s; name another database in ledger.url',
			);
		return false;
	}
	const version = await client.query<{ form: number }>(
		"SELECT form FROM llamagate.version",
	);
	const form = version.rows[0]?.form ?? 0;
	if (form > schemaVersion)
		throw new Finding(
			`the database was written by a newer llamagate (its form is ${form}, this one knows ${schemaVersion}): install that version here too, or name another database in ledger.url`,
		);
	return true;
}
