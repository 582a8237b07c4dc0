import path from "node:path";
import t from "tap";
import { changeKeys } from "../../src/keys/changeKeys.ts";
import { releaseLock, takeLock } from "../../src/lock.ts";
import {
	eventually,
	startGate,
	temporaryFolder,
	testEntries,
	testKeys,
} from "../support/gate.ts";
import {
	attack,
	head,
	honestStatus,
	openRaw,
	post,
	type RawReply,
	shows,
} from "../support/raw.ts";

const hourMs = 3_600_000;

/**
 * Sets the wall clock of this process, in which the daemon runs: it is
 * `Date.now` that the daemon asks for the time of day. The system's own clock
 * cannot be set in a test, and a time namespace does not have one of its own.
 */
function settableClock(t: { teardown(action: () => unknown): unknown }) {
	const real = Date.now;
	t.teardown(() => {
		Date.now = real;
	});
	return (offsetMs: number) => {
		Date.now = () => real() + offsetMs;
	};
}

const ask = (key: string) =>
	head("GET /api/version HTTP/1.1", "Host: gate", shows(key));

/** Seconds that a refusal asks to wait. */
function waitOf(reply: RawReply | undefined): number {
	return Number(reply?.headers["retry-after"]);
}

t.test(
	"a clock that is set back or forth makes no rate limit and no lockout longer or shorter",
	async (t) => {
		const setClock = settableClock(t);
		const gate = await startGate(t, {
			config: { limits: { authFailures: { max: 2, lockout: "5m" } } },
			keys: testEntries.map((entry) =>
				entry.name === "user"
					? { ...entry, limits: { requestsPerMinute: 2 } }
					: entry,
			),
		});
		for (const key of [testKeys.user, testKeys.user])
			t.equal((await attack(gate, ask(key))).status, 200);
		for (const key of [testKeys.wrong, testKeys.wrong])
			t.equal((await attack(gate, ask(key), "127.0.0.2")).status, 401);
		for (const offsetMs of [0, -hourMs, 2 * hourMs]) {
			setClock(offsetMs);
			const limited = await attack(gate, ask(testKeys.user));
			const at = `${offsetMs / hourMs} h`;
			t.equal(limited.status, 429, at);
			t.ok(waitOf(limited.replies[0]) <= 60, at);
			const lockedOut = await attack(gate, ask(testKeys.user), "127.0.0.2");
			t.equal(lockedOut.status, 429, at);
			t.ok(waitOf(lockedOut.replies[0]) <= 300, at);
		}
	},
);

t.test(
	"a clock that is set back or forth cuts no stream but those whose key has expired by it",
	async (t) => {
		const setClock = settableClock(t);
		const gate = await startGate(t, {
			standIn: { tokenIntervalMs: 5 },
			keys: testEntries.map((entry) =>
				entry.name === "user"
					? { ...entry, expires: new Date(Date.now() + hourMs).toISOString() }
					: entry,
			),
		});
		const body =
			'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}],"options":{"num_predict":1000000}}';
		const [expiring, lasting] = await Promise.all(
			[testKeys.user, testKeys.owner].map(async (key) => {
				const client = await openRaw(gate.port);
				t.teardown(() => client.destroy());
				client.write(post("/api/chat", body, shows(key)));
				await client.until((text) => text.includes('"done":false'));
				return client;
			}),
		);
		if (expiring === undefined || lasting === undefined) return;
		setClock(-24 * hourMs);
		t.equal((await attack(gate, ask(testKeys.user))).status, 200);
		setClock(2 * hourMs);
		await expiring.closed;
		t.match(expiring.text(), /"error":"the key .* expired on/);
		t.match(await gate.logged(({ outcome }) => outcome === "cut"), {
			reason: "expired",
			key: "user",
		});
		t.equal((await attack(gate, ask(testKeys.user))).status, 403);
		setClock(0);
		t.equal((await attack(gate, ask(testKeys.user))).status, 200);
		const seen = lasting.text().length;
		await lasting.until((text) => text.length > seen + 1_000);
		t.notOk(lasting.isClosed(), "the other goes on");
		t.equal(await honestStatus(gate), 200);
	},
);

t.test(
	"a clock that is set forth does not make a command give up its turn at the keys file",
	async (t) => {
		const setClock = settableClock(t);
		const file = path.join(await temporaryFolder(t), "keys.json");
		const lock = await takeLock("keys", file);
		if (typeof lock === "string") return t.fail(lock);
		let outcome = "waits";
		const changed = changeKeys(file, true, () => testEntries).then(
			() => "is written",
			(error) => String(error),
		);
		void changed.then((how) => {
			outcome = how;
		});
		let ticks = 0;
		const ticking = setInterval(() => {
			ticks += 1;
		}, 10);
		await eventually(() => ticks > 10);
		setClock(hourMs);
		await eventually(() => ticks > 20);
		clearInterval(ticking);
		t.equal(outcome, "waits");
		await releaseLock(lock);
		t.equal(await changed, "is written");
	},
);
