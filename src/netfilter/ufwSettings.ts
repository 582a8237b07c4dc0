/**
 * Reads a setting of /etc/default/ufw or /etc/ufw/ufw.conf. Two programs of UFW's
 * read these, each in its own way (ufw/backend.py, _get_defaults, with or without
 * double quotes; ufw-init-functions, as a shell): the value is told where both
 * take the line for the same.
 *
 * @returns as it is written, without its quotes; `undefined` where it is not set,
 *   or a line sets it in a way that one of the two reads otherwise or not at all
 */
export function ufwSetting(text: string, name: string): string | undefined {
	const sets = new RegExp(`^[^#]*\\b${name}\\s*=`);
	const values = text
		.split("\n")
		.filter((line) => sets.test(line))
		.map((line) =>
			new RegExp(`^${name}=(?:(\\w+)|"(\\w+)")\\s*$`)
				.exec(line)
				?.slice(1)
				.find((value) => value !== undefined),
		);
	return values.includes(undefined) ? undefined : values.at(-1);
}
