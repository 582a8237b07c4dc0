import { applyEdits, modify } from "jsonc-parser";
import { askGateOn } from "../../admin/client.ts";
import { loadConfig, parseConfig } from "../../config/load.ts";
import { BadFileError } from "../../errors.ts";
import { takeSnapshot } from "../../setup/snapshot.ts";
import {
	type Action,
	done,
	type Inspection,
	type Proof,
	rootDirectory,
	rootFile,
	type Step,
	todo,
	unsafe,
} from "../../setup/step.ts";
import type { Installation } from "../../system/installation.ts";
import { outputOf } from "../../system/run.ts";
import { lookUpUnit } from "../../system/units.ts";
import { becomesTrue } from "../../system/waiting.ts";
import { type NextValue, nextValue } from "../ollama/environment.ts";
import {
	otherControlServer,
	preferences,
	type TailnetPlace,
	tailscaleStatus,
} from "../tailscale/step.ts";
import { offerReload, reloadGate } from "./reloadGate.ts";

export const tlsChoices = ["tailscale", "off"] as const;
export type TlsChoice = (typeof tlsChoices)[number];

const variable = "TS_PERMIT_CERT_UID";
const folder = "/etc/systemd/system/tailscaled.service.d";
const dropIn = `${folder}/zz-llamagate.conf`;
/** tailscaled answers once it has a certificate, which takes the CA and the DNS a minute or two. */
const firstCertificateMs = 180_000;

const restartTailscaled = [
	["systemctl", "daemon-reload"],
	["systemctl", "try-restart", "tailscaled.service"],
];

/** What was seen of the host, as far as it decides how the gate comes to speak HTTPS. */
export interface SeenForTls {
	/** The configuration's text; `undefined` where there is none, or no user of the gate's who may read it. */
	readonly config: string | undefined;
	/** Whether the gate runs, which alone shows what comes of it. */
	readonly isGateActive: boolean;
	/** `undefined` where tailscaled does not run. */
	readonly tailnet:
		| Pick<TailnetPlace, "backendState" | "dnsName" | "certDomains">
		| undefined;
	/** A control server other than Tailscale's own. */
	readonly otherControl: string | undefined;
	/** Whom tailscaled, as systemd starts it, gives certificates to besides root; `undefined` where systemd does not start it. */
	readonly permitted: NextValue | undefined;
	/** The drop-in that setup writes; `undefined` where there is none. */
	readonly dropIn: string | undefined;
	readonly hasTailscaleSsh: boolean;
}

/** The gate's own HTTPS, by the certificate that tailscaled has for this node's name; or plain HTTP again. */
export function tls(installation: Installation, choice: TlsChoice): Step {
	const { configFile } = installation;
	return {
		id: "tls",
		title: choice === "off" ? "Plain HTTP" : "HTTPS by Tailscale's certificate",
		why: "Pages that were opened by https:// and some apps ask for https://; inside the tailnet WireGuard encrypts either way.",
		async inspect() {
			return planTls(installation, choice, await lookForTls(installation));
		},
		async prove() {
			const { admin } = await loadConfig(configFile);
			return admin.socket === undefined ? [] : proveTls(admin.socket, choice);
		},
	};
}

async function lookForTls({
	configFile,
	user,
}: Installation): Promise<SeenForTls> {
	const [{ content }, written, unit, gate, tailnet, prefs, group] =
		await Promise.all([
			takeSnapshot(configFile),
			takeSnapshot(dropIn),
			lookUpUnit("tailscaled.service"),
			lookUpUnit("llamagate.service"),
			tailscaleStatus(),
			preferences(),
			outputOf("getent", "group", user),
		]);
	return {
		config: group === undefined ? undefined : content?.toString("utf8"),
		isGateActive: gate?.isActive === true,
		tailnet,
		otherControl: otherControlServer(prefs),
		permitted: unit?.exists ? await nextValue(unit, variable) : undefined,
		dropIn: written.content?.toString("utf8"),
		hasTailscaleSsh: prefs?.RunSSH === true,
	};
}

/** What is to be done, by what was seen. */
export function planTls(
	installation: Installation,
	choice: TlsChoice,
	seen: SeenForTls,
): Inspection {
	const { configFile } = installation;
	if (seen.config === undefined)
		return unsafe(
			`found no gate here yet, or ${configFile} is none of setup's; run first: sudo llamagate setup`,
		);
	if (!seen.isGateActive)
		return unsafe(
			"llamagate.service does not run, so nothing would show whether it speaks as it should; run first: sudo llamagate setup",
		);
	let changed: string | undefined;
	try {
		changed = withTls(seen.config, choice);
	} catch (error) {
		if (!(error instanceof BadFileError)) throw error;
		return unsafe(
			`${configFile} cannot be changed by a program as it is; see: sudo llamagate check`,
		);
	}
	const permit =
		choice === "off" ? takePermit(seen) : givePermit(installation, seen);
	if (typeof permit === "string") return unsafe(permit);
	const actions = [
		...permit,
		...(changed === undefined ? [] : configActions(installation, changed)),
	];
	const says =
		choice === "off" ? "plain HTTP" : "HTTPS with Tailscale's certificate";
	if (actions.length === 0) return done(`the gate is set to ${says}`);
	return todo(`the gate is to speak ${says}`, actions, [
		choice === "off"
			? "Clients that have https:// in their settings need http:// then."
			: `Clients need https://${seen.tailnet?.dnsName} with the gate's port then; with http:// they get 400, which says so.`,
		...(permit.length > 0
			? [
					`tailscaled is restarted, which interrupts what goes over the tailnet for a moment${seen.hasTailscaleSsh ? "; Tailscale SSH is on, and its sessions end: run this from elsewhere" : ""}.`,
				]
			: []),
	]);
}

