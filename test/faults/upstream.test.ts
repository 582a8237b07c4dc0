import type { Socket } from "node:net";
import t from "tap";
import { type StandIn, startStandIn } from "../../src/ollama/standIn.ts";
import { eventually, startGate, testKeys } from "../support/gate.ts";
import {
	chunk,
	head,
	openRaw,
	post,
	shows,
	statusOf,
	within,
} from "../support/raw.ts";
import { startRawServer } from "../support/rawServer.ts";

type Answer = (socket: Socket) => void;

const done = '{"model":"qwen3:8b","message":{"content":"x"},"done":true}\n';
const token = '{"model":"qwen3:8b","message":{"content":"x"},"done":false}\n';
const ok = (...lines: string[]) => head("HTTP/1.1 200 OK", ...lines);
const whole = `${ok(
	"Content-Type: application/x-ndjson",
	`Content-Length: ${done.length}`,
)}${done}`;
const chunked = ok(
	"Content-Type: application/x-ndjson",
	"Transfer-Encoding: chunked",
);
const chat = (...lines: string[]) =>
	post("/api/chat", '{"model":"qwen3:8b"}', shows(testKeys.user), ...lines);

/** An upstream whose every byte is in the test's hands; it answers each request as it is told to. */
async function startRawUpstream(t: {
	teardown(action: () => unknown): unknown;
}) {
	let answer: Answer = (socket) => socket.write(whole);
	const { port, sockets } = await startRawServer(t, (socket) => {
		let text = "";
		socket.on("data", (data) => {
			text += data.toString("latin1");
			if (!text.endsWith('{"model":"qwen3:8b"}')) return;
			text = "";
			answer(socket);
		});
	});
	return {
		url: `http://127.0.0.1:${port}`,
		answerWith(next: Answer) {
			answer = next;
		},
		openSockets: () => sockets.size,
	};
}

/** What goes wrong, and what the client and the log are told. */
const faults: Record<
	string,
	{
		answer: Answer;
		status: number;
		reason: string;
	}
> = {
	"resets in the middle of its headers": {
		answer: (socket) =>
			socket.write("HTTP/1.1 200 OK\r\nContent-Ty", () =>
				socket.resetAndDestroy(),
			),
		status: 502,
		reason: "upstream_died",
	},
	"closes in the middle of its headers": {
		answer: (socket) => socket.end("HTTP/1.1 200 OK\r\nContent-Ty"),
		status: 502,
		reason: "upstream_died",
	},
	"resets behind its headers": {
		answer: (socket) => {
			socket.write(chunked);
			setTimeout(() => socket.resetAndDestroy(), 50);
		},
		status: 200,
		reason: "upstream_died",
	},
	"stalls behind its headers": {
		answer: (socket) => socket.write(chunked),
		status: 200,
		reason: "upstream_timeout",
	},
	"leaves out the end of its chunks": {
		answer: (socket) => socket.end(chunked + chunk(token) + chunk(done)),
		status: 200,
		reason: "upstream_died",
	},
	"ends in the middle of a chunk": {
		answer: (socket) => socket.end(`${chunked}ffff\r\n${token}`),
		status: 200,
		reason: "upstream_died",
	},
	"names two lengths": {
		answer: (socket) =>
			socket.write(`${ok("Content-Length: 2", "Content-Length: 3")}{}`),
		status: 502,
		reason: "upstream_garbage",
	},
	"names a length and sends chunks": {
		answer: (socket) =>
			socket.write(
				`${ok("Content-Length: 2", "Transfer-Encoding: chunked")}${chunk("{}")}0\r\n\r\n`,
			),
		status: 502,
		reason: "upstream_garbage",
	},
	"switches protocols unasked": {
		answer: (socket) =>
			socket.write(
				head(
					"HTTP/1.1 101 Switching Protocols",
					"Connection: Upgrade",
					"Upgrade: h2c",
				),
			),
		status: 502,
		reason: "upstream_garbage",
	},
};

t.test(
	"whatever Ollama does to a reply, the client is told, nobody gets another's, and nothing is left of it",
	async (t) => {
		const upstream = await startRawUpstream(t);
		const gate = await startGate(t, {
			upstreamUrl: upstream.url,
			config: {
				limits: { perKey: { concurrent: 1 } },
				upstream: { firstByteTimeout: "500ms", idleTimeout: "500ms" },
			},
		});
		for (const [what, { answer, status, reason }] of Object.entries(faults)) {
			upstream.answerWith(answer);
			gate.log.length = 0;
			const client = await openRaw(gate.port);
			client.write(chat());
			await client.until(
				(text) => !text.startsWith("HTTP/1.1 200") && text.includes("\r\n\r\n"),
			);
			t.match(client.text(), new RegExp(`^HTTP/1.1 ${status} `), what);
			t.match(client.text(), /"error":/, `${what}: it is told`);
			t.notMatch(client.text(), /\r\n0\r\n\r\n$/, `${what}: it is not whole`);
			t.match(
				await gate.logged(({ msg }) => msg === "request"),
				{ outcome: "upstream_error", reason },
				what,
			);
			client.destroy();
			upstream.answerWith((socket) => socket.write(whole));
			const next = await openRaw(gate.port);
			next.write(chat("Connection: close"));
			const [reply] = await next.untilReplies(1);
			t.match(
				reply,
				{ status: 200, body: done },
				`${what}: the next is served`,
			);
			next.destroy();
			t.ok(upstream.openSockets() <= 1, `${what}: its connection is closed`);
		}
		await eventually(async () => (await statusOf(gate)).streams === 0);
	},
);

