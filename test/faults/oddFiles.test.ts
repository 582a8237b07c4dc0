import { spawnSync } from "node:child_process";
import { rm } from "node:fs/promises";
import t from "tap";
import { BadFileError } from "../../src/errors.ts";
import { parseKeys } from "../../src/keys/keyFile.ts";
import { Keyring } from "../../src/keys/keyring.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import { startGate, testEntries, testKeys } from "../support/gate.ts";
import { honestStatus, within } from "../support/raw.ts";

t.test(
	"a pipe in place of the keys file or the configuration is refused, and the next reload works",
	async (t) => {
		const gate = await startGate(t);
		for (const file of ["keysFile", "configFile"] as const) {
			await rm(gate[file]);
			t.equal(spawnSync("mkfifo", ["-m", "600", gate[file]]).status, 0);
			const refused = await within(
				gate.daemon.reload(),
				"a reload that finds a pipe",
			);
			t.match(refused, {
				ok: false,
				mistakes: [{ message: "is not an ordinary file" }],
			});
			t.equal(await honestStatus(gate), 200, "the old keys are in force");
			await rm(gate[file]);
			if (file === "keysFile") await gate.writeKeys(testEntries);
			else await gate.writeConfig({});
			t.match(await gate.daemon.reload(), { ok: true });
		}
	},
);

t.test("a member that stands twice is found among thousands", async (t) => {
	const entries = Array.from({ length: 2_000 }, (_, n) => ({
		name: `key-${n}`,
		sha256: digestOf(`${testKeys.user}${n}`),
		expires: "2030-01-01T00:00:00Z",
	}));
	const good = JSON.stringify({ keys: entries });
	t.equal(parseKeys(good, "keys.json").length, 2_000);
	const bad = good.replace(
		'"name":"key-1000",',
		'"name":"key-1000","expires":"2020-01-01T00:00:00Z",',
	);
	t.throws(() => parseKeys(bad, "keys.json"), BadFileError);
	t.throws(
		() => parseKeys(good.replace('{"keys"', '{"keys":[],"keys"'), "keys.json"),
		BadFileError,
	);
});

t.test(
	"many keys are taken in parts, and the event loop goes on",
	async (t) => {
		const entries = Array.from({ length: 20_000 }, (_, n) => ({
			name: `key-${n}`,
			sha256: digestOf(`${testKeys.user}${n}`),
		}));
		let turns = 0;
		let over = false;
		const turn = () => {
			turns += 1;
			if (!over) setImmediate(turn);
		};
		setImmediate(turn);
		const keyring = await Keyring.gather(entries);
		over = true;
		t.equal(keyring.names.length, 20_000);
		t.equal(keyring.find(`${testKeys.user}19999`)?.key.name, "key-19999");
		t.ok(turns > 3, `it had ${turns} turns`);
	},
);
