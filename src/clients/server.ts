import { isIPv6 } from "node:net";

/** The port of Ollama, and of the gate in its place. */
const defaultPort = 11434;

/**
 * Reads where the server is: `host`, `host:port`, or either with `http://` or
 * `https://` before it and a slash behind it. Without a port it is Ollama's,
 * with `https://` that of HTTPS.
 *
 * @returns `http://host:port`, without a slash at its end; `undefined` for
 *   anything else, such as a path, a query or a user
 */
export function parseServer(text: string): string | undefined {
	if (isIPv6(text)) return `http://[${text}]:${defaultPort}`;
	const match =
		/^(?:(https?):\/\/)?(\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?\.?)(?::(\d{1,5}))?\/?$/i.exec(
			text,
		);
	const [, scheme, host = "", port] = match ?? [];
	if (match === null || (host.startsWith("[") && !isIPv6(host.slice(1, -1))))
		return undefined;
	if (port !== undefined && (Number(port) < 1 || Number(port) > 65_535))
		return undefined;
	if (scheme?.toLowerCase() === "https")
		return `https://${host}${port === undefined ? "" : `:${Number(port)}`}`;
	return `http://${host}:${Number(port ?? defaultPort)}`;
}
