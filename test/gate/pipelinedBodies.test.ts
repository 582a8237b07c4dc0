import t, { type Test } from "tap";
import { testKeys } from "../support/gate.ts";
import {
	beginStream,
	type Place,
	passIdleTimeout,
	startPipelined,
	token,
} from "../support/pipelined.ts";
import { post, shows } from "../support/raw.ts";

/** What a client may do with a request's body while a reply before this one's is still on its way. */

const owner = shows(testKeys.owner);
const last = '{"model":"m","response":"","done":true}\n';
const json = { "content-type": "application/json" };
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
				...json,
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

/** A request without its body, and that. */
function inParts(request: string): [string, string] {
	const bodyAt = request.indexOf("\r\n\r\n") + 4;
	return [request.slice(0, bodyAt), request.slice(bodyAt)];
}

/** Has a reply wait that is so large that Node reads no more of the connection behind the next head. */
async function holdLargeReply(t: Test, place: Place): Promise<string> {
	const { gate, client, ollamas } = place;
	client.write(post("/api/chat", '{"model":"m"}', owner));
	const behind = await ollamas("/api/chat");
	const large = JSON.stringify({ model: "m", response: "y".repeat(300_000) });
	behind.writeHead(200, json).end(large);
	await passIdleTimeout(t, gate);
	return large;
}

t.test(
	"who waits behind a stream for leave to send a body is not refused for that",
	async (t) => {
		const place = await startPipelined(t);
		const { gate, client, ollamas } = place;
		const front = await beginStream(place);
		const [head, body] = inParts(
			post("/api/chat", '{"model":"m"}', owner, "Expect: 100-continue"),
		);
		client.write(head);
		await passIdleTimeout(t, gate);
		await passIdleTimeout(t, gate);
		front.end(token + last);
		await client.until((text) => text.includes("100 Continue"));
		client.write(body);
		const behind = await ollamas("/api/chat");
		behind.writeHead(200, json).end(whole);
		const replies = await client.untilReplies(2);
		t.equal(replies[1]?.body, whole);
	},
);

t.test("nor is one whose body is not read before its turn", async (t) => {
	const place = await startPipelined(t);
	const { gate, client, ollamas } = place;
	const front = await beginStream(place);
	const large = await holdLargeReply(t, place);
	const [head, body] = inParts(post("/api/show", '{"model":"m"}', owner));
	client.write(head);
	await passIdleTimeout(t, gate);
	client.write(body);
	await passIdleTimeout(t, gate);
	front.end(token + last);
	const behind = await ollamas("/api/show");
	behind.writeHead(200, json).end(whole);
	const replies = await client.untilReplies(3);
	t.equal(replies[0]?.body, token + token + last);
	t.ok(replies[1]?.body === large, "all of it");
	t.equal(replies[2]?.body, whole);
});

t.test(
	"nor a large one that is judged, of which a part has come",
	async (t) => {
		const place = await startPipelined(t, { queue: { mode: "fair" } });
		const { gate, client, ollamas } = place;
		const front = await beginStream(place);
		await holdLargeReply(t, place);
		const prompt = JSON.stringify({ model: "m", prompt: "x".repeat(300_000) });
		client.write(post("/v1/completions", prompt, owner));
		await passIdleTimeout(t, gate);
		await passIdleTimeout(t, gate);
		front.end(token + last);
		const behind = await ollamas("/v1/completions");
		behind.writeHead(200, json).end(whole);
		const replies = await client.untilReplies(3);
		t.equal(replies[2]?.body, whole);
	},
);

t.test("a body that stands still in its turn is given up", async (t) => {
	const place = await startPipelined(t);
	const { client } = place;
	const front = await beginStream(place);
	const [head] = inParts(
		post("/api/chat", '{"model":"m"}', owner, "Expect: 100-continue"),
	);
	client.write(head);
	front.end(token + last);
	const replies = await client.untilReplies(2);
	t.equal(replies[1]?.status, 408);
});

t.test(
	"a client that resets its connection is gone, though nothing of it is read while large replies wait",
	async (t) => {
		const place = await startPipelined(t);
		const { gate, client, ollamas } = place;
		client.write(post("/api/generate", '{"model":"m"}', owner));
		await ollamas("/api/generate");
		await holdLargeReply(t, place);
		client.write(post("/api/show", '{"model":"m"}', owner));
		await passIdleTimeout(t, gate);
		client.socket.resetAndDestroy();
		t.match(await gate.logged(({ route }) => route === "POST /api/generate"), {
			outcome: "client_gone",
		});
	},
);
