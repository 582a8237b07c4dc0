import type { DatabaseSync } from "node:sqlite";

/** "LGle": which SQLite files are ledgers. */
export const applicationId = 0x4c476c65;
/** What this llamagate reads and writes. */
export const schemaVersion = 1;

const amounts = `requests INTEGER NOT NULL,
	tokensIn INTEGER NOT NULL,
	tokensOut INTEGER NOT NULL,
	gpuMs INTEGER NOT NULL,
	loadMs INTEGER NOT NULL,
	queueMs INTEGER NOT NULL`;

const rollUp = (name: string) => `CREATE TABLE ${name} (
	bucket INTEGER NOT NULL,
	party INTEGER NOT NULL,
	refused INTEGER NOT NULL,
	${amounts},
	PRIMARY KEY (bucket, party)
) STRICT, WITHOUT ROWID;`;

/**
 * Names stand once, in `parties`, since a record is a tenth of them. The roll-ups
 * count hours and days (UTC) since 1970, and are written with the records that
 * they sum up, in one transaction.
 */
const statements = `
CREATE TABLE parties (
	id INTEGER PRIMARY KEY,
	user TEXT NOT NULL,
	userBy TEXT NOT NULL,
	key TEXT NOT NULL,
	node TEXT NOT NULL,
	model TEXT NOT NULL,
	route TEXT NOT NULL,
	UNIQUE (user, userBy, key, node, model, route)
) STRICT;
CREATE TABLE records (
	time INTEGER NOT NULL,
	party INTEGER NOT NULL,
	outcome INTEGER NOT NULL,
	${amounts}
) STRICT;
CREATE INDEX recordsByTime ON records (time);
${rollUp("hours")}
${rollUp("days")}
CREATE TABLE sources (
	name TEXT PRIMARY KEY,
	batch INTEGER NOT NULL,
	seen INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
`;

/** Makes the tables of a new file. */
export function createSchema(db: DatabaseSync): void {
	db.exec(`BEGIN IMMEDIATE;
PRAGMA application_id = ${applicationId};
PRAGMA user_version = ${schemaVersion};
${statements}
COMMIT;`);
}
