import { optionalSection, wholeNumber } from "./schemaNodes.ts";

/** The section `state`. */
export const stateSchema = {
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
} as const;
