import t from "tap";
import type { AlarmSubject } from "../../src/config/alarms.ts";
import { readAlarm } from "../../src/ledger/alarms/alarm.ts";
import { AlarmDispatcher } from "../../src/ledger/alarms/dispatcher.ts";
import { AlarmOutbox } from "../../src/ledger/alarms/outbox.ts";
import type { AlarmTarget } from "../../src/ledger/alarms/targets.ts";
import { dispatch, memoryBook, topic } from "../support/dispatcher.ts";
import { eventually } from "../support/gate.ts";
import { collectedLog } from "../support/ledger.ts";
import { startReceiver, TestClock } from "../support/receiver.ts";

const hourMs = 3_600_000;

t.test(
	"a subject is told of once an hour, with all that came meanwhile",
	async (t) => {
		const receiver = await startReceiver(t);
		const { alarms, clock } = dispatch(t, receiver);
		await alarms.take({ subject: "canary", text: "first" });
		t.match(receiver.received, [{ body: { message: "first" } }]);
		const later = [
			alarms.take({ subject: "canary", text: "second" }),
			alarms.take({ subject: "canary", text: "third" }),
			alarms.take({ subject: "canary", text: "second" }),
		];
		await alarms.take({ subject: "budget", text: "of another subject" });
		t.equal(receiver.received.length, 2, "which does not wait");
		clock.pass(hourMs - 1);
		await new Promise((resolve) => setImmediate(resolve));
		t.equal(receiver.received.length, 2);
		clock.pass(1);
		await Promise.all(later);
		t.match(receiver.received.slice(2), [
			{ body: { message: "second\nthird" } },
		]);
		t.equal(receiver.received.length, 3);
	},
);

t.test("however much is raised, memory and messages are bounded", async (t) => {
	const receiver = await startReceiver(t);
	const { alarms, clock } = dispatch(t, receiver);
	await alarms.take({ subject: "canary", text: "first" });
	const all = Array.from({ length: 5_000 }, (_, n) =>
		alarms.take({ subject: "canary", text: `by ${n}` }),
	);
	t.strictSame(clock.waiting, [hourMs]);
	clock.pass(hourMs);
	await Promise.all(all);
	t.equal(receiver.received.length, 2);
	const lines = String(receiver.received[1]?.body.message).split("\n");
	t.strictSame([lines.length, lines.at(-1)], [11, "and 4990 more"]);
});

t.test("no host's alarm waits for its hour behind another's", async (t) => {
	const receiver = await startReceiver(t);
	const { alarms, clock } = dispatch(t, receiver, ["upstream_down"]);
	const subject = "upstream_down";
	const minipc = { subject, host: "minipc" } as const;
	await alarms.take({ subject, text: "Ollama" });
	await alarms.take({ subject, host: "workstation", text: "down" });
	await alarms.take({ ...minipc, text: "down" });
	await alarms.take({ ...minipc, isOver: true, text: "up" });
	t.match(
		receiver.received.map(({ body }) => String(body.title).split(": ")[1]),
		[
			"Ollama is down",
			"workstation is down",
			"minipc is down",
			"minipc is up again",
		],
	);
	const again = alarms.take({ ...minipc, text: "down again" });
	t.strictSame(clock.waiting, [hourMs], "but behind its own it does");
	clock.pass(hourMs);
	await again;
	t.equal(receiver.received.length, 5);
});

t.test("a host that there is not makes no message of its own", async (t) => {
	const read = (host: unknown) =>
		readAlarm({ subject: "upstream_down", text: "a", host }, ["minipc"]);
	t.strictSame(read("minipc"), {
		subject: "upstream_down",
		text: "a",
		host: "minipc",
	});
	for (const host of ["other", "", 5, {}, null])
		t.strictSame(read(host), {
			subject: "upstream_down",
			text: "a",
			isUnknownHost: true,
		});
});

t.test("what nobody wants is sent to nobody", async (t) => {
	const receiver = await startReceiver(t);
	const { alarms } = dispatch(t, receiver, ["budget"]);
	await alarms.take({ subject: "canary", text: "a" });
	await alarms.take({ subject: "budget", text: "b" });
	t.match(receiver.received, [{ body: { message: "b" } }]);
});

const retriesMs = [5_000, 30_000, 120_000, 600_000];

for (const [behaviour, why] of [
	[{ status: 500 }, "it answered 500"],
	[{ status: 429 }, "it answered 429"],
	["close", /ECONNRESET|closed the connection/],
] as const)
	t.test(
		`a receiver that fails is tried five times: ${JSON.stringify(behaviour)}`,
		async (t) => {
			const receiver = await startReceiver(t);
			receiver.behave(behaviour);
			const { alarms, clock, lines } = dispatch(t, receiver);
			const taken = alarms.take({ subject: "canary", text: "a" });
			for (const [index, delayMs] of retriesMs.entries()) {
				await receiver.got(index + 1);
				await clock.passWhole(delayMs);
			}
			await taken;
			t.equal(receiver.received.length, 5);
			t.match(lines, [
				{
					event: "alarm_undelivered",
					subject: "canary",
					to: "ntfy at here",
					why,
				},
			]);
			t.notMatch(
				JSON.stringify(lines),
				topic,
				"the address is nobody's to read",
			);
			receiver.behave({ status: 200 });
			await alarms.take({ subject: "canary", text: "b" });
			t.equal(
				receiver.received.length,
				6,
				"nobody was told: the next does not wait",
			);
		},
	);

