import { Finding } from "../../errors.ts";

/** An error of the server's has its five letters (postgresql.org/docs/current/errcodes-appendix.html), one of Node's a name. */
interface CodedError extends Error {
	readonly code?: string;
}

/** The database did not answer in time. */
export class TooSlow extends Error {}

function codeOf(error: unknown): string {
	return (error as CodedError).code ?? "";
}

const meanings: Readonly<Record<string, string>> = {
	"28P01": "the database refuses the password",
	"28000":
		"the database lets this user in from here by none of its rules (pg_hba.conf)",
	"3D000": "the server has no such database",
	"42501": "the database's user may not do this",
	"53100": "the database's disk is full",
	"53300": "the database has no connection left",
	"55P03": "a table is locked by another program",
	"57014": "the database took too long",
	"57P01": "the database is being stopped",
	"57P02": "the database is being stopped",
	"57P03": "the database is being started",
	"25006": "the database can only be read; is it a standby?",
	ECONNREFUSED: "no database answers there",
	ENOENT: "no database answers there",
	ECONNRESET: "the database closed the connection",
	EPIPE: "the database closed the connection",
	ENOTFOUND: "the database's host is not known",
	EAI_AGAIN: "the database's host cannot be looked up",
	EHOSTUNREACH: "the database's host cannot be reached",
	ENETUNREACH: "the database's host cannot be reached",
	EACCES: "this user may not open the database's socket",
};

/** Why the database could not be used, for people. */
export function explain(error: unknown): string {
	const { message } = error as Error;
	if (error instanceof Finding || error instanceof TooSlow) return message;
	const meaning = /^Connection terminated/.test(message)
		? meanings.ECONNRESET
		: meanings[codeOf(error)];
	return meaning === undefined ? message : `${meaning} (${message})`;
}
