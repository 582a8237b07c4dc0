import { mock } from "node:test";
import t from "tap";
import { ExpiryWatch } from "../../src/gate/keyExpiry.ts";
import { loadRules } from "../../src/gate/rules.ts";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { startGate, testEntries } from "../support/gate.ts";
import { collectedLog } from "../support/ledger.ts";

const dayMs = 86_400_000;
const [user] = testEntries as [KeyEntry];

t.test(
	"a key that expires is told of once a day, whatever is reloaded",
	async (t) => {
		const inDays = (days: number) =>
			new Date(Date.now() + days * dayMs).toISOString();
		const soon = { ...user, expires: inDays(3) };
		const gate = await startGate(t, { keys: [soon] });
		let rules = await loadRules(gate.configFile);
		const { log, lines } = collectedLog();
		const told: string[] = [];
		const watch = new ExpiryWatch(log, (_, text) => told.push(text));
		mock.timers.enable({ apis: ["setInterval"] });
		t.teardown(() => mock.timers.reset());
		const stop = watch.start(() => rules);
		watch.look(rules);
		watch.look(rules);
		const first = `the key "user" expires at ${soon.expires}`;
		t.strictSame(told, [first]);
		t.equal(lines.length, 3, "the log has it at each reload");

		// What a reload brings is news, and only that.
		const other = { ...user, expires: inDays(2) };
		await gate.writeKeys([other]);
		rules = await loadRules(gate.configFile);
		watch.look(rules);
		watch.look(rules);
		const second = `the key "user" expires at ${other.expires}`;
		t.strictSame(told, [first, second]);

		mock.timers.tick(dayMs);
		watch.look(rules);
		t.strictSame(told, [first, second, second]);
		stop();
		mock.timers.tick(dayMs);
		t.equal(told.length, 3);
	},
);