t.test("one that fails once hears of it at the second try", async (t) => {
	const receiver = await startReceiver(t);
	receiver.behave({ status: 503 }, { status: 200 });
	const { alarms, clock, lines } = dispatch(t, receiver);
	const taken = alarms.take({ subject: "canary", text: "a" });
	await receiver.got(1);
	await clock.passWhole(5_000);
	await taken;
	t.match(lines, [{ event: "alarm_sent" }]);
});

t.test(
	"a receiver that hangs is left after ten seconds, and holds up no other subject",
	async (t) => {
		const receiver = await startReceiver(t);
		receiver.behave("hang", { status: 200 });
		const { alarms, clock, lines } = dispatch(t, receiver);
		const hung = alarms.take({ subject: "canary", text: "a" });
		await receiver.got(1);
		await alarms.take({ subject: "budget", text: "b" });
		clock.pass(10_000);
		await clock.passWhole(5_000);
		await hung;
		t.match(
			lines.map(({ event, subject }) => `${event} ${subject}`),
			["alarm_sent budget", "alarm_sent canary"],
		);
	},
);

for (const status of [301, 307, 308])
	t.test(`a redirect is not followed: ${status}`, async (t) => {
		const elsewhere = await startReceiver(t);
		const receiver = await startReceiver(t);
		receiver.behave({ status, location: `${elsewhere.url}/${topic}` });
		const { alarms, lines } = dispatch(t, receiver);
		await alarms.take({ subject: "canary", text: "a" });
		t.equal(receiver.received.length, 1, "nor tried again");
		t.equal(elsewhere.received.length, 0);
		t.match(lines, [
			{ why: `it answered ${status}, and redirects are not followed` },
		]);
	});

t.test(
	"without HTTPS a name that leads out of the tailnet is not posted to",
	async (t) => {
		const receiver = await startReceiver(t);
		// Every system's list of hosts has a name that leads to loopback.
		const named = {
			...receiver,
			url: receiver.url.replace("127.0.0.1", "localhost"),
		};
		const { alarms, lines, clock } = dispatch(t, named);
		const taken = alarms.take({ subject: "canary", text: "a" });
		for (const delayMs of retriesMs) await clock.passWhole(delayMs);
		await taken;
		t.equal(receiver.received.length, 0);
		t.match(lines, [{ event: "alarm_undelivered", why: "ENOTTAILNET" }]);
	},
);

t.test("a receiver that says no is not asked again", async (t) => {
	const receiver = await startReceiver(t);
	receiver.behave({ status: 403 });
	const { alarms, lines } = dispatch(t, receiver);
	await alarms.take({ subject: "canary", text: "a" });
	t.equal(receiver.received.length, 1);
	t.match(lines, [{ event: "alarm_undelivered", why: "it answered 403" }]);
});

t.test("the hour is kept over a restart of the ledger", async (t) => {
	const receiver = await startReceiver(t);
	const book = memoryBook();
	const first = dispatch(t, receiver, ["canary"], book);
	await first.alarms.take({ subject: "canary", text: "a" });
	first.alarms.close();
	const { alarms, clock } = dispatch(t, receiver, ["canary"], book);
	const taken = alarms.take({ subject: "canary", text: "b" });
	t.strictSame(clock.waiting, [hourMs]);
	t.equal(receiver.received.length, 1);
	clock.pass(hourMs);
	await taken;
	t.equal(receiver.received.length, 2);
});

t.test(
	"an alarm that is being tried again when the ledger ends does not wait with the next",
	async (t) => {
		const receiver = await startReceiver(t);
		receiver.behave({ status: 503 }, { status: 200 });
		const book = memoryBook();
		const first = dispatch(t, receiver, ["canary"], book);
		void first.alarms.take({ subject: "canary", text: "a" });
		await eventually(() => first.clock.waiting.includes(5_000));
		first.alarms.close();
		const { alarms, clock } = dispatch(t, receiver, ["canary"], book);
		const taken = alarms.take({ subject: "canary", text: "a" });
		t.notOk(clock.waiting.includes(hourMs), "it waits for no hour");
		await taken;
		t.equal(receiver.received.length, 2);
	},
);

t.test(
	"a subject that one receiver has heard of keeps its hour while another is tried again",
	async (t) => {
		const here = await startReceiver(t);
		const there = await startReceiver(t);
		there.behave({ status: 503 });
		const book = memoryBook();
		const clock = new TestClock();
		const targets = [here, there].map(
			({ url }): AlarmTarget => ({
				...{ name: "ntfy at here", form: "ntfy" },
				...{ url: new URL(`${url}/${topic}`), on: new Set(["canary"]) },
			}),
		);
		const { log } = collectedLog();
		const first = new AlarmDispatcher(targets, book, log, clock);
		void first.take({ subject: "canary", text: "a" });
		await eventually(
			() =>
				clock.waiting.includes(5_000) &&
				book.toldAtMs("canary") === clock.now(),
		);
		first.close();
		const second = new AlarmDispatcher(targets, book, log, clock);
		t.teardown(() => second.close());
		void second.take({ subject: "canary", text: "a" });
		t.strictSame(clock.waiting, [hourMs]);
	},
);

