import { outputOf } from "./run.ts";
import { becomesTrue } from "./waiting.ts";

/** A unit as systemd has it in force. */
export interface Unit {
	readonly name: string;
	/** Whether systemd knows such a unit. */
	readonly exists: boolean;
	/** Whether a person has kept systemd from starting it. */
	readonly isMasked: boolean;
	readonly isActive: boolean;
	/** Whether systemd has given up on it. */
	readonly isFailed: boolean;
	/** Whether it is started at boot. */
	readonly isEnabled: boolean;
	/** The file that it is written in. */
	readonly file: string;
	readonly dropIns: readonly string[];
	/** What `Environment=` gives the service; not what an `EnvironmentFile=` adds. */
	readonly environment: ReadonlyMap<string, string>;
	readonly environmentFiles: readonly string[];
}

/** A unit's properties as systemd has them in force, by name; a property that is there twice is joined by a line break. */
export type Properties = ReadonlyMap<string, string>;

const wanted =
	"LoadState,ActiveState,UnitFileState,FragmentPath,DropInPaths,Environment,EnvironmentFiles";

/** Asks systemd about a unit; `undefined` if this host has no systemd that answers. */
export async function lookUpUnit(name: string): Promise<Unit | undefined> {
	return (await lookUpUnits([name]))?.[0];
}

/** The same for several, each with its properties, and others that are wanted. */
export async function lookUpUnits(
	names: readonly string[],
	...others: readonly string[]
): Promise<
	readonly (Unit & { readonly properties: Properties })[] | undefined
> {
	const output = await outputOf(
		"systemctl",
		"show",
		...names,
		`--property=${[wanted, ...others].join(",")}`,
	);
	// An empty line is between two.
	const parts = output?.split("\n\n") ?? [];
	if (parts.length !== names.length) return undefined;
	return parts.map((said, index) => ({
		...parseUnit(names[index] ?? "", said),
		properties: parseProperties(said),
	}));
}

/** Waits, for twenty seconds at most, while one of them is being started, reloaded or stopped: such a moment tells nothing of how it is. */
export async function untilAtRest(names: readonly string[]): Promise<void> {
	await becomesTrue(async () => {
		const units = await lookUpUnits(names, "SubState");
		return !units?.some(({ properties }) => isOnItsWay(properties));
	});
}

function isOnItsWay(properties: Properties): boolean {
	return (
		["activating", "reloading", "deactivating"].includes(
			properties.get("ActiveState") ?? "",
		) &&
		// One that falls again and again is on its way to nowhere.
		properties.get("SubState")?.startsWith("auto-restart") !== true
	);
}

/** Reads what `systemctl show` prints. */
export function parseProperties(output: string): Properties {
	const properties = new Map<string, string>();
	for (const line of output.split("\n")) {
		const equals = line.indexOf("=");
		if (equals <= 0) continue;
		const name = line.slice(0, equals);
		const value = line.slice(equals + 1);
		const before = properties.get(name);
		properties.set(name, before === undefined ? value : `${before}\n${value}`);
	}
	return properties;
}

/** Reads what `systemctl show` prints. */
export function parseUnit(name: string, output: string): Unit {
	const properties = parseProperties(output);
	const all = (property: string) => properties.get(property)?.split("\n") ?? [];
	const one = (property: string) => all(property)[0] ?? "";
	const environment = new Map<string, string>();
	for (const word of splitWords(one("Environment"))) {
		const equals = word.indexOf("=");
		if (equals > 0)
			environment.set(word.slice(0, equals), word.slice(equals + 1));
	}
	return {
		name,
		exists: one("LoadState") === "loaded",
		isMasked: one("LoadState") === "masked",
		isActive: one("ActiveState") === "active",
		isFailed: one("ActiveState") === "failed",
		isEnabled: ["enabled", "alias", "static"].includes(one("UnitFileState")),
		file: one("FragmentPath"),
		dropIns: splitWords(one("DropInPaths")),
		environment,
		// `/etc/default/ollama (ignore_errors=yes)`, a line each.
		environmentFiles: all("EnvironmentFiles")
			.map((text) => text.replace(/ \(ignore_errors=(yes|no)\)$/, ""))
			.filter(Boolean),
	};
}

/** What follows a backslash for something else. */
const escapes: Readonly<Record<string, string>> = {
	a: "\x07",
	b: "\b",
	f: "\f",
	n: "\n",
	r: "\r",
	t: "\t",
	v: "\v",
};

/** systemd puts a word into double quotes where a shell would need them, with C's escapes (basic/escape.c, shell_maybe_quote). */
export function splitWords(text: string): string[] {
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
