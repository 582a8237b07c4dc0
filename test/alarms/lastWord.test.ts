import t from "tap";
import { readAlarm } from "../../src/ledger/alarms/alarm.ts";
import { AlarmOutbox } from "../../src/ledger/alarms/outbox.ts";
import { dispatch } from "../support/dispatcher.ts";
import { eventually } from "../support/gate.ts";
import { type Receiver, startReceiver } from "../support/receiver.ts";

const minuteMs = 60_000;
const subject = "upstream_down";

/** What people read of it, in the order in which it came. */
function words({ received }: Receiver): string[] {
	return received.map(({ body }) => String(body.title).split(": ")[1] ?? "");
}

interface Teardown {
	teardown(action: () => unknown): unknown;
}

async function tellOfHosts(t: Teardown) {
	const receiver = await startReceiver(t);
	const { alarms, clock, lines } = dispatch(t, receiver, [subject, "canary"]);
	const raise = (isOver: boolean, text: string, host?: string) =>
		alarms.take({
			...{ subject, text },
			...(host !== undefined && { host }),
			...(isOver && { isOver }),
		});
	return {
		...{ alarms, clock, lines, receiver },
		down: (text: string, host?: string) => raise(false, text, host),
		up: (text: string, host?: string) => raise(true, text, host),
	};
}

for (const [name, host] of [
	["Ollama", undefined],
	["minipc", "minipc"],
] as const)
	t.test(`the last word on what comes and goes is true: ${name}`, async (t) => {
		const { clock, receiver, down, up } = await tellOfHosts(t);
		await down("at 0", host);
		clock.pass(minuteMs);
		await up("at 1", host);
		clock.pass(minuteMs);
		const overtaken = [down("at 2", host)];
		clock.pass(minuteMs);
		overtaken.push(up("at 3", host));
		clock.pass(56 * minuteMs);
		const last = down("at 59", host);
		t.strictSame(await Promise.all(overtaken), [true, true]);
		clock.pass(minuteMs);
		t.equal(await last, true);
		t.strictSame(words(receiver), [
			`${name} is down`,
			`${name} is up again`,
			`${name} is down`,
		]);
		t.equal(receiver.received.at(-1)?.body.message, "at 59");
		clock.pass(59 * minuteMs);
		t.strictSame(clock.waiting, [], "nothing is left to say");
		await up("at 119", host);
		t.equal(words(receiver).at(-1), `${name} is up again`);
	});

t.test("what came back for good is told so within the hour", async (t) => {
	const { clock, receiver, down, up } = await tellOfHosts(t);
	await down("at 0", "minipc");
	await up("at 0", "minipc");
	void down("at 1", "minipc");
	const last = up("at 2", "minipc");
	void down("another", "workstation");
	clock.pass(60 * minuteMs);
	t.equal(await last, true);
	t.strictSame(
		receiver.received.map(({ body }) => body.message),
		["at 0", "at 0", "another", "at 2"],
	);
});

t.test(
	"one that did not arrive is not tried again behind a newer",
	async (t) => {
		const { clock, receiver, lines, down, up } = await tellOfHosts(t);
		receiver.behave({ status: 503 }, { status: 200 });
		const first = down("at 0");
		await eventually(() => clock.waiting.includes(5_000));
		await up("at 1");
		t.equal(await first, true, "it is no news any more");
		t.strictSame(words(receiver), ["Ollama is down", "Ollama is up again"]);
		t.strictSame(clock.waiting, []);
		t.match(lines, [
			{ event: "alarm_undelivered", why: "it answered 503" },
			{ event: "alarm_sent" },
		]);
		await down("at 2");
		t.equal(
			words(receiver).at(-1),
			"Ollama is down",
			"which waits for no hour",
		);
	},
);

t.test("a newer one arrives behind one that is on its way", async (t) => {
	const { clock, receiver, down, up } = await tellOfHosts(t);
	receiver.behave("hang", { status: 200 });
	const first = down("at 0");
	await receiver.got(1);
	const second = up("at 1");
	const other = down("another", "minipc");
	await other;
	t.strictSame(words(receiver), ["Ollama is down", "minipc is down"]);
	clock.pass(10_000);
	t.equal(await first, true);
	t.equal(await second, true);
	t.equal(words(receiver).at(-1), "Ollama is up again");
});

t.test(
	"of hosts that came in after the ledger's start each word is told",
	async (t) => {
		const { alarms, clock, receiver, up } = await tellOfHosts(t);
		const tell = (host: string, isOver: boolean) => {
			const text = `${host} ${isOver ? "up" : "down"}`;
			const read = readAlarm({ subject, text, host, isOver }, ["known"]);
			return read && alarms.take(read);
		};
		await tell("a", false);
		clock.pass(minuteMs);
		const held = [tell("b", false)];
		clock.pass(minuteMs);
		held.push(tell("a", true));
		await up("known up", "known");
		clock.pass(60 * minuteMs);
		t.strictSame(await Promise.all(held), [true, true]);
		t.strictSame(
			receiver.received.map(({ body }) => body.message),
			["a down", "known up", "b down\na up"],
		);
		t.equal(words(receiver).at(-1), "a host is down or up again");
	},
);

t.test("of other subjects nothing is overtaken", async (t) => {
	const { alarms, clock, receiver } = await tellOfHosts(t);
	const canary = { subject: "canary" } as const;
	await alarms.take({ ...canary, text: "first" });
	const second = alarms.take({ ...canary, text: "second" });
	await alarms.take({ ...canary, text: "a gate that lies", isOver: true });
	clock.pass(60 * minuteMs);
	t.equal(await second, true);
	t.equal(receiver.received.at(-1)?.body.message, "second");
});

t.test("a gate whose ledger is away keeps the last word", async (t) => {
	const outbox = new AlarmOutbox();
	const texts = () => [...outbox.waiting].map(({ text }) => text);
	const add = (text: string, isOver: boolean) =>
		outbox.add({ subject, text, ...(isOver && { isOver }) }, 0);
	for (let n = 0; n < 50; n += 1) {
		add(`down ${n}`, false);
		t.strictSame(texts(), [`down ${n}`]);
		add(`up ${n}`, true);
		t.strictSame(texts(), [`up ${n}`]);
	}
	t.equal(outbox.dropped, 0);
	t.equal(outbox.done(1), undefined);
	t.strictSame(texts(), ["up 49"], "what a ledger says of one that is gone");
	outbox.done(100);
	t.strictSame(texts(), []);
});
