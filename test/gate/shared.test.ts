import { request } from "node:http";
import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import {
	bearer,
	eventually,
	runCli,
	spawnGate,
	startGate,
	type TestGate,
	testEntries,
	testKeys,
} from "../support/gate.ts";
import {
	askAdmin,
	sharesWith,
	startPair,
	whileShared,
} from "../support/gatePair.ts";
import { requireRoot, requireTool } from "../support/tools.ts";
import { requireValkey, startValkey } from "../support/valkey.ts";

const get = (gate: Pick<TestGate, "url">, key: string) =>
	fetch(`${gate.url}/api/version`, { headers: bearer(key) });

const chatBody =
	'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}';

/** Begins a chat that Ollama does not answer. */
function hang(gate: Pick<TestGate, "url">, key: string) {
	const req = request(`${gate.url}/api/chat`, {
		method: "POST",
		headers: bearer(key),
	});
	req.on("error", () => {});
	req.end(chatBody);
	return req;
}

const chat = async (gate: Pick<TestGate, "url">, key: string) => {
	const reply = await fetch(`${gate.url}/api/embed`, {
		method: "POST",
		headers: bearer(key),
		body: chatBody,
	});
	await reply.arrayBuffer();
	return reply.status;
};

const hanging = {
	misbehave: ({ target }: { target: string }) =>
		target === "/api/chat" ? ("hang" as const) : undefined,
};

/** The test's entries, with other rules for `user`. */
const withUser = (limits: object) => [
	{
		name: "user",
		sha256: digestOf(testKeys.user),
		scopes: ["read", "infer"] as const,
		...limits,
	},
	...testEntries.filter(({ name }) => name !== "user"),
];

t.test(
	"a key of 60 a minute that is hammered at two gates is let through 60 times",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const { gates, result: replies } = await whileShared(
			t,
			valkey.url,
			{ config: { limits: { perKey: { requestsPerMinute: 60 } } } },
			([one, other]) =>
				Promise.all(
					Array.from({ length: 160 }, (_, at) =>
						get(at % 2 ? one : other, testKeys.user),
					),
				),
		);
		t.equal(replies.filter(({ status }) => status === 200).length, 60);
		t.equal(replies.filter(({ status }) => status === 429).length, 100);
		const left = new Set(
			replies
				.filter(({ status }) => status === 200)
				.map(({ headers }) => headers.get("ratelimit-remaining")),
		);
		t.equal(left.size, 60, "no two were told the same rest");
		for (const gate of gates)
			t.ok(gate.standIn.calls.length > 0, "both let some through");
		const refused = await get(gates[0], testKeys.user);
		t.ok(Number(refused.headers.get("retry-after")) > 0);
		t.match(await refused.json(), {
			error: 'the key "user" may make 60 requests a minute',
		});
		t.equal((await get(gates[1], testKeys.owner)).status, 200);
	},
);

t.test(
	"an address is counted at both gates, whatever its keys; another name space counts for itself",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const url = `unix:${valkey.socketPath}`;
		const config = { limits: { perSource: { requestsPerMinute: 2 } } };
		const [one, other] = await startPair(t, url, { config });
		t.equal((await get(one, testKeys.user)).status, 200);
		t.equal((await get(other, testKeys.owner)).status, 200);
		const refused = await get(one, testKeys.reader);
		t.equal(refused.status, 429);
		t.match(await refused.json(), {
			error: "this address may make 2 requests a minute",
		});
		const apart = await startGate(t, {
			config: { ...config, state: { url, prefix: "other" } },
		});
		t.equal((await get(apart, testKeys.user)).status, 200);
	},
);

t.test(
	"what is written to Valkey names no key and no address, and all of it has an end",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const [one, other] = await startPair(t, valkey.url);
		await get(one, testKeys.user);
		await get(other, testKeys.wrong);
		await chat(one, testKeys.user);
		await eventually(async () =>
			(await valkey.command("KEYS", "*wrong*")).startsWith("*1"),
		);
		const keys = (await valkey.command("KEYS", "*")).match(/^\{.*$/gm) ?? [];
		t.ok(keys.length >= 5);
		for (const key of keys) {
			t.match(
				key.trim(),
				/^\{llamagate\}:(gates|epoch|locks|unlocks|served|(rate|slots|wrong):[\w-]{22})$/,
			);
			t.notMatch(await valkey.command("PTTL", key.trim()), /^:-1\r/, key);
		}
	},
);

t.test(
	"streams at once are those at both gates, and a place that is left is given back",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const [one, other] = await startPair(t, valkey.url, {
			standIn: hanging,
			keys: withUser({ limits: { concurrent: 2 } }),
		});
		const atWork = [hang(one, testKeys.user), hang(other, testKeys.user)];
		await eventually(
			() => one.standIn.calls.length + other.standIn.calls.length === 2,
		);
		for (const gate of [one, other]) {
			t.equal(await chat(gate, testKeys.user), 429);
			t.equal((await get(gate, testKeys.user)).status, 200, "lists are apart");
			t.equal(await chat(gate, testKeys.worker), 200, "so are other keys");
		}
		atWork[0]?.destroy();
		await eventually(async () => (await chat(other, testKeys.user)) === 200);
		atWork[1]?.destroy();
		await eventually(async () => (await chat(one, testKeys.user)) === 200);
	},
);

