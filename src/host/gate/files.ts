import { stat } from "node:fs/promises";
import path from "node:path";
import { loadConfig } from "../../config/load.ts";
import { formatMode } from "../../config/readConfig.ts";
import {
	absent,
	finding,
	type Outcome,
	ok,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { ifUsable } from "../../errors.ts";
import { accountNumber } from "../../system/accounts.ts";
import { secretsOf } from "../bridges/secrets.ts";

/** Where the gate's files are; the keys file where the configuration says, if it can be read. */
export async function filesOf({ configFile, installation }: Patient): Promise<{
	readonly config: string;
	readonly keys: string;
	/** What opens other hosts and Valkey. */
	readonly secrets: readonly string[];
}> {
	const settings = await ifUsable(loadConfig(configFile));
	return {
		config: configFile,
		secrets:
			settings === undefined ? [] : secretsOf(settings).map(({ file }) => file),
		keys:
			settings?.keysFile ??
			(configFile === installation.configFile
				? installation.keysFile
				: path.join(path.dirname(configFile), "keys.json")),
	};
}

export function exists(file: string): Promise<boolean> {
	return stat(file).then(
		() => true,
		() => false,
	);
}

export async function examineFiles(patient: Patient): Promise<Outcome> {
	const { config, keys, secrets } = await filesOf(patient);
	const found = await Promise.all(
		[path.dirname(config), config, keys, ...secrets].map(async (file) => ({
			file,
			stats: await stat(file).catch(({ code }: NodeJS.ErrnoException) => code),
		})),
	);
	if (found.every(({ stats }) => stats === "ENOENT"))
		return absent(`${config} does not exist`);
	const hidden = found.filter(
		({ stats }) => typeof stats === "string" && stats !== "ENOENT",
	);
	if (hidden.length > 0)
		return unknown(
			`only root can see ${hidden.map(({ file }) => file).join(", ")}`,
		);
	const group = await accountNumber("group", patient.installation.user);
	const open: string[] = [];
	const shown: string[] = [];
	const seen: string[] = [];
	const mends: string[] = [];
	for (const { file, stats } of found) {
		if (stats === undefined || typeof stats === "string") continue;
		const { uid, gid, mode } = stats;
		const line = `${file}: owner ${uid}, group ${gid}, mode ${formatMode(mode)}`;
		const wanted = stats.isDirectory() ? "0750" : "0640";
		if (uid !== 0 || (mode & 0o022) !== 0) open.push(line);
		else if (
			(mode & 0o007) !== 0 ||
			((mode & 0o040) !== 0 && gid !== 0 && gid !== group)
		)
			shown.push(line);
		else {
			seen.push(line);
			continue;
		}
		mends.push(
			`sudo chown root:${patient.installation.user} ${file} && sudo chmod ${wanted} ${file}`,
		);
	}
	if (mends.length === 0) return ok(...seen);
	// The gate refuses files that others may read.
	mends.push("sudo llamagate reload");
	return finding(
		[
			...open.map((line) => `others than root may change it: ${line}`),
			...shown.map((line) => `others than the gate may read it: ${line}`),
		],
		{
			fix: mends.join(" && "),
			severity: open.length > 0 ? "high" : "warn",
		},
	);
}
