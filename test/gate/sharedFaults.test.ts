import t from "tap";
import { readAnswer } from "../../src/gate/shared/limits.ts";
import {
	answerMs,
	Connection,
	maxUnanswered,
} from "../../src/valkey/connection.ts";
import {
	bearer,
	eventually,
	runCli,
	startGate,
	type TestGate,
	testKeys,
} from "../support/gate.ts";
import {
	askAdmin,
	sharesWith,
	startPair,
	stateOf,
} from "../support/gatePair.ts";
import {
	requireValkey,
	startProxy,
	startValkey,
	type TestValkey,
} from "../support/valkey.ts";

const get = (gate: Pick<TestGate, "url">, key: string) =>
	fetch(`${gate.url}/api/version`, { headers: bearer(key) });

/** The statuses of so many requests, one after the other. */
async function statuses(gate: TestGate, count: number, key = testKeys.user) {
	const seen: number[] = [];
	for (let at = 0; at < count; at += 1) {
		const reply = await get(gate, key);
		await reply.arrayBuffer();
		seen.push(reply.status);
	}
	return seen;
}

const letThrough = (seen: readonly number[]) =>
	seen.filter((status) => status === 200).length;
const isAway = (gate: TestGate) =>
	eventually(async () => !(await stateOf(gate)).isConnected);
const timesSaid = (gate: TestGate, event: string) =>
	gate.log.filter((line) => line.event === event).length;

const tenAMinute = { limits: { perKey: { requestsPerMinute: 10 } } };

t.test(
	"with Valkey killed each gate lets its part of what is left through, refuses the rest, and says so once",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const [one, other] = await startPair(t, valkey.url, { config: tenAMinute });
		t.equal(letThrough(await statuses(one, 4)), 4);
		await valkey.kill();
		await Promise.all([isAway(one), isAway(other)]);
		// Six of the minute are left, three for each of the two; what the other
		// knows of the four depends on whether it has asked since.
		t.equal(letThrough(await statuses(one, 8)), 3);
		t.equal(letThrough(await statuses(other, 8)), 5);
		t.equal((await get(one, testKeys.wrong)).status, 401, "a rule holds");
		for (const gate of [one, other]) {
			await gate.logged(
				({ event, gates }) => event === "state_away" && gates === 2,
			);
			t.equal(timesSaid(gate, "state_away"), 1);
		}
		const status = await runCli(["status", "--config", one.configFile]);
		t.match(status.stdout, /gates: Valkey at .* is away \(.*as one of 2/);

		const again = await startValkey(t, { port: valkey.port });
		t.ok(again);
		await Promise.all([sharesWith(one, 2), sharesWith(other, 2)]);
		t.equal(timesSaid(one, "state_shared"), 2);
		t.equal(
			(await get(one, testKeys.user)).status,
			429,
			"an empty Valkey goes on from what the gate knows",
		);
		t.equal((await get(other, testKeys.user)).status, 429, "for all");
	},
);

t.test(
	"with Valkey paused a request waits for the time-out at the most, and those after it do not wait",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const [one] = await startPair(t, valkey.url, { config: tenAMinute });
		valkey.signal("SIGSTOP");
		const together = await Promise.all([1, 2, 3].map(() => statuses(one, 1)));
		t.strictSame(together, [[200], [200], [200]]);
		await isAway(one);
		const { unanswered } = await stateOf(one);
		t.equal(letThrough(await statuses(one, 8)), 2, "5 are its part");
		const after = await stateOf(one);
		// Those of the beat go on.
		t.ok(after.unanswered - unanswered < 8, "no request was asked for");
		t.equal(after.losses, 1);
		t.equal(timesSaid(one, "state_away"), 1);
		// The gate ends the connection and makes another; that is not why.
		const whys = new Set<string | undefined>();
		await eventually(async () => {
			const now = await stateOf(one);
			whys.add(now.why);
			return now.unanswered > after.unanswered + 1;
		});
		t.strictSame([...whys], [`it did not answer in ${answerMs} ms`]);
		valkey.signal("SIGCONT");
		await sharesWith(one, 2);
	},
);

t.test(
	"a Valkey that is out of memory is away, and back when it has some",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const [one] = await startPair(t, valkey.url, { config: tenAMinute });
		await valkey.command("CONFIG", "SET", "maxmemory-policy", "noeviction");
		await valkey.command("CONFIG", "SET", "maxmemory", "1");
		t.equal(letThrough(await statuses(one, 10)), 5);
		const { why } = await one.logged(({ event }) => event === "state_away");
		t.match(why, /OOM|memory/);
		await valkey.command("CONFIG", "SET", "maxmemory", "0");
		await sharesWith(one, 2);
	},
);

