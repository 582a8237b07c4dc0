import { alarmsSchema } from "./alarms.ts";
import { budgetsSchema } from "./budgetsSchema.ts";
import { ledgerSchema } from "./ledgerSchema.ts";
import { limitsSchema } from "./limitsSchema.ts";
import { loginRulesSchema } from "./logins.ts";
import { queueSchema } from "./queueSchema.ts";
import { count, duration, section } from "./schemaNodes.ts";
import { stateSchema } from "./stateSchema.ts";
import { type TlsSetting, tlsSchema } from "./tls.ts";
import { upstreamsSchema } from "./upstreams.ts";

/**
 * Where settings are declared; the larger sections have files of their own. docs/configuration.md,
 * docs/config.schema.json and config.example.json are written from it
 * (`npm run docs`), and the loader checks a file with it.
 * `x-expected` finishes the sentence "expected …" when a value is refused.
 */

export const configSchema = {
	$schema: "http://json-schema.org/draft-07/schema#",
	title: "llamagate configuration",
	...section(
		{
			$schema: {
				type: "string",
				"x-expected": "the path of a JSON Schema",
				description:
					"For editors: where docs/config.schema.json lies. llamagate ignores it.",
				examples: ["/usr/share/llamagate/config.schema.json"],
			},
			listen: section(
				{
					interface: {
						type: "string",
						minLength: 1,
						maxLength: 15,
						"x-expected": "the name of a network interface",
						default: "tailscale0",
						description:
							"Listen on every address of this interface that lies in Tailscale's ranges. The daemon waits for the interface at boot, follows its addresses and closes when they go.",
					},
					address: {
						type: "string",
						"x-expected": "one loopback or Tailscale address",
						description:
							"Listen on this one address instead of an interface. Only loopback and Tailscale addresses are taken; 0.0.0.0, LAN and public addresses are refused, and nothing forces them.",
						examples: ["100.101.102.104", "127.0.0.1"],
					},
					port: {
						type: "integer",
						minimum: 0,
						maximum: 65535,
						"x-expected": "a port number from 0 to 65535",
						default: 11434,
						description: "The port. 0 takes any free one.",
					},
					tls: tlsSchema,
				},
				"Where the gate listens. Sockets inherited from systemd come before the first three: under the shipped units `llamagate-listen.service` decides, and docs/operations.md says how to change interface and port.",
			),
			sources: {
				type: "array",
				minItems: 1,
				items: {
					type: "string",
					"x-expected": "an address range such as 100.64.0.0/10",
				},
				"x-expected": "a list of at least one address range",
				default: ["100.64.0.0/10", "fd7a:115c:a1e0::/48"],
				description:
					"Address ranges that a client's own address must lie in. It is read from the socket, never from a header. 100.100.100.100 and 100.115.92.0/23, which are not Tailscale peers, are always refused.",
			},
			onForeignSource: {
				type: "string",
				enum: ["refuse", "drop"],
				"x-expected": '"refuse" or "drop"',
				default: "refuse",
				description:
					"What a client outside `sources` gets: `refuse` answers 403, `drop` closes the connection unread.",
			},
			upstream: section(
				{
					url: {
						type: "string",
						"x-expected":
							"http:// on a loopback address, or unix:/path of a socket",
						default: "http://127.0.0.1:11434",
						description:
							"Where Ollama listens: `http://` on a loopback address, or `unix:/path` of a socket that leads to it.",
					},
					connectTimeout: duration(
						"5s",
						"How long connecting to Ollama may take.",
					),
					firstByteTimeout: duration(
						"15m",
						"How long Ollama may stay silent: before its first byte, as nothing, not even headers, comes while a model loads; and between two bytes of a stream, as a tool call may be composed in silence. Pull, push, create and other calls of scope `manage` have four times as long (or as `idleTimeout`, if that is longer), as they hash and convert large files without a word.",
					),
					idleTimeout: duration(
						"5m",
						"How long a client may stand still in its upload, or in reading what it is sent. Ollama has at least as long between two bytes.",
					),
					maxConnections: count(
						256,
						"Connections to Ollama at once. A request beyond them is answered 503.",
					),
				},
				"The Ollama behind the gate.",
			),
			upstreams: upstreamsSchema,
			keysFile: {
				type: "string",
				minLength: 1,
				"x-expected": "a path",
				default: "keys.json",
				description:
					"The file with the keys' digests, relative to the configuration file. Under the shipped unit it must lie in /etc/llamagate.",
			},
			limits: limitsSchema,
			queue: queueSchema,
			cors: section(
				{
					origins: {
						type: "array",
						items: {
							type: "string",
							"x-expected": "an origin such as https://chat.example",
						},
						"x-expected": "a list of origins",
						default: [],
						description:
							"Web origins whose pages may call the gate from a browser, each written out. They still need a key.",
					},
				},
				"Browsers' cross-origin requests; Ollama never sees them.",
			),
			identity: section(
				{
					mode: {
						type: "string",
						enum: ["off", "log", "require", "login"],
						"x-expected": '"off", "log", "require" or "login"',
						default: "off",
						description:
							"Whether each client is looked up with tailscaled: `log` notes the device in the log and serves keys that are bound to one; `require` also refuses anyone who is not a device of the tailnet, and everybody while tailscaled does not answer; `login` is as `log`, and lets the owners of devices that `rules` names in without a key (docs/identity.md).",
					},
					rules: loginRulesSchema,
					socket: {
						type: "string",
						minLength: 1,
						"x-expected": "a path",
						default: "/var/run/tailscale/tailscaled.sock",
						description: "tailscaled's socket.",
					},
				},
				"Tailnet identity.",
			),
			admin: section(
				{
					socket: {
						type: "string",
						minLength: 1,
						"x-expected": 'a path, or "off"',
						default: "/run/llamagate/admin.sock",
						description:
							'The socket (mode 0600) by which `llamagate keys` tells a running daemon to reload, and `status`, `top` and `unlock` ask it, or `"off"`.',
					},
					metrics: {
						type: "string",
						"x-expected":
							'a loopback address and port such as 127.0.0.1:9464, or "off"',
						default: "127.0.0.1:9464",
						description:
							'Where Prometheus finds the counters (`/metrics`), on loopback only, or `"off"`. It needs a network of the daemon\'s own, which it does not have under the shipped unit: ask over `admin.socket` there (docs/operations.md).',
					},
				},
				"The daemon's own side doors, for this host alone.",
			),
			ledger: ledgerSchema,
			budgets: budgetsSchema,
			state: stateSchema,
			alarms: alarmsSchema,
			drainTimeout: duration(
				"30s",
				"After SIGTERM: how long running streams may finish before they are cut.",
			),
			log: section(
				{
					level: {
						type: "string",
						enum: [
							"trace",
							"debug",
							"info",
							"warn",
							"error",
							"fatal",
							"silent",
						],
						"x-expected": "trace, debug, info, warn, error, fatal or silent",
						default: "info",
						description:
							"Lines below this level are left out. A failed key is always logged, since fail2ban reads that line.",
					},
					people: {
						type: "string",
						enum: ["off", "hash", "on"],
						"x-expected": '"off", "hash" or "on"',
						default: "off",
						description:
							"Whether a request's line names the person who was proved to be behind it (docs/people.md): `off` says only by what it was proved, `hash` puts a pseudonym in place of the name that is another after each start, `on` writes the e-mail or the login, which is personal data.",
					},
				},
				"JSON lines on standard output.",
			),
		},
		"Every setting has a default; an unknown one is an error.",
	),
} as const;

