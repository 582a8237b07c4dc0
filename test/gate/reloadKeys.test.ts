import { chmod, unlink } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import {
	bearer,
	runCli,
	startGate,
	type TestGate,
	testEntries,
	testKeys,
} from "../support/gate.ts";
import { appSecret, secretFile } from "../support/peopleTokens.ts";

const withoutUser = testEntries.filter(({ name }) => name !== "user");

/** What a command that has changed the keys is told by the gate that runs. */
async function tell({ folder }: TestGate) {
	const { status, body } = await askDaemon(
		path.join(folder, "admin.sock"),
		"POST /reload/keys",
	);
	return { status, ...(JSON.parse(body) as { keys?: number; gone?: number }) };
}

async function statusOf({ url }: TestGate, key: string): Promise<number> {
	const reply = await fetch(`${url}/api/version`, { headers: bearer(key) });
	await reply.arrayBuffer();
	return reply.status;
}

t.test(
	"a password of Valkey's that cannot be read keeps no lost key in force",
	async (t) => {
		const password = "0123456789abcdef".repeat(4);
		const config = (passwordFile: string) => ({
			// Nobody listens there.
			state: { url: "valkey://127.0.0.1:9", passwordFile },
		});
		const gate = await startGate(t, {
			files: { "valkey.password": password },
			config: config("valkey.password"),
		});
		const file = path.join(gate.folder, "valkey.password");
		t.equal(await statusOf(gate, testKeys.user), 200);
		await chmod(file, 0o644);
		await gate.writeKeys(withoutUser);
		t.match(await tell(gate), { status: 422, ok: false, file, keys: 3 });
		t.equal(await statusOf(gate, testKeys.user), 401);
		t.equal(await statusOf(gate, testKeys.owner), 200);
		await unlink(file);
		await gate.writeKeys(testEntries);
		t.match(await tell(gate), { keys: 4 });
		t.equal(await statusOf(gate, testKeys.user), 200);
	},
);

t.test(
	"a group that is gone from the configuration keeps no lost key in force",
	async (t) => {
		const groups = { family: { requests: 100, per: "day" } };
		const grouped = (entries: readonly KeyEntry[]) =>
			entries.map((entry) => ({ ...entry, group: "family" }));
		const gate = await startGate(t, {
			config: { budgets: { groups } },
			keys: grouped(testEntries),
		});
		await gate.writeConfig({});
		await gate.writeKeys(grouped(withoutUser));
		t.match(await tell(gate), { ok: false, file: gate.keysFile, keys: 3 });
		t.equal(await statusOf(gate, testKeys.user), 401);
		t.equal(await statusOf(gate, testKeys.owner), 200);
	},
);

const lab: KeyEntry = {
	name: "lab",
	sha256: digestOf(testKeys.wrong),
	budget: { requests: 5, per: "month", timezone: "Europe/Berlin" },
};
const bound: KeyEntry = { ...lab, bind: { nodes: ["laptop"] } };
const signed: KeyEntry = {
	name: "app",
	sha256: digestOf(testKeys.wrong),
	people: { jwt: { secretFile: "gone.secret" }, unknown: "refuse" },
};

for (const [what, entry] of [
	["whose budget outlasts the ledger's records", lab],
	["that is bound where devices are not told apart", bound],
	["whose app's secret is not there", signed],
] as const)
	t.test(
		`a key ${what} comes into force no more than others' new rules, and keeps no lost key there`,
		async (t) => {
			const gate = await startGate(t, {
				config: { ledger: { retention: "30d" } },
			});
			const changed = withoutUser.map(
				(one): KeyEntry => ({
					...one,
					scopes: ["infer"],
				}),
			);
			await gate.writeKeys([...changed, entry]);
			const answer = await tell(gate);
			t.match(answer, { status: 422, ok: false, gone: 1 });
			t.notOk("keys" in answer);
			t.ok(gate.log.some(({ gone }) => gone === 1));
			t.equal(await statusOf(gate, testKeys.user), 401);
			t.equal(await statusOf(gate, testKeys.wrong), 401);
			t.equal(await statusOf(gate, testKeys.owner), 200, "by its old rules");

			t.notOk("gone" in (await tell(gate)), "nothing else is gone");
			await gate.writeKeys(withoutUser);
			t.match(await tell(gate), { status: 200, ok: true, keys: 3 });
		},
	);

t.test(
	"secrets that rotations have replaced go from a file that is refused",
	async (t) => {
		const [user, ...others] = testEntries as [KeyEntry];
		const expires = "2099-01-01T00:00:00Z";
		const olds = ["8a", "9b"].map((two) => `lg_${two.repeat(32)}`);
		const previous = olds.map((key) => ({ sha256: digestOf(key), expires }));
		const gate = await startGate(t, {
			config: { ledger: { retention: "30d" } },
			keys: [{ ...user, previous }, ...others],
		});
		const [first = "", second = ""] = olds;
		await gate.writeKeys([
			{ ...user, previous: previous.slice(1) },
			...others,
			lab,
		]);
		t.match(await tell(gate), { gone: 1 });
		t.equal(await statusOf(gate, first), 401);
		t.equal(await statusOf(gate, second), 200);
		t.equal(await statusOf(gate, testKeys.user), 200);
		// A new secret at once: of the old key nothing is left.
		await gate.writeKeys([
			{ ...user, sha256: digestOf("new") },
			...others,
			lab,
		]);
		t.match(await tell(gate), { gone: 2 });
		t.equal(await statusOf(gate, second), 401);
		t.equal(await statusOf(gate, testKeys.user), 401);
		t.equal(await statusOf(gate, testKeys.owner), 200);
	},
);

t.test("who revokes a key is told that the rest is refused", async (t) => {
	const app: KeyEntry = {
		...signed,
		people: { jwt: { secretFile }, unknown: "refuse" },
	};
	const gate = await startGate(t, {
		files: { [secretFile]: appSecret },
		keys: [...testEntries, app],
	});
	await unlink(path.join(gate.folder, secretFile));
	const { code, stderr } = await runCli(
		["keys", "revoke", "user"].concat(["--config", gate.configFile]),
	);
	t.equal(code, 1);
	t.match(
		stderr,
		/refused to reload and has only taken out of force what is gone from the keys file: .*app\.secret/,
	);
	t.equal(await statusOf(gate, testKeys.user), 401);
	t.equal(await statusOf(gate, testKeys.owner), 200);
});
