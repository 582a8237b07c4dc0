import { access, readdir, readFile, statfs } from "node:fs/promises";
import { release } from "node:os";
import {
	absent,
	type Examination,
	finding,
	type Outcome,
	ok,
	unknown,
} from "../../doctor/check.ts";
import { hasProgram, outputOf, runProgram } from "../../system/run.ts";
import { unitNames } from "../gate/step.ts";
import {
	allUnits,
	judgeFailed,
	judgeOthers,
	judgeReload,
	judgeVerified,
	otherUnits,
	unitStates,
} from "./units.ts";

const both = { group: "boot", layer: "host" } as const;

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
				return absent("found no units of llamagate's here");
			if (!(await hasProgram("systemd-analyze")))
				return unknown("found no systemd-analyze on this host");
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

/** What is left of `6.1.0-18-cloud-amd64` without its numbers, and of a backport's `6.12.9+bpo-amd64`. */
function flavourOf(name: string): string {
	return name.replace(/^[\d.+~-]+(?:(?:deb|bpo)\d*(?:u\d+)?[\d.+~-]*)?/, "");
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
