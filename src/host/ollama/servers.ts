import { readdir, readFile, readlink } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { loadConfig } from "../../config/load.ts";
import { oncePerLook, type Patient } from "../../doctor/check.ts";
import {
	type Address,
	formatHostPort,
	isLoopbackAddress,
	isTailscaleAddress,
} from "../../net/ranges.ts";
import { type Packets, translations } from "../../netfilter/evaluate.ts";
import { rangeOf, tailnet } from "../../netfilter/ufwPackets.ts";
import { anywhere } from "../../netfilter/ufwRules.ts";
import { codexHealth, isCodexHealth } from "../../ollama/codexHealth.ts";
import {
	type Container,
	containers,
	nameOf,
	networkDrivers,
	openPorts,
} from "../../system/docker.ts";
import {
	askEach,
	callAddress,
	isWildcard,
	knock,
} from "../../system/httpProbe.ts";
import { kernelFilter } from "../../system/kernelFilter.ts";
import { networkOf, processesNamed } from "../../system/processes.ts";
import {
	formatSocket,
	isLocalOnly,
	type ListeningSocket,
	listeningSockets,
	runsProgram,
} from "../../system/sockets.ts";
import {
	findGateOwner,
	isHeldByGate,
	isLoaded,
	isOpenedForGate,
	mainPidOf,
	propertiesOf,
} from "../gate/inspect.ts";
import {
	describeDialer,
	type LoopbackDialer,
	loopbackDialers,
} from "../tailscale/userspace.ts";

/** Where Ollama listens unless it was told otherwise. */
const usualPort = 11434;
/** How many sockets are asked whether they are Ollama's. Any user may have many. */
const mostAsked = 100;
const patienceMs = 2_000;

/** A process that serves as Ollama. */
export interface Server {
	readonly pid: number;
	/** Where it listens, as far as this network's sockets tell. */
	readonly sockets: readonly ListeningSocket[];
	/** Not in this network, as in a container. */
	readonly isElsewhere: boolean;
	/** As it was started; `undefined` where this user may not see it. */
	readonly environment: ReadonlyMap<string, string> | undefined;
}

/** A way that the kernel, Docker or tailscaled leads to an Ollama. */
export interface LedPlace {
	/** Where it was asked from here. */
	readonly address: string;
	readonly port: number;
	/** The port of this host's that others call, and how it leads there. */
	readonly entrance: number | undefined;
	readonly says: string;
	/** Whether only this host itself is led there. */
	readonly isLocal: boolean;
	readonly removal?: string;
	readonly container?: Container;
	/** The tailscaled that leads its peers there. */
	readonly dialer?: LoopbackDialer;
}

/** All that is, or answers as, Ollama here. */
interface OllamaLook {
	/** Of the port, of programs named so, and of whatever answers so to others; without the gate's own. */
	readonly sockets: readonly ListeningSocket[];
	readonly led: readonly LedPlace[];
	readonly servers: readonly Server[];
	/** Where an Ollama can be asked. The helpers that it starts have sockets that are none. */
	readonly places: readonly {
		readonly address: string;
		readonly port: number;
	}[];
	/** What did answer as one, for people. */
	readonly answering: readonly string[];
	/** Servers elsewhere to which none of these leads. */
	readonly unasked: readonly Server[];
	/** Servers elsewhere that may be reached in ways that are not seen here. */
	readonly unseen: readonly Server[];
	/** What a tailscaled dials for its peers elsewhere, in the network of one of these servers. */
	readonly exposed: readonly string[];
	/** The ports that may be Ollama's: its usual one, and the one that the gate's upstream leads to. */
	readonly ports: readonly number[];
	/** The one of them that the gate passes requests on to. */
	readonly gatePort: number;
	/** Sockets of the port that are held by something else than the Ollama that was set up. */
	readonly foreign: readonly ListeningSocket[];
	/** Whether there is an `ollama.service`. */
	readonly hasUnit: boolean;
	/** Why not all was looked at. */
	readonly missed: readonly string[];
}

export const lookForOllama = oncePerLook(lookAnew);