t.test(
	"what a gate had that was killed is given back once it is gone",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const options = {
			standIn: hanging,
			keys: withUser({ limits: { concurrent: 2 } }),
			config: { state: { url: valkey.url } },
		};
		const killed = await spawnGate(t, options);
		const gate = await startGate(t, options);
		await sharesWith(gate, 2);
		for (let at = 0; at < 2; at += 1) hang(killed, testKeys.user);
		await eventually(() => killed.standIn.calls.length === 2);
		t.equal(await chat(gate, testKeys.user), 429);
		killed.child.kill("SIGKILL");
		await killed.exited;
		t.equal(await chat(gate, testKeys.user), 429, "it may only be slow");
		await eventually(async () => (await chat(gate, testKeys.user)) === 200);
		await sharesWith(gate, 1);
	},
);

t.test(
	"an address that guesses at two gates is locked out by what both have seen, and let in again by either",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const [one, other] = await startPair(t, valkey.url, {
			config: { limits: { authFailures: { max: 4 } } },
		});
		const guess = (gate: TestGate, digit: number) =>
			get(gate, `lg_${String(digit).repeat(2)}${"0123456789abcdef".repeat(4)}`);
		for (const digit of [1, 2]) t.equal((await guess(one, digit)).status, 401);
		for (const digit of [3, 4])
			t.equal((await guess(other, digit)).status, 401);
		await other.logged(({ event }) => event === "locked_out");
		t.equal((await get(other, testKeys.user)).status, 429);
		const there = await get(one, testKeys.user);
		t.equal(there.status, 429, "at once, whatever the beat has told");
		t.match(await there.json(), { error: /too many wrong keys/ });

		await askAdmin(one, "POST /unlock?address=127.0.0.1");
		t.equal((await get(one, testKeys.user)).status, 200);
		await eventually(
			async () => (await get(other, testKeys.user)).status === 200,
		);
	},
);

t.test(
	"a lockout by one gate is turned away at the other before its key is looked at",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const [one, other] = await startPair(t, valkey.url, {
			config: { limits: { authFailures: { max: 1 } } },
		});
		t.equal((await get(one, testKeys.wrong)).status, 401);
		// Without a key, so that only the list that the beat brings can tell.
		await eventually(
			async () => (await fetch(`${other.url}/api/version`)).status === 429,
		);
		await askAdmin(other, "POST /unlock");
		await eventually(
			async () => (await get(one, testKeys.user)).status === 200,
		);
	},
);

/** Has a gate run as if on a machine of another name. */
const elsewhere = [
	...["unshare", "--uts", "sh", "-c"],
	'echo elsewhere > /proc/sys/kernel/hostname && exec "$@"',
	"sh",
];

for (const [what, limits, key] of [
	["wrong keys", { authFailures: { max: 1 } }, testKeys.wrong],
	["requests", { perSource: { requestsPerMinute: 1 } }, testKeys.owner],
] as const)
	t.test(
		`${what} from loopback of one machine are none from loopback of another`,
		async (t) => {
			if (!requireValkey(t) || !requireRoot(t)) return;
			if (!requireTool(t, "unshare")) return;
			const valkey = await startValkey(t);
			const config = { limits, state: { url: valkey.url } };
			const one = await startGate(t, { config });
			const other = await spawnGate(t, { config, launcher: elsewhere });
			await Promise.all([sharesWith(one, 2), sharesWith(other, 2)]);
			await get(one, key);
			t.equal((await get(one, testKeys.user)).status, 429);
			t.equal((await get(other, testKeys.user)).status, 200);
		},
	);

t.test("the gates are counted, and one that ends is taken off", async (t) => {
	if (!requireValkey(t)) return;
	const valkey = await startValkey(t);
	const [one] = await startPair(t, valkey.url);
	const third = await startGate(t, { config: { state: { url: valkey.url } } });
	await sharesWith(one, 3);
	const status = await runCli(["status", "--config", one.configFile]);
	t.match(status.stdout, `gates: 3 share their limits through ${valkey.url}`);
	const metrics = (await askDaemon(`${one.folder}/admin.sock`, "GET /metrics"))
		.body;
	t.match(metrics, /^llamagate_state_connected 1$/m);
	t.match(metrics, /^llamagate_state_gates 3$/m);
	await third.daemon.stop();
	t.match(await valkey.command("ZCARD", "{llamagate}:gates"), /^:2/);
});

t.test("to share with another Valkey takes a restart", async (t) => {
	if (!requireValkey(t)) return;
	const valkey = await startValkey(t);
	const gate = await startGate(t, { config: { state: { url: valkey.url } } });
	await gate.writeConfig({ state: { url: `unix:${valkey.socketPath}` } });
	t.ok((await gate.daemon.reload()).ok);
	await gate.logged(({ msg }) =>
		/state has changed.*restart/.test(String(msg)),
	);
	t.equal((await get(gate, testKeys.user)).status, 200);
});
