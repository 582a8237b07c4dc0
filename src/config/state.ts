import path from "node:path";
import { isLoopbackAddress } from "../net/ranges.ts";
import { got } from "./strictJson.ts";

/** Where a Valkey is. */
export type StateTarget =
	| {
			readonly kind: "tcp";
			readonly host: string;
			readonly port: number;
			readonly tls: boolean;
			/** The socket that leads there, where the network is out of reach; see bridges.ts. */
			readonly bridge?: string;
	  }
	| { readonly kind: "unix"; readonly socketPath: string };

/** Through what several gates share their limits. */
export interface StateSettings {
	readonly target: StateTarget;
	readonly user: string | undefined;
	/** Absolute, as is the next. */
	readonly passwordFile: string | undefined;
	readonly caFile: string | undefined;
	readonly prefix: string;
	/** How many gates there are taken to be while none has been counted. */
	readonly gates: number;
}

/** The section as the file has it. */
export interface StateSection {
	readonly url: string;
	readonly user?: string;
	readonly passwordFile?: string;
	readonly caFile?: string;
	readonly prefix: string;
	readonly gates: number;
}

const defaultPort = 6379;
/** Whether a scheme is one with TLS. */
const schemes: ReadonlyMap<string, boolean> = new Map([
	["valkey:", false],
	["redis:", false],
	["valkeys:", true],
	["rediss:", true],
]);

/**
 * Reads the section `state`.
 *
 * @param folder from which its files are resolved
 * @param refuse is told of what is wrong, and where in the section
 */
export function readState(
	section: StateSection | undefined,
	folder: string,
	refuse: (where: readonly string[], message: string) => void,
): StateSettings | undefined {
	if (section === undefined) return undefined;
	const { url, user, passwordFile, caFile, prefix, gates } = section;
	const target = readTarget(url);
	if (typeof target === "string") {
		refuse(["url"], target);
		return undefined;
	}
	if (user !== undefined && passwordFile === undefined)
		refuse(["user"], "has no password; name its file with state.passwordFile");
	if (caFile !== undefined && !(target.kind === "tcp" && target.tls))
		refuse(["caFile"], "is for valkeys:// alone; this url has no TLS");
	if (passwordFile === undefined && !isOfThisHost(target))
		refuse(
			["url"],
			"is on a network and has no password, so anyone who reaches it could lift limits and lockouts. Set one in Valkey (requirepass, or a user of its ACL), write it to a file, run chmod 600 on that, and name it with state.passwordFile; or use a loopback address or a unix: socket",
		);
	const resolve = (file: string | undefined) =>
		file === undefined ? undefined : path.resolve(folder, file);
	return {
		target,
		user,
		passwordFile: resolve(passwordFile),
		caFile: resolve(caFile),
		prefix,
		gates,
	};
}

/** @returns the target, or what is wrong */
function readTarget(url: string): StateTarget | string {
	const wanted = `expected valkey://HOST:PORT, valkeys:// for TLS (or redis://, rediss://), or unix:/path of a socket${got(url)}`;
	if (url.startsWith("unix:")) {
		const socketPath = url.slice("unix:".length).replace(/^\/\/(?=\/)/, "");
		return path.isAbsolute(socketPath) ? { kind: "unix", socketPath } : wanted;
	}
	// Before it is read: in a password, a / or a # ends what URL takes for the host.
	if (url.includes("@"))
		return "has a user or a password in it; secrets do not belong in the configuration. Use state.user and state.passwordFile";
	// A scheme that URL does not know is read otherwise than one that it does.
	const [, scheme = "", rest = ""] = /^(\w+:)\/\/(.+)$/.exec(url) ?? [];
	const tls = schemes.get(scheme);
	if (tls === undefined || !URL.canParse(`http://${rest}`)) return wanted;
	const { hostname, port, pathname, search, hash } = new URL(`http://${rest}`);
	if (pathname !== "/" || `${search}${hash}` !== "") return wanted;
	return {
		kind: "tcp",
		host:
			hostname === "localhost" ? "127.0.0.1" : hostname.replace(/^\[|\]$/g, ""),
		// 80 is what http:// leaves out.
		port: /:80$/.test(rest.replace(/\/$/, ""))
			? 80
			: Number(port || defaultPort),
		tls,
	};
}

function isOfThisHost(target: StateTarget): boolean {
	return target.kind === "unix" || isLoopbackAddress(target.host);
}

/** Where Valkey is, for people. */
export function formatState(target: StateTarget): string {
	if (target.kind === "unix") return `unix:${target.socketPath}`;
	const { host, port, tls } = target;
	return `${tls ? "valkeys" : "valkey"}://${host.includes(":") ? `[${host}]` : host}:${port}`;
}