/** The TypeScript type of what a schema node accepts, for the few keywords used above. */
type TypeOf<N> = N extends typeof tlsSchema
	? TlsSetting
	: N extends { properties: infer P }
		? {
				[K in keyof P as P[K] extends { examples: unknown }
					? never
					: K]: TypeOf<P[K]>;
			} & {
				[K in keyof P as P[K] extends { examples: unknown }
					? K
					: never]?: TypeOf<P[K]>;
			}
		: N extends { enum: readonly (infer E)[] }
			? E
			: N extends { type: "array"; items: infer I }
				? TypeOf<I>[]
				: N extends { type: readonly ["integer", "string"] }
					? number | "auto"
					: N extends { type: "integer" | "number" }
						? number
						: N extends { type: "string" }
							? string
							: never;

/** A configuration file once its defaults are filled in, before durations are read. */
export type ConfigFile = TypeOf<typeof configSchema>;

/** The part of a schema node that documents it. */
export interface SchemaNode {
	readonly type?: string | readonly string[];
	readonly description?: string;
	readonly default?: unknown;
	readonly examples?: readonly unknown[];
	readonly enum?: readonly string[];
	readonly properties?: Readonly<Record<string, SchemaNode>>;
	readonly "x-expected"?: string;
	/** A value that is refused is not quoted. */
	readonly "x-secret"?: boolean;
}

/** Whether a node holds settings, and is none itself. */
export function isSection(node: SchemaNode): boolean {
	return node.properties !== undefined && node.default === undefined;
}

/** Every setting with its default, as the example file shows it; none of a section that may be left out. */
export function defaultsOf(node: SchemaNode): unknown {
	if (!isSection(node)) return structuredClone(node.default);
	if (node.examples !== undefined) return undefined;
	const entries: [string, unknown][] = [];
	for (const [name, child] of Object.entries(node.properties ?? {})) {
		const value = defaultsOf(child);
		if (value !== undefined) entries.push([name, value]);
	}
	return Object.fromEntries(entries);
}
