import { chmod, writeFile } from "node:fs/promises";
import t from "tap";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import {
	bearer,
	eventually,
	runCli,
	startGate,
	type TestGate,
	testEntries,
	testKeys,
} from "../support/gate.ts";
import { allAre, isState, startHost } from "../support/hosts.ts";
import {
	killLedger,
	type LedgerPlace,
	ledgerPlace,
	spawnLedger,
} from "../support/ledger.ts";
import { attack, head, shows, statusOf } from "../support/raw.ts";
import { type Receiver, startReceiver } from "../support/receiver.ts";

const topic = "a-topic-that-nobody-guesses";
const [user] = testEntries as [KeyEntry];
const canary: KeyEntry = {
	name: "bait",
	sha256: digestOf(testKeys.wrong),
	canary: true,
};

interface Teardown {
	teardown(action: () => unknown): unknown;
}

/** A place for a ledger that tells a receiver. */
async function alarmPlace(
	t: Teardown,
	{ url }: Receiver,
	more = {},
	rest = {},
) {
	const place = await ledgerPlace(t);
	const config = {
		ledger: place.section,
		alarms: [{ url: `${url}/${topic}`, ...more }],
		...rest,
	};
	await writeFile(place.configFile, JSON.stringify(config));
	await chmod(place.configFile, 0o600);
	return { place, config };
}

async function ask({ url }: TestGate, key: string, path = "/api/tags") {
	const reply = await fetch(`${url}${path}`, {
		headers: bearer(key),
		...(path === "/api/generate" && {
			method: "POST",
			body: JSON.stringify({ model: "qwen3:8b", prompt: "a" }),
		}),
	});
	await reply.arrayBuffer();
	return reply.status;
}

/** How many have been told of each. */
function titles({ received }: Receiver): string[] {
	return received.map(({ body }) => String(body.title).split(": ")[1] ?? "");
}

t.test("an owner is told of each subject, once", async (t) => {
	const receiver = await startReceiver(t);
	const { place, config } = await alarmPlace(t, receiver);
	const ledger = await spawnLedger(t, place);
	const limits = { authFailures: { max: 3 } };
	const expires = new Date(Date.now() + 3 * 86_400_000).toISOString();
	const gate = await startGate(t, {
		config: { ...config, limits },
		keys: [{ ...user, expires, budget: { requests: 1, per: "day" } }, canary],
	});
	await receiver.got(1);
	t.match(receiver.received, [
		{
			path: "POST /",
			body: {
				topic,
				message: `the key "user" expires at ${expires}`,
				priority: 3,
			},
		},
	]);
	// Nobody has to ask again for it.
	t.equal(await ask(gate, testKeys.user, "/api/generate"), 200);
	await receiver.got(2);
	t.match(receiver.received[1]?.body.message, /the budget of the key "user"/);

	t.equal(await ask(gate, testKeys.wrong), 401);
	await receiver.got(3);
	t.match(receiver.received[2]?.body, {
		message: /^the canary key "bait" was used by 127\.0\.0\.1: /,
		priority: 5,
	});
	// Nothing answers there.
	await gate.writeConfig({
		...config,
		limits,
		upstream: { url: "http://127.0.0.1:9" },
	});
	await gate.daemon.reload();
	const now = performance.now.bind(performance);
	t.equal(await ask(gate, testKeys.user), 502);
	t.teardown(() => {
		performance.now = now;
	});
	performance.now = () => now() + 31_000;
	t.equal(await ask(gate, testKeys.user), 502);
	performance.now = now;
	await receiver.got(4);
	await gate.writeConfig({ ...config, limits });
	await gate.daemon.reload();
	t.equal(await ask(gate, testKeys.user), 200);
	await receiver.got(5);
	t.match(
		receiver.received[4]?.body.message,
		/^Ollama answers requests again \(\d{4}-.*Z\)$/,
	);

	for (let n = 0; n < 4; n += 1)
		await ask(gate, `no-key-${n}-${"x".repeat(40)}`);
	await receiver.got(6);
	t.match(receiver.received[5]?.body.message, /^127\.0\.0\.1 is locked out/);
	t.strictSame(titles(receiver), [
		"a key expires",
		"a budget runs out",
		"a canary key was used",
		"Ollama is down",
		"Ollama is up again",
		"a device is locked out",
	]);
	const logs = JSON.stringify([gate.log, ledger.log]);
	t.notMatch(logs, topic, "no log names the topic");
	t.notMatch(JSON.stringify(receiver.received), testKeys.wrong);
});

t.test(
	"of several hosts each that goes is told of, and its return",
	async (t) => {
		const receiver = await startReceiver(t);
		const hosts = await Promise.all(
			["workstation", "minipc"].map((name) => startHost(t, name)),
		);
		const upstreams = hosts.map(({ name, url }) => ({ name, url }));
		const { place, config } = await alarmPlace(t, receiver, {}, { upstreams });
		const ledger = await spawnLedger(t, place);
		const gate = await startGate(t, { config, keys: [user] });
		await allAre(gate, "up");
		const now = performance.now.bind(performance);
		t.teardown(() => {
			performance.now = now;
		});
		let aheadMs = 0;
		performance.now = () => now() + aheadMs;
		for (const [index, host] of hosts.entries()) {
			await host.kill();
			await isState(gate, host.name, "down");
			aheadMs += 31_000;
			await receiver.got(index + 1);
		}
		// A reload is no news.
		await gate.daemon.reload();
		for (const [index, host] of hosts.entries()) {
			await host.start();
			await receiver.got(index + 3);
		}
		t.match(
			receiver.received.map(({ body }) => body),
			[
				{
					title: /: workstation is down$/,
					message:
						/^the host "workstation" has been down for half a minute; 1 of 2 hosts are up \(\d{4}-.*Z\)$/,
					priority: 4,
				},
				{ title: /: minipc is down$/, message: /0 of 2 hosts are up/ },
				{
					title: /: workstation is up again$/,
					message: /^the host "workstation" is up again after \d/,
					priority: 3,
				},
				{ title: /: minipc is up again$/ },
			],
		);
		t.match(
			ledger.log.filter(({ event }) => event === "alarm_sent"),
			[{ subject: "upstream_down", host: "workstation" }],
		);
		t.match(
			gate.log.filter(({ event }) => /^upstream_(down|back)$/.test(`${event}`)),
			[
				{ event: "upstream_down", upstream: "workstation" },
				{ event: "upstream_down", upstream: "minipc" },
				{ event: "upstream_back", upstream: "workstation" },
				{ event: "upstream_back", upstream: "minipc" },
			],
		);
	},
);

