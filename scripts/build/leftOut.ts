/**
 * What dependencies load at their start and the program never uses. In the
 * published program each has something small in its place, which says so if it is
 * used after all: every megabyte that is loaded is one that the daemon keeps.
 */

/** Something that one package wants of another, or of Node, and what it gets. */
interface Replacement {
	/** The package that loads it. */
	readonly by: string;
	readonly wanted: string;
	/** A CommonJS module. */
	readonly given: string;
}

/** Something that fails when it is called. */
function failing(name: string, why: string): string {
	const message = `${name} is not part of llamagate: ${why}`;
	return `class NotPartOfLlamagate {
	constructor() {
		throw new Error(${JSON.stringify(message)});
	}
}
`;
}

const asClass = "module.exports = NotPartOfLlamagate;\n";
const asFunction =
	"module.exports = (...args) => new NotPartOfLlamagate(...args);\n";

/** Loads a module of Node when something of it is first used. */
const whenUsed = (name: string) => `module.exports = new Proxy({}, {
	get: (_, property) => process.getBuiltinModule(${JSON.stringify(name)})[property],
});
`;

/** Loads Node's assertions when one does not hold. */
const assertion = `module.exports = new Proxy(() => {}, {
	apply(_, self, [value, ...more]) {
		if (!value) process.getBuiltinModule("node:assert")(value, ...more);
	},
	get: (_, property) => process.getBuiltinModule("node:assert")[property],
});
`;

export const replacements: readonly Replacement[] = [
	// The relay of http-proxy; the gate's own is its `handler` (docs/adr/0001).
	{
		by: "@fastify/http-proxy",
		wanted: "@fastify/reply-from",
		given: `const fp = require("fastify-plugin");
${failing("@fastify/reply-from", "the gate has a relay of its own")}
module.exports = fp((fastify, _options, done) => {
	fastify.decorateReply("from", () => new NotPartOfLlamagate());
	done();
}, { fastify: "5.x", name: "@fastify/reply-from" });
`,
	},
	{
		by: "@fastify/http-proxy",
		wanted: "ws",
		given: `${failing("ws", "no route is one for WebSocket")}${asClass}NotPartOfLlamagate.Server = NotPartOfLlamagate;
`,
	},
	{
		by: "@fastify/rate-limit",
		wanted: "ip-address",
		given: `${failing("ip-address", "the gate names the sources that it counts")}exports.Address6 = NotPartOfLlamagate;
`,
	},
	{
		by: "fastify",
		wanted: "light-my-request",
		given: `${failing("light-my-request", "requests come from clients")}${asFunction}`,
	},
	...["@fastify/ajv-compiler", "@fastify/fast-json-stringify-compiler"].map(
		(wanted) => ({
			by: "fastify",
			wanted,
			given: `${failing(wanted, "no route has a schema")}${asFunction}`,
		}),
	),
	// Of its forty functions Fastify uses these.
	{
		by: "fastify",
		wanted: "semver",
		given: ["coerce", "gt", "satisfies"]
			.map((name) => `exports.${name} = require("semver/functions/${name}");\n`)
			.join(""),
	},
	// A server for TLS or HTTP/2 is never made.
	...["node:https", "node:http2", "node:dns"].map((wanted) => ({
		by: "fastify",
		wanted,
		given: whenUsed(wanted),
	})),
	...["fastify", "find-my-way"].map((by) => ({
		by,
		wanted: "node:assert",
		given: assertion,
	})),
	{ by: "sonic-boom", wanted: "assert", given: assertion },
	{
		by: "fastify",
		wanted: "node:perf_hooks",
		given: "exports.performance = globalThis.performance;\n",
	},
	// The ledger has one connection at a time, and says itself where its password is.
	{
		by: "pg",
		wanted: "pg-pool",
		given: `${failing("pg-pool", "the ledger has its connections one by one")}${asClass}`,
	},
	{
		by: "pg",
		wanted: "pgpass",
		given: `${failing("pgpass", "ledger.passwordFile names the password")}${asFunction}`,
	},
	{
		by: "pg",
		wanted: "pg-cloudflare",
		given: `${failing("pg-cloudflare", "this is Node")}exports.CloudflareSocket = NotPartOfLlamagate;
`,
	},
	// Colours for what iovalkey says when it is debugged. Something that only developers
	// have brings it along, so the bill of materials does not list it.
	{
		by: "debug",
		wanted: "supports-color",
		given: "module.exports = undefined;\n",
	},
	// pino asks whether this is the main thread. The program starts no other.
	{
		by: "pino",
		wanted: "worker_threads",
		given: "exports.isMainThread = true;\n",
	},
	{
		by: "pino",
		wanted: "thread-stream",
		given: `${failing("thread-stream", "the log is written without a thread")}${asClass}`,
	},
];
