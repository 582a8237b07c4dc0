import { readFile, readlink } from "node:fs/promises";
import { finding, type Outcome, ok, unknown } from "../../doctor/check.ts";
import { lookUpUnit, lookUpUnits } from "../../system/units.ts";
import { departures } from "./departures.ts";
import {
	isLoaded,
	mainPidOf,
	noUnit,
	propertiesOf,
	gateService as service,
} from "./inspect.ts";
import { judgeProcess, judgeProperties, readProcessStatus } from "./sandbox.ts";
import { packagedFolders } from "./unitFiles.ts";

export const restart = "sudo systemctl restart llamagate";

const timer = "llamagate-doctor.timer";
const units = [
	{ name: service, role: "the gate", boots: true },
	{ name: "llamagate.socket", role: "the gate's sockets", boots: true },
	{ name: "llamagate-listen.service", role: "the follower", boots: true },
	{
		name: "llamagate-ollama.socket",
		role: "the bridge to Ollama",
		boots: true,
	},
	// Started by its socket when it is needed.
	{
		name: "llamagate-ollama.service",
		role: "the bridge to Ollama",
		boots: false,
	},
	{ name: timer, role: "doctor's daily look", boots: true },
] as const;

export async function examineUnits(): Promise<Outcome> {
	const missing = await noUnit();
	if (missing !== undefined) return missing;
	const wrong: string[] = [];
	const seen: string[] = [];
	let isTimerAlone = true;
	const shown = await lookUpUnits(units.map(({ name }) => name));
	if (shown === undefined) return unknown("systemd does not answer here");
	for (const [index, { name, role, boots }] of units.entries()) {
		const properties = shown[index]?.properties;
		const state = properties?.get("ActiveState") ?? "";
		const file = properties?.get("UnitFileState") ?? "";
		const line = `${name} (${role}): ${state}${boots ? `, ${file || "not there"}` : ""}`;
		const isWell = boots
			? state === "active" && file === "enabled"
			: isLoaded(properties) && state !== "failed";
		(isWell ? seen : wrong).push(line);
		if (!isWell && name !== timer) isTimerAlone = false;
	}
	if (wrong.length === 0) return ok(...seen);
	return finding(
		wrong,
		isTimerAlone
			? { severity: "warn", fix: `sudo systemctl enable --now ${timer}` }
			: {},
	);
}

export async function examineHardening(): Promise<Outcome> {
	const missing = await noUnit();
	if (missing !== undefined) return missing;
	const properties = await propertiesOf(service);
	if (properties === undefined) return unknown("systemd does not answer here");
	const unit = await lookUpUnit(service);
	const texts = (files: readonly string[]) =>
		Promise.all(
			files.map(async (file) => ({
				file,
				text: await readFile(file, "utf8").catch(() => ""),
			})),
		);
	// One that was put ahead of the package's is compared with that, too.
	const [unitFile] = (
		await texts([
			...packagedFolders.map((folder) => `${folder}/${service}`),
			unit?.file ?? "",
		])
	).filter(({ text }) => text !== "");
	const environment = await texts(unit?.environmentFiles ?? []);
	return judgeProperties(
		properties,
		await texts(unit?.dropIns ?? []),
		unitFile === undefined
			? []
			: departures(
					properties,
					unitFile.text,
					environment.map(({ text }) => text).join("\n"),
				),
	);
}

export async function examineProcess(): Promise<Outcome> {
	const missing = await noUnit();
	if (missing !== undefined) return missing;
	const pid = mainPidOf(await propertiesOf(service));
	if (pid === undefined) return unknown("the gate does not run");
	const [status, network, own] = await Promise.all([
		readFile(`/proc/${pid}/status`, "utf8"),
		readlink(`/proc/${pid}/ns/net`),
		readlink("/proc/1/ns/net"),
	]);
	return judgeProcess(pid, readProcessStatus(status), network, own);
}

export async function examineWatchdog(): Promise<Outcome> {
	const missing = await noUnit();
	if (missing !== undefined) return missing;
	const properties = await propertiesOf(service);
	const watchdog = properties?.get("WatchdogUSec") ?? "";
	const again = properties?.get("Restart") ?? "";
	if (watchdog === "" || again === "")
		return unknown("systemd does not say how the gate is watched");
	const wrong: string[] = [];
	if (["0", "infinity"].includes(watchdog))
		wrong.push(`WatchdogSec is ${watchdog}: a gate that hangs stays up`);
	if (["no", "on-success"].includes(again))
		wrong.push(`Restart is ${again}: a gate that fails stays down`);
	return wrong.length > 0
		? finding(wrong)
		: ok(`a sign of life every ${watchdog}, Restart=${again}`);
}