t.test("trials are not sent in a row", async (t) => {
	const receiver = await startReceiver(t);
	const { alarms, clock } = dispatch(t, receiver);
	t.strictSame(await alarms.try(), [{ to: "ntfy at here", ok: true }]);
	t.match(await alarms.try(), /wait ten seconds/);
	clock.pass(10_000);
	receiver.behave({ status: 404 });
	t.strictSame(await alarms.try(), [
		{ to: "ntfy at here", ok: false, why: "it answered 404" },
	]);
	t.equal(receiver.received.length, 2);
	clock.pass(-hourMs);
	t.match(await alarms.try(), [{ ok: false }], "nor held by a clock put back");
});

t.test(
	"a gate's outbox holds so much, and nothing twice in an hour",
	async (t) => {
		const outbox = new AlarmOutbox();
		const add = (text: string, nowMs: number) =>
			outbox.add({ subject: "canary", text }, nowMs);
		t.match(add("a", 0), { number: 1 });
		t.equal(add("a", hourMs - 1), undefined);
		t.match(add("a", hourMs), { number: 2 });
		for (let n = 0; n < 1_000; n += 1) add(`by ${n}`, hourMs);
		t.equal([...outbox.waiting].length, 10);
		outbox.done(3);
		outbox.done(3);
		t.equal(add("by 8", hourMs), undefined, "the sentence on the rest waits");
		outbox.done(4);
		t.match(add("x".repeat(10_000), hourMs), { text: "x".repeat(400) });
		t.equal([...outbox.waiting].length, 10);
	},
);

t.test(
	"what was given up is news again a minute after it was raised",
	async (t) => {
		const outbox = new AlarmOutbox();
		const text = "x".repeat(10_000);
		const add = (nowMs: number) =>
			outbox.add({ subject: "canary", text }, nowMs);
		t.match(add(0), { number: 1 });
		outbox.done(1, true);
		t.equal(
			add(59_999),
			undefined,
			"or a receiver that says no is asked at will",
		);
		t.match(add(60_000), { number: 2 });
		outbox.done(2);
		t.equal(add(60_000 + hourMs - 1), undefined);
	},
);

t.test("it is known whether an alarm was given up", async (t) => {
	const receiver = await startReceiver(t);
	receiver.behave({ status: 403 }, { status: 200 });
	const { alarms } = dispatch(t, receiver);
	t.equal(await alarms.take({ subject: "canary", text: "a" }), false);
	t.equal(await alarms.take({ subject: "canary", text: "a" }), true);
	t.equal(await alarms.take({ subject: "lockout", text: "unwanted" }), true);
});

t.test("alarms of one subject take no other's place", async (t) => {
	const outbox = new AlarmOutbox();
	const add = (subject: AlarmSubject, text: string) =>
		outbox.add({ subject, text }, 0);
	for (let n = 0; n < 1_000; n += 1) add("lockout", `${n} is locked out`);
	t.match(add("canary", "bait was used"), { subject: "canary" });
	for (const subject of ["budget", "upstream_down", "key_expiring"] as const)
		for (let n = 0; n < 1_000; n += 1) add(subject, `by ${n}`);
	t.equal([...outbox.waiting].length, 41);
});

t.test("those for which there was no room are counted, and told", async (t) => {
	const outbox = new AlarmOutbox();
	const add = (text: string) => outbox.add({ subject: "lockout", text }, 0);
	for (let n = 0; n < 25; n += 1) add(`${n} is locked out`);
	t.equal(outbox.dropped, 15);
	t.match(outbox.done(1), {
		subject: "lockout",
		text: "and 15 more, for which there was no room; the gate's log has them",
	});
	t.equal(outbox.done(2), undefined, "once");
	t.equal(outbox.dropped, 15);
});

t.test(
	"an address that nothing can be posted to ends nothing, and is said",
	async (t) => {
		const { log, lines } = collectedLog();
		const targets = [
			"https://ntfy.example/%zz-secret",
			"https://us%er:secret@ntfy.example/gpu",
		].map(
			(url): AlarmTarget => ({
				...{ name: "ntfy at here", form: "ntfy" },
				...{ url: new URL(url), on: new Set(["canary"] as const) },
			}),
		);
		const clock = new TestClock();
		const alarms = new AlarmDispatcher(targets, memoryBook(), log, clock);
		t.teardown(() => alarms.close());
		await alarms.take({ subject: "canary", text: "a" });
		const why = "its address cannot be posted to";
		t.match(lines, [
			{ event: "alarm_undelivered", why },
			{ event: "alarm_undelivered", why },
		]);
		t.match(await alarms.try(), [
			{ ok: false, why },
			{ ok: false, why },
		]);
		t.notMatch(JSON.stringify(lines), "secret");
	},
);
