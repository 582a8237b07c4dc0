import { execFile } from "node:child_process";
import { chmod, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import t, { type Test } from "tap";
import { account } from "../../src/host/gate/accountStep.ts";
import { planTls } from "../../src/host/gate/tlsStep.ts";
import type { Action } from "../../src/setup/step.ts";
import { temporaryFolder } from "../support/gate.ts";

const run = promisify(execFile);

/** What setup knows of itself, with a gate's files in this folder. */
function installationIn(folder: string) {
	return {
		...{ program: ["node", "llamagate"] as const, packageFolder: folder },
		...{ user: "root", folder },
		configFile: path.join(folder, "config.json"),
		keysFile: path.join(folder, "keys.json"),
	};
}

/** Runs commands on a host whose gate runs, and refuses what a reload reads. */
async function refused(
	t: Test,
	commands: readonly (readonly string[])[],
): Promise<readonly string[]> {
	const folder = await temporaryFolder(t);
	const log = path.join(folder, "log");
	const systemctl = path.join(folder, "systemctl");
	await writeFile(
		systemctl,
		`#!/bin/sh\necho "$1" >> ${log}\n[ "$1" = is-active ]\n`,
	);
	await chmod(systemctl, 0o755);
	const env = { ...process.env, PATH: `${folder}:${process.env.PATH}` };
	for (const [name = "", ...args] of commands) await run(name, args, { env });
	return (await run("cat", [log])).stdout.trim().split("\n");
}

const undosOf = (actions: readonly Action[]) =>
	actions.flatMap(({ undo = [] }) => undo);

t.test(
	"a gate that refuses stops no step that gives root its configuration, nor its undo",
	async (t) => {
		const folder = await temporaryFolder(t);
		const installation = installationIn(folder);
		await writeFile(installation.configFile, "{}", { mode: 0o600 });
		await writeFile(installation.keysFile, '{ "keys": [] }', { mode: 0o600 });
		const { actions } = await account(
			installation,
			"first",
			undefined,
		).inspect();
		const commands = actions.flatMap((action) =>
			action.kind === "command" && action.command[0] === "sh"
				? [action.command]
				: [],
		);
		t.equal(commands.length, 1);
		t.strictSame(
			await refused(t, commands),
			["is-active", "reload"],
			"the keys of other hosts are mended by a later step",
		);
		const undos = undosOf(actions);
		t.equal(undos.length, 1);
		t.strictSame(
			await refused(t, undos),
			["is-active", "reload"],
			"what only root may read is put back while the gate runs",
		);
	},
);

t.test("plain HTTP is put back where the gate refuses", async (t) => {
	const { actions } = planTls(installationIn("/etc/llamagate"), "off", {
		config: '{ "listen": { "tls": "tailscale" } }',
		...{ isGateActive: true, tailnet: undefined, otherControl: undefined },
		...{ permitted: undefined, dropIn: undefined, hasTailscaleSsh: false },
	});
	t.strictSame(await refused(t, undosOf(actions)), ["is-active", "reload"]);
});
