const mostBytes = 65_536;

/**
 * The text of a reply from a program that may be anybody's.
 *
 * @throws if it is longer than 64 KiB
 */
export async function readSmallText(
	body: AsyncIterable<Uint8Array>,
): Promise<string> {
	const chunks: Uint8Array[] = [];
	let bytes = 0;
	for await (const chunk of body) {
		bytes += chunk.length;
		// Leaving the loop ends the connection.
		if (bytes > mostBytes)
			throw new Error(`the reply has more than ${mostBytes} bytes`);
		chunks.push(chunk);
	}
	return Buffer.concat(chunks).toString();
}

/** @throws if it is longer than 64 KiB, or no JSON */
export async function readSmallJson(reply: Response): Promise<unknown> {
	return JSON.parse(reply.body === null ? "" : await readSmallText(reply.body));
}
