import { finding, type Outcome, ok, unknown } from "../../doctor/check.ts";
import type { Properties } from "../../system/units.ts";
import type { Departure } from "./departures.ts";

/** What the shipped unit says of what holds the daemon, as `systemctl show` words it. */
const shipped: Readonly<Record<string, string>> = {
	NoNewPrivileges: "yes",
	CapabilityBoundingSet: "",
	AmbientCapabilities: "",
	PrivateNetwork: "yes",
	PrivateUsers: "yes",
	PrivateDevices: "yes",
	DevicePolicy: "closed",
	PrivateTmp: "yes",
	PrivateIPC: "yes",
	PrivateMounts: "yes",
	ProtectSystem: "strict",
	ProtectHome: "yes",
	ProtectProc: "invisible",
	ProcSubset: "pid",
	ProtectClock: "yes",
	ProtectHostname: "yes",
	ProtectKernelLogs: "yes",
	ProtectKernelModules: "yes",
	ProtectKernelTunables: "yes",
	ProtectControlGroups: "yes",
	RestrictNamespaces: "yes",
	RestrictRealtime: "yes",
	RestrictSUIDSGID: "yes",
	LockPersonality: "yes",
	KeyringMode: "private",
	RestrictAddressFamilies: "AF_UNIX",
	SystemCallArchitectures: "native",
	RootDirectory: "/usr/lib/llamagate/root",
	User: "llamagate",
	Group: "llamagate",
	UMask: "0077",
	IPAddressDeny: "::/0 0.0.0.0/0",
	IPAddressAllow: "",
	SupplementaryGroups: "",
	ReadWritePaths: "",
	BindPaths: "",
	ExecPaths: "",
};

/** Values of other systemds that hold as well or better. */
const asGood: Readonly<Record<string, readonly string[]>> = {
	PrivateUsers: ["self", "identity", "full"],
	PrivateTmp: ["connected", "disconnected"],
	ProtectControlGroups: ["private", "strict"],
	ProtectHostname: ["private"],
	IPAddressDeny: ["0.0.0.0/0 ::/0"],
	RestrictNamespaces: [""],
};

/** System calls that the shipped filter takes away: of @privileged, @mount and @debug. */
const deniedCalls = ["mount", "ptrace", "setuid", "bpf", "init_module"];

/**
 * Compares what holds the gate with what was shipped, and names the drop-ins
 * that set what differs.
 *
 * @param dropIns of the unit, with their text
 * @param others what its own file says otherwise
 */
export function judgeProperties(
	properties: Properties,
	dropIns: readonly { readonly file: string; readonly text: string }[],
	others: readonly Departure[] = [],
): Outcome {
	const wrong: string[] = [];
	const unseen: string[] = [];
	let held = 0;
	const tell = (name: string, says: string) => {
		const setBy = dropIns.filter(({ text }) =>
			new RegExp(`^\\s*${name}\\s*=`, "m").test(text),
		);
		wrong.push(
			`${says}${setBy.length === 0 ? "" : `, by ${setBy.map(({ file }) => file).join(", ")}`}`,
		);
	};
	for (const [name, wanted] of Object.entries(shipped)) {
		const value = properties.get(name);
		// An older systemd has fewer of them.
		if (value === undefined) unseen.push(name);
		else if (value === wanted || asGood[name]?.includes(value)) held++;
		else
			tell(
				name,
				`${name} is ${value === "" ? "not set" : value}, and was shipped as ${wanted === "" ? "nothing" : wanted}`,
			);
	}
	const filter = properties.get("SystemCallFilter");
	if (filter === undefined) unseen.push("SystemCallFilter");
	else if (filter === "" || filter.startsWith("~"))
		tell(
			"SystemCallFilter",
			"SystemCallFilter lets through what it does not name",
		);
	else {
		const calls = filter.split(" ");
		const open = deniedCalls.filter((call) => calls.includes(call));
		if (open.length > 0)
			tell("SystemCallFilter", `SystemCallFilter allows ${open.join(", ")}`);
		else held++;
	}
	const noExec = properties.get("NoExecPaths");
	if (noExec === undefined) unseen.push("NoExecPaths");
	else if (/(?:^|\s)\+\/(?:\s|$)/.test(noExec)) held++;
	else tell("NoExecPaths", "NoExecPaths does not hold the whole of its root");
	for (const { setting, says } of others) tell(setting, says);
	if (wrong.length > 0) return finding(wrong);
	if (held === 0) return unknown("systemd tells nothing about the unit");
	return ok(
		`${held} settings are in force as shipped`,
		...(unseen.length === 0
			? []
			: [`this systemd does not have ${unseen.join(", ")}`]),
		...dropIns.map(({ file }) => `${file} weakens none of them`),
	);
}

/** Reads `/proc/PID/status`. */
export function readProcessStatus(text: string): Map<string, string> {
	return new Map(
		text.split("\n").flatMap((line) => {
			const colon = line.indexOf(":");
			return colon < 0
				? []
				: [[line.slice(0, colon), line.slice(colon + 1).trim()] as const];
		}),
	);
}

/**
 * What the kernel holds a process to.
 *
 * @param network its network namespace
 * @param hosts the host's
 */
export function judgeProcess(
	pid: number,
	status: ReadonlyMap<string, string>,
	network: string,
	hosts: string,
): Outcome {
	const wrong: string[] = [];
	const seen: string[] = [];
	const uid = status.get("Uid")?.split(/\s+/)[1];
	const expect = (isWell: boolean, line: string) => {
		(isWell ? seen : wrong).push(line);
	};
	for (const name of ["Seccomp", "NoNewPrivs", "CapEff", "CapBnd"])
		if (!status.has(name)) return unknown(`/proc/${pid}/status has no ${name}`);
	if (uid === undefined) return unknown(`/proc/${pid}/status has no Uid`);
	expect(uid !== "0", `process ${pid} runs as user ${uid}`);
	expect(
		status.get("Seccomp") === "2",
		`Seccomp ${status.get("Seccomp")}, where 2 is a filter of system calls`,
	);
	expect(
		status.get("NoNewPrivs") === "1",
		`NoNewPrivs ${status.get("NoNewPrivs")}, where 1 means that it can gain none`,
	);
	for (const name of ["CapEff", "CapBnd"])
		expect(
			/^0+$/.test(status.get(name) ?? ""),
			`${name} ${status.get(name)}, where 0 means none`,
		);
	expect(
		network !== hosts,
		network === hosts
			? "it is in the host's network"
			: `its network is ${network}, the host's ${hosts}`,
	);
	return wrong.length > 0 ? finding(wrong) : ok(...seen);
}
