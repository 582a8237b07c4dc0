import { chmod, writeFile } from "node:fs/promises";
import t from "tap";
import { AlarmDispatcher } from "../../src/ledger/alarms/dispatcher.ts";
import { type IssuedPair, makeAuthority } from "../support/certificates.ts";
import { eventually, runCli } from "../support/gate.ts";
import { collectedLog, ledgerPlace, spawnLedger } from "../support/ledger.ts";
import { program } from "../support/program.ts";
import { startReceiver, TestClock } from "../support/receiver.ts";

const topic = "a-topic-that-nobody-guesses";
const dayMs = 86_400_000;

interface Teardown {
	teardown(action: () => unknown): unknown;
}

/** Has a ledger post a trial to a receiver with each certificate. @returns what it says of each, and how many came */
async function tryEach(
	t: Teardown,
	pairs: readonly IssuedPair[],
	env: NodeJS.ProcessEnv = {},
) {
	const receivers = await Promise.all(
		pairs.map((pair) => startReceiver(t, pair)),
	);
	const place = await ledgerPlace(t);
	const alarms = receivers.map(({ url }) => ({ url: `${url}/${topic}` }));
	await writeFile(
		place.configFile,
		JSON.stringify({ ledger: place.section, alarms }),
	);
	await chmod(place.configFile, 0o600);
	await spawnLedger(t, place, program, env);
	const args = ["ledger", "--test-alarm", "--config", place.configFile];
	const { stdout } = await runCli(args);
	return {
		said: stdout.replace(/127\.0\.0\.1:\d+/g, "here").split("\n"),
		came: receivers.map(({ received }) => received.length),
		whole: stdout,
	};
}

t.test("an authority of one's own is taken where Node is told", async (t) => {
	const authority = await makeAuthority(t);
	const [good, expired, other] = await Promise.all([
		authority.issue(),
		authority.issue({
			from: new Date(Date.now() - 9 * dayMs),
			to: new Date(Date.now() - dayMs),
		}),
		authority.issue({ names: ["ntfy.example"] }),
	]);
	const stranger = await (await makeAuthority(t)).issue();
	const { said, came, whole } = await tryEach(
		t,
		[good, expired, other, stranger],
		{ NODE_EXTRA_CA_CERTS: authority.caFile },
	);
	t.strictSame(said, [
		"ok    ntfy at here",
		"look  ntfy at here: CERT_HAS_EXPIRED",
		"look  ntfy at here: ERR_TLS_CERT_ALTNAME_INVALID",
		"look  ntfy at here: UNABLE_TO_VERIFY_LEAF_SIGNATURE",
		"",
	]);
	t.strictSame(came, [1, 0, 0, 0]);
	t.notMatch(whole, topic);
});

t.test("an authority that nobody knows is not taken", async (t) => {
	const authority = await makeAuthority(t);
	const { said, came } = await tryEach(t, [await authority.issue()]);
	t.strictSame(said, [
		"look  ntfy at here: UNABLE_TO_VERIFY_LEAF_SIGNATURE",
		"",
	]);
	t.strictSame(came, [0]);
});

t.test(
	"a receiver with a bad certificate is told nothing, is tried five times, and the log says why",
	async (t) => {
		const authority = await makeAuthority(t);
		const receiver = await startReceiver(t, await authority.issue());
		const { log, lines } = collectedLog();
		const clock = new TestClock();
		const alarms = new AlarmDispatcher(
			[
				{
					...{ name: "ntfy at here", form: "ntfy" },
					url: new URL(`${receiver.url}/${topic}`),
					on: new Set(["canary"]),
				},
			],
			{ toldAtMs: () => 0, setToldAtMs: () => {} },
			log,
			clock,
		);
		t.teardown(() => alarms.close());
		const taken = alarms.take({ subject: "canary", text: "a" });
		for (const delayMs of [5_000, 30_000, 120_000, 600_000])
			await clock.passWhole(delayMs);
		await taken;
		t.equal(receiver.received.length, 0);
		t.match(lines, [
			{
				event: "alarm_undelivered",
				why: "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
			},
		]);
		t.notMatch(JSON.stringify(lines), topic);
		await eventually(() => clock.waiting.length === 0);
	},
);
