import { readFile } from "node:fs/promises";
import t from "tap";
import { parseConfig } from "../../src/config/load.ts";
import type { StateSettings } from "../../src/config/state.ts";
import { judgeValkey, lookAtValkey } from "../../src/host/gate/valkey.ts";
import { freePort } from "../support/freePort.ts";
import { requireValkey, startValkey } from "../support/valkey.ts";

const password = "0123456789abcdef".repeat(4);
const access = { password, ca: undefined };

function settingsOf(state: object): StateSettings {
	const { state: settings } = parseConfig(
		JSON.stringify({ state }),
		"/etc/llamagate/config.json",
	);
	if (settings === undefined) throw new Error("there is no state");
	return settings;
}

t.test("a Valkey as docs/hosts.md has it is well", async (t) => {
	if (!requireValkey(t)) return;
	const text = await readFile("docs/hosts.md", "utf8");
	const line = /^user llamagate .*$/m.exec(text)?.[0] ?? "";
	const words = line.replace("PASSWORD", password).split(" ").slice(1);
	const valkey = await startValkey(t);
	await valkey.command("ACL", "SETUSER", ...words);
	const state = settingsOf({
		url: valkey.url,
		user: "llamagate",
		passwordFile: "p",
	});
	const open = judgeValkey(state, await lookAtValkey(state, access));
	t.match(open, { state: "finding", evidence: [/answers without a password/] });
	t.match(open.fix, /user default off/);
	t.equal(open.severity, undefined, "as bad as the check says");
	await valkey.command("ACL", "SETUSER", "default", "off");
	t.match(judgeValkey(state, await lookAtValkey(state, access)), {
		state: "ok",
		evidence: [
			/asks for a password/,
			"the user llamagate may touch the gates' own alone",
			/no limit, so it throws nothing away/,
		],
	});
});

t.test("one that throws counts away, or shows all to its user", async (t) => {
	if (!requireValkey(t)) return;
	const valkey = await startValkey(t, {
		auth: [password],
		args: [
			...["--requirepass", password, "--maxmemory", "64mb"],
			...["--maxmemory-policy", "allkeys-lru"],
		],
	});
	const rule = ["on", `>${password}`, "~*", "+@all"];
	await valkey.command("ACL", "SETUSER", "gates", ...rule);
	const state = settingsOf({
		url: valkey.url,
		user: "gates",
		passwordFile: "p",
	});
	const judged = async () =>
		judgeValkey(state, await lookAtValkey(state, access));
	t.match(await judged(), {
		state: "finding",
		severity: "warn",
		evidence: [/maxmemory-policy allkeys-lru/, /gates may touch what is not/],
		fix: "in valkey.conf: maxmemory-policy noeviction; in Valkey's ACL: user gates resetkeys ~{llamagate}:*",
	});
	await valkey.command("CONFIG", "SET", "maxmemory-policy", "noeviction");
	await valkey.command(
		"ACL",
		"SETUSER",
		"gates",
		"resetkeys",
		"~{llamagate}:*",
	);
	t.match(await judged(), { state: "ok" });
	await valkey.command("ACL", "SETUSER", "gates", "-info");
	t.match(await judged(), {
		state: "unknown",
		evidence: [/asks for a password/, /own alone/, /give it \+info/],
	});
	await valkey.command("ACL", "SETUSER", "gates", "off");
	t.match(await judged(), {
		state: "unknown",
		evidence: [/does not accept the user or the password; see gate\.state/],
	});
});

t.test(
	"one on this host needs no password; one that is away is unknown",
	async (t) => {
		if (!requireValkey(t)) return;
		const none = { password: undefined, ca: undefined };
		const valkey = await startValkey(t);
		const here = settingsOf({ url: `unix:${valkey.socketPath}` });
		t.match(judgeValkey(here, await lookAtValkey(here, none)), { state: "ok" });
		const away = settingsOf({ url: `valkey://127.0.0.1:${await freePort()}` });
		t.match(judgeValkey(away, await lookAtValkey(away, none)), {
			state: "unknown",
			evidence: [/does not answer: ECONNREFUSED/],
		});
	},
);
