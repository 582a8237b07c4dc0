import t from "tap";
import { startGate, testKeys } from "../support/gate.ts";
import {
	hiddenRequest as hidden,
	honestStatus,
	openRaw,
	post,
	shows,
	strayCalls,
} from "../support/raw.ts";

/** What comes behind a request whose reply closes the connection: its own reply would be lost. */

const body = '{"model":"qwen3:8b","stream":false}';
const http10 = (request: string) =>
	request.replace("HTTP/1.1", "HTTP/1.0\r\nConnection: keep-alive");
const generate = post(
	"/api/generate",
	'{"model":"qwen3:8b","prompt":"a"}',
	shows(testKeys.owner),
);
const copy = post(
	"/api/copy",
	'{"source":"qwen3:8b","destination":"mine"}',
	shows(testKeys.owner),
);

t.test(
	"nothing runs behind a stream over HTTP/1.0, whose end is the close",
	async (t) => {
		const gate = await startGate(t);
		const client = await openRaw(gate.port);
		client.write(http10(generate) + http10(copy));
		await client.closed;
		t.match(client.text(), /^HTTP\/1\.1 200 [\s\S]*"done":true[^\n]*\n$/);
		t.match(client.text(), /^connection: close\r$/im);
		t.equal(await honestStatus(gate), 200);
		t.strictSame(strayCalls(gate), ["POST /api/generate"]);
	},
);

t.test("nor once such a stream has begun", async (t) => {
	const gate = await startGate(t, {
		standIn: { misbehave: () => "stall-mid-stream" },
	});
	const client = await openRaw(gate.port);
	t.teardown(() => client.destroy());
	client.write(http10(generate));
	await client.until((text) => text.includes('"done":false'));
	client.write(http10(copy));
	t.equal(await honestStatus(gate), 200);
	t.equal(await honestStatus(gate), 200);
	t.strictSame(strayCalls(gate), ["POST /api/generate"]);
});

t.test(
	"over HTTP/1.0 a connection is kept behind a reply that has a length",
	async (t) => {
		const gate = await startGate(t);
		const client = await openRaw(gate.port);
		t.teardown(() => client.destroy());
		for (const count of [1, 2]) {
			client.write(http10(hidden));
			const replies = await client.untilReplies(count);
			t.match(replies[count - 1], {
				status: 200,
				headers: { connection: "keep-alive" },
			});
		}
		t.equal(gate.standIn.calls.length, 2);
	},
);

t.test(
	"nothing runs behind what expects leave to send, whose refusal closes",
	async (t) => {
		const gate = await startGate(t, {
			standIn: {
				misbehave: ({ target }) =>
					target === "/api/embed" ? "garbage" : undefined,
			},
		});
		const client = await openRaw(gate.port);
		client.write(
			post("/api/embed", body, shows(testKeys.owner), "Expect: 100-continue") +
				copy,
		);
		await client.closed;
		t.strictSame(
			client.replies().map(({ status }) => status),
			[100, 502],
		);
		t.equal(await honestStatus(gate), 200);
		t.strictSame(strayCalls(gate), ["POST /api/embed"]);
	},
);

t.test(
	"bytes behind the last request do not break its reply off",
	async (t) => {
		const gate = await startGate(t, { standIn: { tokenIntervalMs: 5 } });
		const closing = generate.replace("\r\n", "\r\nConnection: close\r\n");
		for (const behind of [copy, "\0\x01\x02"])
			for (const isLate of [false, true]) {
				const client = await openRaw(gate.port);
				client.write(isLate ? closing : closing + behind);
				await client.until((text) => text.includes('"done":false'));
				if (isLate) client.write(behind);
				await client.closed;
				t.match(client.replies()[0]?.body, '"done":true');
			}
		t.notOk(strayCalls(gate).includes("POST /api/copy"));
	},
);

t.test("nor the replies before it and behind those", async (t) => {
	const gate = await startGate(t, { standIn: { tokenIntervalMs: 5 } });
	const longer = post(
		"/api/generate",
		'{"model":"qwen3:8b","prompt":"a","options":{"num_predict":100}}',
		shows(testKeys.owner),
		"Connection: close",
	);
	const client = await openRaw(gate.port);
	client.write(generate + longer + copy);
	await client.closed;
	const replies = client.replies();
	t.equal(replies.length, 2);
	for (const reply of replies) t.match(reply.body, '"done":true');
	t.notOk(strayCalls(gate).includes("POST /api/copy"));
});
