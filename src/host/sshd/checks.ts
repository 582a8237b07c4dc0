import {
	absent,
	type Examination,
	finding,
	type Outcome,
	ok,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { hasProgram, outputOf } from "../../system/run.ts";
import { lookUpUnit } from "../../system/units.ts";
import {
	configFiles,
	everySetting,
	mainFile,
	type SettingsFor,
} from "./settings.ts";
import { serviceName } from "./step.ts";
import { judgeWayIn, waysIn } from "./waysIn.ts";

const both = {
	group: "sshd",
	layer: "host",
	step: "sshd",
	needsRoot: true,
} as const;
const reload = "sudo systemctl reload ssh";

export const sshdExaminations: readonly Examination[] = [
	{
		...both,
		id: "sshd.passwords",
		title: "sshd takes no passwords",
		severity: "high",
		why: "A password can be guessed from anywhere that reaches the SSH port; a key cannot.",
		fix: "sudo llamagate setup --only sshd",
		examine: (patient) =>
			withSettings(patient, (all) =>
				judge(
					all.filter(isPasswordEnough),
					"PasswordAuthentication",
					"no",
					"passwords are off",
				),
			),
	},
	{
		...both,
		id: "sshd.keyboard-interactive",
		title: "sshd asks for nothing by keyboard-interactive",
		severity: "high",
		why: "Through PAM that is a password by another name, and stays on where only PasswordAuthentication was turned off.",
		fix: "sudo llamagate setup --only sshd",
		examine: (patient) =>
			withSettings(patient, (all) =>
				judge(
					all.filter(isPasswordEnough),
					"KbdInteractiveAuthentication",
					"no",
					"keyboard-interactive is off",
				),
			),
	},
	{
		...both,
		id: "sshd.empty-passwords",
		title: "sshd lets nobody in with an empty password",
		severity: "critical",
		why: "An account without a password is then open to everybody.",
		fix: `take PermitEmptyPasswords out of ${mainFile}, then: ${reload}`,
		examine: (patient) => withSettings(patient, judgeEmptyPasswords),
	},
	{
		...both,
		id: "sshd.root",
		title: "root logs in by key or not at all",
		severity: "high",
		why: "Everybody knows that name, so it is the one whose password is guessed.",
		fix: "sudo llamagate setup --only sshd",
		examine: (patient) => withSettings(patient, judgeRoot),
	},
	{
		...both,
		id: "sshd.keys",
		title: "sshd takes public keys",
		severity: "high",
		why: "With passwords off they are the way in; without them nobody could log in.",
		fix: "sudo llamagate setup --only sshd",
		examine: (patient) =>
			withSettings(patient, (all) =>
				judge(all, "PubkeyAuthentication", "yes", "keys are on"),
			),
	},
	{
		...both,
		id: "sshd.loaded",
		title: "The sshd that runs has read its files as they are now",
		severity: "warn",
		why: "What was written since is not in force, and comes into force at a moment that nobody chose.",
		fix: reload,
		async examine() {
			if (!(await hasProgram("sshd"))) return notInstalled();
			const { files, newest } = await configFiles();
			return judgeLoaded(await lastRead(), newest, files.length);
		},
	},
	{
		...both,
		id: "sshd.way-in",
		title: "There is still a way to log in to this host",
		severity: "high",
		why: "A host that is locked to its owner as well takes a screen and a keyboard to mend.",
		fix: "from your own machine: ssh-copy-id USER@THIS-HOST, or on this one: sudo tailscale set --ssh",
		examine: (patient) =>
			withSettings(patient, async (all) => {
				const tailscaleSsh = /"RunSSH": true/.test(
					(await outputOf("tailscale", "debug", "prefs")) ?? "",
				);
				return judgeWayIn(await waysIn(all), tailscaleSsh);
			}),
	},
];

const notInstalled = () => absent("found no sshd on this host");

async function withSettings(
	patient: Patient,
	look: (all: readonly SettingsFor[]) => Outcome | Promise<Outcome>,
): Promise<Outcome> {
	if (!(await hasProgram("sshd"))) return notInstalled();
	return look(await everySetting(patient));
}

/** When the running sshd read its files last. */
export type LastRead =
	| { readonly kind: "at"; readonly atMs: number }
	/** systemd starts one for each connection, or at the first. */
	| { readonly kind: "later" }
	| { readonly kind: "unknown"; readonly why: string };

async function lastRead(): Promise<LastRead> {
	const service = await serviceName();
	const unit = await lookUpUnit(service);
	if (unit === undefined)
		return { kind: "unknown", why: "systemd does not answer here" };
	if (!unit.isActive) {
		for (const name of ["ssh.socket", "sshd.socket"])
			if ((await lookUpUnit(name))?.isActive) return { kind: "later" };
		return { kind: "unknown", why: `${service} does not run` };
	}
	const shown =
		(await outputOf(
			"systemctl",
			"show",
			service,
			"--timestamp=unix",
			"--property=ExecMainStartTimestamp,ExecReload,StateChangeTimestamp",
		)) ?? "";
	const pid =
		(await outputOf("systemctl", "show", service, "--property=MainPID")) ?? "";
	// It says so at its start and, told by a signal that systemd knows nothing of, at each reading.
	const said =
		(await outputOf(
			"journalctl",
			`_PID=${pid.trim().split("=")[1]}`,
			"--boot",
			"--quiet",
			"--output=short-unix",
			"--lines=1",
			"--grep=^Server listening on",
		)) ?? "";
	return parseLastRead(shown, said);
}

/**
 * @param shown by `systemctl show --timestamp=unix`
 * @param said the last `Server listening on` of the journal, with its time
 */
export function parseLastRead(shown: string, said: string): LastRead {
	// After a daemon-reload systemd has forgotten when it ran a reload, and not when the unit left that state.
	const forgotten = shown.includes("start_time=[n/a]")
		? (/^StateChangeTimestamp=@(\d+)$/m.exec(shown)?.[1] ?? [])
		: [];
	const seconds = [
		...[forgotten].flat().map((text) => Number(text) + 0.999),
		...[...shown.matchAll(/(?:^ExecMainStartTimestamp=|stop_time=\[)@(\d+)/gm)]
			// Whole seconds: it may have been any moment of that one.
			.map(([, text]) => Number(text) + 0.999),
		...[...said.matchAll(/^(\d+\.\d+) /gm)].map(([, text]) => Number(text)),
	];
	return seconds.length === 0
		? { kind: "unknown", why: "systemd does not say when sshd was started" }
		: { kind: "at", atMs: Math.max(...seconds) * 1000 };
}

export function judgeLoaded(
	read: LastRead,
	newest: { readonly file: string; readonly atMs: number },
	fileCount: number,
): Outcome {
	if (read.kind === "unknown") return unknown(read.why);
	if (read.kind === "later")
		return ok("systemd starts sshd at the next connection");
	const [readAt, changedAt] = [read.atMs, newest.atMs].map((ms) =>
		new Date(ms).toISOString().slice(0, 19),
	);
	return newest.atMs > read.atMs
		? finding([
				`${newest.file} was changed at ${changedAt}Z, and sshd read its files at ${readAt}Z`,
			])
		: ok(
				`sshd read its ${fileCount} file(s) at ${readAt}Z, after their last change`,
			);
}

/** Whether a login without a key is possible, where AuthenticationMethods asks for several things together. */
export function isPasswordEnough({ settings }: SettingsFor): boolean {
	return (settings.get("authenticationmethods") ?? "any")
		.split(" ")
		.some((list) => !list.split(",").includes("publickey"));
}

/** Whether a setting is everywhere as it should be. */
function judge(
	all: readonly SettingsFor[],
	name: string,
	wanted: string,
	says: string,
): Outcome {
	const wrong = all.filter(
		({ settings }) => settings.get(name.toLowerCase()) !== wanted,
	);
	if (all.length === 0)
		return ok("everybody has to show a key (AuthenticationMethods)");
	if (wrong.length === 0) return ok(`${says} ${forWhom(all)}`);
	return whereWrong(all, wrong, name);
}

const mostLines = 20;

function whereWrong(
	all: readonly SettingsFor[],
	wrong: readonly SettingsFor[],
	name: string,
): Outcome {
	const value = ({ settings }: SettingsFor) =>
		settings.get(name.toLowerCase()) ?? "not told";
	if (wrong.length === all.length)
		return finding([
			`${name} is ${[...new Set(wrong.map(value))].join(" or ")} ${forWhom(all)}`,
		]);
	// Only for some: that is a Match block, which setup's own file does not undo.
	const lines = wrong.map(
		(one) => `${name} is ${value(one)} for ${one.user} from ${one.from}`,
	);
	const rest = lines.length - mostLines;
	return finding(
		[
			...lines.slice(0, mostLines),
			...(rest > 0 ? [`and for ${rest} more`] : []),
		],
		{
			fix: `look for the Match block that says so: sudo grep -rniE "^[[:space:]]*(match|${name})" ${mainFile} ${mainFile}.d/`,
		},
	);
}

function forWhom(all: readonly SettingsFor[]): string {
	const users = [...new Set(all.map(({ user }) => user))];
	return `for ${users.join(", ")}, from everywhere`;
}

export function judgeEmptyPasswords(all: readonly SettingsFor[]): Outcome {
	const name = "PermitEmptyPasswords";
	const wrong = all.filter(
		({ settings }) => settings.get(name.toLowerCase()) !== "no",
	);
	if (wrong.length === 0) return ok(`${name} is no ${forWhom(all)}`);
	const matters = wrong.some(
		({ settings }) => settings.get("passwordauthentication") !== "no",
	);
	return {
		...whereWrong(all, wrong, name),
		severity: matters ? "critical" : "warn",
	};
}

export function judgeRoot(all: readonly SettingsFor[]): Outcome {
	const name = "PermitRootLogin";
	const root = all.filter(({ user }) => user === "root");
	if (root.length === 0) return unknown("found no root in getent passwd");
	const wrong = root.filter(
		({ settings }) => settings.get(name.toLowerCase()) === "yes",
	);
	if (wrong.length === 0) {
		const values = root.map(({ settings }) => settings.get(name.toLowerCase()));
		return ok(`${name} is ${[...new Set(values)].join(" or ")}`);
	}
	const byPassword = wrong.some(
		({ settings }) =>
			settings.get("passwordauthentication") !== "no" ||
			settings.get("kbdinteractiveauthentication") !== "no",
	);
	return {
		...whereWrong(root, wrong, name),
		severity: byPassword ? "high" : "warn",
	};
}
