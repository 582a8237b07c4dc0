import type {
	Client,
	Connection,
	Snippet,
} from "../../../src/clients/client.ts";

/**
 * The text that `llamagate connect` prints for a client, to be used to the letter.
 *
 * @param language the first snippet in it is taken
 */
export function snippet(
	client: Client,
	language: Snippet["language"],
	connection: Connection,
): string {
	const found = client
		.render(connection)
		.snippets.find((one) => one.language === language);
	if (found === undefined)
		throw new Error(`${client.name} has no snippet in ${language}`);
	return found.text;
}

/** A line of shell that starts the program which the snippet's last line starts, with more arguments. */
export function withArguments(shell: string, more: string): string {
	const lines = shell.split("\n");
	// In the shell's place, so that what ends it is seen to.
	return [...lines.slice(0, -1), `exec ${lines.at(-1)} ${more}`].join("\n");
}
