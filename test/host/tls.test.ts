import { execFileSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { parseConfig } from "../../src/config/load.ts";
import {
	planTls,
	type SeenForTls,
	type TlsChoice,
	withTls,
} from "../../src/host/gate/tlsStep.ts";
import { perform, takeBack } from "../../src/setup/change.ts";
import { Journal } from "../../src/setup/journal.ts";
import type { Installation } from "../../src/system/installation.ts";
import { runCli, temporaryFolder } from "../support/gate.ts";

const installation: Installation = {
	program: ["/usr/bin/node", "/opt/llamagate.js"],
	packageFolder: "/opt",
	folder: "/etc/llamagate",
	configFile: "/etc/llamagate/config.json",
	keysFile: "/etc/llamagate/keys.json",
	user: "llamagate",
};
const dropIn = "/etc/systemd/system/tailscaled.service.d/zz-llamagate.conf";
const name = "mini.tail1.ts.net";
/** A gate of plain HTTP, in a tailnet that gives certificates. */
const plain: SeenForTls = {
	config: "{}\n",
	isGateActive: true,
	tailnet: { backendState: "Running", dnsName: name, certDomains: [name] },
	otherControl: undefined,
	permitted: { value: "" },
	dropIn: undefined,
	hasTailscaleSsh: false,
};

function plan(choice: TlsChoice, seen: Partial<SeenForTls> = {}) {
	return planTls(installation, choice, { ...plain, ...seen });
}

/** The files that a plan writes, and the commands that it runs. */
function changesOf({ actions }: ReturnType<typeof plan>): string[] {
	return actions.map((action) =>
		action.kind === "command" ? action.command.join(" ") : action.path,
	);
}

t.test("tailscaled is given the user first, then the gate the setting", (t) => {
	const inspection = plan("tailscale");
	t.equal(inspection.state, "todo");
	t.match(changesOf(inspection), [
		path.dirname(dropIn),
		dropIn,
		"systemctl daemon-reload",
		"systemctl try-restart tailscaled.service",
		installation.configFile,
		/systemctl reload llamagate/,
	]);
	const [written, config] = inspection.actions.filter(
		({ kind }) => kind === "file",
	);
	t.match(written, {
		content: /\nEnvironment="TS_PERMIT_CERT_UID=llamagate"\n/,
		undo: [
			["systemctl", "daemon-reload"],
			["systemctl", "try-restart", "tailscaled.service"],
		],
	});
	t.match(config, {
		...{ user: "root", group: "llamagate", mode: 0o640 },
		undo: [["sh", "-c", /systemctl reload llamagate/]],
	});
	t.match(inspection.notes.join("\n"), `https://${name} with the gate's port`);
	t.match(inspection.notes.join("\n"), /tailscaled is restarted/);
	t.notMatch(inspection.notes.join("\n"), /Tailscale SSH/);
	t.match(
		plan("tailscale", { hasTailscaleSsh: true }).notes.join("\n"),
		/Tailscale SSH is on, and its sessions end/,
	);
	t.end();
});

t.test("tailscaled is left alone where it gives to that user already", (t) => {
	const inspection = plan("tailscale", {
		permitted: { value: "llamagate", file: "/etc/default/tailscaled" },
	});
	t.match(changesOf(inspection), [installation.configFile, /reload/]);
	t.notMatch(inspection.notes.join("\n"), "restarted");
	const again = plan("tailscale", {
		permitted: { value: "llamagate" },
		config: '{ "listen": { "tls": "tailscale" } }',
	});
	t.match(again, { state: "done", actions: [] });
	t.end();
});

t.test("where there is no certificate to be had, nothing is changed", (t) => {
	const { tailnet } = plain;
	if (tailnet === undefined) throw new Error("no tailnet");
	for (const [seen, says] of [
		[
			{ otherControl: "https://head.example" },
			/^https:\/\/head\.example is this node's control server.*Headscale has none.*listen\.tls/,
		],
		[{ tailnet: undefined }, /tailscaled does not run/],
		[
			{ tailnet: { ...tailnet, backendState: "NeedsLogin" } },
			/state NeedsLogin; log in with: sudo tailscale up/,
		],
		[
			{ tailnet: { ...tailnet, certDomains: [] } },
			/turn on MagicDNS and HTTPS certificates at/,
		],
		[{ tailnet: { ...tailnet, dnsName: "" } }, /turn on MagicDNS/],
		[{ permitted: undefined }, /give it TS_PERMIT_CERT_UID=llamagate/],
		[{ permitted: { unreadable: "/etc/x" } }, /\/etc\/x cannot be read/],
		[
			{ permitted: { value: "caddy", file: "/etc/default/tailscaled" } },
			/gives certificates to caddy, by \/etc\/default\/tailscaled,/,
		],
		[
			{
				permitted: { value: "caddy", file: "/etc/default/tailscaled" },
				dropIn: "old",
			},
			/gives certificates to caddy/,
		],
		[{ isGateActive: false }, /llamagate\.service does not run.*run first/],
		[{ config: undefined }, /run first: sudo llamagate setup/],
		[{ config: '{ "listen": 1 }' }, /cannot be changed by a program/],
		[{ config: "{" }, /cannot be changed by a program/],
	] as const)
		t.match(
			plan("tailscale", seen),
			{ state: "unsafe", says, actions: [] },
			String(says),
		);
	t.end();
});

t.test("off takes back what setup gave, and nothing of another's", (t) => {
	const config = '{ "listen": { "tls": "tailscale" } }';
	t.match(changesOf(plan("off", { config, dropIn: "ours" })), [
		`rm ${dropIn}`,
		"systemctl daemon-reload",
		"systemctl try-restart tailscaled.service",
		installation.configFile,
		/reload/,
	]);
	// A Headscale, or no Tailscale at all, does not keep anybody from it.
	const foreign = plan("off", {
		config,
		tailnet: undefined,
		otherControl: "https://head.example",
		permitted: { value: "llamagate", file: "/etc/default/tailscaled" },
	});
	t.match(changesOf(foreign), [installation.configFile, /reload/]);
	t.match(plan("off"), { state: "done", actions: [] });
	t.end();
});

t.test("of the configuration listen.tls alone changes", (t) => {
	const commented = `{
  // mine
  "listen": { "port": 11435 }, /* as it was */
  "drainTimeout": "1m"
}
`;
	const changed = withTls(commented, "tailscale") ?? "";
	t.match(parseConfig(changed, ""), {
		tls: { kind: "tailscale" },
		drainTimeoutMs: 60_000,
	});
	t.match(changed, /\/\/ mine[\s\S]*\/\* as it was \*\//);
	t.equal(withTls(changed, "tailscale"), undefined, "as it is already");
	const back = withTls(changed, "off") ?? "";
	t.equal(parseConfig(back, "").tls, undefined);
	t.match(back, /"port": 11435[\s\S]*\/\* as it was \*\//);
	t.equal(withTls("{}", "off"), undefined);
	const files = '{ "listen": { "tls": { "certFile": "a", "keyFile": "b" } } }';
	t.match(parseConfig(withTls(files, "tailscale") ?? "", "").tls, {
		kind: "tailscale",
	});
	t.end();
});

t.test("undo puts the drop-in and the configuration back", async (t) => {
	const folder = await temporaryFolder(t);
	const place = (file: string) => path.join(folder, path.basename(file));
	const before = '{ "drainTimeout": "1m" }\n';
	await writeFile(place(installation.configFile), before, { mode: 0o640 });
	const journal = await Journal.open(path.join(folder, "journal"));
	await journal.beginStep("tls");
	const [user, group] = ["-un", "-gn"].map((option) =>
		execFileSync("id", [option], { encoding: "utf8" }).trim(),
	) as [string, string];
	// The plan's own files, in a folder of the test's; its commands are systemd's.
	for (const action of plan("tailscale", { config: before }).actions)
		if (action.kind === "file")
			await perform(
				{ ...action, user, group, path: place(action.path), undo: [] },
				"tls",
				journal,
				() => {},
			);
	await journal.endStep();
	const config = () => readFile(place(installation.configFile), "utf8");
	t.match(parseConfig(await config(), ""), { tls: { kind: "tailscale" } });
	t.match(await readFile(place(dropIn), "utf8"), "TS_PERMIT_CERT_UID");
	for (const entry of journal.entries)
		t.strictSame(await takeBack(entry, journal), { left: [] });
	t.equal(await config(), before);
	await t.rejects(readFile(place(dropIn)), { code: "ENOENT" });
});

t.test("--tls is one of two words, and alone", async (t) => {
	for (const [options, says] of [
		[["--tls", "letsencrypt"], /--tls letsencrypt: write tailscale or off/],
		[["--tls", "off", "--only", "sshd"], /--tls is done alone/],
		[["--tls", "off", "--undo"], /--tls is done alone/],
		[["--tls", "off", "--parallel", "4"], /--tls is done alone/],
	] as const) {
		const { code, stderr } = await runCli(["setup", ...options]);
		t.equal(code, 2);
		t.match(stderr, says);
	}
});
