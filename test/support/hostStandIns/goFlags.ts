/**
 * Reads a command line as Go's package flag does: one dash or two, a boolean's
 * value only after "=", and nothing after the first argument that is no flag.
 *
 * @throws {Error} with the words that Go has for it
 */
export function goFlags(
	args: readonly string[],
	known: Readonly<Record<string, "boolean" | "string">>,
): { flags: Record<string, string>; positional: string[] } {
	const flags: Record<string, string> = {};
	for (let index = 0; index < args.length; index += 1) {
		const [, name = "", value] =
			/^--?([^-=][^=]*)(?:=(.*))?$/s.exec(args[index] ?? "") ?? [];
		if (name === "")
			return {
				flags,
				positional: args.slice(args[index] === "--" ? index + 1 : index),
			};
		const kind = known[name];
		if (kind === undefined)
			throw new Error(`flag provided but not defined: -${name}`);
		if (kind === "boolean") flags[name] = value ?? "true";
		else {
			if (value === undefined) index += 1;
			const given = value ?? args[index];
			if (given === undefined)
				throw new Error(`flag needs an argument: -${name}`);
			flags[name] = given;
		}
	}
	return { flags, positional: [] };
}
