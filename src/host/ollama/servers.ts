import { loadConfig } from "../../config/load.ts";
import { isOnThisMachine } from "../../config/upstreams.ts";
import { oncePerLook, type Patient } from "../../doctor/check.ts";
import {
	formatHostPort,
	isLoopbackAddress,
	isTailscaleAddress,
} from "../../net/ranges.ts";
import { usualPort } from "../../ollama/usualPort.ts";
import {
	type Container,
	containers,
	networkDrivers,
	openPorts,
} from "../../system/docker.ts";
import { askEach, callAddress } from "../../system/httpProbe.ts";
import { networkOf } from "../../system/processes.ts";
import {
	formatSocket,
	isLocalOnly,
	type ListeningSocket,
	runsProgram,
} from "../../system/sockets.ts";
import { isOfTailscaled } from "../firewall/facts.ts";
import {
	isHeldByGate,
	isLoaded,
	isOpenedForGate,
	mainPidOf,
	propertiesOf,
	socketsAndOwner,
} from "../gate/inspect.ts";
import { loopbackDialers } from "../tailscale/userspace.ts";
import { hearOllama, mostAsked, nameless } from "./answers.ts";
import { foreignAmong } from "./foreignSockets.ts";
import {
	dialedPlaces,
	exposedElsewhere,
	type LedPlace,
	ledPlaces,
	takesLoopback,
} from "./portForwards.ts";
import { findServers, type Server } from "./serverProcesses.ts";

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
	const [
		{ sockets: all, gate },
		known = [],
		{ dialers, unclear },
		upstreamPort,
	] = await Promise.all([
		socketsAndOwner(patient),
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
		return at === undefined ? "no" : hearOllama(at, socket.port);
	});
	const answering = new Set(
		asked.filter((_, index) => answers[index] === "yes"),
	);
	const sockets = others.filter(
		(socket) => named.has(socket) || answering.has(socket),
	);
	const [{ led, missed }, dialed, servers, unit, tailscaled] =
		await Promise.all([
			ledPlaces(patient, running, [
				...new Set([...ports, ...sockets.map(({ port }) => port)]),
			]),
			dialedPlaces(dialers, sockets, ports),
			findServers(others),
			propertiesOf("ollama.service"),
			propertiesOf("tailscaled.service"),
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
			...nameless(
				asked
					.filter(
						(socket, index) =>
							answers[index] === "unclear" &&
							!isLocalOnly(socket) &&
							// It serves by its own names: see tailscale.serve.
							!isOfTailscaled({ tailscaled: mainPidOf(tailscaled) }, socket),
					)
					.map(formatSocket),
			),
			...missed,
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
	if (target?.kind === "tcp" && isOnThisMachine(target)) return target.port;
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
