import { cp, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Test } from "tap";
import { type RunResult, temporaryFolder } from "./gate.ts";
import { becomes, type Namespace } from "./namespaces.ts";

const root = path.join(import.meta.dirname, "../..");
const shipped = path.join(root, "fail2ban");

/** The filter as it is shipped. */
export const filterFile = path.join(shipped, "filter.d/llamagate.conf");

/**
 * A folder of fail2ban's configuration: the distribution's own, without the
 * jails of this machine, and with ours as it is shipped.
 *
 * @param settings lines that override the jail's
 */
export async function fail2banConfig(
	t: Test,
	settings: readonly string[],
): Promise<string> {
	const folder = path.join(await temporaryFolder(t), "config");
	await cp("/etc/fail2ban", folder, { recursive: true });
	for (const own of ["jail.d", "jail.local", "fail2ban.d", "fail2ban.local"])
		await rm(path.join(folder, own), { recursive: true, force: true });
	await cp(shipped, folder, { recursive: true });
	await writeFile(
		path.join(folder, "jail.d/zz-test.conf"),
		["[llamagate]", ...settings, ""].join("\n"),
	);
	await writeFile(
		path.join(folder, "fail2ban.local"),
		[
			"[Definition]",
			`logtarget = ${path.join(folder, "log")}`,
			`dbfile = ${path.join(folder, "bans.sqlite3")}`,
			"",
		].join("\n"),
	);
	return folder;
}

/** A fail2ban in a network of its own. */
export interface Fail2ban {
	/** Runs fail2ban-client, and throws if it fails. */
	client(...command: string[]): Promise<string>;
	/** How many wrong keys it has seen. */
	failures(): Promise<number>;
	/** The addresses that the gate's jail bans now. */
	banned(): Promise<string[]>;
}

/**
 * Starts fail2ban with the jail that is shipped, on a file in place of the
 * journal.
 *
 * @param settings lines that override more of the jail
 */
export async function startFail2ban(
	t: Test,
	namespace: Namespace,
	logFile: string,
	settings: readonly string[] = [],
): Promise<Fail2ban> {
	const folder = await fail2banConfig(t, [
		"backend = polling",
		`logpath = ${logFile}`,
		...settings,
	]);
	const common = [
		...["-c", folder, "-s", path.join(folder, "socket")],
		...["-p", path.join(folder, "pid")],
	];
	namespace.start("fail2ban-server", ...common, "-x", "-f", "start");
	const run = (...command: string[]): Promise<RunResult> =>
		namespace.run("fail2ban-client", ...common, ...command);
	const fail2ban: Fail2ban = {
		async client(...command) {
			const { code, stdout, stderr } = await run(...command);
			if (code !== 0)
				throw new Error(`${command.join(" ")}: ${stdout}${stderr}`);
			return stdout.trim();
		},
		async failures() {
			const status = await fail2ban.client("status", "llamagate");
			return Number(/Total failed:\s+(\d+)/.exec(status)?.[1]);
		},
		async banned() {
			const output = await fail2ban.client("get", "llamagate", "banip");
			return output.split(/\s+/).filter(Boolean);
		},
	};
	await becomes(
		t,
		async () => (await run("status", "llamagate")).code,
		0,
		"fail2ban has the jail",
	);
	return fail2ban;
}
