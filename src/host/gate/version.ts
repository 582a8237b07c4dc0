import { readFile, readlink, realpath } from "node:fs/promises";
import path from "node:path";
import {
	finding,
	type Outcome,
	ok,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { version } from "../../version.ts";
import {
	askGate,
	noUnit,
	propertiesOf,
	gateService as service,
} from "./inspect.ts";

/** Whether the running gate is the program that is installed. */
export async function examineVersion(patient: Patient): Promise<Outcome> {
	const missing = await noUnit();
	const asked = await askGate(patient);
	if (asked.kind !== "status") return missing ?? unknown(asked.why);
	const { status } = asked;
	const onDisk = (await versionOnDisk()) ?? version;
	const wrong: string[] = [];
	if (status.version !== onDisk)
		wrong.push(`version ${status.version} runs, and ${onDisk} is installed`);
	const file = await readlink(`/proc/${status.pid}/exe`).catch(() => "");
	if (file.endsWith(" (deleted)"))
		wrong.push(`the Node that it runs on was replaced since it started`);
	return wrong.length > 0
		? finding(wrong)
		: ok(`version ${onDisk} runs and is installed`);
}

/** The version of the program that the unit starts. */
async function versionOnDisk(): Promise<string | undefined> {
	const line = (await propertiesOf(service))?.get("ExecStart") ?? "";
	const script = /argv\[\]=\S+ (?:--\S+ )*(\S+\/bin\/llamagate\.js) /.exec(
		line,
	)?.[1];
	if (script === undefined) return undefined;
	const file = path.join(
		path.dirname(await realpath(script)),
		"../package.json",
	);
	const { version } = JSON.parse(await readFile(file, "utf8")) as {
		version?: string;
	};
	return version;
}