async function lookAnew(patient: Patient): Promise<OllamaLook> {
	const [all, gate, known = [], { dialers, unclear }, upstreamPort] =
		await Promise.all([
			listeningSockets(),
			findGateOwner(patient),
			containers(),
			loopbackDialers(),
			findUpstreamPort(patient),
		]);
	const ports = [...new Set([usualPort, upstreamPort ?? usualPort])];
	const isDialed = dialers.some(({ isElsewhere }) => !isElsewhere);
	const running = known.filter(({ State }) => State.Running);
	const others = all.filter((socket) => {
		if (!isTailscaleAddress(socket.address))
			return !(isLocalOnly(socket) && isHeldByGate(socket, gate));
		// Without root its owners are not to be seen, and what systemd says is what there is.
		return !(
			isHeldByGate(socket, gate) ||
			(!patient.isRoot && isOpenedForGate(socket, gate))
		);
	});
	const named = new Set<ListeningSocket>();
	for (const socket of others)
		if (await isOllamas(socket, ports)) named.add(socket);
	// sshd would write each call down.
	const candidates = others
		.filter(
			(socket) =>
				named.has(socket) ||
				((!isLocalOnly(socket) || (isDialed && takesLoopback(socket))) &&
					socket.port !== 22),
		)
		.toSorted((a, b) => Number(isLocalOnly(a)) - Number(isLocalOnly(b)));
	const asked = candidates.slice(0, mostAsked);
	const answers = await askEach(asked, async (socket) => {
		const at = callAddress(socket, all);
		return at !== undefined && (await answersAsOllama(at, socket.port));
	});
	const answering = new Set(asked.filter((_, index) => answers[index]));
	const sockets = others.filter(
		(socket) => named.has(socket) || answering.has(socket),
	);
	const [led, dialed, servers, unit] = await Promise.all([
		ledPlaces(patient, running),
		dialedPlaces(dialers, sockets, ports),
		findServers(others),
		propertiesOf("ollama.service"),
	]);
	const elsewhere = servers.filter(({ isElsewhere }) => isElsewhere);
	const drivers = elsewhere.length > 0 ? await networkDrivers() : undefined;
	const homes = new Map<Server, Container[]>();
	for (const server of elsewhere)
		homes.set(server, await homesOf(server, running));
	const hasUnit = isLoaded(unit);
	const isSame = (container: Container, place: LedPlace) =>
		place.container?.Id === container.Id;
	const askable = sockets.flatMap((socket) => {
		const address = callAddress(socket, all);
		return address !== undefined &&
			(socket.port === (upstreamPort ?? usualPort) || answering.has(socket))
			? { address, port: socket.port }
			: [];
	});
	return {
		sockets,
		servers,
		hasUnit,
		ports,
		gatePort: upstreamPort ?? usualPort,
		led: [...led, ...dialed],
		places: uniquePlaces([...askable, ...led]),
		answering: [...answering]
			.map(formatSocket)
			.concat(led.map(({ says }) => says)),
		unasked: elsewhere.filter(
			(server) =>
				!homes
					.get(server)
					?.some((home) => led.some((place) => isSame(home, place))),
		),
		unseen: elsewhere.filter(
			(server) => !isShutIn(homes.get(server) ?? [], drivers),
		),
		exposed: await exposedElsewhere(elsewhere, dialers),
		foreign: await foreignAmong(sockets, {
			gate,
			ports,
			running,
			mainPid: mainPidOf(unit),
			hasUnit,
		}),
		missed: [
			...(candidates.length > mostAsked
				? [
						`${candidates.length} sockets may be Ollama's, and ${mostAsked} of them were asked`,
					]
				: []),
			...unclear,
		],
	};
}

/**
 * The port of this host that the gate's upstream leads to: by `upstream.url`, or
 * by the shipped bridge's unit. `undefined` where neither tells.
 */
async function findUpstreamPort({
	configFile,
}: Patient): Promise<number | undefined> {
	const target = await loadConfig(configFile).then(
		({ upstream }) => upstream.target,
		() => undefined,
	);
	if (target?.kind === "tcp") return target.port;
	// Also where the configuration is not for this user to read.
	const bridge = await propertiesOf("llamagate-ollama.service");
	return bridgedPort(bridge?.get("ExecStart") ?? "");
}

