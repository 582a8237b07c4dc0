import { durationPattern } from "../duration.ts";
import { optionalSection } from "./schemaNodes.ts";

/** The section `ledger`. */
export const ledgerSchema = optionalSection(
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
);