t.test(
	"with a slow Valkey limits are still shared; with one that takes longer they are not",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const proxy = await startProxy(t, valkey.port);
		const [one, other] = await startPair(t, proxy.url, { config: tenAMinute });
		const hammer = async (key: typeof testKeys.user | typeof testKeys.owner) =>
			(
				await Promise.all(
					Array.from({ length: 16 }, (_, at) =>
						statuses(at % 2 ? one : other, 1, key),
					),
				)
			).flat();
		// On a machine that is busy itself, 200 ms may become more than the time-out.
		proxy.delayMs = 100;
		t.equal(letThrough(await hammer(testKeys.user)), 10);
		proxy.delayMs = 200;
		const seen = await hammer(testKeys.owner);
		t.ok(letThrough(seen) <= 12);
		t.strictSame([...new Set(seen)].sort(), [200, 429]);
		proxy.delayMs = 4 * answerMs;
		await Promise.all([isAway(one), isAway(other)]);
		t.equal((await get(one, testKeys.reader)).status, 200);
	},
);

/** Has a Valkey follow another, and waits until it has all of it. */
async function follow(replica: TestValkey, primary: TestValkey): Promise<void> {
	await replica.command("REPLICAOF", "127.0.0.1", String(primary.port));
	await eventually(async () =>
		(await replica.command("INFO", "replication")).includes(
			"master_link_status:up",
		),
	);
}

/** How far it has come in what is replicated. */
async function offsetOf(valkey: TestValkey, name: string): Promise<number> {
	const info = await valkey.command("INFO", "replication");
	return Number(new RegExp(`^${name}:(\\d+)`, "m").exec(info)?.[1]);
}

t.test(
	"after a failover behind the same address counts and limits go on",
	async (t) => {
		if (!requireValkey(t)) return;
		const primary = await startValkey(t);
		const replica = await startValkey(t);
		const proxy = await startProxy(t, primary.port);
		const [one, other] = await startPair(t, proxy.url, { config: tenAMinute });
		await follow(replica, primary);
		t.equal(letThrough(await statuses(one, 3)), 3);
		t.equal(letThrough(await statuses(other, 3)), 3);
		const written = await offsetOf(primary, "master_repl_offset");
		await eventually(
			async () => (await offsetOf(replica, "slave_repl_offset")) >= written,
		);
		// Open connections go on to lead to one that hangs, and for a while new ones
		// to one that takes no writes.
		primary.signal("SIGSTOP");
		proxy.target = replica.port;
		await Promise.all([isAway(one), isAway(other)]);
		await replica.command("REPLICAOF", "NO", "ONE");
		await Promise.all([sharesWith(one, 2), sharesWith(other, 2)]);
		t.equal(letThrough(await statuses(one, 6)), 4);
		t.equal(letThrough(await statuses(other, 1)), 0);
	},
);

t.test(
	"a gate that starts while Valkey is away serves by its part, and shares as soon as it can",
	async (t) => {
		if (!requireValkey(t)) return;
		const away = await startValkey(t);
		await away.kill();
		const gate = await startGate(t, {
			config: { ...tenAMinute, state: { url: away.url, gates: 5 } },
		});
		await gate.logged(
			({ event, gates }) => event === "state_away" && gates === 5,
		);
		t.equal(letThrough(await statuses(gate, 4)), 2);
		await startValkey(t, { port: away.port });
		await sharesWith(gate, 1);
		t.equal(letThrough(await statuses(gate, 9)), 6, "all four are counted");
	},
);

t.test(
	"who is let in again while Valkey is away stays in once it is back",
	async (t) => {
		if (!requireValkey(t)) return;
		for (const line of ["POST /unlock", "POST /unlock?address=127.0.0.1"]) {
			const valkey = await startValkey(t);
			const proxy = await startProxy(t, valkey.port);
			const config = { limits: { authFailures: { max: 1 } } };
			const start = (url: string) =>
				startGate(t, { config: { ...config, state: { url } } });
			const one = await start(proxy.url);
			const other = await start(valkey.url);
			await Promise.all([sharesWith(one, 2), sharesWith(other, 2)]);
			await get(other, testKeys.wrong);
			await eventually(
				async () => (await get(one, testKeys.user)).status === 429,
			);
			proxy.target = 1;
			proxy.cut();
			await isAway(one);
			await askAdmin(one, line);
			const seen = await statuses(one, 1);
			proxy.target = valkey.port;
			// Others see that Valkey has been told; the gate's own list it shows by itself.
			await eventually(async () => {
				seen.push(...(await statuses(one, 1)));
				const { isConnected, lockedOut } = await stateOf(other);
				return isConnected && lockedOut === 0;
			});
			seen.push(...(await statuses(one, 1)));
			t.strictSame([...new Set(seen)], [200], line);
			t.equal((await stateOf(one)).lockedOut, 0);
		}
	},
);

