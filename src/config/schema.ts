import { durationPattern, sizePattern } from "../duration.ts";
import { alarmsSchema } from "./alarms.ts";
import { budgetSchema, groupNamePattern } from "./budget.ts";
import { loginRulesSchema } from "./logins.ts";
import { type TlsSetting, tlsSchema } from "./tls.ts";
import { upstreamsSchema } from "./upstreams.ts";

/**
 * The one place where settings are declared. docs/configuration.md,
 * docs/config.schema.json and config.example.json are written from it
 * (`npm run docs`), and the loader checks a file with it.
 * `x-expected` finishes the sentence "expected …" when a value is refused.
 */

const duration = (fallback: string, description: string) =>
	({
		type: "string",
		pattern: durationPattern,
		"x-expected": 'a duration such as "30s", "15m" or "1h", at most "24d"',
		default: fallback,
		description,
	}) as const;

const count = (fallback: number, description: string) =>
	({
		type: "integer",
		minimum: 1,
		maximum: 1_000_000_000,
		"x-expected": "a whole number of at least 1",
		default: fallback,
		description,
	}) as const;

const wholeNumber = (
	fallback: number,
	minimum: number,
	maximum: number,
	description: string,
) =>
	({
		type: "integer",
		minimum,
		maximum,
		"x-expected": `a whole number from ${minimum} to ${maximum}`,
		default: fallback,
		description,
	}) as const;

const section = <const P extends Record<string, object>>(
	properties: P,
	description: string,
) =>
	({
		type: "object",
		additionalProperties: false,
		properties,
		description,
	}) as const;

