import { readFile } from "node:fs/promises";
import t from "tap";
import { eventually, spawnGate, startGate, testKeys } from "../support/gate.ts";
import {
	attack,
	head,
	honestStatus,
	openRaw,
	post,
	type RawClient,
	shows,
	statusOf,
	strayCalls,
	within,
} from "../support/raw.ts";

/** As many connections without a good key as one address may hold open (src/gate/connection.ts). */
const maxStrangersPerAddress = 1_024;
const flooder = "127.0.0.2";
const honest = "127.0.0.3";

t.test(
	"thousands of connections that dawdle are bounded and closed, and another address is served all the while",
	async (t) => {
		// A process of its own: half of the descriptors are the attacker's.
		const gate = await spawnGate(t);
		const count = 3_000;
		const clients: RawClient[] = [];
		let closed = 0;
		let served = 0;
		const isOver = () => closed === count;
		const drips = [
			"",
			"G",
			"GET / HTTP/1.1\r\nX: y",
			"GET / HTTP/1.1\r\nHost: gate\r\n",
			"\r\n",
			"POST /api/chat HTTP/1.1\r\nHost: gate\r\nContent-Length: 100\r\n",
		];
		const flood = (async () => {
			for (let n = 0; n < count; n += 100)
				await Promise.all(
					Array.from({ length: 100 }, async (_, i) => {
						const client = await openRaw(gate.port, flooder);
						clients.push(client);
						void client.closed.then(() => {
							closed += 1;
						});
						client.write(drips[i % drips.length] ?? "");
					}),
				);
		})();
		t.teardown(() => {
			for (const client of clients) client.destroy();
		});
		// Half of them go on, a byte at a time.
		const drip = setInterval(() => {
			for (const [n, client] of clients.entries())
				if (n % 2 === 0 && !client.isClosed()) client.write("x");
		}, 500);
		t.teardown(() => clearInterval(drip));

		let most = 0;
		const serving = (async () => {
			while (!isOver()) {
				const status = await honestStatus(gate, honest);
				if (status !== 200) return status;
				served += 1;
				const { connections } = await statusOf(gate);
				most = Math.max(most, connections);
			}
			return 200;
		})();
		await flood;
		t.equal(
			await within(serving, "the gate to close every connection"),
			200,
			`the honest client was served ${served} times`,
		);
		t.ok(served > 10);
		t.ok(
			most <= maxStrangersPerAddress + 2,
			`at most ${most} connections were open`,
		);
		t.strictSame(strayCalls(gate), [], "nothing of the flood reached Ollama");
		t.ok(
			clients.every((client) =>
				client.replies().every(({ status }) => status >= 400),
			),
		);
		t.equal(
			await honestStatus(gate, flooder),
			200,
			"even the flooder may return",
		);
	},
);

t.test("connections that were refused and stay are bounded too", async (t) => {
	const gate = await spawnGate(t);
	const clients: RawClient[] = [];
	t.teardown(() => {
		for (const client of clients) client.destroy();
	});
	for (let n = 0; n < 1_500; n += 50)
		clients.push(
			...(await Promise.all(
				Array.from({ length: 50 }, async () => {
					const client = await openRaw(gate.port, flooder);
					client.write(head("GET / HTTP/1.1", "Host: gate"));
					await client.untilReplies(1);
					return client;
				}),
			)),
		);
	const { connections } = await statusOf(gate);
	t.ok(connections <= maxStrangersPerAddress, `${connections} are open`);
	t.equal(await honestStatus(gate, honest), 200);
	for (const client of clients) client.destroy();
	await eventually(async () => (await statusOf(gate)).connections === 0);
	t.equal(await honestStatus(gate, flooder), 200, "places are given back");
});

t.test(
	"one address's flood of bad requests is answered ever later, and a good key from the same address at once",
	async (t) => {
		const gate = await spawnGate(t);
		const keyless = head("GET /api/tags HTTP/1.1", "Host: gate");
		const clients: RawClient[] = [];
		t.teardown(() => {
			for (const client of clients) client.destroy();
		});
		const open = async () => {
			const client = await openRaw(gate.port, flooder);
			clients.push(client);
			return client;
		};
		const greedy: RawClient[] = [];
		for (let n = 0; n < 40; n++) greedy.push(await open());
		const waiting: RawClient[] = [];
		for (let n = 0; n < 900; n += 50)
			waiting.push(...(await Promise.all(Array.from({ length: 50 }, open))));
		const impatient = await open();
		const stranger = await open();
		// What an address gets at once is taken by those who pipeline; the others wait their turn.
		for (const client of greedy) client.write(keyless.repeat(60));
		for (const client of waiting) client.write(keyless);
		impatient.write(keyless.repeat(2));
		await within(impatient.closed, "the gate to cut one that does not wait");
		t.strictSame(impatient.replies(), []);
		const order: string[] = [];
		stranger.write(keyless);
		const refused = stranger
			.untilReplies(1)
			.then(([reply]) => order.push(`stranger ${reply?.status}`));
		order.push(`good key ${await honestStatus(gate, flooder)}`);
		await refused;
		t.strictSame(order, ["good key 200", "stranger 401"]);
		for (const client of clients) client.destroy();
		await eventually(async () => (await statusOf(gate)).connections === 0);
		t.equal(await honestStatus(gate, honest), 200);
	},
);

t.test("an upload that nobody has allowed is cut off", async (t) => {
	const gate = await startGate(t);
	const framings = [
		"Content-Length: 20000000000",
		"Transfer-Encoding: chunked",
	];
	await Promise.all(
		framings.map(async (framing) => {
			const client = await openRaw(gate.port, flooder);
			client.write(head("POST /api/chat HTTP/1.1", "Host: gate", framing));
			const drip = setInterval(() => client.write("1\r\nx\r\n"), 50);
			t.teardown(() => clearInterval(drip));
			t.equal((await client.untilReplies(1))[0]?.status, 401, framing);
			await within(client.closed, "the gate to close the connection");
		}),
	);
	t.equal(await honestStatus(gate, honest), 200);
	t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
});

