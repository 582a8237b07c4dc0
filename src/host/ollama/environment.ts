import { readFile } from "node:fs/promises";
import type { Unit } from "../../system/units.ts";

/** What a unit gives the environment of its process. */
export type UnitSettings = Pick<Unit, "environment" | "environmentFiles">;

/** As envconfig/config.go:Var takes a value. */
export function trimQuotes(value: string): string {
	const text = value.trim();
	let [start, end] = [0, text.length];
	while (start < end && `"'`.includes(text.charAt(start))) start += 1;
	while (end > start && `"'`.includes(text.charAt(end - 1))) end -= 1;
	return text.slice(start, end);
}

/** What a start would give the process, "" for nothing, and by which file where one says it; or the file that would have to be read. */
export type NextValue =
	| { readonly value: string; readonly file?: string }
	| { readonly unreadable: string };

/** The value of a variable that a start with these settings would get. */
export async function nextValue(
	{ environment, environmentFiles }: UnitSettings,
	name: string,
): Promise<NextValue> {
	let next: NextValue = { value: environment.get(name) ?? "" };
	const line = new RegExp(`^\\s*${name}\\s*=\\s*(.*?)\\s*$`, "gm");
	// What a file says counts more than what the unit says (systemd.exec(5)).
	for (const file of environmentFiles) {
		const text = await readFile(file, "utf8").catch(
			({ code }: NodeJS.ErrnoException) => (code === "ENOENT" ? "" : undefined),
		);
		if (text === undefined) return { unreadable: file };
		for (const [, value = ""] of text.matchAll(line)) next = { value, file };
	}
	return next;
}
