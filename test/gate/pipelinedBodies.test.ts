import t from "tap";
import { testKeys } from "../support/gate.ts";
import {
	beginStream,
	passIdleTimeout,
	startPipelined,
	token,
} from "../support/pipelined.ts";
import { post, shows } from "../support/raw.ts";

/** What a client may do with a request's body while a reply before this one's is still on its way. */

const owner = shows(testKeys.owner);
const last = '{"model":"m","response":"","done":true}\n';
const whole = JSON.stringify({ model: "m", response: "y".repeat(6_000) });

t.test(
	"leave to go on comes before a reply that waits, and not in the middle of it",
	async (t) => {
		const place = await startPipelined(t);
		const { client, ollamas } = place;
		const front = await beginStream(place);
		const chat = post(
			"/api/chat",
			'{"model":"m"}',
			owner,
			"Expect: 100-continue",
		);
		client.write(chat);
		const behind = await ollamas("/api/chat");
		behind
			.writeHead(200, {
				"content-type": "application/json",
				"content-length": whole.length,
			})
			.end(whole);
		await passIdleTimeout(t, place.gate);
		front.end(token + last);
		const replies = await client.untilReplies(2);
		t.equal(replies[1]?.status, 200);
		t.equal(replies[1]?.body, whole);
	},
);
