import t from "tap";
import { eventually, startGate, testKeys } from "../support/gate.ts";
import { openRaw, post, shows, statusOf } from "../support/raw.ts";

/**
 * Node uses its parsers again: what was set on one for a connection that broke off
 * must not meet the next one's requests.
 */

const begun = `${post("/api/generate", "x".repeat(1_000)).slice(0, -990)}`;
const whole = post(
	"/api/generate",
	'{"model":"qwen3:8b","prompt":"a","stream":false}',
	shows(testKeys.user),
);
const preflight = [
	"OPTIONS /api/chat HTTP/1.1",
	"Host: gate",
	"Origin: https://chat.example",
	"Access-Control-Request-Method: POST",
	"Content-Length: 1000",
	"",
	"xyz",
].join("\r\n");

const cases: Readonly<Record<string, readonly [string, number]>> = {
	"a refused body that was short": [begun, 401],
	"a preflight with a body": [preflight.replace("\r\nxyz", "\r\n\r\nxyz"), 204],
	"a body in chunks": [
		begun.replace(/Content-Length: \d+/, "Transfer-Encoding: chunked"),
		401,
	],
};

for (const [what, [request, status]] of Object.entries(cases))
	t.test(`who breaks off takes nobody's body along: ${what}`, async (t) => {
		const gate = await startGate(t, {
			config: { cors: { origins: ["https://chat.example"] } },
		});
		for (let turn = 0; turn < 3; turn += 1) {
			const stranger = await openRaw(gate.port, "127.0.0.77");
			stranger.write(request);
			const [refused] = await stranger.untilReplies(1);
			t.equal(refused?.status, status);
			stranger.write("more");
			await eventually(async () => (await statusOf(gate)).connections === 1);
			stranger.socket.resetAndDestroy();
			await eventually(async () => (await statusOf(gate)).connections === 0);
			const client = await openRaw(gate.port);
			client.write(whole);
			const [reply] = await client.untilReplies(1);
			t.equal(reply?.status, 200);
			client.destroy();
			await eventually(async () => (await statusOf(gate)).connections === 0);
		}
	});
