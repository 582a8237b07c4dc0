import t from "tap";
import { askLiveOn } from "../../src/admin/live.ts";
import { eventually, testEntries, testKeys } from "../support/gate.ts";
import { jumpingClock } from "../support/jumpingClock.ts";
import {
	beginStream,
	passIdleTimeout,
	startPipelined,
	token,
} from "../support/pipelined.ts";
import { head, post, shows, within } from "../support/raw.ts";

/** A request may come before the reply to the one before it; the replies then leave in turn. */

const owner = shows(testKeys.owner);
const user = shows(testKeys.user);
const json = "application/json";
const ndjson = "application/x-ndjson";
const sse = "text/event-stream";
const last = '{"model":"m","response":"","done":true}\n';
const generate = post("/api/generate", '{"model":"m"}', owner);
const version = head("GET /api/version HTTP/1.1", "Host: gate", owner);
const tags = head("GET /api/tags HTTP/1.1", "Host: gate", owner);

const routeOf = (name: string) => (line: Record<string, unknown>) =>
	line.msg === "request" && line.route === name;

t.test(
	"a whole reply that waits behind a stream for longer than idleTimeout is sent in its turn",
	async (t) => {
		const place = await startPipelined(t);
		const { gate, client, ollamas } = place;
		const front = await beginStream(place);
		client.write(version);
		const behind = await ollamas("/api/version");
		behind.writeHead(200, { "content-type": json }).end('{"version":"7"}');
		for (const round of [1, 2]) {
			await passIdleTimeout(t, gate);
			t.notOk(client.isClosed(), `the stream goes on, ${round}`);
		}
		front.end(token + last);
		const replies = await client.untilReplies(2);
		t.equal(replies[0]?.body, token + token + last);
		t.equal(replies[1]?.body, '{"version":"7"}');
		t.match(await gate.logged(routeOf("GET /api/version")), { outcome: "ok" });
	},
);

t.test(
	"a whole reply that waits behind a stream is charged the time that Ollama took",
	async (t) => {
		const keys = testEntries.map((entry) =>
			entry.name === "user"
				? { ...entry, budget: { gpu: "2h", per: "month" } as const }
				: entry,
		);
		const place = await startPipelined(t, {}, keys);
		const { gate, client, ollamas } = place;
		const jump = jumpingClock(t);
		const live = async () => {
			const asked = await askLiveOn(`${gate.folder}/admin.sock`);
			if (asked.kind !== "live") throw new Error(asked.why);
			return asked.live;
		};
		const front = await beginStream(place);
		client.write(post("/v1/embeddings", '{"model":"m"}', user));
		const behind = await ollamas("/v1/embeddings");
		behind.writeHead(200, { "content-type": json }).end('{"data":[]}');
		await eventually(async () =>
			(await live()).top.requests.some(
				({ key, repliesMs }) => key === "user" && repliesMs !== null,
			),
		);
		jump(3_600_000);
		front.end(last);
		await client.untilReplies(2);
		await gate.logged(routeOf("POST /v1/embeddings"));
		const [budget] = (await live()).budgets;
		t.equal(budget?.used.requests, 1);
		t.ok((budget?.used.gpuMs ?? Number.NaN) < 3_600_000);
	},
);

t.test(
	"so is a stream that is longer than what is kept of it meanwhile",
	async (t) => {
		const place = await startPipelined(t);
		const { gate, client, ollamas } = place;
		const front = await beginStream(place);
		client.write(post("/api/chat", '{"model":"m"}', owner));
		const behind = await ollamas("/api/chat");
		behind.writeHead(200, { "content-type": ndjson });
		const many = token.repeat(50_000);
		behind.write(many);
		for (const round of [1, 2]) {
			await passIdleTimeout(t, gate);
			t.notOk(client.isClosed(), `the stream in front goes on, ${round}`);
		}
		front.end(last);
		behind.end(last);
		const replies = await client.untilReplies(2);
		t.equal(replies[0]?.body, token + last);
		t.ok(replies[1]?.body === many + last, "all of it");
		t.match(await gate.logged(routeOf("POST /api/chat")), { outcome: "ok" });
	},
);

t.test(
	"a client that reads nothing is cut all the same, with all that waits",
	async (t) => {
		const place = await startPipelined(t);
		const { gate, client, ollamas } = place;
		const front = await beginStream(place);
		client.write(version);
		const behind = await ollamas("/api/version");
		behind.writeHead(200, { "content-type": json }).end("{}");
		client.socket.pause();
		const more = () => {
			while (!front.destroyed && front.write(token.repeat(2_000)));
		};
		front.on("drain", more);
		more();
		t.match(await gate.logged(routeOf("POST /api/generate")), {
			outcome: "cut",
			reason: "client_stalled",
		});
		t.match(await gate.logged(routeOf("GET /api/version")), {
			outcome: "client_gone",
		});
	},
);

