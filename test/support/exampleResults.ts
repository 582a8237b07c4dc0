import type { Check, Result } from "../../src/report/result.ts";

/**
 * Results as a host gives them, to see reports with: the same checks of a host
 * that setup locked, of one that stands open, and of one that was looked at
 * without root.
 */

const checks = [
	{
		id: "internet.funnel",
		group: "internet",
		layer: "internet",
		title: "Tailscale Funnel publishes nothing of this host",
		severity: "critical",
		why: "Funnel lets the whole internet in, past the firewall and past the tailnet's policy.",
	},
	{
		id: "internet.docker-ports",
		group: "internet",
		layer: "internet",
		title: "No container publishes a port on every address",
		severity: "high",
		why: "Docker opens published ports in the firewall's place, so UFW does not see them.",
	},
	{
		id: "firewall.active",
		group: "firewall",
		layer: "firewall",
		title: "UFW is active and drops what no rule allows",
		severity: "high",
		why: "Without it everything that listens on a public or LAN address can be reached from there.",
	},
	{
		id: "firewall.rules",
		group: "firewall",
		layer: "firewall",
		title: "UFW's rules open SSH and Tailscale only",
		severity: "warn",
		why: "Each further rule is a way in that somebody has to remember.",
	},
	{
		id: "tailscale.running",
		group: "tailscale",
		layer: "tailscale",
		title: "Tailscale is up",
		severity: "high",
		why: "The gate listens on tailscale0 only, so nobody reaches it while Tailscale is down.",
	},
	{
		id: "tailscale.key-expiry",
		group: "tailscale",
		layer: "tailscale",
		title: "The node's key does not expire soon",
		severity: "warn",
		why: "When it expires the host drops out of the tailnet, and you with it if you log in that way.",
	},
	{
		id: "gate.listening",
		group: "gate",
		layer: "gate",
		title: "The gate listens on Tailscale's addresses only",
		severity: "critical",
		why: "On any other address the key alone stands between a stranger and Ollama.",
	},
	{
		id: "gate.keys-file",
		group: "gate",
		layer: "gate",
		title: "The keys file belongs to root and others cannot read it",
		severity: "warn",
		why: "Who reads it learns the names of keys and can try weak ones against their digests.",
	},
	{
		id: "gate.key-expiry",
		group: "gate",
		layer: "gate",
		title: "Every key expires some day",
		severity: "info",
		why: "A key that was lost and forgotten goes on opening doors until it is revoked or expires.",
	},
	{
		id: "ollama.listening",
		group: "ollama",
		layer: "ollama",
		title: "Ollama listens on loopback only",
		severity: "critical",
		why: "Ollama asks nobody for a key: who reaches it may run, pull and delete models.",
	},
	{
		id: "ollama.version",
		group: "ollama",
		layer: "ollama",
		title: "Ollama has no fault that is known and mended in a newer version",
		severity: "warn",
		why: "Faults in how Ollama reads models and images have let remote code run before.",
	},
	{
		id: "open-webui.address",
		group: "open-webui",
		layer: "open-webui",
		title: "Open WebUI is reached over the tailnet only",
		severity: "high",
		why: "It has accounts of its own, and who gets one uses Ollama without a key.",
	},
	{
		id: "host.ssh-passwords",
		group: "host",
		layer: "host",
		title: "SSH takes keys and no passwords",
		severity: "high",
		why: "Passwords are guessed all day on every address of the internet.",
	},
	{
		id: "host.updates",
		group: "host",
		layer: "host",
		title: "Security updates install themselves",
		severity: "info",
		why: "A fault that is known and not mended is the commonest way in.",
	},
] as const satisfies readonly Check[];

type Id = (typeof checks)[number]["id"];
type Outcome = Pick<Result, "state" | "evidence" | "fix">;

function fill(outcomes: Readonly<Record<Id, Outcome>>): Result[] {
	return checks.map((check) => ({ ...check, ...outcomes[check.id] }));
}

const ok = (...evidence: string[]): Outcome => ({ state: "ok", evidence });
const absent = (...evidence: string[]): Outcome => ({
	state: "absent",
	evidence,
});
const unknown = (evidence: string, fix?: string): Outcome => ({
	state: "unknown",
	evidence: [evidence],
	...(fix === undefined ? {} : { fix }),
});
const finding = (evidence: string[], fix: string): Outcome => ({
	state: "finding",
	evidence,
	fix,
});

export const lockedHost: Result[] = fill({
	"internet.funnel": ok("tailscale funnel status: no serve config"),
	"internet.docker-ports": absent("Docker is not installed"),
	"firewall.active": ok("active, incoming: deny, routed: deny"),
	"firewall.rules": ok("22/tcp limit from anywhere", "41641/udp allow"),
	"tailscale.running": ok("Running as mini.tail1a2b.ts.net, 100.101.102.104"),
	"tailscale.key-expiry": ok("expires in 172 days"),
	"gate.listening": ok(
		"100.101.102.104:11434, bound to tailscale0",
		"[fd7a:115c:a1e0::6501:6668]:11434, bound to tailscale0",
	),
	"gate.keys-file": ok("/etc/llamagate/keys.json, root:llamagate, 0640"),
	"gate.key-expiry": finding(
		["1 of 2 keys has no expiry: laptop"],
		"sudo llamagate keys rotate laptop --expires 180d",
	),
	"ollama.listening": ok("127.0.0.1:11434 (ollama, pid 812)"),
	"ollama.version": ok("0.35.0"),
	"open-webui.address": absent("Open WebUI is not installed"),
	"host.ssh-passwords": ok("PasswordAuthentication no"),
	"host.updates": ok("unattended-upgrades is enabled, ran 6 h ago"),
});

