import t from "tap";
import { digestOf } from "../../src/keys/newKey.ts";
import {
	spawnGate,
	startGate,
	testEntries,
	testKeys,
} from "../support/gate.ts";
import {
	head,
	honestStatus,
	openRaw,
	type RawClient,
	shows,
	within,
} from "../support/raw.ts";

const flooder = "127.0.0.2";
const origin = "https://chat.example";

const floods: Record<string, string> = {
	"a foreign path with a good key": head(
		"GET /no/such/path HTTP/1.1",
		"Host: gate",
		shows(testKeys.user),
	),
	"calls outside of a key's scopes": head(
		"GET /api/tags HTTP/1.1",
		"Host: gate",
		shows(testKeys.worker),
	),
	"preflights of a listed origin": head(
		"OPTIONS /api/chat HTTP/1.1",
		"Host: gate",
		`Origin: ${origin}`,
		"Access-Control-Request-Method: POST",
	),
	"requests beyond a key's limit": head(
		"GET /api/version HTTP/1.1",
		"Host: gate",
		shows(testKeys.reader),
	),
};
for (const [what, request] of Object.entries(floods)) {
	t.test(`a flood of ${what} is answered ever later`, async (t) => {
		const gate = await spawnGate(t, {
			config: {
				cors: { origins: [origin] },
				...(what.includes("limit")
					? { limits: { perKey: { requestsPerMinute: 5 } } }
					: {}),
			},
		});
		const clients: RawClient[] = [];
		t.teardown(() => {
			for (const client of clients) client.destroy();
		});
		// More than a thousand; one that sends on while its answer is held back is cut off.
		for (let n = 0; n < 200; n++) {
			const client = await openRaw(gate.port, flooder);
			clients.push(client);
			client.write(request.repeat(60));
			if (n % 20 === 0 && clients.some((one) => one.isClosed())) break;
		}
		await within(
			Promise.race(clients.map(({ closed }) => closed)),
			"one of them to be cut off",
		);
		t.ok(
			clients.some(
				(client) => client.isClosed() && client.replies().length < 60,
			),
			"not all were answered",
		);
		if (!what.includes("limit"))
			t.equal(await honestStatus(gate), 200, "another is served");
	});
}

t.test("an expired key is a stranger's: a thousand refusals", async (t) => {
	const gate = await startGate(t, {
		keys: [
			...testEntries,
			{
				name: "old",
				sha256: digestOf(testKeys.wrong),
				expires: "2020-01-01T00:00:00Z",
			},
		],
	});
	const client = await openRaw(gate.port, flooder);
	const request = head(
		"GET /api/version HTTP/1.1",
		"Host: gate",
		shows(testKeys.wrong),
	);
	for (let n = 50; n <= 1_000; n += 50) {
		client.write(request.repeat(50));
		await client.untilReplies(n);
	}
	await within(client.closed, "the gate to close the connection");
	const replies = client.replies();
	t.equal(replies.length, 1_000);
	t.ok(replies.every(({ status }) => status === 403));
	t.equal(replies.at(-1)?.headers.connection, "close");
});

t.test("one key may hold 1,024 connections", async (t) => {
	const gate = await spawnGate(t, {
		config: { limits: { perKey: { concurrent: 16 } } },
	});
	const request = head(
		"GET /api/version HTTP/1.1",
		"Host: gate",
		shows(testKeys.user),
	);
	const clients: RawClient[] = [];
	t.teardown(() => {
		for (const client of clients) client.destroy();
	});
	const ask = async () => {
		const client = await openRaw(gate.port, flooder);
		clients.push(client);
		client.write(request);
		return (await client.untilReplies(1))[0]?.status;
	};
	const statuses: (number | undefined)[] = [];
	// No more at once than the key may have at work.
	while (statuses.length < 1_040)
		statuses.push(...(await Promise.all(Array.from({ length: 8 }, ask))));
	t.equal(statuses.filter((status) => status === 200).length, 1_024);
	t.equal(statuses.filter((status) => status === 429).length, 16);
	t.equal(await honestStatus(gate), 200, "another key is served");
	clients[0]?.destroy();
	await clients[0]?.closed;
	await within(
		(async () => {
			while ((await ask()) !== 200);
		})(),
		"its place to be given back",
	);
});

t.test(
	"a stranger's connection is closed when it has idled for ten seconds behind a refusal",
	async (t) => {
		const gate = await startGate(t);
		const client = await openRaw(gate.port, flooder);
		client.write(head("GET /api/version HTTP/1.1", "Host: gate"));
		const [reply] = await client.untilReplies(1);
		t.equal(reply?.headers["keep-alive"], "timeout=10");
		await within(client.closed, "the gate to close it");
	},
);
