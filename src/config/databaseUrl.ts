import path from "node:path";
import { isLoopbackAddress, isTailscaleAddress } from "../net/ranges.ts";

/** A PostgreSQL database, and how it is reached. */
export interface Database {
	/** A name or an address, or the folder of its Unix socket. */
	readonly host: string;
	readonly port: number;
	readonly user: string;
	readonly name: string;
	/** Whether it must prove itself by a certificate for `host`; what it signs with is told of nowhere else. */
	readonly tls: boolean;
	/** The authority that its certificate is from, where it is none that Node knows. */
	readonly caFile: string | undefined;
}

/** A database, and what opens it. */
export interface DatabasePlace {
	readonly database: Database;
	/** Absolute. */
	readonly passwordFile: string | undefined;
}

/**
 * Reads `postgres://USER@HOST:PORT/NAME`, in libpq's form (a folder of a socket
 * is in place of the host, with `%2F` for its slashes). TLS, with the
 * server's certificate checked, is used but for a Unix socket, loopback and
 * addresses of the tailnet, where nobody else listens.
 *
 * @returns it, or what is wrong with it
 */
export function readDatabaseUrl(text: string): Database | string {
	if (!/^postgres(ql)?:\/\//.test(text) || !URL.canParse(text))
		return 'expected "postgres://USER@HOST/DATABASE"';
	const url = new URL(text);
	const parameters = new Map(url.searchParams);
	const parts = [url.hostname, url.username, url.pathname.slice(1)];
	let decoded: string[];
	try {
		decoded = parts.map(decodeURIComponent);
	} catch {
		return "has a % that is not an escape";
	}
	const [hostname = "", user = "", name = ""] = decoded;
	if (url.password !== "" || parameters.has("password"))
		return "has a password in it; write it into a file that ledger.passwordFile names";
	if (hostname === "" || user === "" || name === "" || url.hash !== "")
		return 'expected a user, a host and a database: "postgres://USER@HOST/DATABASE"';
	const known = ["sslmode", "sslrootcert"];
	const unknown = [...parameters.keys()].find((one) => !known.includes(one));
	if (unknown !== undefined)
		return `has "${unknown}" in it, and only ${known.join(" and ")} are known`;
	// A stranger might answer for the name.
	const host =
		hostname === "localhost" ? "127.0.0.1" : hostname.replace(/^\[|\]$/g, "");
	const isNear =
		host.startsWith("/") || isLoopbackAddress(host) || isTailscaleAddress(host);
	const mode = parameters.get("sslmode");
	const caFile = parameters.get("sslrootcert");
	if (mode !== undefined && mode !== "verify-full" && mode !== "disable")
		return `has sslmode=${mode}, and only verify-full and disable are known: a certificate that is not checked proves nothing`;
	if (mode === "disable" && !isNear)
		return "has sslmode=disable, and only loopback, a Unix socket and addresses of the tailnet may be without TLS";
	if (caFile !== undefined && !path.isAbsolute(caFile))
		return "has a relative path as sslrootcert; write it from / on";
	const tls =
		!host.startsWith("/") &&
		mode !== "disable" &&
		(!isNear || mode !== undefined || caFile !== undefined);
	if (!tls && caFile !== undefined) return "has sslrootcert, and uses no TLS";
	return {
		host,
		port: url.port === "" ? 5432 : Number(url.port),
		user,
		name,
		tls,
		caFile,
	};
}

/** Where it is, for people. */
export function formatDatabase({ host, port, name }: Database): string {
	return host.startsWith("/")
		? `${name} at ${host}`
		: `${name} at ${host.includes(":") ? `[${host}]` : host}:${port}`;
}
