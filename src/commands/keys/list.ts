import { styleText } from "node:util";
import { askGateOn, isText } from "../../admin/client.ts";
import { typed } from "../../config/load.ts";
import { exitCodes } from "../../errors.ts";
import type { KeyUse } from "../../gate/keyUse.ts";
import { type KeyEntry, loadKeys, parseTime } from "../../keys/keyFile.ts";
import { formatJson } from "../../report/json.ts";
import { formatTable, wrap } from "../../report/table.ts";
import { visible } from "../../visible.ts";
import { readArgs } from "../command.ts";
import {
	factsOf,
	findKeys,
	type KeyAction,
	mayOf,
	say,
	shared,
	sharedHelp,
	shortTime,
} from "./action.ts";

export const list: KeyAction = {
	help: `
Usage: llamagate keys list

Shows every key with what it may do, when it ends, and when it was last used as
far as the running daemon knows. Times are UTC.

${sharedHelp}

Exit codes: 0 done, 1 refused, 2 usage, 78 bad configuration or keys file

Example: llamagate keys list --json
`,
	async run(args) {
		const { values } = readArgs(args, shared);
		const { keysFile, adminSocket } = await findKeys(values.config);
		const entries = await loadKeys(
			keysFile,
			typed("keys add NAME", values.config),
		);
		const nowMs = Date.now();
		const uses = await askForUses(adminSocket);
		const rows = entries.map((entry) => ({
			entry,
			...factsOf(entry),
			state: stateOf(entry, nowMs),
			oldKeysUntil:
				entry.previous
					?.map(({ expires }) => expires)
					.filter((text) => (parseTime(text) ?? 0) > nowMs) ?? [],
			/** `null` while no daemon runs that could tell. */
			use: uses === undefined ? null : (uses.get(entry.name) ?? notYet),
		}));
		if (values.json) {
			const keys = rows.map(({ entry: _, ...row }) => row);
			process.stdout.write(formatJson({ keys }));
			return exitCodes.ok;
		}
		if (rows.length === 0) {
			say(
				`No key exists yet. Make one with: ${typed("keys add NAME", values.config)}`,
			);
			return exitCodes.ok;
		}
		const [head, ...lines] = formatTable(
			["NAME", "STATE", "EXPIRES", "LAST USED", "24 H"],
			rows.map(({ name, state, expires, use }) => [
				name,
				styleText(state === "expired" ? "red" : "green", state),
				expires === null ? "never" : shortTime(expires),
				lastUsed(use),
				use === null ? "?" : String(use.lastDay),
			]),
		).split("\n");
		const text = rows.flatMap((row, index) => [
			lines[index],
			...wrap(detailsOf(row), 78).map((line) => `  ${line}`),
		]);
		process.stdout.write(`${[head, ...text].join("\n")}\n`);
		if (uses === undefined)
			say("No daemon answered, so when each was last used is not known.");
		return exitCodes.ok;
	},
};

/** The daemon counts from its start. */
interface Use {
	readonly lastUsed: string | null;
	/** The tailnet device, or the address where none was looked up. */
	readonly lastFrom: string | null;
	readonly lastDay: number;
}

const notYet: Use = { lastUsed: null, lastFrom: null, lastDay: 0 };

/** What the running daemon knows of the keys' use; `undefined` if none runs. */
async function askForUses(
	socket: string | undefined,
): Promise<ReadonlyMap<string, KeyUse> | undefined> {
	if (socket === undefined) return undefined;
	const asked = await askGateOn(socket);
	if (asked.kind !== "status") return undefined;
	const told: [string, unknown][] = Object.entries(asked.status.keyUse);
	return new Map(
		told.filter((entry): entry is [string, KeyUse] => isKeyUse(entry[1])),
	);
}

function isKeyUse(value: unknown): value is KeyUse {
	const { lastUsed, lastFrom, lastDay } = Object(value) as KeyUse;
	return isText(lastUsed) && isText(lastFrom) && Number.isFinite(lastDay);
}

function lastUsed(use: Use | null): string {
	if (use === null) return "?";
	return use.lastUsed === null ? "not yet" : visible(shortTime(use.lastUsed));
}

function detailsOf({
	entry,
	kind,
	created,
	oldKeysUntil,
	use,
}: {
	entry: KeyEntry;
	kind: string;
	created: string | null;
	oldKeysUntil: readonly string[];
	use: Use | null;
}): string {
	const { expires: _, ...rules } = entry;
	return [
		mayOf(rules),
		kind === "ollama" ? "signs by the ollama command" : "",
		created === null ? "" : `made ${created.slice(0, 10)}`,
		oldKeysUntil.length === 0
			? ""
			: `old key until ${oldKeysUntil.map(shortTime).join(", ")}`,
		typeof use?.lastFrom === "string"
			? `last used by ${visible(use.lastFrom)}`
			: "",
	]
		.filter((part) => part !== "")
		.join("; ");
}

function stateOf({ expires }: KeyEntry, nowMs: number): "active" | "expired" {
	return expires !== undefined && (parseTime(expires) ?? 0) <= nowMs
		? "expired"
		: "active";
}
