import { type Examination, unknown } from "../../doctor/check.ts";
import { loadRules } from "../../gate/rules.ts";
import { createWhois } from "../../tailscale/whois.ts";
import { examineAlarms } from "./alarms.ts";
import { examineCertificate } from "./certificate.ts";
import { examineFiles } from "./files.ts";
import {
	examineBareHosts,
	examineHostLimits,
	examineHosts,
	raiseLimits,
} from "./hosts.ts";
import { examineInForce } from "./inForce.ts";
import { examineLedger } from "./ledger.ts";
import { examineListening, waysAround } from "./listening.ts";
import { lookAtLogins } from "./logins.ts";
import { examineState } from "./state.ts";
import {
	examineCanaries,
	examineLifetimes,
	examineRotation,
	examineUse,
} from "./storedKeys.ts";
import {
	examineHardening,
	examineProcess,
	examineUnits,
	examineWatchdog,
	restart,
} from "./units.ts";
import { examineValkey } from "./valkey.ts";
import { examineVersion } from "./version.ts";

const group = "gate";
const layer = "gate";
export const gateExaminations: readonly Examination[] = [
	{
		id: "gate.units",
		group,
		layer,
		title:
			"The gate, its follower, its bridge and doctor's timer run, and start at boot",
		severity: "high",
		why: "What does not start at boot is gone after the next restart; without the follower the gate loses tailscale0 when it changes, and without the bridge it answers 502.",
		fix: "sudo llamagate setup --only gate",
		step: "gate",
		examine: examineUnits,
	},
	{
		id: "gate.listening",
		group,
		layer,
		title: "The gate listens on Tailscale's interface alone",
		severity: "critical",
		why: "A socket that nothing holds to the interface is reached by the LAN or the internet, too.",
		fix: `take what adds an address out of llamagate.socket (systemctl cat llamagate.socket), then: sudo systemctl daemon-reload && ${restart}.socket`,
		needsRoot: true,
		examine: examineListening,
	},
	{
		id: "gate.refuses",
		group,
		layer,
		title: "The gate refuses every call that shows no key",
		severity: "critical",
		why: "One call that is let through without a key is open to the whole tailnet.",
		fix: "sudo systemctl stop llamagate.socket llamagate.service, and report it",
		needsRoot: true,
		async examine(patient) {
			const { examineRefusals } = await import("./calls.ts");
			const outcome = await examineRefusals(patient);
			const around = await waysAround();
			return outcome.state === "ok" && around.length > 0
				? unknown(...around, ...outcome.evidence)
				: outcome;
		},
	},
	{
		id: "gate.key",
		group,
		layer,
		title: "A good key is let in, and a reply streams",
		severity: "high",
		why: "It shows the whole way to Ollama and back, as a client takes it.",
		fix: "journalctl -u llamagate -n 50",
		examine: async (patient) =>
			(await import("./calls.ts")).examineKey(patient),
	},
	{
		id: "gate.in-force",
		group,
		layer,
		title: "The stored keys and settings are those in force",
		severity: "high",
		why: "A key that was revoked in the file works until the running gate has read it.",
		fix: "sudo llamagate reload",
		needsRoot: true,
		examine: examineInForce,
	},
	{
		id: "gate.expiry",
		group,
		layer,
		title: "No key has expired or is about to",
		severity: "warn",
		why: "Its client is turned away from then on.",
		fix: "sudo llamagate keys rotate NAME --expires 90d, or: sudo llamagate keys revoke NAME",
		needsRoot: true,
		examine: examineLifetimes,
	},
	{
		id: "gate.unused-keys",
		group,
		layer,
		title: "Every key is in use",
		severity: "warn",
		why: "A key that nobody uses is only good for anyone who finds it.",
		fix: "sudo llamagate keys revoke NAME",
		needsRoot: true,
		examine: examineUse,
	},
	{
		id: "gate.rotation",
		group,
		layer,
		title: "No key is older than a year",
		severity: "warn",
		why: "The longer a key is used, the more places it has been in.",
		fix: "sudo llamagate keys rotate NAME",
		needsRoot: true,
		examine: examineRotation,
	},
	{
		id: "gate.canary",
		group,
		layer,
		title: "No canary key was used",
		severity: "high",
		why: "Anyone who shows one has been where it was kept.",
		fix: "sudo llamagate keys rotate NAME --overlap 0, for every key that was kept in the same place; then: sudo llamagate keys revoke CANARY, and lay out a new one",
		needsRoot: true,
		examine: examineCanaries,
	},
	{
		id: "gate.logins",
		group,
		layer,
		title:
			"Nobody manages models without a key, and no whole domain needs none",
		severity: "warn",
		why: "Where identity.mode is login, every program on a device of whom a rule names is let in, and no key can be revoked.",
		fix: "name people in identity.rules, with the scopes read and infer, and make keys for the rest; then: sudo llamagate reload",
		needsRoot: true,
		examine: async ({ configFile }) =>
			lookAtLogins(
				await loadRules(configFile).then(
					({ settings }) => settings,
					() => undefined,
				),
				(socket) => createWhois({ socket }),
			),
	},
	{
		id: "gate.files",
		group,
		layer,
		title: "Only root may change the gate's files",
		severity: "high",
		why: "Anyone who writes the keys file lets in whom they like.",
		fix: "sudo llamagate setup --only account",
		step: "account",
		examine: examineFiles,
	},
	{
		id: "gate.hardening",
		group,
		layer,
		title: "The gate's unit is as confined as it was shipped",
		severity: "high",
		why: "A drop-in can take away what holds a compromised gate.",
		fix: `take the setting out of the drop-in, then: sudo systemctl daemon-reload && ${restart}`,
		examine: examineHardening,
	},
	{
		id: "gate.process",
		group,
		layer,
		title:
			"The running gate has no network, no capability and no way to gain one",
		severity: "high",
		why: "What the kernel holds it to counts, not what the unit says since it started.",
		fix: `sudo systemctl daemon-reload && ${restart}`,
		needsRoot: true,
		examine: examineProcess,
	},
	{
		id: "gate.ledger",
		group,
		layer,
		title: "The ledger keeps who used what, where it is wanted",
		severity: "warn",
		why: "What it does not take is kept by the hour alone, and lost at last; a budget that it cannot tell holds until the next restart, and its key waits with those of class `batch`, or is refused.",
		fix: "systemctl status llamagate-ledger; journalctl -u llamagate-ledger -n 50",
		needsRoot: true,
		examine: examineLedger,
	},
	{
		id: "gate.alarms",
		group,
		layer,
		title: "Alarms can reach a person, where they are wanted",
		severity: "warn",
		why: "An owner who counts on being told hears nothing; and a way out that nothing needs is one too many.",
		fix: "sudo llamagate setup --only gate, then: sudo llamagate ledger --test-alarm",
		step: "gate",
		needsRoot: true,
		examine: examineAlarms,
	},
	{
		id: "gate.hosts",
		group,
		layer,
		title: "Each of several hosts answers the gate",
		severity: "high",
		why: "A host that does not answer, or not to this gate's key, gets no requests, and what only it has cannot be used.",
		fix: "look at that host, and its key in keyFile; then: sudo llamagate check",
		needsRoot: true,
		examine: examineHosts,
	},
	{
		id: "gate.hosts-bare",
		group,
		layer,
		title: "No other host answers without a key",
		severity: "critical",
		why: "An Ollama that asks for no key is anybody's who reaches it, whatever key this gate shows it.",
		fix: "on that host: sudo llamagate setup",
		needsRoot: true,
		examine: examineBareHosts,
	},
	{
		id: "gate.hosts-limits",
		group,
		layer,
		title: "Each other host's gate lets this gate ask for all of its clients",
		severity: "warn",
		why: "What all clients of this gate ask there counts as one key's, and so do the gate's own questions. With the limits of one client, one client that asks a lot takes the host from all others.",
		fix: raiseLimits(),
		needsRoot: true,
		examine: examineHostLimits,
	},
	{
		id: "gate.state",
		group,
		layer,
		title: "Limits are shared with the other gates, where they are to be",
		severity: "warn",
		why: "While Valkey is away each gate keeps to a part of the limits, so a client at one gate alone gets less than it is due.",
		fix: "look at Valkey's own log, and: journalctl -u llamagate -g state_",
		needsRoot: true,
		examine: examineState,
	},
	{
		id: "gate.valkey",
		group,
		layer,
		title:
			"Valkey asks for a password, keeps what it is told, and its user can touch nothing else",
		severity: "high",
		why: "Who can write there lifts limits and lockouts, and a Valkey that throws counts away does so by itself.",
		fix: "docs/hosts.md has the user and the settings that Valkey needs",
		needsRoot: true,
		examine: examineValkey,
	},
	{
		id: "gate.certificate",
		group,
		layer,
		title: "The certificate of HTTPS is good for some weeks, and for this node",
		severity: "high",
		why: "Once it has ended, or while there is none, no client gets through.",
		fix: "sudo llamagate status says what keeps a new one away; docs/https.md has both ways to one",
		needsRoot: true,
		examine: examineCertificate,
	},
	{
		id: "gate.watchdog",
		group,
		layer,
		title: "A gate that hangs or fails is started again",
		severity: "warn",
		why: "Without it a gate that hangs stays so until a person notices.",
		fix: `take WatchdogSec= and Restart= out of the drop-ins (systemctl cat llamagate), then: sudo systemctl daemon-reload && ${restart}`,
		examine: examineWatchdog,
	},
	{
		id: "gate.version",
		group,
		layer,
		title: "The running gate is the program on disk",
		severity: "warn",
		why: "A fix that is installed helps only once it runs.",
		fix: restart,
		needsRoot: true,
		examine: examineVersion,
	},
];
