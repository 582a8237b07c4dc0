import t from "tap";
import { digestOf } from "../../src/keys/newKey.ts";
import { bearer, runCli, startGate, testKeys } from "../support/gate.ts";

t.test(
	"a key is told of as any other, whatever its name means elsewhere",
	async (t) => {
		const names = ["constructor", "toString", "hasOwnProperty", "valueOf"];
		const [used = "", ...unused] = names;
		const gate = await startGate(t, {
			keys: names.map((name, index) => ({
				name,
				sha256: digestOf(index === 0 ? testKeys.user : name),
			})),
		});
		const list = async (...more: string[]) =>
			(await runCli(["keys", "list", "--config", gate.configFile, ...more]))
				.stdout;
		await fetch(`${gate.url}/api/version`, { headers: bearer(testKeys.user) });
		const { keys } = JSON.parse(await list("--json")) as {
			keys: { name: string; use: unknown }[];
		};
		const useOf = (name: string) =>
			keys.find((key) => key.name === name)?.use ?? "is not there";
		t.match(useOf(used), { lastUsed: String, lastFrom: String, lastDay: 1 });
		const none = { lastUsed: null, lastFrom: null, lastDay: 0 };
		for (const name of unused) t.strictSame(useOf(name), none, name);
		const text = await list();
		t.match(text, /^constructor +active +never +20\d\d-.* 1$/m);
		for (const name of unused)
			t.match(text, new RegExp(`^${name} +active +never +not yet +0$`, "m"));
	},
);
