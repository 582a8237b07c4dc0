import { text } from "node:stream/consumers";
import { isWholeReply, sendRaw } from "./gate.ts";

/**
 * Sends raw requests from a network of its own, each on a connection of its
 * own, and waits for the reply. Its input holds them as JSON, its output the
 * replies.
 */
const { host, port, requests } = JSON.parse(await text(process.stdin)) as {
	host: string;
	port: number;
	/** Latin-1, a character a byte. */
	requests: string[];
};
const replies: string[] = [];
for (const request of requests)
	replies.push(
		await sendRaw(port, Buffer.from(request, "latin1"), isWholeReply, host),
	);
process.stdout.write(JSON.stringify(replies));
