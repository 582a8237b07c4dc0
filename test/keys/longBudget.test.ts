import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { digestOf } from "../../src/keys/newKey.ts";
import { runCli, temporaryFolder } from "../support/gate.ts";

t.test(
	"add and edit write no budget that outlasts the ledger's records",
	async (t) => {
		const folder = await temporaryFolder(t);
		const [config, file] = ["config.json", "keys.json"].map((name) =>
			path.join(folder, name),
		) as [string, string];
		const zoned = "gpu=2h,per=month,timezone=Europe/Berlin";
		await writeFile(
			config,
			JSON.stringify({
				admin: { socket: path.join(folder, "none.sock") },
				ledger: { retention: "30d" },
				budgets: {
					groups: {
						family: { gpu: "4h", per: "month", timezone: "Europe/Berlin" },
						office: { gpu: "4h", per: "month" },
					},
				},
			}),
		);
		const before = JSON.stringify({
			keys: [{ name: "lab", sha256: digestOf("lab") }],
		});
		await writeFile(file, before, { mode: 0o600 });
		const run = (...args: string[]) =>
			runCli(["keys", ...args, "--config", config]);
		for (const [args, whose] of [
			[["edit", "lab", "--budget", zoned], 'key "lab"'],
			[["edit", "lab", "--group", "family"], 'group "family"'],
			[["add", "phone", "--budget", zoned], 'key "phone"'],
			[["add", "phone", "--group", "family"], 'group "family"'],
		] as const) {
			const { code, stdout, stderr } = await run(...args);
			t.equal(code, 1, args.join(" "));
			t.equal(stdout, "", "no key is shown");
			t.match(stderr, /ledger\.retention .*is too short for the month in/);
			t.match(stderr, `budget of the ${whose} counts; set at least "32d"`);
		}
		t.equal(await readFile(file, "utf8"), before);
		const within = `${zoned.replace("month", "week")}`;
		for (const args of [
			["--budget", within, "--group", "office"],
			["--budget", "none", "--group", "none"],
		])
			t.equal((await run("edit", "lab", ...args)).code, 0, args.join(" "));
	},
);
