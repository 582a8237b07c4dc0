import { readdir, realpath } from "node:fs/promises";
import path from "node:path";
import {
	absent,
	finding,
	type Outcome,
	ok,
	oncePerLook,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { lookUpUnits } from "../../system/units.ts";
import { unitNames } from "../gate/step.ts";

export const otherUnits = [
	"ollama.service",
	"ufw.service",
	"tailscaled.service",
	"fail2ban.service",
	"ssh.service",
	"ssh.socket",
	"sshd.service",
];
/** The units that doctor looks at. */
export const allUnits = [...unitNames, ...otherUnits];

/** A unit as systemd has it now. */
export interface UnitState {
	readonly name: string;
	readonly exists: boolean;
	/** Whether a person has kept systemd from starting it; to systemd it then does not exist. */
	readonly isMasked: boolean;
	readonly isActive: boolean;
	readonly isFailed: boolean;
	readonly isEnabled: boolean;
	/** Whether its files are others than those that systemd has read. */
	readonly needsReload: boolean;
	/** How it ended, where it has: `exit-code`. */
	readonly result: string;
}

/** All of them, by the names that they are asked for. @throws if systemd does not answer */
const everyUnitState = oncePerLook(async () => {
	const units = await lookUpUnits(allUnits, "Id", "NeedDaemonReload", "Result");
	if (units === undefined) throw new Error("systemd does not answer here");
	const states = new Map<string, UnitState>();
	for (const unit of units) {
		const {
			name: asked,
			exists,
			isMasked,
			isActive,
			isFailed,
			isEnabled,
		} = unit;
		const value = (property: string) => unit.properties.get(property) ?? "";
		const name = value("Id");
		states.set(asked, {
			name,
			exists,
			isMasked,
			isActive,
			isFailed,
			isEnabled,
			needsReload:
				value("NeedDaemonReload") === "yes" ||
				(await hasUnreadDropIn(name, unit.dropIns)),
			result: value("Result"),
		});
	}
	return states;
});

/** Each of these once, also one with several names. */
export async function unitStates(
	patient: Patient,
	asked: readonly string[],
): Promise<UnitState[]> {
	const states = await everyUnitState(patient);
	const byName = new Map<string, UnitState>();
	for (const name of asked) {
		const state = states.get(name);
		if (state !== undefined) byName.set(state.name, state);
	}
	return [...byName.values()];
}

const unitFolders = ["/etc", "/run", "/usr/lib", "/lib"];

/** Whether a drop-in lies on disk that systemd does not have; of a folder that is new it does not tell by itself. */
async function hasUnreadDropIn(
	unit: string,
	read: readonly string[],
): Promise<boolean> {
	const known = new Set(read.map((file) => path.basename(file)));
	for (const folder of unitFolders) {
		const place = `${folder}/systemd/system/${unit}.d`;
		const names = await readdir(place).catch(() => []);
		for (const name of names) {
			if (!name.endsWith(".conf") || known.has(name)) continue;
			// A link to /dev/null takes one of this name out, wherever that lies.
			const target = await realpath(path.join(place, name)).catch(() => "");
			if (target === "/dev/null") known.add(name);
			else return true;
		}
	}
	return false;
}

/** @param ufwIsOn whether UFW's own settings have it on */
export function judgeOthers(
	units: readonly UnitState[],
	ufwIsOn: boolean,
): Outcome {
	const there = units.filter(({ exists, isMasked }) => exists || isMasked);
	if (there.length === 0) return absent("none of them is a unit here");
	const isOn = (unit: UnitState) =>
		unit.name === "ufw.service" ? ufwIsOn : unit.isActive;
	// ssh.socket starts ssh.service, so one of the two is enough.
	const sshIsEnabled = there.some(
		({ name, isEnabled }) => name.startsWith("ssh") && isEnabled,
	);
	const missing = there.filter(
		(unit) =>
			isOn(unit) &&
			!unit.isEnabled &&
			!(unit.name.startsWith("ssh") && sshIsEnabled && !unit.isMasked),
	);
	if (missing.length === 0)
		return ok(
			`enabled: ${there
				.filter(({ isEnabled }) => isEnabled)
				.map(({ name }) => name)
				.join(", ")}`,
		);
	const mild = ["ollama.service", "fail2ban.service"];
	const all = (named: readonly UnitState[]) =>
		named.map(({ name }) => name).join(" ");
	const masked = missing.filter(({ isMasked }) => isMasked);
	return finding(
		missing.map(
			({ name, isMasked }) =>
				`${name} runs now, and is ${isMasked ? "masked" : "not enabled"}: not after a restart`,
		),
		{
			fix: `${masked.length > 0 ? `sudo systemctl unmask ${all(masked)} && ` : ""}sudo systemctl enable ${all(missing)}`,
			severity: missing.every(({ name }) => mild.includes(name))
				? "warn"
				: "high",
		},
	);
}

export function judgeFailed(units: readonly UnitState[]): Outcome {
	const there = units.filter(({ exists }) => exists);
	if (there.length === 0) return absent("none of them is a unit here");
	const failed = there.filter(({ isFailed }) => isFailed);
	if (failed.length === 0)
		return ok(`systemd knows ${there.length} of them, and none has failed`);
	const names = failed.map(({ name }) => name).join(" ");
	return finding(
		failed.map(({ name, result }) => `${name} has failed (${result})`),
		{
			fix: `journalctl -b -n 50 -u ${names.replaceAll(" ", " -u ")}\nsudo systemctl restart ${names}`,
			severity: failed.every(({ name }) => name.startsWith("llamagate-doctor"))
				? "warn"
				: "high",
		},
	);
}

/** @param output of systemd-analyze verify, which speaks of other units too */
export function judgeVerified(code: number, output: string): Outcome {
	const ours = output
		.split("\n")
		.map((line) => line.trim())
		.filter((line) => /llamagate/.test(line));
	if (ours.length > 0) return finding(ours);
	if (code === 0 || output.trim() !== "")
		return ok("systemd-analyze verify says nothing of the gate's units");
	return unknown(`systemd-analyze verify ended with ${code}`);
}

export function judgeReload(units: readonly UnitState[]): Outcome {
	const there = units.filter(({ exists }) => exists);
	if (there.length === 0) return absent("none of them is a unit here");
	const changed = there.filter(({ needsReload }) => needsReload);
	if (changed.length === 0) return ok("no unit file has changed since");
	const running = changed
		.filter(({ isActive }) => isActive)
		.map(({ name }) => name);
	return finding(
		changed.map(
			({ name }) => `${name} was changed on disk since systemd read it`,
		),
		{
			fix: `sudo systemctl daemon-reload${running.length > 0 ? `\nsudo systemctl restart ${running.join(" ")}` : ""}`,
		},
	);
}