t.test(
	"what is raised while no ledger is there is told once there is one",
	async (t) => {
		const receiver = await startReceiver(t);
		const { place, config } = await alarmPlace(t, receiver);
		const gate = await startGate(t, { config, keys: [user, canary] });
		await ask(gate, testKeys.wrong);
		t.equal(await ask(gate, testKeys.user), 200, "the gate serves");
		const first = await spawnLedger(t, place);
		// Only then does it know that the message arrived.
		await eventually(() =>
			first.log.some(({ event }) => event === "alarm_sent"),
		);

		// What waits for its hour is not lost with the ledger, and waits on with the next.
		await gate.writeKeys([user, { ...canary, name: "other-bait" }]);
		await gate.daemon.reload();
		await ask(gate, testKeys.wrong);
		await killLedger(first);
		const second = await spawnLedger(t, place);
		await gate.writeKeys([
			{ ...user, expires: new Date(Date.now() + 86_400_000).toISOString() },
			canary,
		]);
		await gate.daemon.reload();
		await receiver.got(2);
		t.strictSame(titles(receiver), ["a canary key was used", "a key expires"]);
		await eventually(() =>
			second.log.some(({ event }) => event === "alarm_sent"),
		);
	},
);

t.test("no number of lockouts keeps a canary's alarm away", async (t) => {
	const receiver = await startReceiver(t);
	const { place, config } = await alarmPlace(t, receiver);
	await spawnLedger(t, place);
	const gate = await startGate(t, {
		config: { ...config, limits: { authFailures: { max: 1 } } },
		keys: [user, canary],
	});
	for (let n = 1; n <= 40; n += 1) {
		const key = shows(`no-key-${n}-${"x".repeat(40)}`);
		const bytes = head("GET /api/tags HTTP/1.1", "Host: gate", key);
		const { status } = await attack(gate, bytes, `127.0.1.${n}`);
		t.equal(status, 401);
	}
	t.equal((await statusOf(gate)).lockedOut, 40);
	await ask(gate, testKeys.wrong);
	await receiver.got(2);
	t.strictSame(titles(receiver), [
		"a device is locked out",
		"a canary key was used",
	]);
});

t.test("what is not wanted is not sent, and no alarms are none", async (t) => {
	const receiver = await startReceiver(t);
	const { place, config } = await alarmPlace(t, receiver, {
		on: ["key_expiring"],
	});
	await spawnLedger(t, place);
	const expires = new Date(Date.now() + 86_400_000).toISOString();
	const gate = await startGate(t, {
		config,
		keys: [{ ...user, expires }, canary],
	});
	await ask(gate, testKeys.wrong);
	await receiver.got(1);
	t.strictSame(titles(receiver), ["a key expires"]);
});

t.test(
	"a receiver that hangs holds up neither the gate nor its records",
	async (t) => {
		const receiver = await startReceiver(t);
		receiver.behave("hang");
		const { place, config } = await alarmPlace(t, receiver);
		await spawnLedger(t, place);
		const gate = await startGate(t, { config, keys: [user, canary] });
		await ask(gate, testKeys.wrong);
		await receiver.got(1);
		t.equal(await ask(gate, testKeys.user, "/api/generate"), 200);
		await eventually(async () => (await requests(place)) === 1);
	},
);

async function requests({ configFile }: LedgerPlace): Promise<number> {
	const { stdout } = await runCli(["usage", "--json", "--config", configFile]);
	const { rows } = JSON.parse(stdout) as { rows: { requests: number }[] };
	return rows[0]?.requests ?? 0;
}

t.test("--test-alarm says whether a message arrives", async (t) => {
	const receiver = await startReceiver(t);
	const { place } = await alarmPlace(t, receiver);
	const run = () =>
		runCli(["ledger", "--test-alarm", "--config", place.configFile]);
	t.match(await run(), { code: 1, stderr: /no ledger answers on/ });
	const ledger = await spawnLedger(t, place);
	const host = new URL(receiver.url).host;
	t.match(await run(), { code: 0, stdout: `ok    ntfy at ${host}\n` });
	t.match(receiver.received, [
		{ body: { topic, message: "Alarms of this gate arrive here." } },
	]);
	t.match(await run(), { code: 1, stderr: /wait ten seconds/ });
	await killLedger(ledger);
	await spawnLedger(t, place);
	receiver.behave({ status: 403 });
	const refused = await run();
	t.match(refused, {
		code: 1,
		stdout: `look  ntfy at ${host}: it answered 403\n`,
	});
	t.notMatch(JSON.stringify(refused), topic);
	await writeFile(place.configFile, JSON.stringify({ ledger: place.section }));
	t.match(await run(), { code: 1, stderr: /has no "alarms"/ });
});