/** The port that a systemd-socket-proxyd leads to, of an `ExecStart` as `systemctl show` prints it. */
export function bridgedPort(execStart: string): number | undefined {
	const port = /systemd-socket-proxyd(?: [^;]*)? \S+:(\d+) *;/.exec(
		execStart,
	)?.[1];
	return port === undefined ? undefined : Number(port);
}

/** Whether it takes what this host sends to 127.0.0.1. */
function takesLoopback({ address, device }: ListeningSocket): boolean {
	return (
		["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "*"].includes(address) &&
		(device === undefined || device === "lo")
	);
}

/** Where a tailscaled of this network leads its peers, of what is Ollama's: dialled as it dials for them. */
async function dialedPlaces(
	dialers: readonly LoopbackDialer[],
	sockets: readonly ListeningSocket[],
	usual: readonly number[],
): Promise<LedPlace[]> {
	const here = dialers.filter(({ isElsewhere }) => !isElsewhere);
	if (here.length === 0) return [];
	const address = "127.0.0.1";
	const ports = [
		...new Set([
			...usual,
			...sockets.filter(takesLoopback).map(({ port }) => port),
		]),
	];
	const answers = await askEach(ports, (port) =>
		answersAsOllama(address, port),
	);
	return ports
		.filter((_, index) => answers[index])
		.flatMap((port) =>
			here.map(
				(dialer): LedPlace => ({
					address,
					port,
					entrance: port,
					isLocal: false,
					dialer,
					says: `${describeDialer(dialer)}, and Ollama answers on ${formatHostPort(address, port)}`,
				}),
			),
		);
}

/** The servers of other networks whose tailscaled dials loopback there, as beside it in a container. */
async function exposedElsewhere(
	servers: readonly Server[],
	dialers: readonly LoopbackDialer[],
): Promise<string[]> {
	const lines: string[] = [];
	for (const { pid } of servers) {
		const network = await networkOf(pid);
		for (const dialer of dialers)
			if (dialer.isElsewhere && dialer.network === network)
				lines.push(
					`process ${pid} is an Ollama in a network of its own, and there ${describeDialer(dialer)}`,
				);
	}
	return lines;
}

function uniquePlaces<P extends { address: string; port: number }>(
	places: readonly P[],
): P[] {
	return [
		...new Map(
			places.map((place) => [formatHostPort(place.address, place.port), place]),
		).values(),
	];
}

async function isOllamas(
	socket: ListeningSocket,
	ports: readonly number[],
): Promise<boolean> {
	if (ports.includes(socket.port) || socket.programs.includes("ollama"))
		return true;
	const held = await Promise.all(
		socket.pids.map((pid) => runsProgram(pid, "ollama")),
	);
	return held.includes(true);
}

/** Whether what listens there answers as Ollama's server does, by whatever program it comes. */
export async function answersAsOllama(
	address: string,
	port: number,
): Promise<boolean> {
	const root = await knock(address, port, "/", patienceMs);
	if (root.kind !== "answer") return false;
	if (root.body.trim() === "Ollama is running") return true;
	// A proxy may have a page of its own there. Open WebUI has /api/version, too, and not this.
	const models = await knock(address, port, "/api/ps", patienceMs);
	if (
		models.kind === "answer" &&
		models.status === 200 &&
		/^\s*\{\s*"models"\s*:\s*(?:\[|null)/.test(models.body)
	)
		return true;
	// Whatever a proxy keeps back of the rest: no gate passes this on.
	const health = await knock(address, port, codexHealth, patienceMs);
	return health.kind === "answer" && isCodexHealth(health.status, health.body);
}

/** Ways that are no sockets of a program: of Docker's, and of rules that translate addresses. */
async function ledPlaces(
	patient: Patient,
	running: readonly Container[],
): Promise<LedPlace[]> {
	const ways = [
		...running.flatMap(publishedWays),
		...(patient.isRoot ? await translatedWays() : []),
	];
	const asked = ways.slice(0, mostAsked);
	const answers = await askEach(asked, ({ address, port }) =>
		answersAsOllama(address, port),
	);
	return asked.filter((_, index) => answers[index]);
}

function publishedWays(container: Container): LedPlace[] {
	return openPorts(container)
		.filter(({ containerPort }) => containerPort.endsWith("/tcp"))
		.map(({ hostAddress, hostPort }) => ({
			// Docker's rules leave what is sent to 127.0.0.1 to its proxy, which may be off.
			address: ["0.0.0.0", "::"].includes(hostAddress)
				? (ownAddress(hostAddress === "::" ? "IPv6" : "IPv4") ?? "127.0.0.1")
				: hostAddress,
			port: hostPort,
			entrance: hostPort,
			container,
			says: `Docker publishes the container ${nameOf(container)} on ${formatHostPort(hostAddress, hostPort)}`,
			isLocal: isLoopbackAddress(hostAddress),
		}));
}

function ownAddress(family: "IPv4" | "IPv6"): string | undefined {
	return Object.values(networkInterfaces())
		.flat()
		.find(
			(one) =>
				one?.family === family &&
				!one.internal &&
				!one.address.startsWith("fe80:"),
		)?.address;
}

/** Where the kernel sends what comes in for other addresses or ports (DNAT); none where its rules are not to be read, which the firewall's checks say. */
async function translatedWays(): Promise<LedPlace[]> {
	const filter = await kernelFilter().catch(() => undefined);
	if (filter === undefined) return [];
	const own = new Set(
		Object.values(networkInterfaces())
			.flat()
			.flatMap((entry) => entry?.address ?? []),
	);
	const isOwn = (address: Address) => own.has(address.toString());
	const comingIn = filter.families.flatMap((family) =>
		[...filter.outside, tailnet].map(
			(interfaceIn): Packets => ({
				family,
				interfaceIn,
				protocol: "tcp",
				port: undefined,
				from: rangeOf(anywhere[family]),
			}),
		),
	);
	const ways = comingIn
		.flatMap((packets) => translations(filter, packets, isOwn))
		.filter(({ ending: { rule } }) =>
			// As Docker has it for what is published on loopback.
			rule?.conditions.every(
				(condition) =>
					condition.on !== "to" ||
					condition.negated ||
					condition.ranges.some(([base]) => base.range() !== "loopback"),
			),
		)
		.flatMap(({ ending: { rule }, to, port, packets }): LedPlace[] => {
			const loopback = packets.family === "ipv4" ? "127.0.0.1" : "::1";
			const address = to?.toString() ?? loopback;
			return port === undefined || rule === undefined
				? []
				: [
						{
							address,
							port,
							entrance: packets.port,
							isLocal: false,
							says: `a rule leads from ${packets.port === undefined ? "other ports" : `port ${packets.port}`} to ${formatHostPort(address, port)}: ${rule.text}`,
							removal: rule.removal,
						},
					];
		});
	return [...new Map(ways.map((way) => [way.says, way])).values()];
}

/** Containers that have a process's network. */
async function homesOf(
	{ pid }: Server,
	running: readonly Container[],
): Promise<Container[]> {
	const network = await networkOf(pid);
	const homes: Container[] = [];
	for (const container of running) {
		const { Pid = 0 } = container.State;
		if (Pid > 0 && network !== undefined && (await networkOf(Pid)) === network)
			homes.push(container);
	}
	return homes;
}

/** Whether nobody but this host gets to these containers: all on Docker's bridges, published on loopback at most. */
function isShutIn(
	homes: readonly Container[],
	drivers: ReadonlyMap<string, string> | undefined,
): boolean {
	return (
		homes.length > 0 &&
		homes.every(
			(container) =>
				openPorts(container).every(({ hostAddress }) =>
					isLoopbackAddress(hostAddress),
				) &&
				Object.keys(container.NetworkSettings?.Networks ?? {}).every(
					(name) => drivers?.get(name) === "bridge",
				),
		)
	);
}

/** Sockets of the port that neither the unit's processes, nor a container, nor the gate hold. */
async function foreignAmong(
	sockets: readonly ListeningSocket[],
	{
		gate,
		ports,
		running,
		mainPid,
		hasUnit,
	}: {
		readonly ports: readonly number[];
		readonly gate: Parameters<typeof isHeldByGate>[1];
		readonly running: readonly Container[];
		readonly mainPid: number | undefined;
		readonly hasUnit: boolean;
	},
): Promise<ListeningSocket[]> {
	const mains = [mainPid, ...running.map(({ State }) => State.Pid)];
	const groups = new Set(
		(await Promise.all(mains.map(controlGroupOf))).filter(Boolean),
	);
	const foreign: ListeningSocket[] = [];
	for (const socket of sockets) {
		// systemd may have opened it for another.
		const holders = socket.pids.filter((pid) => pid !== 1);
		if (
			!ports.includes(socket.port) ||
			socket.pids.length === 0 ||
			isHeldByGate(socket, gate) ||
			running.some((container) => isPublishedAt(container, socket))
		)
			continue;
		const areKnown = await Promise.all(
			holders.map(async (pid) =>
				hasUnit
					? groups.has(await controlGroupOf(pid))
					: groups.has(await controlGroupOf(pid)) ||
						socket.programs.includes("ollama") ||
						runsProgram(pid, "ollama"),
			),
		);
		if (holders.length === 0 || areKnown.includes(false)) foreign.push(socket);
	}
	return foreign;
}

function isPublishedAt(container: Container, socket: ListeningSocket): boolean {
	return openPorts(container).some(
		({ hostAddress, hostPort }) =>
			hostPort === socket.port &&
			(["0.0.0.0", "::"].includes(hostAddress)
				? isWildcard(socket)
				: hostAddress === socket.address),
	);
}

/** The control groups that systemd or Docker put a process into, as the kernel lists them; no user's program leaves them for another's. */
async function controlGroupOf(
	pid: number | undefined,
): Promise<string | undefined> {
	if (pid === undefined || pid <= 0) return undefined;
	return readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => undefined);
}

/** Ollama's servers among the processes of this host. */
async function findServers(
	sockets: readonly ListeningSocket[],
): Promise<Server[]> {
	const servers: Server[] = [];
	const own = await networkOf("self");
	for (const pid of await processesNamed("ollama")) {
		const held = sockets.filter(({ pids }) => pids.includes(pid));
		const network = await networkOf(pid);
		const isElsewhere =
			network !== undefined && own !== undefined && network !== own;
		// The command listens nowhere.
		if (held.length === 0 && !(isElsewhere && (await isServing(pid)))) continue;
		servers.push({
			pid,
			sockets: held,
			isElsewhere,
			environment: await environmentOf(pid),
		});
	}
	return servers;
}

/** Whether a process holds a TCP socket that listens, in whichever network. */
async function isServing(pid: number): Promise<boolean> {
	const tables = await Promise.all(
		["tcp", "tcp6"].map((table) =>
			readFile(`/proc/${pid}/net/${table}`, "utf8").catch(() => ""),
		),
	);
	const listening = new Set(tables.flatMap(listeningInodes));
	const open = await readdir(`/proc/${pid}/fd`).catch(() => []);
	for (const fd of open) {
		const file = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => "");
		const [, inode = ""] = /^socket:\[(\d+)\]$/.exec(file) ?? [];
		if (listening.has(inode)) return true;
	}
	return false;
}

/** The inodes of the listening sockets in a text of `/proc/net/tcp` (proc_net_tcp.txt: the state is 0A). */
function listeningInodes(table: string): string[] {
	return table.split("\n").flatMap((line) => {
		const columns = line.trim().split(/\s+/);
		return columns[3] === "0A" && columns[9] !== undefined ? [columns[9]] : [];
	});
}

async function environmentOf(
	pid: number,
): Promise<ReadonlyMap<string, string> | undefined> {
	const text = await readFile(`/proc/${pid}/environ`, "utf8").catch(
		() => undefined,
	);
	return text === undefined ? undefined : parseEnvironment(text);
}

/** What is longer tells nothing, and may be there to keep this busy: any user may name a program ollama. */
export const longestValue = 1_024;

/**
 * Reads `/proc/PID/environ`. Of a name that is there twice, the first counts, as it
 * does for getenv(3). Of a value that is too long, one character too many is kept.
 */
export function parseEnvironment(text: string): Map<string, string> {
	const environment = new Map<string, string>();
	for (const word of text.split("\0")) {
		const equals = word.indexOf("=");
		if (equals <= 0) continue;
		const name = word.slice(0, equals);
		if (!environment.has(name))
			environment.set(
				name,
				word.slice(equals + 1, equals + 1 + longestValue + 1),
			);
	}
	return environment;
}