t.test(
	"one who pipelines without a key and never reads is cut off",
	async (t) => {
		const gate = await spawnGate(t);
		const client = await openRaw(gate.port, flooder);
		t.teardown(() => client.destroy());
		client.socket.pause();
		const request = "GET / HTTP/1.1\r\n\r\n";
		const count = 10_000;
		client.write(request.repeat(count));
		// Answered only once the gate has dealt with what it had read before.
		t.equal(await honestStatus(gate, honest), 200);
		await gate.logged(({ ip }) => ip === honest);
		const answered = gate.log.filter(({ ip }) => ip === flooder).length;
		t.ok(
			answered <= count / 10,
			`${answered} requests were answered before the first answer was taken`,
		);
		await within(
			eventually(async () => (await statusOf(gate)).connections === 0),
			"the gate to close the connection",
		);
	},
);

/** The most memory that a process has ever had, in MiB (proc_pid_status(5)). */
async function peakMiB(pid: number | undefined): Promise<number> {
	const status = await readFile(`/proc/${pid}/status`, "utf8");
	return Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1]) / 1024;
}

/** What opens a connection whose reply does not end, or nothing. */
const openings: Record<
	string,
	{ first: string; connections: number; requests: number }
> = {
	"without a key": { first: "", connections: 150, requests: 15_000 },
	"behind a stream": {
		first: post(
			"/api/chat",
			'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
			shows(testKeys.user),
		),
		connections: 1,
		requests: 900_000,
	},
	"behind a stream that asked for an upgrade": {
		first: post(
			"/api/chat",
			'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
			shows(testKeys.user),
			"Connection: Upgrade",
			"Upgrade: h2c",
		),
		connections: 1,
		requests: 900_000,
	},
};
for (const [where, { first, connections, requests }] of Object.entries(
	openings,
)) {
	t.test(
		`requests without number ${where} cost little memory`,
		{ skip: process.platform === "linux" ? false : "reads /proc" },
		async (t) => {
			const gate = await spawnGate(t, {
				standIn: {
					misbehave: ({ target }) =>
						target === "/api/chat" ? "stall-mid-stream" : undefined,
				},
			});
			const before = await peakMiB(gate.child.pid);
			// Node makes two objects of some 3 KB out of 18 bytes, and keeps them until the reply has left.
			const flood = Buffer.from("GET / HTTP/1.1\r\n\r\n".repeat(requests));
			const clients = await Promise.all(
				Array.from({ length: connections }, async () => {
					const client = await openRaw(gate.port, flooder);
					t.teardown(() => client.destroy());
					if (first !== "") {
						client.write(first);
						await client.until((text) => text.includes('"done":false'));
					}
					client.socket.pause();
					return client;
				}),
			);
			for (const client of clients) client.write(flood);
			for (let n = 0; n < 20; n++)
				if ((await honestStatus(gate, honest)) !== 200)
					return t.fail("the honest client was not served");
			const grown = (await peakMiB(gate.child.pid)) - before;
			t.ok(grown < 500, `it has grown by ${Math.round(grown)} MiB`);
		},
	);
}

t.test(
	"heads that are dear to read do not keep the others waiting",
	async (t) => {
		const gate = await spawnGate(t);
		// As many lines as Node takes. What costs their square is what 60 connections can stop a gate with.
		const lines = (name: (n: number) => string) =>
			head(
				"GET / HTTP/1.1",
				"Host: gate",
				...Array.from({ length: 900 }, (_, n) => name(n)),
			).repeat(25);
		const floods = [
			lines((n) => `Connection:${n.toString(36)}`),
			lines(() => "Host:x"),
		];
		const clients = await Promise.all(
			Array.from({ length: 120 }, () => openRaw(gate.port, flooder)),
		);
		t.teardown(() => {
			for (const client of clients) client.destroy();
		});
		for (const [n, client] of clients.entries())
			client.write(floods[n % floods.length] ?? "");
		t.equal(await honestStatus(gate, honest), 200, "in the middle of it");
		for (const client of clients) await client.untilReplies(1);
		t.equal(await honestStatus(gate, honest), 200, "and behind it");
	},
);

t.test("one key may not take every connection for itself", async (t) => {
	const gate = await startGate(t, {
		config: {
			limits: { perKey: { concurrent: 4 } },
			upstream: { maxConnections: 16 },
		},
		standIn: {
			misbehave: ({ target }) => (target === "/api/chat" ? "hang" : undefined),
		},
	});
	const clients = await Promise.all(
		Array.from({ length: 12 }, async () => {
			const client = await openRaw(gate.port, flooder);
			client.write(
				post(
					"/api/chat",
					'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
					shows(testKeys.user),
				),
			);
			return client;
		}),
	);
	await eventually(
		() => clients.filter((client) => client.replies().length > 0).length === 8,
	);
	t.ok(
		clients
			.flatMap((client) => client.replies())
			.every(({ status }) => status === 429),
		"the rest is told to wait",
	);
	t.equal(strayCalls(gate).length, 4);
	t.equal(await honestStatus(gate, honest), 200);
	for (const client of clients) client.destroy();
	await eventually(async () => (await statusOf(gate)).streams === 0);
	const { status } = await attack(
		gate,
		post(
			"/api/embed",
			'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
			shows(testKeys.user),
		),
	);
	t.equal(status, 200, "its places are given back");
});
