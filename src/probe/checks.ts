import type { Check, Result } from "../report/result.ts";

/** Everything that `llamagate probe` asks, in the order of the report. */
export const checks = {
	reachable: {
		id: "probe.reachable",
		group: "gate",
		layer: "gate",
		title: "A gate answers at this URL",
		severity: "high",
		why: "What does not answer cannot be used, and what answers in its place may be open.",
	},
	elsewhere: {
		id: "probe.elsewhere",
		group: "gate",
		layer: "tailscale",
		title: "The probe runs on another device than the server",
		severity: "warn",
		why: "On the server itself no firewall and no tailnet policy is in the way, so a call from there proves little.",
	},
	encrypted: {
		id: "probe.encrypted",
		group: "gate",
		layer: "tailscale",
		title: "The way to the gate is encrypted, or stays on this device",
		severity: "high",
		why: "Over plain HTTP outside of the tailnet, everybody on the way can read the key and use it.",
	},
	noKey: {
		id: "probe.no-key",
		group: "without a key",
		layer: "gate",
		title: "Every call of Ollama's is refused without a key",
		severity: "critical",
		why: "One call that is let through without a key is open to every device that reaches this address.",
	},
	unknownPaths: {
		id: "probe.unknown-paths",
		group: "without a key",
		layer: "gate",
		title: "Other paths and spellings are refused without a key as well",
		severity: "high",
		why: "Ollama takes other spellings of its paths too, and different refusals tell a stranger which paths there are.",
	},
	challenge: {
		id: "probe.challenge",
		group: "without a key",
		layer: "gate",
		title: "Each of these refusals says that a key is wanted",
		severity: "warn",
		why: "Without WWW-Authenticate (RFC 9110, 11.6.1) clients cannot tell that they need a key, and something between here and the gate takes headers away.",
	},
	refusalShape: {
		id: "probe.refusal-shape",
		group: "without a key",
		layer: "gate",
		title: "Each of these refusals can be read by its API's clients",
		severity: "warn",
		why: "The ollama command takes an empty refusal for success, and SDKs show only errors of their own shape.",
	},
	wrongKey: {
		id: "probe.wrong-key",
		group: "without a key",
		layer: "gate",
		title: "A key that nobody made is refused",
		severity: "critical",
		why: "A gate that looks only whether a key is there lets in anyone who makes one up.",
	},
	keyAccepted: {
		id: "probe.key-accepted",
		group: "with the key",
		layer: "gate",
		title: "The gate takes the key",
		severity: "high",
		why: "With a key that is unknown or has run out nothing works on this device.",
	},
	scopes: {
		id: "probe.scopes",
		group: "with the key",
		layer: "gate",
		title: "The key may read and infer",
		severity: "info",
		why: "Clients list the models and make replies; a key that may only one of the two fails in the middle of work.",
	},
	reads: {
		id: "probe.reads",
		group: "with the key",
		layer: "ollama",
		title: "Calls that only read are answered as Ollama answers them",
		severity: "high",
		why: "Clients ask for version and models before anything else.",
	},
	routes: {
		id: "probe.routes",
		group: "with the key",
		layer: "gate",
		title: "The key is let through to every call that it may make",
		severity: "high",
		why: "A call that is refused in spite of a good key fails in the middle of a person's work.",
	},
	errorShapes: {
		id: "probe.error-shapes",
		group: "with the key",
		layer: "gate",
		title: "Wrong requests get the right status, in the shape of their API",
		severity: "warn",
		why: "A client that cannot read an error retries, or reports something else than what is wrong.",
	},
	stream: {
		id: "probe.stream",
		group: "stream",
		layer: "gate",
		title: "A reply streams to its end",
		severity: "high",
		why: "This is what the host is there for.",
	},
	uncollected: {
		id: "probe.uncollected",
		group: "stream",
		layer: "gate",
		title: "Nothing on the way collects the stream",
		severity: "warn",
		why: "A proxy that collects makes people wait for the whole reply, and may take the silence for a failure.",
	},
	afterLeaving: {
		id: "probe.after-leaving",
		group: "stream",
		layer: "gate",
		title: "The gate answers at once after a client has left its stream",
		severity: "high",
		why: "Clients leave all the time; a gate that holds on to them runs full.",
	},
	cancel: {
		id: "probe.cancel",
		group: "stream",
		layer: "ollama",
		title: "The next stream need not wait for one that was left",
		severity: "warn",
		why: "A reply that is made for nobody keeps the model from everybody else.",
	},
	lockout: {
		id: "probe.lockout",
		group: "lockout",
		layer: "gate",
		title: "Wrong keys lock an address out, and it is told for how long",
		severity: "high",
		why: "Without a lockout, guessing keys only costs time.",
	},
	publicOutside: {
		id: "probe.public.outside",
		group: "public address",
		layer: "internet",
		title: "The public address is tested from outside",
		severity: "warn",
		why: "From the server, from its network or through the tailnet, other rules apply than on the internet.",
	},
	publicAnswers: {
		id: "probe.public.answers",
		group: "public address",
		layer: "internet",
		title: "The public address gives any answer at all",
		severity: "info",
		why: "Silence of a firewall cannot be told from an address that nobody has, or a network that lets nothing out.",
	},
	publicOllama: {
		id: "probe.public.ollama",
		group: "public address",
		layer: "ollama",
		title: "No Ollama answers there without a key",
		severity: "critical",
		why: "Anyone who finds it uses the machine, and reads, replaces and deletes its models.",
	},
	publicPort11434: {
		id: "probe.public.11434",
		group: "public address",
		layer: "firewall",
		title: "Port 11434 is shut",
		severity: "high",
		why: "Ollama and its gate are for the tailnet; on the internet this port is looked for all day.",
	},
	publicOpenWebUi: {
		id: "probe.public.open-webui",
		group: "public address",
		layer: "open-webui",
		title: "Ports 3000 and 8080 are shut",
		severity: "high",
		why: "Open WebUI is there without HTTPS: passwords travel in the clear, past tailscale serve and the firewall if Docker published the port.",
	},
	publicHttps: {
		id: "probe.public.443",
		group: "public address",
		layer: "firewall",
		title: "Port 443 is shut",
		severity: "warn",
		why: "tailscale serve needs no open port; what is open here is a web server, or a funnel to the internet.",
	},
	publicSsh: {
		id: "probe.public.22",
		group: "public address",
		layer: "firewall",
		title: "Port 22 may be open or shut",
		severity: "info",
		why: "SSH with keys alone may be public; with Tailscale SSH it need not be.",
	},
	publicOthers: {
		id: "probe.public.others",
		group: "public address",
		layer: "firewall",
		title: "The other ports that you named are shut",
		severity: "warn",
		why: "Each open port is one more program that the internet may talk to.",
	},
	webUiCertificate: {
		id: "probe.webui.certificate",
		group: "Open WebUI",
		layer: "open-webui",
		title: "The certificate is good for this name",
		severity: "high",
		why: "Who gets used to clicking the warning away will do so for an impostor too.",
	},
	webUiExpiry: {
		id: "probe.webui.expiry",
		group: "Open WebUI",
		layer: "open-webui",
		title: "The certificate is good for two weeks and more",
		severity: "warn",
		why: "Certificates are renewed well before that, so one that was not will run out.",
	},
	webUiAnswers: {
		id: "probe.webui.answers",
		group: "Open WebUI",
		layer: "open-webui",
		title: "A page answers over HTTPS",
		severity: "high",
		why: "tailscale serve can be up while what is behind it is down.",
	},
	webUiRawPorts: {
		id: "probe.webui.raw-ports",
		group: "Open WebUI",
		layer: "open-webui",
		title: "Ports 3000 and 8080 of that host are shut",
		severity: "high",
		why: "They lead past HTTPS, and the firewall does not filter the tailnet.",
	},
} as const satisfies Record<string, Check>;

/** It was seen to be so. */
export function ok(check: Check, ...evidence: string[]): Result {
	return { ...check, state: "ok", evidence };
}

/** It was seen not to be so. */
export function finding(
	check: Check,
	evidence: readonly string[],
	fix: string,
): Result {
	return { ...check, state: "finding", evidence, fix };
}

/** It could not be seen. */
export function unknown(check: Check, ...reason: string[]): Result {
	return { ...check, state: "unknown", evidence: reason };
}

/** What it asks about is not here. */
export function absent(check: Check, ...reason: string[]): Result {
	return { ...check, state: "absent", evidence: reason };
}

/** The first lines of a long list, and how many more there are. */
export function firstFew(lines: readonly string[], most = 6): string[] {
	return lines.length <= most + 1
		? [...lines]
		: [...lines.slice(0, most), `and ${lines.length - most} more`];
}

/** What to do about an Ollama that answers everybody. */
export const closeOllama =
	"On the server, at once: sudo llamagate setup. Until then: sudo systemctl stop ollama";
