import {
	absent,
	type Outcome,
	oncePerLook,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { formatHostPort, isLoopbackAddress } from "../../net/ranges.ts";
import {
	type Container,
	containers,
	nameOf,
	openPorts,
} from "../../system/docker.ts";
import {
	askEach,
	callAddress,
	isWildcard,
	knock,
} from "../../system/httpProbe.ts";
import {
	formatSocket,
	isLocalOnly,
	type ListeningSocket,
	listeningSockets,
} from "../../system/sockets.ts";
import { isOpenWebUi, usualPort, variable } from "./container.ts";
import { ports as usualPorts } from "./step.ts";

/** What a running Open WebUI tells everybody (backend/open_webui/main.py, get_app_config). */
export interface WebUiConfig {
	readonly version?: string;
	/** No account exists yet: anyone who comes first is made the administrator. */
	readonly onboarding?: boolean;
	readonly features: {
		readonly auth?: boolean;
		readonly enable_signup?: boolean;
	};
}

/** One Open WebUI of this host. */
export interface WebUi {
	/** The container's name, or the socket of a program. */
	readonly name: string;
	/** Of this host; `undefined` for a container that publishes none. */
	readonly port: number | undefined;
	/** What takes connections for it, by the kernel. */
	readonly sockets: readonly ListeningSocket[];
	/** Where Docker publishes it; with or without a program that listens there. */
	readonly published: readonly string[];
	/** What it says of itself at each of its places that answers. */
	readonly configs: readonly WebUiConfig[];
	/** Whether none of its places answers, or one that others reach does not. */
	readonly isSilent: boolean;
}

export interface Look {
	readonly all: readonly WebUi[];
	/** What may be one and does not let it be seen. */
	readonly strangers: readonly ListeningSocket[];
	/** `undefined` where Docker does not run, or not for this user. */
	readonly containers: readonly Container[] | undefined;
}

export const look = oncePerLook(lookAnew);

/** What a socket answers as; any user may have one beside an Open WebUI's, on the same port. */
interface Asked {
	readonly socket: ListeningSocket;
	readonly answer: WebUiConfig | "another program" | undefined;
}

/** How many sockets are asked. Any user may have many. */
const mostAsked = 200;

async function lookAnew(): Promise<Look> {
	const [sockets, known] = await Promise.all([
		listeningSockets(),
		containers(),
	]);
	const running = (known ?? []).filter(
		(container) => container.State.Running && isOpenWebUi(container),
	);
	const places = new Map(
		running.map((container) => [container, placesOf(container)]),
	);
	const isOf = (socket: ListeningSocket, container: Container) =>
		(places.get(container) ?? []).some((place) => isAt(socket, place));
	const candidates = sockets
		.filter(
			(socket) =>
				mayBe(socket) || running.some((container) => isOf(socket, container)),
		)
		// Those that others reach first.
		.toSorted((a, b) => Number(isLocalOnly(a)) - Number(isLocalOnly(b)));
	const asked = await askEach(
		candidates,
		async (socket, index): Promise<Asked> => {
			const at = callAddress(socket, sockets);
			const answer =
				at === undefined || index >= mostAsked
					? undefined
					: await configAt(at, socket.port);
			return { socket, answer };
		},
	);
	const inContainers = await Promise.all(
		running.map((container) =>
			lookAtContainer(
				container,
				places.get(container) ?? [],
				asked.filter(({ socket }) => isOf(socket, container)),
			),
		),
	);
	const others = asked.filter(
		({ socket }) => !running.some((container) => isOf(socket, container)),
	);
	return {
		all: [...inContainers, ...programsAmong(others)],
		strangers: others.filter(isStranger).map(({ socket }) => socket),
		containers: known,
	};
}

async function lookAtContainer(
	container: Container,
	places: readonly Place[],
	asked: readonly Asked[],
): Promise<WebUi> {
	const [place] = places;
	// Without docker-proxy the kernel alone passes on what is sent there.
	const answers =
		asked.length > 0 || place === undefined
			? asked.map(({ answer }) => answer)
			: [await configAt(loopbackFor(place), place.port)];
	const configs = answers.filter(isConfig);
	return {
		name: nameOf(container),
		port: place?.port,
		configs,
		sockets: asked.map(({ socket }) => socket),
		published: places.flatMap(({ address, port }) =>
			address === undefined || isLoopbackAddress(address)
				? []
				: formatHostPort(address, port),
		),
		isSilent:
			place !== undefined &&
			(configs.length === 0 ||
				asked.some(
					({ socket, answer }) => !isLocalOnly(socket) && !isConfig(answer),
				)),
	};
}

function loopbackFor({ address = "0.0.0.0" }: Place): string {
	return { "0.0.0.0": "127.0.0.1", "::": "::1" }[address] ?? address;
}

/** Programs that answer as one; the sockets of one port that the same processes hold are one's. */
function programsAmong(asked: readonly Asked[]): WebUi[] {
	const speaking = asked.flatMap(({ socket, answer }) =>
		isConfig(answer) ? { socket, answer } : [],
	);
	const holders = Map.groupBy(
		speaking,
		({ socket: { port, pids } }) => `${port} ${pids.join(" ")}`,
	);
	return [...holders.values()].flatMap((own) => {
		const [first] = own;
		return first === undefined
			? []
			: {
					name: formatSocket(first.socket),
					port: first.socket.port,
					published: [],
					isSilent: false,
					sockets: own.map(({ socket }) => socket),
					configs: own.map(({ answer }) => answer),
				};
	});
}

function isConfig(answer: Asked["answer"]): answer is WebUiConfig {
	return typeof answer === "object";
}

/** Whether it may be an Open WebUI that cannot be seen; one that starts, or asks for a password before all. */
function isStranger({ socket, answer }: Asked): boolean {
	if (isConfig(answer)) return false;
	if (socket.programs.includes("open-webui")) return true;
	return (
		answer === undefined &&
		usualPorts.includes(socket.port) &&
		!isLocalOnly(socket)
	);
}

/** Whether a program is asked if it is one; the others are left alone. */
function mayBe({ port, programs }: ListeningSocket): boolean {
	return (
		usualPorts.includes(port) ||
		programs.some((name) => /^(open-webui|uvicorn|python)/.test(name))
	);
}

/** Where a container of Open WebUI is to be found on this host. */
interface Place {
	/** In the host's network the kernel alone knows on which address. */
	readonly address: string | undefined;
	readonly port: number;
}

function placesOf(container: Container): Place[] {
	const inside = Number(variable(container, "PORT") ?? usualPort);
	if (container.HostConfig.NetworkMode === "host")
		return [{ address: undefined, port: inside }];
	return openPorts(container)
		.filter(({ containerPort }) => containerPort === `${inside}/tcp`)
		.map(({ hostAddress, hostPort }) => ({
			address: hostAddress,
			port: hostPort,
		}));
}

function isAt(socket: ListeningSocket, { address, port }: Place): boolean {
	if (socket.port !== port) return false;
	// Docker opens one for each family where it was told none.
	if (address === "0.0.0.0" || address === "::") return isWildcard(socket);
	return address === undefined || address === socket.address;
}

/** What it says of itself; `undefined` where it cannot be told who answers there. */
async function configAt(at: string, port: number): Promise<Asked["answer"]> {
	const came = await knock(at, port, "/api/config", 5_000);
	if (came.kind !== "answer") return undefined;
	// Every Open WebUI has it, for everybody.
	if (came.status === 404) return "another program";
	try {
		const config = JSON.parse(came.body) as Partial<WebUiConfig> | null;
		return typeof config?.features?.auth === "boolean"
			? { ...config, features: config.features }
			: undefined;
	} catch {
		return undefined;
	}
}

/** Answers for each Open WebUI; `absent` where there is none, as far as could be seen. */
export async function each(
	patient: Patient,
	judge: (found: readonly WebUi[], seen: Look) => Outcome | Promise<Outcome>,
): Promise<Outcome> {
	const seen = await look(patient);
	if (seen.all.length > 0) return judge(seen.all, seen);
	if (seen.strangers.length > 0) return unidentified(seen);
	if (!patient.isRoot)
		return unknown(
			"none was found, and only root sees every program and container",
		);
	const stopped = seen.containers?.filter(isOpenWebUi) ?? [];
	return absent(
		stopped.length > 0
			? `the container ${stopped.map(nameOf).join(", ")} does not run`
			: "found no Open WebUI here",
	);
}

export function unidentified({ strangers }: Look): Outcome {
	return unknown(
		...strangers.map(
			(socket) =>
				`${formatSocket(socket)} listens and does not say whether it is an Open WebUI`,
		),
	);
}
