import { type Properties, splitWords } from "../../system/units.ts";

/** Where what is in force of a unit lets the daemon see or run more than its file does. */
export interface Departure {
	/** The setting that a drop-in would have. */
	readonly setting: string;
	readonly says: string;
}

/** Variables by which Node and its libraries load further code, or are allowed more. */
const loading =
	/^(?:NODE_OPTIONS|NODE_PATH|LD_\w+|GCONV_PATH|OPENSSL_(?:CONF|ENGINES|MODULES))$/;
/** Options of Node's and V8's that change how much memory it takes, and nothing else. */
const ofMemory = /^--max[-_][a-z_-]+=\d+$/;

/**
 * Compares what the gate is started with and shown with its unit's file: that
 * has other paths where npm installed it, so nothing here knows them.
 *
 * @param properties as `systemctl show` prints them
 * @param unitFile the text that was shipped or written by setup
 * @param environment the text of the files that `EnvironmentFile=` names
 * @returns nothing for a setting that systemd does not tell
 */
export function departures(
	properties: Properties,
	unitFile: string,
	environment: string,
): Departure[] {
	const shipped = (setting: string) => valuesIn(unitFile, setting);
	const inForce = (setting: string) =>
		splitWords(properties.get(setting) ?? "");
	const found: Departure[] = [];
	const tell = (setting: string, verb: string, words: readonly string[]) => {
		if (words.length > 0)
			found.push({ setting, says: `${setting} ${verb} ${words.join(", ")}` });
	};

	const start = properties.get("ExecStart");
	if (start !== undefined) {
		const [program = "", options, script = ""] = partsOf(
			shipped("ExecStart").join(" "),
		);
		for (const [, argv = ""] of start.matchAll(/argv\[\]=(.*?) ;/g)) {
			const now = partsOf(argv);
			tell("ExecStart", "starts", [
				...(now[0] === program ? [] : [`${now[0]} in place of ${program}`]),
				...(now[2] === script ? [] : [`${now[2]} in place of ${script}`]),
			]);
			tell(
				"ExecStart",
				"is without",
				options.filter(
					(option) => option === "--permission" && !now[1].includes(option),
				),
			);
			tell(
				"ExecStart",
				"was shipped without",
				now[1].filter(
					(option) => !options.includes(option) && !ofMemory.test(option),
				),
			);
		}
	}
	if (properties.has("InaccessiblePaths")) {
		const hidden = inForce("InaccessiblePaths").map(withoutDash);
		tell(
			"InaccessiblePaths",
			"is without",
			shipped("InaccessiblePaths")
				.map(withoutDash)
				.filter((path) => !hidden.includes(path)),
		);
	}
	const shown = shipped("BindReadOnlyPaths").map(bindOf);
	tell(
		"BindReadOnlyPaths",
		"was shipped without",
		inForce("BindReadOnlyPaths")
			.map(bindOf)
			.filter((path) => !shown.includes(path)),
	);
	const own = shipped("Environment");
	tell(
		"Environment",
		"gives it",
		inForce("Environment")
			.filter((entry) => !own.includes(entry))
			.filter(loadsCode)
			.map(nameOf),
	);
	tell(
		"EnvironmentFile",
		"gives it",
		environment
			.split("\n")
			.map((line) => line.trim())
			.filter(loadsCode)
			.map(nameOf),
	);
	tell(
		"PassEnvironment",
		"gives it",
		inForce("PassEnvironment").filter((name) => loading.test(name)),
	);
	return found;
}

/** The words of all lines of a setting; an empty line takes those before it away. */
function valuesIn(unitFile: string, setting: string): string[] {
	let values: string[] = [];
	for (const [, value = ""] of unitFile.matchAll(
		new RegExp(`^${setting}=(.*)$`, "gm"),
	))
		values = value.trim() === "" ? [] : [...values, ...splitWords(value)];
	return values;
}

/** The program, its options, and the script that it is given. */
function partsOf(command: string): [string, string[], string] {
	const [program = "", ...rest] = splitWords(command);
	const end = rest.findIndex((word) => !word.startsWith("-"));
	return end === -1
		? [program, rest, ""]
		: [program, rest.slice(0, end), rest[end] ?? ""];
}

/** With a dash it may be missing. */
const withoutDash = (path: string) => path.replace(/^-/, "");

/** systemd prints `/run:/run:rbind` for `/run`. */
function bindOf(entry: string): string {
	const [source = "", target = source] = withoutDash(entry).split(":");
	return source === target ? source : `${source}:${target}`;
}

const nameOf = (entry: string) => entry.split("=")[0]?.trim() ?? "";

function loadsCode(entry: string): boolean {
	if (!loading.test(nameOf(entry))) return false;
	const value = entry.slice(entry.indexOf("=") + 1).replace(/["']/g, "");
	return (
		nameOf(entry) !== "NODE_OPTIONS" ||
		!value
			.split(/\s+/)
			.filter(Boolean)
			.every((option) => ofMemory.test(option))
	);
}