export const openHost: Result[] = fill({
	"internet.funnel": finding(
		[
			"https://mini.tail1a2b.ts.net is on the internet and leads to http://127.0.0.1:11434",
			"which is Ollama itself, so no key is asked for",
		],
		"sudo tailscale funnel --https=443 off",
	),
	"internet.docker-ports": finding(
		[
			"open-webui publishes 0.0.0.0:3000 and [::]:3000",
			"The chain DOCKER accepts it before UFW's chains are asked",
		],
		"docker stop open-webui && docker rm open-webui\ndocker run -d -p 127.0.0.1:3000:8080 --add-host=host.docker.internal:host-gateway -v open-webui:/app/backend/data --name open-webui --restart always ghcr.io/open-webui/open-webui:main",
	),
	"firewall.active": finding(
		["Status: inactive"],
		"sudo llamagate setup --only ufw",
	),
	"firewall.rules": absent("UFW is off, so it has no rules that count"),
	"tailscale.running": ok("Running as mini.tail1a2b.ts.net, 100.101.102.104"),
	"tailscale.key-expiry": finding(
		["expires in 9 days, on 2026-03-12"],
		"Turn off key expiry for mini in the admin console, or log in anew: sudo tailscale up --force-reauth",
	),
	"gate.listening": absent("llamagate is not set up"),
	"gate.keys-file": absent("llamagate is not set up"),
	"gate.key-expiry": absent("llamagate is not set up"),
	"ollama.listening": finding(
		[
			"0.0.0.0:11434 (ollama, pid 812)",
			"OLLAMA_HOST=0.0.0.0 in /etc/systemd/system/ollama.service.d/override.conf",
			"203.0.113.40 is an address of eth0 and public",
		],
		"sudo llamagate setup --only ollama",
	),
	"ollama.version": unknown("the version 0.0.0 is a build of somebody's own"),
	"open-webui.address": finding(
		["0.0.0.0:3000, and http://203.0.113.40:3000 answers with Open WebUI"],
		"sudo llamagate setup --only open-webui",
	),
	"host.ssh-passwords": finding(
		["PasswordAuthentication yes (the default)"],
		"sudo llamagate setup --only sshd",
	),
	"host.updates": finding(
		["unattended-upgrades is not installed"],
		"sudo apt install unattended-upgrades",
	),
});

const needsRoot = (what: string) =>
	unknown(`${what} can be read by root only`, "sudo llamagate doctor");

export const withoutRoot: Result[] = fill({
	...Object.fromEntries(
		lockedHost.map(({ id, state, evidence, fix }) => [
			id,
			fix === undefined ? { state, evidence } : { state, evidence, fix },
		]),
	),
	"firewall.active": needsRoot("the state of UFW"),
	"firewall.rules": needsRoot("/etc/ufw/user.rules"),
	"gate.keys-file": needsRoot("/etc/llamagate/keys.json"),
	"gate.key-expiry": needsRoot("/etc/llamagate/keys.json"),
	"ollama.listening": unknown(
		"127.0.0.1:11434 is open, but whose socket it is can be read by root only",
		"sudo llamagate doctor",
	),
	"host.ssh-passwords": needsRoot("sshd -T"),
} as Record<Id, Outcome>);

/** Text that would do harm where it is read as anything but text. */
export const hostileTexts = [
	`</script><script>document.title="owned"</script>`,
	`"><img src=x onerror="document.title='owned'"><a href='javascript:alert(1)'>`,
	`</style></title></pre></textarea><!-- <![CDATA[ <svg/onload=alert(1)>`,
	"&lt;script&gt; &amp; &#60;b&#62; {{7*7}} `id`",
	"\u001b[2J\u001b[31mred\u001b]0;title\u0007\u009b31m \r\b\u0000\u007f",
	"invoice\u202egnp.exe \u2066\u2069 zero\u200bwidth \ufeff\u2028\u2029",
	"lone \ud800 surrogate, noncharacter \ufffe, tag \u{e0041}",
	"A".repeat(6_000),
	"عنوان الخادم הכתובת של השרת",
	`${"Z\u0351\u036b\u0343\u036a".repeat(40)}`,
	"first line\ncritical  ollama.listening  forged line\n\n\tlast line",
];

/** Each field of a result with each of these texts, in every state. */
export const hostileHost: Result[] = hostileTexts.flatMap((text, at) =>
	(["finding", "unknown", "ok", "absent"] as const).map(
		(state, which): Result => ({
			id: `hostile.${text}`,
			group: text,
			layer: "ollama",
			title: text,
			severity: at % 2 === 0 ? "critical" : "warn",
			why: text,
			state,
			evidence: which === 3 ? [] : [text, text],
			fix: text,
		}),
	),
);

export const chunkGaps = [
	{ fromMs: 0, toMs: 10, count: 12 },
	{ fromMs: 10, toMs: 20, count: 148 },
	{ fromMs: 20, toMs: 50, count: 611 },
	{ fromMs: 50, toMs: 100, count: 87 },
	{ fromMs: 100, toMs: 200, count: 9 },
	{ fromMs: 200, toMs: 500, count: 2 },
	{ fromMs: 500, toMs: 1000, count: 0 },
	{ fromMs: 1000, toMs: Number.POSITIVE_INFINITY, count: 1 },
];