/** Names in Valkey that have this in them. */
const named = async (valkey: TestValkey, part: string) =>
	((await valkey.command("KEYS", `*${part}*`)).match(/^\{.*$/gm) ?? []).map(
		(name) => name.trim(),
	);
const hoursMs = 2 * 3_600_000;

t.test(
	"a Valkey whose clock is set back makes no rate limit and no lockout longer",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const [one, other] = await startPair(t, valkey.url, {
			config: {
				limits: {
					perKey: { requestsPerMinute: 1 },
					authFailures: { max: 2, lockout: "5m" },
				},
			},
		});
		await statuses(one, 1);
		// What is left of a time is so much more once the clock is set back by it.
		const rates = await named(valkey, "rate");
		t.ok(rates.length > 0);
		for (const name of rates)
			await valkey.command("PEXPIRE", name, String(hoursMs));
		const refused = await get(other, testKeys.user);
		t.equal(refused.status, 429);
		t.ok(Number(refused.headers.get("retry-after")) <= 60);

		await get(one, testKeys.wrong);
		const [wrong = ""] = await named(valkey, "wrong");
		await valkey.command("PEXPIRE", wrong, String(hoursMs));
		await get(one, `lg_${"ab".repeat(32)}`);
		await eventually(
			async () => (await get(one, testKeys.owner)).status === 429,
		);
		const [locks = ""] = await named(valkey, "locks");
		const [hash = ""] = ((
			await valkey.command("ZRANGE", locks, "0", "0")
		).match(/^[\w-]{22}$/gm) ?? []) as string[];
		await valkey.command("ZINCRBY", locks, String(hoursMs), hash);
		const told = async () => {
			const reply = await fetch(`${other.url}/api/version`);
			await reply.arrayBuffer();
			return Number(reply.headers.get("retry-after"));
		};
		await eventually(async () => (await told()) > 0);
		t.ok((await told()) <= 300);
		// Nor does a gate that has ended count for hours, nor an unlock go on.
		const ahead = String(Date.now() + hoursMs);
		const own = (kind: string) => locks.replace("locks", kind);
		await valkey.command("ZADD", own("gates"), ahead, "ended");
		await valkey.command("ZADD", own("unlocks"), ahead, "another");
		for (const [kind, member, mostMs] of [
			["locks", hash, 300_000],
			["gates", "ended", 0],
			["unlocks", "another", 0],
		] as const)
			await eventually(async () => {
				const score = await valkey.command("ZSCORE", own(kind), member);
				const [, timeMs] = score.split("\r\n");
				return Number(timeMs) <= Date.now() + mostMs;
			});
	},
);

t.test("questions without an answer have a bound", async (t) => {
	// A client whose server never answers: nothing else holds as many.
	const asked: unknown[] = [];
	const handlers = new Map<string, () => void>();
	let isFirst = true;
	const client = {
		status: "ready",
		on: (event: string, handler: () => void) => handlers.set(event, handler),
		connect: async () => {},
		disconnect() {},
		defineCommand() {},
		async ask(...words: unknown[]) {
			if (isFirst) {
				isFirst = false;
				return [];
			}
			asked.push(words);
			return new Promise(() => {});
		},
	};
	const script = { name: "ask", lua: "" };
	const connection = new Connection(
		client as never,
		"valkey://127.0.0.1:1",
		[script],
		script,
		{
			question: () => ({ keys: [], args: [] }),
			answered() {},
			back() {},
			gates: 1,
		},
		{ info() {}, warn() {} } as never,
	);
	handlers.get("ready")?.();
	await connection.opened(10_000);
	const answers = Array.from({ length: maxUnanswered + 5 }, () =>
		connection.ask(script, [], []),
	);
	t.equal(asked.length, maxUnanswered);
	t.strictSame([...new Set(await Promise.all(answers))], [undefined]);
	await connection.close(script, [], []);
});

t.test("an answer that is none of the script's counts as none", async (t) => {
	for (const answer of [
		undefined,
		[],
		[0, 1, 60_000, 1, 60_000],
		[0, "many", 60_000, 1, 60_000, 1],
		[0, "", 60_000, 1, 60_000, 1],
		[0, null, 60_000, 1, 60_000, 1],
		[0, [1], 60_000, 1, 60_000, 1],
		[0, Number.NaN, 60_000, 1, 60_000, 1],
		[0, 1, 60_000, 1, 60_000, 1, "1.5"],
	])
		t.equal(readAnswer(answer), undefined, JSON.stringify(answer));
	const sums = ["1.5", "0", "2", "0", "0", "1e3"];
	t.strictSame(
		readAnswer([0, 1, 60_000, 1, 60_000, 1, ...sums]),
		[0, 1, 60_000, 1, 60_000, 1, 1.5, 0, 2, 0, 0, 1000],
	);
});