/** Lets the gate's user have the certificate; or why there is none to be had. */
function givePermit(
	{ user }: Installation,
	{ tailnet, otherControl, permitted, dropIn: before }: SeenForTls,
): Action[] | string {
	if (tailnet === undefined)
		return "tailscaled does not run, and the certificate is its own; start it: sudo systemctl enable --now tailscaled";
	if (otherControl !== undefined)
		return `${otherControl} is this node's control server, and only Tailscale's own has certificates for its nodes (Headscale has none); name files with one of your own in listen.tls, as docs/https.md says`;
	if (tailnet.backendState !== "Running")
		return `Tailscale is in state ${tailnet.backendState}; log in with: sudo tailscale up`;
	if (tailnet.certDomains?.length === 0 || tailnet.dnsName === "")
		return "the tailnet gives no certificates yet; turn on MagicDNS and HTTPS certificates at https://login.tailscale.com/admin/dns";
	if (permitted === undefined)
		return `systemd does not start tailscaled here; give it ${variable}=${user} in its environment, and write "tls": "tailscale" into "listen", as docs/https.md says`;
	if ("unreadable" in permitted)
		return `${permitted.unreadable} cannot be read, and it may say whom tailscaled gives certificates to`;
	const { value, file } = permitted;
	if (value === user) return [];
	const content = `# Written by "llamagate setup": the gate asks tailscaled for this node's certificate.
[Service]
Environment="${variable}=${user}"
`;
	// It knows one user, and that one has a reason to be there.
	if (value !== "" && (file !== undefined || before === undefined))
		return `tailscaled gives certificates to ${value}${file === undefined ? "" : `, by ${file}`}, and besides root to one user alone; take that ${variable} out first, or name files in listen.tls, as docs/https.md says`;
	return [
		rootDirectory(folder),
		rootFile(dropIn, content, restartTailscaled),
		...restartTailscaled.map((command) => ({
			kind: "command" as const,
			command,
		})),
	];
}

/** What setup gave; what a person has written stays. */
function takePermit({ dropIn: before }: SeenForTls): Action[] {
	if (before === undefined) return [];
	return [
		{
			kind: "command",
			command: ["rm", dropIn],
			changes: [dropIn],
			undo: restartTailscaled,
		},
		...restartTailscaled.map((command) => ({
			kind: "command" as const,
			command,
		})),
	];
}

function configActions(
	{ configFile, user }: Installation,
	content: string,
): Action[] {
	return [
		{
			kind: "file",
			path: configFile,
			content,
			...{ user: "root", group: user, mode: 0o640 },
			undo: [offerReload],
		},
		{ kind: "command", command: reloadGate },
	];
}

/**
 * A configuration with another `listen.tls`; the rest stays, comments too.
 *
 * @returns `undefined` where it says so already
 * @throws {BadFileError} where it, or what would come of it, does not load
 */
export function withTls(text: string, choice: TlsChoice): string | undefined {
	const is = (of: string) => parseConfig(of, "").tls?.kind ?? "off";
	if (is(text) === choice) return undefined;
	const changed = applyEdits(
		text,
		modify(text, ["listen", "tls"], choice === "off" ? undefined : choice, {
			formattingOptions: {
				insertSpaces: !/^\t/m.test(text),
				tabSize: 2,
				eol: "\n",
			},
		}),
	);
	if (is(changed) !== choice)
		throw new BadFileError("", [
			{ path: "listen.tls", message: "cannot be changed by a program" },
		]);
	return changed;
}

/** What the running gate speaks, by its own word. */
async function proveTls(socket: string, choice: TlsChoice): Promise<Proof[]> {
	let says = "";
	const ok = await becomesTrue(
		async () => {
			const asked = await askGateOn(socket);
			if (asked.kind !== "status") {
				says = asked.why;
				return false;
			}
			const { tls: now } = asked.status;
			if (now === undefined) says = "the running gate speaks plain HTTP";
			else if (now.ends === null)
				says = `the running gate speaks HTTPS and has no certificate: ${now.problem ?? "it has not come yet"}`;
			else if (choice !== "off" && now.source !== choice)
				says = `the running gate speaks HTTPS with the certificate of before: ${now.problem ?? "tailscaled's has not come yet"}`;
			else
				says = `the running gate speaks HTTPS as ${now.names.join(", ")}, until ${now.ends.slice(0, 10)}`;
			return choice === "off"
				? now === undefined
				: now?.ends != null && now.source === choice;
		},
		choice === "off" ? undefined : firstCertificateMs,
	);
	return [
		{
			ok,
			says,
			advice: "see: sudo llamagate status; journalctl -u llamagate -n 50",
		},
	];
}
