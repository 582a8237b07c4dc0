import { outputOf } from "./program.ts";
import { becomesTrue } from "./waiting.ts";

/** A unit as systemd has it in force. */
export interface Unit {
	readonly name: string;
	/** Whether systemd knows such a unit. */
	readonly exists: boolean;
	readonly isActive: boolean;
	/** Whether it is started at boot. */
	readonly isEnabled: boolean;
	/** The file that it is written in. */
	readonly file: string;
	readonly dropIns: readonly string[];
	/** What `Environment=` gives the service; not what an `EnvironmentFile=` adds. */
	readonly environment: ReadonlyMap<string, string>;
	readonly environmentFiles: readonly string[];
}

const properties =
	"LoadState,ActiveState,UnitFileState,FragmentPath,DropInPaths,Environment,EnvironmentFiles";

/** Asks systemd about a unit; `undefined` if this host has no systemd that answers. */
export async function lookUpUnit(name: string): Promise<Unit | undefined> {
	return (await lookUpUnits([name]))?.[0];
}

/** The same for several; `said` is all that systemd says of one, with other properties that are wanted. */
export async function lookUpUnits(
	names: readonly string[],
	...others: readonly string[]
): Promise<readonly (Unit & { readonly said: string })[] | undefined> {
	const output = await outputOf(
		...["systemctl", "show", ...names],
		`--property=${[properties, ...others].join(",")}`,
	);
	// An empty line stands between two.
	const parts = output?.split("\n\n") ?? [];
	if (parts.length !== names.length) return undefined;
	return parts.map((said, index) => ({
		...parseUnit(names[index] ?? "", said),
		said,
	}));
}

/** Waits, for twenty seconds at most, while one of them is being started, reloaded or stopped: such a moment tells nothing of how it is. */
export async function untilAtRest(names: readonly string[]): Promise<void> {
	await becomesTrue(async () => {
		const units = await lookUpUnits(names, "SubState");
		return !units?.some(({ said }) => isOnItsWay(said));
	});
}

function isOnItsWay(said: string): boolean {
	return (
		/^ActiveState=(activating|reloading|deactivating)$/m.test(said) &&
		// One that falls again and again is on its way to nowhere.
		!/^SubState=auto-restart/m.test(said)
	);
}

/** Reads what `systemctl show` prints. */
export function parseUnit(name: string, output: string): Unit {
	const values = new Map<string, string[]>();
	for (const line of output.split("\n")) {
		const equals = line.indexOf("=");
		if (equals < 0) continue;
		const property = line.slice(0, equals);
		values.set(property, [
			...(values.get(property) ?? []),
			line.slice(equals + 1),
		]);
	}
	const one = (property: string) => values.get(property)?.[0] ?? "";
	const environment = new Map<string, string>();
	for (const word of splitWords(one("Environment"))) {
		const equals = word.indexOf("=");
		if (equals > 0)
			environment.set(word.slice(0, equals), word.slice(equals + 1));
	}
	return {
		name,
		exists: one("LoadState") === "loaded",
		isActive: one("ActiveState") === "active",
		isEnabled: ["enabled", "alias", "static"].includes(one("UnitFileState")),
		file: one("FragmentPath"),
		dropIns: splitWords(one("DropInPaths")),
		environment,
		// `/etc/default/ollama (ignore_errors=yes)`, a line each.
		environmentFiles: (values.get("EnvironmentFiles") ?? [])
			.map((text) => text.replace(/ \(ignore_errors=(yes|no)\)$/, ""))
			.filter(Boolean),
	};
}

/** What stands behind a backslash for something else. */
const escapes: Readonly<Record<string, string>> = {
	...{ a: "\x07", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v" },
};

/** systemd puts a word into double quotes where a shell would need them, with C's escapes (basic/escape.c, shell_maybe_quote). */
function splitWords(text: string): string[] {
	const words = text.match(/"(?:[^"\\]|\\.)*"|\S+/g) ?? [];
	return words.map((word) =>
		word.startsWith('"')
			? word
					.slice(1, -1)
					.replace(
						/\\(.)/g,
						(_, escaped: string) => escapes[escaped] ?? escaped,
					)
			: word,
	);
}
