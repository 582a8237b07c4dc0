import path from "node:path";

/** What `listen.tls` says, as it is in a file. */
export type TlsSetting =
	| "off"
	| "tailscale"
	| {
			readonly certFile: string;
			readonly keyFile: string;
			readonly name?: string;
	  };

/** The same, with the files' paths absolute; `undefined` where the gate speaks plain HTTP. */
export type TlsSettings =
	| { readonly kind: "tailscale" }
	| {
			readonly kind: "files";
			readonly certFile: string;
			readonly keyFile: string;
			/** The DNS name that clients use, where it is not the node's own. */
			readonly name: string | undefined;
	  };

/** The setting `listen.tls`. */
export const tlsSchema = {
	// Keywords of the one type say nothing of the other.
	type: ["string", "object"],
	pattern: "^(off|tailscale)$",
	additionalProperties: false,
	required: ["certFile", "keyFile"],
	properties: {
		certFile: {
			type: "string",
			minLength: 1,
			"x-expected": "a path",
			examples: ["gate.crt"],
		},
		keyFile: {
			type: "string",
			minLength: 1,
			"x-expected": "a path",
			examples: ["gate.key"],
		},
		name: {
			type: "string",
			pattern: "^[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*$",
			maxLength: 253,
			"x-expected": "a DNS name such as llm.example.com",
			examples: ["llm.example.com"],
		},
	},
	"x-expected":
		'"off", "tailscale", or { "certFile": …, "keyFile": …, "name": … }',
	default: "off",
	description:
		'HTTPS in place of HTTP, on every address but a Unix socket\'s (docs/https.md). `"tailscale"` takes the certificate of the node\'s own name from tailscaled and has it renewed; `{ "certFile": "gate.crt", "keyFile": "gate.key" }` names PEM files, relative to the configuration file (under the shipped unit they must lie in /etc/llamagate), which are read anew when they change. `"name"` says which DNS name clients use, where it is not the node\'s own.',
} as const;

/** @param folder that relative paths are meant from */
export function readTls(
	setting: TlsSetting,
	folder: string,
): TlsSettings | undefined {
	if (setting === "off") return undefined;
	if (setting === "tailscale") return { kind: "tailscale" };
	const { certFile, keyFile, name } = setting;
	return {
		kind: "files",
		certFile: path.resolve(folder, certFile),
		keyFile: path.resolve(folder, keyFile),
		name: name?.toLowerCase(),
	};
}
