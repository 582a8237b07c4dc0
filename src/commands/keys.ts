import { UsageError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import type { Command } from "./command.ts";
import { type KeyAction, sharedHelp } from "./keys/action.ts";
import { add } from "./keys/add.ts";
import { edit } from "./keys/edit.ts";
import { list } from "./keys/list.ts";
import { revoke } from "./keys/revoke.ts";
import { rotate } from "./keys/rotate.ts";

const actions: Readonly<Record<string, KeyAction>> = {
	add,
	edit,
	list,
	rotate,
	revoke,
};
const known = Object.keys(actions);

export const keys: Command = {
	help: `
Usage: llamagate keys add NAME [--scopes LIST] [--models LIST] [--expires 90d]
       llamagate keys edit NAME [--models LIST] [--concurrent N] …
       llamagate keys list
       llamagate keys rotate NAME [--overlap 24h]
       llamagate keys revoke NAME

A key is shown once, when it is made; the file holds only its digest. A running
daemon is told at once. Each action has more options: llamagate keys add --help

${sharedHelp}

Exit codes: 0 done, 1 refused, 2 usage, 78 bad configuration or keys file

Example: llamagate keys add laptop --expires 90d
`,
	actionOf: (args) => args.find((arg) => known.includes(arg)),
	helpFor: (args) =>
		actions[args.find((arg) => known.includes(arg)) ?? ""]?.help,
	async run(given) {
		// Options may stand before the action, too.
		const at = Math.max(
			0,
			given.findIndex((arg) => known.includes(arg)),
		);
		const name = given[at];
		const action = name === undefined ? undefined : actions[name];
		if (action === undefined || name === undefined || !known.includes(name)) {
			const near = nearest(name ?? "", known);
			throw new UsageError(
				name === undefined
					? `say what to do: ${known.join(", ")}`
					: `unknown action ${JSON.stringify(name)}; ${near === undefined ? `known: ${known.join(", ")}` : `did you mean ${near}?`}`,
			);
		}
		return action.run(given.toSpliced(at, 1));
	},
};