const created = `event: response.created\ndata: ${JSON.stringify({
	type: "response.created",
	sequence_number: 0,
	response: { id: "resp_7", model: "m" },
})}\n\n`;
const broken: readonly (readonly [string, string, string, boolean])[] = [
	["/api/chat", ndjson, token, false],
	["/v1/chat/completions", sse, "data: {}\n\n", false],
	["/v1/responses", sse, created, true],
];

for (const [path, type, beginning, endsWhole] of broken)
	t.test(
		`a stream of ${path} that is cut while it waits does not end the stream before it`,
		async (t) => {
			const place = await startPipelined(t);
			const { gate, client, ollamas, asked } = place;
			const front = await beginStream(place);
			client.write(post(path, '{"model":"m"}', user));
			const behind = await ollamas(path);
			behind.writeHead(200, { "content-type": type });
			behind.write(beginning);
			await passIdleTimeout(t, gate);
			await gate.writeKeys(testEntries.filter(({ name }) => name !== "user"));
			await gate.daemon.reload();
			t.match(await gate.logged(routeOf(`POST ${path}`)), {
				outcome: "cut",
				reason: "revoked",
			});
			if (!endsWhole) client.write(tags);
			// Longer than a cut may take otherwise.
			await gate.writeKeys(testEntries);
			await gate.daemon.reload();
			await passIdleTimeout(t, gate);
			front.write(token);
			await client.until((text) => text.split(token).length > 2);
			t.notOk(client.isClosed(), "the stream in front goes on");
			front.end(last);
			if (endsWhole) await client.untilReplies(2);
			else await within(client.closed, "the cut");
			const text = client.text();
			t.equal(client.replies()[0]?.body, token + token + last);
			t.match(text, beginning.trimEnd());
			t.match(text, "has been revoked");
			t.notOk(asked.includes("/api/tags"), "and nothing runs behind it");
		},
	);

t.test("nor does a refusal whose request still comes", async (t) => {
	const place = await startPipelined(t, { upstream: { idleTimeout: "4s" } });
	const { gate, client } = place;
	const front = await beginStream(place);
	client.write(post("/api/chat", "x".repeat(1_000)).slice(0, -990));
	await passIdleTimeout(t, gate);
	t.notOk(client.isClosed(), "the stream in front goes on");
	front.end(last);
	const replies = await client.untilReplies(2);
	t.equal(replies[0]?.body, token + last);
	t.equal(replies[1]?.status, 401);
	await within(client.closed, "the end of the gate's patience");
});

t.test(
	"who leaves before a whole reply has had its turn has not had it",
	async (t) => {
		const place = await startPipelined(t);
		const { gate, client, ollamas } = place;
		await beginStream(place);
		client.write(post("/api/chat", '{"model":"m"}', owner));
		const behind = await ollamas("/api/chat");
		behind.writeHead(200, { "content-type": ndjson }).end(token + last);
		await passIdleTimeout(t, gate);
		client.destroy();
		t.match(await gate.logged(routeOf("POST /api/chat")), {
			outcome: "client_gone",
		});
	},
);

t.test(
	"a gate that stops closes a connection behind the last reply on it, and behind none before",
	async (t) => {
		const { gate, client, ollamas } = await startPipelined(t, {
			drainTimeout: "10m",
		});
		client.write(generate + version);
		const front = await ollamas("/api/generate");
		const behind = await ollamas("/api/version");
		const stopped = gate.daemon.stop(120_000);
		await gate.logged(({ msg }) => msg === "stopping");
		front.writeHead(200, { "content-type": ndjson }).end(last);
		await client.until((text) => text.includes(last));
		behind.writeHead(200, { "content-type": json }).end("{}");
		await client.untilReplies(2);
		await client.closed;
		t.strictSame(
			client.replies().map(({ headers }) => headers.connection),
			["keep-alive", "close"],
		);
		await stopped;
	},
);

t.test(
	"a request whose key is revoked takes no reply along that was asked for behind it",
	async (t) => {
		const { gate, client, ollamas } = await startPipelined(t);
		client.write(post("/api/generate", '{"model":"m"}', user) + version);
		await ollamas("/api/generate");
		const behind = await ollamas("/api/version");
		await gate.writeKeys(testEntries.filter(({ name }) => name !== "user"));
		await gate.daemon.reload();
		behind.writeHead(200, { "content-type": json }).end("{}");
		const replies = await client.untilReplies(2);
		t.strictSame(
			replies.map(({ status }) => status),
			[401, 200],
		);
	},
);