/** One that may be left out whole, and then means nothing. */
const optionalSection = <const P extends Record<string, object>>(
	properties: P,
	description: string,
) => ({ ...section(properties, description), examples: [{}] }) as const;

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
					"Address ranges that a client's own address must lie in. It is read from the socket, never from a header. 100.100.100.100 and 100.115.92.0/23, which are no Tailscale peers, are always refused.",
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
			limits: section(
				{
					perKey: section(
						{
							requestsPerMinute: count(600, "Requests a minute for one key."),
							concurrent: count(
								16,
								"Requests at once for one key. Reading (lists, descriptions) is counted apart, up to the same number.",
							),
						},
						"Limits of each key; an entry of the keys file may set its own.",
					),
					perSource: section(
						{
							requestsPerMinute: count(
								1200,
								"Requests a minute from one address.",
							),
						},
						"Limits of each client address.",
					),
					authFailures: section(
						{
							max: count(
								10,
								"Different wrong keys from one device within `window` that lock it out.",
							),
							window: duration("1m", "The time in which they are counted."),
							lockout: duration(
								"5m",
								"How long it is answered 429, whatever key it sends; `llamagate unlock` ends it sooner.",
							),
						},
						"The lockout after wrong keys.",
					),
					body: {
						type: "string",
						pattern: sizePattern,
						"x-expected": 'a size such as "512KiB" or "64MiB"',
						default: "64MiB",
						description:
							"The largest request body for inference (images travel inside it). Other calls take 1 MiB at the most; blob uploads have no limit.",
					},
				},
				"How much one client may ask for.",
			),
			queue: section(
				{
					mode: {
						type: "string",
						enum: ["fair", "off"],
						"x-expected": '"fair" or "off"',
						default: "fair",
						description:
							"`fair` lets requests wait for a free place of their model and gives it to whom it is owed; `off` passes each on at once, and Ollama serves them as they come.",
					},
					parallel: {
						// A keyword of the one type says nothing of the other.
						type: ["integer", "string"],
						minimum: 1,
						maximum: 1024,
						pattern: "^auto$",
						"x-expected": '"auto" or a whole number from 1 to 1024',
						default: "auto",
						description:
							"Requests that Ollama works on at once for each model: its own `OLLAMA_NUM_PARALLEL`, which `llamagate setup` writes here where it can read it. `auto` finds it out.",
					},
					maxWaiting: count(
						512,
						"Requests that wait in all. One more is answered 503.",
					),
					maxWaitingPerUser: count(
						64,
						"Requests of one user that wait. One more is answered 429.",
					),
					maxWait: section(
						{
							interactive: duration("2m", "For keys of class `interactive`."),
							normal: duration(
								"10m",
								"For keys of class `normal`, which is every key that names no other.",
							),
							batch: duration("6h", "For keys of class `batch`."),
						},
						"How long a user's waiting requests may be passed over, counted from its last turn. After that the oldest goes before those of all who have waited less for their class.",
					),
					turnFactor: wholeNumber(
						...([8, 1, 1000] as const),
						"Where not all models fit into memory at once: a model keeps its turn for this many times as long as it took to load, while others wait. With 8, loading takes a ninth of the time at the most.",
					),
					loadGrace: duration(
						"10m",
						"How long a model goes on loading for a client that has left.",
					),
					announceAfter: duration(
						"15s",
						"After this time a client that asked for an event stream is told, by comments in it, how many are ahead.",
					),
				},
				"Whose turn it is where several ask at once; docs/queue.md explains it.",
			),
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
			ledger: optionalSection(
				{
					file: {
						type: "string",
						minLength: 1,
						"x-expected": "a path",
						default: "ledger.sqlite",
						description:
							"The file, relative to the unit's own folder (`/var/lib/llamagate-ledger` under the shipped unit), or to the configuration file where `llamagate ledger` runs without systemd.",
					},
					url: {
						type: "string",
						minLength: 1,
						"x-expected": 'a database such as "postgres://USER@HOST/DATABASE"',
						description:
							"A PostgreSQL database in place of the file, which several gates may share (docs/usage.md). Never a password in it. TLS with a certificate that is checked (`?sslrootcert=/FILE` names an authority of your own), but for loopback, addresses of the tailnet, and a Unix socket (its folder with `%2F` in place of the host).",
						examples: ["postgres://llamagate@db.example/llamagate"],
					},
					passwordFile: {
						type: "string",
						minLength: 1,
						"x-expected": "a path",
						description:
							"The file, of mode 0600, that holds the password of `url`'s user and nothing else, relative to the configuration file. Under the shipped unit root's file will do: systemd hands it to the ledger. Without it the database asks for none, as by `peer` or `trust`.",
						examples: ["ledger-password"],
					},
					gate: {
						type: "string",
						minLength: 1,
						maxLength: 64,
						"x-expected": "a name of at most 64 characters",
						description:
							"This gate's name among those that share `url`; the host's name if it is not there. What keys have used of their budgets is looked up under it after a restart.",
						examples: ["workstation"],
					},
					socket: {
						type: "string",
						minLength: 1,
						"x-expected": "a path",
						default: "/run/llamagate-ledger/ledger.sock",
						description:
							"The socket (mode 0660) on which the ledger takes the gate's records and answers `llamagate usage`.",
					},
					retention: {
						type: "string",
						pattern: durationPattern,
						"x-expected": 'a duration such as "90d"',
						default: "90d",
						description:
							"How long each request is in the file, by whole days. Sums of days stay for ever.",
					},
				},
				"Who used what, kept by `llamagate ledger` (docs/usage.md). Leave the whole section out, and nothing is kept; an empty one takes these defaults.",
			),
			budgets: section(
				{
					withoutLedger: {
						type: "string",
						enum: ["batch", "refuse"],
						"x-expected": '"batch" or "refuse"',
						default: "batch",
						description:
							"What becomes of requests of a key with a budget, its own or its group's, while no ledger has told what the key used before the gate started: `batch` lets them wait with those of class `batch`, `refuse` answers 503.",
					},
					groups: {
						type: "object",
						additionalProperties: budgetSchema,
						propertyNames: { pattern: groupNamePattern },
						"x-expected":
							"budgets by the names of groups, of at most 64 letters, digits, dots, dashes and underscores",
						default: {},
						description:
							'Budgets that keys share: each has a name and what a key\'s `budget` has, such as `{ "family": { "gpu": "2h", "per": "day" } }`. A key is in one by its `group` (docs/usage.md).',
					},
				},
				"Budgets: a key's own is in the keys file, those of groups here (docs/usage.md).",
			),
			state: {
				...optionalSection(
					{
						url: {
							type: "string",
							minLength: 1,
							"x-expected":
								"valkey://HOST:PORT, valkeys:// for TLS, or unix:/path of a socket",
							description:
								"Where Valkey is: `valkey://HOST:PORT`, `valkeys://` for TLS (`redis://` and `rediss://` are the same), or `unix:/path` of its socket. On a network it must have a password. Without this setting the section is refused.",
						},
						user: {
							type: "string",
							minLength: 1,
							maxLength: 128,
							"x-expected": "the name of a user",
							description:
								"The user of Valkey's ACL. Valkey's `default` user if it is not there.",
							examples: ["llamagate"],
						},
						passwordFile: {
							type: "string",
							minLength: 1,
							"x-expected": "a path",
							description:
								"The file with the user's password, relative to the configuration file. Nobody but its owner may read it.",
							examples: ["valkey.password"],
						},
						caFile: {
							type: "string",
							minLength: 1,
							"x-expected": "a path",
							description:
								"With TLS: the certificate (PEM) that Valkey's own must be signed by, relative to the configuration file. The system's authorities if it is not there.",
							examples: ["valkey-ca.pem"],
						},
						prefix: {
							type: "string",
							pattern: "^[A-Za-z0-9._-]{1,32}$",
							"x-expected": "up to 32 letters, digits, dots, _ and -",
							default: "llamagate",
							description:
								"The name space in Valkey. Gates with the same share their limits.",
						},
						gates: wholeNumber(
							...([2, 1, 64] as const),
							"How many gates there are taken to be while this one has not counted them: by so many its limits are divided where it starts and Valkey is away.",
						),
					},
					"Several gates that act as one: a Valkey through which they share rate limits, streams at once, lockouts, budgets and whose turn it is (docs/hosts.md). Leave the whole section out, and each gate counts for itself.",
				),
				required: ["url"],
			},
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
