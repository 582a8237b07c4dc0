import { readFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import {
	absent,
	type Examination,
	finding,
	type Outcome,
	ok,
	oncePerLook,
	unique,
	unknown,
} from "../../doctor/check.ts";
import {
	type Address,
	formatHostPort,
	isTailscaleAddress,
	parseAddress,
} from "../../net/ranges.ts";
import {
	type BaseChain,
	type Ending,
	type Family,
	type FilterRule,
	type Packets,
	translations,
	wayIn,
} from "../../netfilter/evaluate.ts";
import {
	contains,
	isOpen,
	rangeOf,
	tailnetPeers,
	tailnetRange,
	tailnet as usualTailnet,
} from "../../netfilter/ufwPackets.ts";
import { anywhere, parseRuleFile } from "../../netfilter/ufwRules.ts";
import type { Severity } from "../../report/result.ts";
import { containers, nameOf, publishedPorts } from "../../system/docker.ts";
import { type KernelFilter, kernelFilter } from "../../system/kernelFilter.ts";
import { unguardedService } from "../../system/knownServices.ts";
import { hasProgram } from "../../system/run.ts";
import {
	formatSocket,
	isLocalOnly,
	type ListeningSocket,
	waitingSockets,
} from "../../system/sockets.ts";
import { lookUpUnit } from "../../system/units.ts";
import { mainPidOf, propertiesOf } from "../gate/inspect.ts";
import { gatePlace } from "../gate/step.ts";
import { sshPorts, sshSockets } from "../sshd/inspect.ts";
import {
	type Firewall,
	fixFor,
	isUfws,
	peers,
	setupUfw,
	strangers,
	takeOut,
	ufwInputs,
} from "./fixes.ts";

const ollamaPort = 11434;
const webPorts = [3000, 8080];

/** What the checks look at; read once, since all of them are made at the same time. */
interface Look extends Firewall {
	readonly gatePort: number;
	/** TCP's. */
	readonly sockets: readonly ListeningSocket[];
	readonly udpSockets: readonly ListeningSocket[];
	/** tailscaled's process, by systemd's account. */
	readonly tailscaled: number | undefined;
	/** Those of the sockets that are sshd's, and not somebody's beside it. */
	readonly sshSockets: ReadonlySet<ListeningSocket>;
	readonly hasTailnet: boolean;
}

const look = oncePerLook(lookAnew);

async function lookAnew(): Promise<Look> {
	const place = await gatePlace();
	const tailnet = tailnetInterface(place.device);
	const kept = (file: string) =>
		readFile(`/etc/ufw/${file}`, "utf8").then(parseRuleFile, () => []);
	const [filter, all, service, ports, rules4, rules6] = await Promise.all([
		kernelFilter(tailnet),
		waitingSockets(),
		propertiesOf("tailscaled.service"),
		sshPorts(),
		kept("user.rules"),
		kept("user6.rules"),
	]);
	const sockets = all.filter(({ protocol }) => protocol === "tcp");
	return {
		filter,
		sockets,
		udpSockets: all.filter(({ protocol }) => protocol === "udp"),
		tailscaled: mainPidOf(service),
		sshPorts: ports,
		sshSockets: new Set(await sshSockets(sockets)),
		tailnet,
		gatePort: place.port,
		hasTailnet: Object.hasOwn(networkInterfaces(), tailnet),
		ufwRules: [
			{ kind: "ipv4", rules: rules4 },
			{ kind: "ipv6", rules: rules6 },
		],
	};
}

/** The interface that the gate follows, where that is in the tailnet: on another there are strangers. */
function tailnetInterface(followed: string): string {
	return networkInterfaces()[followed]?.some(({ address }) =>
		isTailscaleAddress(address),
	)
		? followed
		: usualTailnet;
}

const familyName = { ipv4: "IPv4", ipv6: "IPv6" } as const;

/** What lets packets in, for people. */
function describe({ rule, chain, packets }: Ending): string {
	const by =
		rule === undefined
			? `${familyName[packets.family]}: no rule speaks of it, and ${chain.name} accepts what is left`
			: rule.text;
	return `on ${packets.interfaceIn}: ${by}`;
}

/** Whether nothing of a family gets in but what a rule allows by name. */
function isShut(filter: KernelFilter, family: Family): boolean {
	return strangers(filter, unspokenPort(filter))
		.filter((packets) => packets.family === family)
		.every((packets) => wayIn(filter, packets).share === "none");
}

/** A port that no rule names. */
function unspokenPort({ baseChains }: KernelFilter): number {
	const named = baseChains
		.flatMap(({ chains }) => [...chains.values()].flat())
		.flatMap(({ conditions }) =>
			conditions.flatMap((condition) =>
				condition.on === "port" ? condition.ranges : [],
			),
		);
	let port = 20_011;
	while (
		port < 65_535 &&
		named.some(([first, last]) => port >= first && port <= last)
	)
		port += 1;
	return port;
}

/**
 * Where INPUT was flushed, UFW takes itself for active, and neither "ufw reload"
 * nor "ufw disable" and "enable" hang its chains there again: it does so where
 * they do not exist (ufw-init-functions, ufw_start).
 */
function hookAgain(families: readonly Family[]): string {
	return [
		...families.map((family) => {
			const [command, type] =
				family === "ipv4" ? ["iptables", ""] : ["ip6tables", "6"];
			return `for chain in before-logging before after after-logging reject track; do sudo ${command} -A INPUT -j ufw${type}-$chain-input; done`;
		}),
		"sudo ufw reload",
	].join("; ");
}

const hasUfwChains = ({ baseChains }: KernelFilter) =>
	baseChains.some(({ chains }) => chains.has("ufw-user-input"));

function judgeActive({ filter }: Look, hasUfw: boolean): Outcome {
	const without = filter.families.filter(
		(family) => ufwInputs(filter, family).length === 0,
	);
	// With IPV6=no UFW makes no rules for IPv6 and drops all of it (ufw-init-functions).
	const open = without.filter((family) => !isShut(filter, family));
	if (without.length === 0)
		return ok(
			`UFW's chains hang in INPUT, for ${filter.families.map((family) => familyName[family]).join(" and ")}`,
		);
	const names = without.map((family) => familyName[family]).join(" and ");
	if (open.length === 0)
		return without.includes("ipv4")
			? finding(
					[
						`${names}: INPUT does not lead to UFW's chains; what no rule allows is dropped all the same, and with it what UFW allows`,
					],
					{
						severity: "warn",
						...(hasUfwChains(filter) ? { fix: hookAgain(without) } : {}),
					},
				)
			: ok(
					"UFW's chains hang in INPUT for IPv4, and IPv6 is dropped altogether",
				);
	if (!hasUfw)
		return finding(["ufw is not installed, and nothing else shuts this host"], {
			fix: `sudo apt install ufw && ${setupUfw}`,
		});
	return finding(
		[
			`${names}: INPUT does not lead to UFW's chains, so none of its rules is in force`,
		],
		hasUfwChains(filter) ? { fix: hookAgain(without) } : {},
	);
}

/** UFW's own rules for what no other speaks of. */
const isForDefault = ({ chain }: FilterRule) =>
	/^ufw6?-(track|skip-to-policy)-input$/.test(chain);

function judgeDefault({ filter }: Look): Outcome {
	const port = unspokenPort(filter);
	const endings = (["tcp", "udp"] as const)
		.flatMap((protocol) => strangers(filter, port, protocol))
		.flatMap((packets) => wayIn(filter, packets).by)
		.filter(
			(ending) =>
				ending.packets.from[1] === 0 &&
				(ending.rule === undefined || isUfws(ending)),
		);
	return endings.length === 0
		? ok(
				`what no rule speaks of is dropped, on ${filter.outside.join(" and ")} (seen for port ${port})`,
			)
		: finding(unique(endings.map(describe)), {
				...(endings.some(
					({ rule }) => rule !== undefined && !isForDefault(rule),
				)
					? { fix: "sudo ufw status numbered, then: sudo ufw delete NUMBER" }
					: filter.families.every((family) => ufwInputs(filter, family)[0])
						? {}
						: { fix: setupUfw }),
			});
}

/** Those that listen on a port where others may reach it. */
function listenersOn(
	{ sockets, tailnet }: Look,
	port: number,
): ListeningSocket[] {
	return sockets.filter(
		(socket) =>
			socket.port === port && !isLocalOnly(socket) && socket.device !== tailnet,
	);
}

function judgeGatePort(seen: Look): Outcome {
	const { filter, tailnet, gatePort } = seen;
	const open = [...new Set([ollamaPort, gatePort])].flatMap((port) => {
		const endings = strangers(filter, port).flatMap(
			(packets) => wayIn(filter, packets).by,
		);
		const listening = listenersOn(seen, port);
		return endings.length > 0 ? { port, endings, listening } : [];
	});
	if (open.length > 0)
		return finding(
			open.flatMap(({ port, endings, listening }) => [
				...unique(endings.map((ending) => `port ${port} ${describe(ending)}`)),
				...listening.map((socket) => `and ${formatSocket(socket)} listens`),
			]),
			{
				severity: open.some(({ listening }) => listening.length > 0)
					? "critical"
					: "high",
				// Setup knows Ollama's alone.
				...(open.every(({ port }) => port === ollamaPort)
					? {}
					: {
							fix: unique(
								open.map(({ port, endings }) => fixFor(seen, endings, port)),
							).join(" && "),
						}),
			},
		);
	const shut = filter.families.filter(
		(family) =>
			wayIn(filter, peers(tailnet, family, gatePort)).share === "none",
	);
	if (shut.length > 0) {
		// Where UFW allows it already, tailscaled's own rules are what is missing.
		const isAllowed = seen.ufwRules.every(({ kind, rules }) =>
			isOpen(rules, { ...tailnetPeers(kind, gatePort), interfaceIn: tailnet }),
		);
		return finding(
			[
				`${shut.map((family) => familyName[family]).join(" and ")}: the tailnet does not get to the gate, ${tailnet} is shut for port ${gatePort}`,
			],
			{
				severity: "warn",
				...(isAllowed
					? { fix: "sudo systemctl restart tailscaled" }
					: gatePort === ollamaPort && tailnet === usualTailnet
						? {}
						: {
								fix: `sudo ufw prepend allow in on ${tailnet} to any port ${gatePort} proto tcp`,
							}),
			},
		);
	}
	return ok(
		`${gatePort} is open on ${tailnet}, ${unique([ollamaPort, gatePort].map(String)).join(" and ")} dropped on ${filter.outside.join(" and ")}, for ${filter.families.map((family) => familyName[family]).join(" and ")}`,
	);
}

function judgeWebPorts(seen: Look): Outcome {
	const { filter } = seen;
	const ports = webPorts.filter(
		(port) =>
			!seen.sshPorts.includes(port) ||
			listenersOn(seen, port).some((socket) => !seen.sshSockets.has(socket)),
	);
	const open = ports.map((port) => ({
		port,
		endings: strangers(filter, port).flatMap(
			(packets) => wayIn(filter, packets).by,
		),
		listening: listenersOn(seen, port),
	}));
	const bad = open.filter(({ endings }) => endings.length > 0);
	const [first] = bad;
	if (first === undefined)
		return ok(`ports ${ports.join(" and ")} are shut for all but the tailnet`);
	return finding(
		unique(
			bad.flatMap(({ endings, listening, port }) => [
				...endings.map((ending) => `port ${port} ${describe(ending)}`),
				...listening.map((socket) => `and ${formatSocket(socket)} listens`),
			]),
		),
		{
			severity: bad.some(({ listening }) => listening.length > 0)
				? "high"
				: "warn",
			fix: bad
				.map(({ endings, port }) => fixFor(seen, endings, port))
				.filter((fix, index, all) => all.indexOf(fix) === index)
				.join(" && "),
		},
	);
}

/** tailscaled's own port for what other devices send it, whichever that is. */
function isTailscaleds({ path, packets }: Ending): boolean {
	return path.includes("ts-input") && packets.protocol === "udp";
}

function judgeOrder(seen: Look): Outcome {
	const { filter } = seen;
	const inputs = filter.families.flatMap((family) => ufwInputs(filter, family));
	if (inputs.length === 0)
		return absent("UFW is not in force (see firewall.active)");
	const beside = (["tcp", "udp"] as const)
		.flatMap((protocol) => strangers(filter, undefined, protocol))
		.flatMap((packets) => wayIn(filter, packets).by)
		.filter(
			(ending) =>
				inputs.includes(ending.chain) &&
				ending.rule !== undefined &&
				!isUfws(ending) &&
				!isTailscaleds(ending),
		);
	const rules = [...new Set(beside.flatMap(({ rule }) => rule ?? []))];
	if (rules.length === 0)
		return ok(
			"no rule but UFW's own lets a new connection in from outside the tailnet; what accepts in other tables leaves the decision to UFW's",
		);
	const all = beside.some(
		({ packets, share }) =>
			share === "all" && packets.port === undefined && packets.from[1] === 0,
	);
	return finding(
		rules.map(({ text }) => text),
		{
			severity: all ? "critical" : "high",
			fix: takeOut(seen, rules) ?? setupUfw,
		},
	);
}

async function judgeBoot(): Promise<Outcome> {
	if (!(await hasProgram("ufw"))) return absent("ufw is not installed");
	const file = "/etc/ufw/ufw.conf";
	const text = await readFile(file, "utf8").catch(() => undefined);
	if (text === undefined) return unknown(`${file} cannot be read`);
	const unit = await lookUpUnit("ufw.service");
	if (unit === undefined) return unknown("systemd does not answer here");
	if (!/^ENABLED=["']?yes["']?\s*$/im.test(text))
		return finding([`${file} has no ENABLED=yes`]);
	if (!unit.exists) return finding(["there is no ufw.service"]);
	if (!unit.isEnabled)
		return finding(["ufw.service is not enabled"], {
			fix: "sudo systemctl enable ufw.service",
		});
	return ok(`ENABLED=yes in ${file}, and ufw.service is enabled`);
}

/** The families in which a socket takes connections. */
function familiesOf(
	{ address }: ListeningSocket,
	all: readonly Family[],
): readonly Family[] {
	if (address === "*") return all;
	return all.filter((family) => (family === "ipv6") === address.includes(":"));
}

const isWildcard = ({ address }: ListeningSocket) =>
	["*", "0.0.0.0", "::"].includes(address);

/** How packets get to a socket from some interfaces. */
function waysTo(
	{ filter }: Look,
	socket: ListeningSocket,
	interfaces: readonly string[],
	from: (family: Family) => Packets["from"],
): Ending[] {
	const to = isWildcard(socket) ? undefined : parseAddress(socket.address);
	return familiesOf(socket, filter.families).flatMap((family) =>
		interfaces
			.filter((name) => socket.device === undefined || socket.device === name)
			.flatMap(
				(interfaceIn) =>
					wayIn(filter, {
						...{ family, interfaceIn, protocol: socket.protocol, to },
						...{ port: socket.port, from: from(family) },
					}).by,
			),
	);
}

/** How bad it is that others reach a service. */
function severityOf(service: string | undefined, otherwise: Severity) {
	if (service === undefined) return otherwise;
	return service === "Ollama" ? "critical" : "high";
}

const worst = (severities: readonly Severity[]): Severity =>
	(["critical", "high", "warn"] as const).find((one) =>
		severities.includes(one),
	) ?? "info";

/** tailscaled's own, which any program may call itself. */
function isOfTailscaled(
	{ tailscaled }: Look,
	{ uid, pids }: ListeningSocket,
): boolean {
	return (
		uid === 0 && pids.length > 0 && pids.every((pid) => pid === tailscaled)
	);
}

/** Of the services that are known by their port, those that take UDP on it. */
const udpServices = [111, 2049, 11211];

function serviceOf({ protocol, port, programs }: ListeningSocket) {
	const isItsPort = protocol === "tcp" || udpServices.includes(port);
	return unguardedService(isItsPort ? port : 0, programs);
}

/** Where a host gets its address, for which its answers have to come in; no user's program can have these ports. */
const isDhcpClient = ({ protocol, port, uid }: ListeningSocket) =>
	protocol === "udp" && [68, 546].includes(port) && uid < 1000;

/** By mDNS, LLMNR and SSDP neighbours find each other; each desktop has it, and UFW lets their multicast in. */
const isDiscovery = ({ protocol, port }: ListeningSocket) =>
	protocol === "udp" && [5353, 5355, 1900].includes(port);

const isUfwsOwn = ({ path }: Ending) =>
	path.some((name) => /^ufw6?-before-input$/.test(name));

function nameSocket(socket: ListeningSocket): string {
	const service = serviceOf(socket);
	return `${formatSocket(socket)}${service === undefined ? "" : `, which is ${service}'s`}`;
}

function judgeListeners(seen: Look): Outcome {
	const { filter, sockets, udpSockets } = seen;
	const others = [...sockets, ...udpSockets].filter(
		(socket) =>
			!isLocalOnly(socket) &&
			!seen.sshSockets.has(socket) &&
			!isOfTailscaled(seen, socket) &&
			!isDhcpClient(socket),
	);
	const open = others.flatMap((socket) => {
		const ways = waysTo(seen, socket, filter.outside, (family) =>
			rangeOf(anywhere[family]),
		).filter((way) => !(isDiscovery(socket) && isUfwsOwn(way)));
		return ways.length === 0 ? [] : { socket, ways };
	});
	const [first] = open;
	if (first === undefined)
		return ok(
			`${others.length} sockets listen on more than loopback (SSH's, tailscaled's and DHCP's aside), and nothing from outside the tailnet gets to them`,
		);
	return finding(
		open.flatMap(({ socket, ways }) => [
			`${nameSocket(socket)}: ${ways.every(isUfws) ? "UFW lets in" : "let in"}`,
			...unique(ways.map((way) => `  ${describe(way)}`)),
		]),
		{
			severity: worst(
				open.map(({ socket }) =>
					severityOf(serviceOf(socket), isDiscovery(socket) ? "info" : "warn"),
				),
			),
			fix: unique(
				open.map(({ socket, ways }) => fixFor(seen, ways, socket.port)),
			).join(" && "),
		},
	);
}

function judgeTailnet(seen: Look): Outcome {
	const { sockets, hasTailnet, tailnet, gatePort } = seen;
	if (!hasTailnet) return absent(`there is no ${tailnet}`);
	const reached = sockets
		.filter(
			(socket) =>
				(isWildcard(socket) || isTailscaleAddress(socket.address)) &&
				// The gate's, and tailscaled's own, which answers for itself and for Serve.
				!(socket.device === tailnet && socket.port === gatePort) &&
				!isOfTailscaled(seen, socket),
		)
		.filter(
			(socket) => waysTo(seen, socket, [tailnet], tailnetRange).length > 0,
		)
		.toSorted((a, b) => a.port - b.port);
	const [first] = reached;
	if (first === undefined)
		return ok(
			"every device of the tailnet reaches the gate by TCP, and nothing else",
		);
	const services = reached.flatMap(
		({ port, programs }) => unguardedService(port, programs) ?? [],
	);
	return finding(
		[
			`every device of the tailnet reaches ${unique(reached.map(({ port, programs }) => [port, ...programs].join(" "))).join(", ")}`,
			...reached.map(nameSocket),
			...(waysTo(seen, first, [tailnet], tailnetRange).some(({ path }) =>
				path.includes("ts-input"),
			)
				? [
						`tailscaled accepts what comes in on ${tailnet} ahead of UFW, whatever UFW says`,
					]
				: ["UFW lets them in"]),
		],
		{
			severity: services.length > 0 ? "warn" : "info",
			fix: "bind what is not for them to 127.0.0.1, and narrow the tailnet's policy: llamagate policy print",
		},
	);
}

/** A base chain's rules, with those of the chains that every packet is led through. */
function rulesReached({ rules, chains }: BaseChain): FilterRule[] {
	return rules.flatMap((rule) =>
		rule.verdict.kind === "jump" && rule.conditions.length === 0
			? [rule, ...(chains.get(rule.verdict.chain) ?? [])]
			: [rule],
	);
}

function judgeForged(seen: Look): Outcome {
	const { filter, sockets, hasTailnet, tailnet, gatePort } = seen;
	if (!hasTailnet) return absent(`there is no ${tailnet}`);
	const range = tailnetRange("ipv4");
	const drop = filter.baseChains
		.filter(({ hook }) => ["prerouting", "input"].includes(hook))
		.flatMap(rulesReached)
		.find(
			({ verdict, conditions }) =>
				verdict.kind === "drop" &&
				conditions.every(({ on }) => on === "from" || on === "interfaceIn") &&
				conditions.some(
					(condition) =>
						condition.on === "from" &&
						!condition.negated &&
						condition.ranges.some((one) => contains(one, range)),
				) &&
				conditions.some(
					(condition) =>
						condition.on === "interfaceIn" &&
						condition.negated &&
						condition.names.includes(tailnet),
				),
		);
	const trusting = strangers(filter, undefined)
		.flatMap((packets) => wayIn(filter, packets).by)
		.filter(({ packets }) =>
			contains(tailnetRange(packets.family), packets.from),
		);
	if (trusting.length > 0)
		return finding(
			[
				"these let in whoever says that they are of the tailnet:",
				...unique(trusting.map(describe)),
				...(drop === undefined
					? []
					: [
							"tailscaled's drop rule is there, and leaves some out, such as 100.115.92.0/23, which is ChromeOS's; for IPv6 there is none",
						]),
			],
			{ severity: "high" },
		);
	if (drop !== undefined) return ok(drop.text);
	const bound = sockets.filter(
		({ device, port }) => device === tailnet && port === gatePort,
	);
	return finding(
		[
			`no rule drops what comes from 100.64.0.0/10 elsewhere than on ${tailnet}: tailscaled sets none with --netfilter-mode=off`,
			"no rule lets anybody in for such an address, so UFW drops it like the rest",
			bound.length > 0
				? `the gate's socket is held to ${tailnet} (${bound.map(formatSocket).join(", ")}) and is not reached that way`
				: `nothing that is held to ${tailnet} listens on ${gatePort}: what holds a forged address off there is the firewall and the key`,
		],
		{ fix: "sudo tailscale set --netfilter-mode=on" },
	);
}

async function judgeDocker({ filter }: Look): Promise<Outcome> {
	const own = new Set(
		Object.values(networkInterfaces())
			.flat()
			.flatMap((entry) => entry?.address ?? []),
	);
	const isOwn = (address: Address) =>
		own.has(address.toString()) || address.range() === "loopback";
	const all = await containers();
	const running = (all ?? []).filter(({ State }) => State.Running);
	const published = running.flatMap((container) =>
		publishedPorts(container).map((port) => ({
			...port,
			name: nameOf(container),
		})),
	);
	const led = (["tcp", "udp"] as const)
		.flatMap((protocol) => strangers(filter, undefined, protocol))
		.flatMap((packets) => translations(filter, packets, isOwn));
	const open = led.filter(({ share }) => share !== "none");
	const isLed = (hostPort: number) =>
		led.some(({ packets }) => packets.port === hostPort);
	const lines: string[] = [];
	const severities: Severity[] = [];
	const fixes: string[] = [];
	for (const { ending, packets, to, port } of open) {
		const where =
			to === undefined
				? "this host"
				: to === "unknown"
					? "where the rule looks it up"
					: to.toString();
		const container = published.find(
			({ hostPort, containerPort }) =>
				hostPort === packets.port &&
				Number.parseInt(containerPort, 10) === port,
		);
		const leads = `leads ahead of UFW to ${port === undefined ? where : formatHostPort(where, port)}${container === undefined ? "" : `, the container ${container.name}`}: ${ending.rule?.text ?? ""}`;
		const sent = `on ${packets.interfaceIn}: port ${packets.port ?? "any"}`;
		const address = packets.to;
		if (address?.range() === "loopback") {
			lines.push(
				`${sent} of ${address} ${leads}`,
				`a neighbour on the same link reaches it by sending there what is for ${address}`,
			);
			severities.push("warn");
			fixes.push(
				`upgrade Docker: since version 28 it drops what others send to ${address}`,
			);
			continue;
		}
		lines.push(`${sent} ${leads}`);
		severities.push(
			severityOf(
				unguardedService(port ?? 0) ?? unguardedService(packets.port ?? 0),
				"warn",
			),
		);
		fixes.push(
			container === undefined
				? (ending.rule?.removal ?? "")
				: publishLocally(container),
		);
	}
	for (const container of published) {
		const { hostAddress, hostPort, name } = container;
		const isLocal = parseAddress(hostAddress)?.range() === "loopback";
		if (isLocal || isLed(hostPort)) continue;
		lines.push(
			`the container ${name} is published on ${formatHostPort(hostAddress, hostPort)}; no rule of Docker's leads there at the moment, and with one it goes ahead of UFW`,
		);
		severities.push("warn");
		fixes.push(publishLocally(container));
	}
	if (lines.length > 0)
		return finding(unique(lines), {
			severity: worst(severities),
			fix: unique(fixes).join(" && "),
		});
	if (filter.unread.length > 0) return unknown(...filter.unread);
	if (all === undefined && led.length === 0)
		return absent("Docker does not run here, and no rule translates addresses");
	return ok(
		led.length > 0
			? `${unique(led.map(({ packets }) => String(packets.port ?? "any"))).length} ports are translated, and what comes from outside for them is dropped`
			: "no container is published on more than loopback",
	);
}

function publishLocally({
	name,
	hostPort,
	containerPort,
}: {
	name: string;
	hostPort: number;
	containerPort: string;
}): string {
	return /open-?webui/.test(name)
		? "sudo llamagate setup --only open-webui"
		: `make the container ${name} anew with -p 127.0.0.1:${hostPort}:${containerPort.replace("/tcp", "")}`;
}

function judgeSsh(seen: Look): Outcome {
	const { filter, sshPorts: ports } = seen;
	if (ports.length === 0) return absent("no sshd runs here");
	const open = ports.map((port) => ({
		port,
		endings: strangers(filter, port).flatMap(
			(packets) => wayIn(filter, packets).by,
		),
	}));
	const endings = open.flatMap((one) => one.endings);
	if (endings.length === 0)
		return ok(`port ${ports.join(" and ")} is open to the tailnet alone`);
	const fixes = open
		.filter((one) => one.endings.length > 0)
		.map((one) => fixFor(seen, one.endings, one.port));
	return finding(unique(endings.map(describe)), {
		fix: `once Tailscale SSH lets you in from another device, with this session still open: ${unique(fixes).join(" && ")}`,
	});
}

const common = {
	group: "firewall",
	layer: "firewall",
	needsRoot: true,
} as const;

/** Whether the host's firewall holds, by the rules that the kernel has. */
export const firewallExaminations: readonly Examination[] = [
	{
		...common,
		id: "firewall.active",
		title: "UFW's rules are in force",
		severity: "high",
		why: "Without a firewall whatever listens on this host is open to the LAN, and to the internet where no router is in between.",
		fix: setupUfw,
		step: "ufw",
		examine: async (patient) =>
			judgeActive(await look(patient), await hasProgram("ufw")),
	},
	{
		...common,
		id: "firewall.default",
		title: "What no rule speaks of is dropped",
		severity: "high",
		why: "A program that somebody starts tomorrow is then not open to everybody by itself.",
		fix: setupUfw,
		step: "ufw",
		examine: async (patient) => judgeDefault(await look(patient)),
	},
	{
		...common,
		id: "firewall.ollama-port",
		title: "The gate's port and Ollama's are shut for all but the tailnet",
		severity: "high",
		why: "Ollama lets in whoever reaches it: should it ever listen on all addresses again, the firewall is what is left.",
		fix: setupUfw,
		step: "ufw",
		examine: async (patient) => judgeGatePort(await look(patient)),
	},
	{
		...common,
		id: "firewall.order",
		title: "No other rule lets in ahead of UFW's",
		severity: "high",
		why: "The first rule that accepts counts, so one ahead of UFW's chains undoes what UFW says.",
		fix: "sudo ufw reload",
		examine: async (patient) => judgeOrder(await look(patient)),
	},
	{
		...common,
		id: "firewall.boot",
		title: "UFW starts at boot",
		severity: "high",
		why: "A firewall that is gone after the next reboot is noticed by nobody.",
		fix: setupUfw,
		step: "ufw",
		needsRoot: false,
		examine: () => judgeBoot(),
	},
	{
		...common,
		id: "firewall.web-ports",
		title: `Ports ${webPorts.join(" and ")} are shut for all but the tailnet`,
		severity: "warn",
		why: "Open WebUI listens there, in the clear; HTTPS by Tailscale Serve is the way in.",
		fix: setupUfw,
		step: "ufw",
		examine: async (patient) => judgeWebPorts(await look(patient)),
	},
	{
		...common,
		id: "firewall.listeners",
		title: "Nothing but SSH is open to the LAN or the internet",
		severity: "warn",
		why: "What listens on all addresses and is let in is open to whoever is on the same network, and often to everybody.",
		fix: "sudo ufw status numbered",
		examine: async (patient) => judgeListeners(await look(patient)),
	},
	{
		...common,
		id: "firewall.docker",
		title: "No published port goes around UFW",
		severity: "warn",
		why: "Docker leads a published port to its container before UFW's rules are asked, so UFW's deny does nothing for it.",
		fix: "publish it on 127.0.0.1: docker run -p 127.0.0.1:PORT:PORT",
		examine: async (patient) => judgeDocker(await look(patient)),
	},
	{
		...common,
		id: "firewall.tailnet",
		title: "The tailnet reaches the gate and nothing else",
		severity: "info",
		why: "tailscaled lets the tailnet in ahead of UFW, so what listens on all addresses is open to each of its devices.",
		fix: "llamagate policy print",
		examine: async (patient) => judgeTailnet(await look(patient)),
	},
	{
		...common,
		id: "firewall.forged-source",
		title: "Nobody on the LAN passes for a device of the tailnet",
		severity: "info",
		why: "A neighbour can write any source address on its packets, one of the tailnet's, too.",
		fix: setupUfw,
		step: "ufw",
		examine: async (patient) => judgeForged(await look(patient)),
	},
	{
		...common,
		id: "firewall.ssh",
		title: "SSH is open to the tailnet alone",
		severity: "info",
		why: "A port that everybody reaches is tried by everybody; keys and fail2ban hold that, and Tailscale SSH does without the port.",
		fix: "sudo ufw delete allow 22/tcp",
		examine: async (patient) => judgeSsh(await look(patient)),
	},
];
