import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import t from "tap";
import { sendPlain } from "../../src/gate/plainReply.ts";
import { startGate, testKeys } from "../support/gate.ts";
import { head, openRaw, shows } from "../support/raw.ts";

const withoutKey = head("GET /api/version HTTP/1.1", "Host: gate");
const withKey = head(
	"GET /api/version HTTP/1.1",
	"Host: gate",
	shows(testKeys.user),
);

/** A server that answers by `answer`. */
async function serve(
	t: { teardown(action: () => unknown): unknown },
	answer: (res: ServerResponse) => void,
): Promise<number> {
	const server = createServer((_, res) => answer(res)).listen(0, "127.0.0.1");
	t.teardown(() => {
		server.closeAllConnections();
		server.close();
	});
	await once(server, "listening");
	return (server.address() as { port: number }).port;
}

t.test(
	"refusals and replies take turns on one connection, pipelined or not",
	async (t) => {
		const gate = await startGate(t);
		const client = await openRaw(gate.port);
		t.teardown(() => client.destroy());
		const statuses = async (count: number) =>
			(await client.untilReplies(count)).map(({ status }) => status);
		client.write(withoutKey);
		t.strictSame(await statuses(1), [401]);
		client.write(withoutKey + withKey + withoutKey + withKey);
		t.strictSame(await statuses(5), [401, 401, 200, 401, 200]);
		client.write(withoutKey);
		const replies = await client.untilReplies(6);
		t.match(replies.at(-1)?.headers, {
			"content-type": "application/json",
			date: / GMT$/,
			"x-should-retry": "false",
			"keep-alive": "timeout=300",
		});
	},
);

t.test("a value that would be another line is left to Node", async (t) => {
	const sent: boolean[] = [];
	const port = await serve(t, (res) => {
		for (const value of ["a\r\nb: c", "a\nb", "a\u0000", "\u20ac"])
			sent.push(sendPlain(res, 401, ["x-a", value], ""));
		res.end("none");
	});
	const reply = await fetch(`http://127.0.0.1:${port}`);
	t.equal(await reply.text(), "none");
	t.equal(reply.headers.get("x-a"), null);
	t.strictSame(sent, [false, false, false, false]);
});

t.test(
	"behind what a client has not read yet, nothing is written past Node",
	async (t) => {
		const body = "x".repeat(16 * 2 ** 20);
		const { promise, resolve } = Promise.withResolvers<boolean[]>();
		const port = await serve(t, (res) => {
			const lines = ["content-length", `${body.length}`];
			const { socket } = res;
			resolve([
				sendPlain(res, 401, lines, body),
				sendPlain(res, 401, lines, body),
			]);
			socket?.destroy();
		});
		const client = await openRaw(port);
		t.teardown(() => client.destroy());
		client.write(withoutKey);
		t.strictSame(await promise, [true, false]);
	},
);