t.test(
	"what Ollama sends behind a reply's end is nobody's answer",
	async (t) => {
		const upstream = await startRawUpstream(t);
		const gate = await startGate(t, { upstreamUrl: upstream.url });
		const poison = `${ok("Content-Length: 6")}POISON`;
		const client = await openRaw(gate.port);
		for (let turn = 1; turn <= 4; turn++) {
			let connection: Socket | undefined;
			upstream.answerWith((socket) => {
				connection = socket;
				// In one packet with the reply, or once it has been read.
				socket.write(turn % 2 === 0 ? whole : whole + poison);
			});
			client.write(chat());
			const replies = await client.untilReplies(turn);
			t.match(replies[turn - 1], { status: 200, body: done });
			if (turn % 2 === 0) connection?.write(poison);
			await eventually(() => upstream.openSockets() === 0);
		}
		client.destroy();
	},
);

t.test(
	"to a reply with a length nothing is added, though Ollama's stream in it is not at its end",
	async (t) => {
		const upstream = await startRawUpstream(t);
		const gate = await startGate(t, { upstreamUrl: upstream.url });
		upstream.answerWith((socket) =>
			socket.write(
				`${ok(
					"Content-Type: application/x-ndjson",
					`Content-Length: ${token.length}`,
				)}${token}`,
			),
		);
		const client = await openRaw(gate.port);
		client.write(chat());
		await within(client.closed, "the connection's end");
		t.ok(client.text().endsWith(`\r\n\r\n${token}`));
		t.match(await gate.logged(({ msg }) => msg === "request"), {
			outcome: "upstream_error",
			reason: "upstream_truncated",
		});
	},
);

t.test(
	"interim replies (100, 102, 103) are passed over, several too",
	async (t) => {
		const upstream = await startRawUpstream(t);
		const gate = await startGate(t, { upstreamUrl: upstream.url });
		upstream.answerWith((socket) =>
			socket.write(
				head("HTTP/1.1 100 Continue") +
					head("HTTP/1.1 102 Processing") +
					head("HTTP/1.1 103 Early Hints", "Link: </x>; rel=preload").repeat(
						3,
					) +
					whole,
			),
		);
		const client = await openRaw(gate.port);
		client.write(chat());
		t.match(await client.untilReplies(1), [{ status: 200, body: done }]);
		t.equal(client.replies().length, 1, "the client sees none of them");
		client.destroy();
	},
);

t.test(
	"Ollama may be restarted under load: every request has an end that it can tell, none is sent twice, and all is well afterwards",
	async (t) => {
		const options = { tokenIntervalMs: 1 };
		let standIn: StandIn = await startStandIn(options);
		t.teardown(() => standIn.close());
		const gate = await startGate(t, { upstreamUrl: standIn.url });
		const counts = { whole: 0, refused: 0, cut: 0 };
		let calls = 0;
		let sent = 0;
		let going = true;
		const work = async () => {
			while (going) {
				sent += 1;
				const client = await openRaw(gate.port);
				client.write(
					post(
						"/api/chat",
						'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}],"options":{"num_predict":20}}',
						shows(testKeys.user),
						"Connection: close",
					),
				);
				await within(client.closed, "the end of a request");
				const text = client.text();
				if (text.endsWith("\r\n0\r\n\r\n") && text.includes('"done":true'))
					counts.whole += 1;
				else if (text.startsWith("HTTP/1.1 502")) counts.refused += 1;
				else if (/"error":"Ollama [^"]*"\}\n/.test(text)) counts.cut += 1;
				else t.fail(`an end that nobody can tell: ${JSON.stringify(text)}`);
			}
		};
		const workers = Array.from({ length: 20 }, work);
		for (let restart = 0; restart < 3; restart++) {
			const { whole, refused } = counts;
			await eventually(() => counts.whole > whole + 20);
			calls += standIn.calls.length;
			const { port } = standIn;
			await standIn.close();
			await eventually(() => counts.refused > refused + 20);
			standIn = await startStandIn({ ...options, port });
		}
		const { whole } = counts;
		await eventually(() => counts.whole > whole + 20);
		going = false;
		await Promise.all(workers);
		t.comment(JSON.stringify(counts));
		t.ok(counts.cut > 0 && counts.refused > 0);
		t.ok(calls + standIn.calls.length <= sent, "none was sent twice");
		t.equal(
			gate.log.filter(({ msg }) => msg === "request").length,
			sent,
			"each has its line",
		);
		await eventually(
			async () =>
				(await statusOf(gate)).streams === 0 && standIn.activeCalls() === 0,
		);
		t.ok((await standIn.openConnections()) <= 20);
	},
);
