import { outputOf } from "./run.ts";

/** The number of a user or a group; `undefined` where this host has none of that name. */
export async function accountNumber(
	database: "passwd" | "group",
	name: string,
): Promise<number | undefined> {
	// A line of /etc/passwd or /etc/group has it in its third field.
	const line = await outputOf("getent", database, name);
	const number = Number(line?.split(":")[2] || Number.NaN);
	return Number.isInteger(number) ? number : undefined;
}
