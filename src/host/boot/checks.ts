import { access, readdir, readFile, realpath, statfs } from "node:fs/promises";
import { release } from "node:os";
import path from "node:path";
import {
	absent,
	type Examination,
	finding,
	type Outcome,
	ok,
	oncePerLook,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { hasProgram, outputOf, runProgram } from "../../system/run.ts";
import { lookUpUnits } from "../../system/units.ts";
import { unitNames } from "../gate/step.ts";

const both = { group: "boot", layer: "host" } as const;

const otherUnits = [
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

export const bootExaminations: readonly Examination[] = [
	{
		...both,
		id: "boot.others",
		title: "What the gate needs and what closes the host start at boot",
		severity: "high",
		why: "A host that is closed now and open after the next restart is not closed.",
		fix: "sudo systemctl enable ufw tailscaled ollama fail2ban",
		async examine(patient) {
			const units = await unitStates(patient, otherUnits);
			const ufwConf = await readFile("/etc/ufw/ufw.conf", "utf8").catch(
				() => "",
			);
			return judgeOthers(units, /^ENABLED=yes/im.test(ufwConf));
		},
	},
	{
		...both,
		id: "boot.failed",
		title: "None of these services has failed",
		severity: "high",
		why: "systemd has given up on one that has failed; nothing starts it again by itself.",
		fix: "systemctl --failed",
		async examine(patient) {
			return judgeFailed(await unitStates(patient, allUnits));
		},
	},
	{
		...both,
		id: "boot.units",
		title: "systemd finds nothing wrong with the gate's units",
		severity: "warn",
		why: "A line that systemd does not understand is passed over, and what it was to hold off is not held off; a cycle in the order leaves a unit out at boot.",
		fix: "systemd-analyze verify --man=no llamagate.service",
		async examine(patient) {
			const units = await unitStates(patient, unitNames);
			const there = units.filter(({ exists }) => exists);
			if (there.length === 0)
				return absent("there are no units of llamagate's here");
			if (!(await hasProgram("systemd-analyze")))
				return unknown("there is no systemd-analyze on this host");
			const { code, stderr } = await runProgram([
				"systemd-analyze",
				"verify",
				"--man=no",
				"--recursive-errors=no",
				...there.map(({ name }) => name),
			]);
			return judgeVerified(code, stderr);
		},
	},
	{
		...both,
		id: "boot.daemon-reload",
		title: "systemd has read the unit files as they are on disk",
		severity: "warn",
		why: "What was changed since comes into force at the next restart, at a moment that nobody chose.",
		fix: "sudo systemctl daemon-reload",
		async examine(patient) {
			return judgeReload(await unitStates(patient, allUnits));
		},
	},
	{
		...both,
		id: "boot.restart",
		title: "No update waits for a restart",
		severity: "info",
		why: "A kernel or library with a hole stays in use until then.",
		fix: "sudo systemctl reboot",
		async examine() {
			const required = await isThere("/run/reboot-required");
			const packages = await readFile(
				"/run/reboot-required.pkgs",
				"utf8",
			).catch(() => "");
			const kernels = await readdir("/boot").catch(() => []);
			return judgeRestart(required, packages, kernels, release());
		},
	},
	{
		...both,
		id: "boot.clock",
		title: "The clock is kept by the network",
		severity: "warn",
		why: "Keys expire, signatures are good and certificates hold by this clock.",
		fix: "sudo timedatectl set-ntp true",
		async examine() {
			const shown = await outputOf("timedatectl", "show");
			const container = await outputOf("systemd-detect-virt", "--container");
			return judgeClock(shown, container?.trim());
		},
	},
	{
		...both,
		id: "boot.disk",
		title: "There is room where the keys and the log lie",
		severity: "warn",
		why: "On a full disk no key can be added or revoked, and nothing is logged.",
		fix: "df -h /etc/llamagate /var/log; sudo journalctl --vacuum-size=200M",
		async examine() {
			const journal = (await isThere("/var/log/journal"))
				? "/var/log/journal"
				: "/run/log/journal";
			const rooms: Room[] = [];
			for (const folder of ["/etc/llamagate", "/var/lib/llamagate", journal]) {
				const room = await roomOf(folder);
				if (room !== undefined) rooms.push(room);
			}
			return judgeRoom(rooms);
		},
	},
];

/** A unit as systemd has it now. */
export interface UnitState {
	readonly name: string;
	readonly exists: boolean;
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
	for (const { name: asked, exists, isActive, isEnabled, ...unit } of units) {
		const value = (property: string) => unit.properties.get(property) ?? "";
		const name = value("Id");
		states.set(asked, {
			name,
			exists,
			isActive,
			isEnabled,
			isFailed: value("ActiveState") === "failed",
			needsReload:
				value("NeedDaemonReload") === "yes" ||
				(await hasUnreadDropIn(name, unit.dropIns)),
			result: value("Result"),
		});
	}
	return states;
});

/** Each of these once, also one with several names. */
async function unitStates(
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
	const there = units.filter(({ exists }) => exists);
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
			!(unit.name.startsWith("ssh") && sshIsEnabled),
	);
	if (missing.length === 0)
		return ok(
			`enabled: ${there
				.filter(({ isEnabled }) => isEnabled)
				.map(({ name }) => name)
				.join(", ")}`,
		);
	const mild = ["ollama.service", "fail2ban.service"];
	return finding(
		missing.map(
			({ name }) => `${name} runs now, and is not enabled: not after a restart`,
		),
		{
			fix: `sudo systemctl enable ${missing.map(({ name }) => name).join(" ")}`,
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

/**
 * @param required whether /run/reboot-required is there
 * @param packages what /run/reboot-required.pkgs lists
 * @param boot the names in /boot
 * @param running the kernel's release: `6.1.0-18-amd64`
 */
export function judgeRestart(
	required: boolean,
	packages: string,
	boot: readonly string[],
	running: string,
): Outcome {
	const says: string[] = [];
	if (required) {
		const names = [...new Set(packages.split("\n").filter(Boolean))];
		says.push(
			`/run/reboot-required is there${names.length > 0 ? `, for ${names.join(", ")}` : ""}`,
		);
	}
	const flavour = flavourOf(running);
	const installed = boot
		.filter((name) => name.startsWith("vmlinuz-"))
		.map((name) => name.slice("vmlinuz-".length))
		.filter((name) => flavourOf(name) === flavour);
	const newest = installed.toSorted(byNumbers).at(-1);
	if (newest !== undefined && byNumbers(newest, running) > 0)
		says.push(`kernel ${newest} is installed, and ${running} runs`);
	return says.length > 0
		? finding(says)
		: ok("no package and no kernel waits for one");
}

/** What is left of `6.1.0-18-cloud-amd64` without its numbers. */
function flavourOf(name: string): string {
	return name.replace(/^[\d.+~-]+(deb\d+[-.\du]*)?/, "");
}

function byNumbers(a: string, b: string): number {
	return a.localeCompare(b, "en", { numeric: true });
}

/**
 * @param shown by `timedatectl show`
 * @param container what systemd-detect-virt says, where it is one
 */
export function judgeClock(
	shown: string | undefined,
	container: string | undefined,
): Outcome {
	const value = (name: string) =>
		new RegExp(`^${name}=(yes|no)$`, "m").exec(shown ?? "")?.[1];
	const synchronized = value("NTPSynchronized");
	if (synchronized === "yes") return ok("the kernel's clock is synchronised");
	if (container !== undefined)
		return unknown(
			`this is a container (${container}), whose clock is that of the machine below it; look there`,
		);
	if (synchronized === undefined)
		return unknown("timedatectl does not say whether the clock is kept");
	return finding(
		[
			value("NTP") === "yes"
				? "the clock is not synchronised yet, and a service for that is on"
				: "the clock is not synchronised, and no service for that is on",
		],
		value("CanNTP") === "no"
			? { fix: "sudo apt install systemd-timesyncd" }
			: value("NTP") === "yes"
				? { fix: "systemctl status systemd-timesyncd chrony" }
				: {},
	);
}

/** How much room a folder's file system has. */
export interface Room {
	readonly folder: string;
	readonly sizeBytes: number;
	/** For others than root. */
	readonly freeBytes: number;
}

const leastFreeBytes = 200 * 2 ** 20;
const leastFreeShare = 0.05;

async function roomOf(folder: string): Promise<Room | undefined> {
	const stats = await statfs(folder).catch((error: NodeJS.ErrnoException) => {
		if (error.code === "ENOENT") return undefined;
		throw error;
	});
	return stats === undefined
		? undefined
		: {
				folder,
				sizeBytes: stats.blocks * stats.bsize,
				freeBytes: stats.bavail * stats.bsize,
			};
}

export function judgeRoom(rooms: readonly Room[]): Outcome {
	if (rooms.length === 0)
		return absent("neither keys nor a log lie where they would");
	const says = ({ folder, freeBytes, sizeBytes }: Room) =>
		`${folder}: ${Math.floor(freeBytes / 2 ** 20)} MiB of ${Math.floor(sizeBytes / 2 ** 20)} MiB are free`;
	const full = rooms.filter(
		({ folder, freeBytes, sizeBytes }) =>
			freeBytes < sizeBytes * leastFreeShare ||
			// In memory a small machine has less than that from the start, and journald keeps to it.
			(freeBytes < leastFreeBytes && !folder.startsWith("/run/")),
	);
	return full.length > 0 ? finding(full.map(says)) : ok(...rooms.map(says));
}

async function isThere(file: string): Promise<boolean> {
	return access(file).then(
		() => true,
		() => false,
	);
}
