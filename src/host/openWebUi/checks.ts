import {
	absent,
	type Examination,
	finding,
	type Outcome,
	ok,
	oncePerLook,
	type Patient,
	unique,
	unknown,
} from "../../doctor/check.ts";
import { formatHostPort, isLoopbackAddress } from "../../net/ranges.ts";
import {
	type Container,
	containers,
	nameOf,
	openPorts,
	publishedPorts,
} from "../../system/docker.ts";
import {
	askEach,
	callAddress,
	isWildcard,
	knock,
} from "../../system/httpProbe.ts";
import { hasProgram } from "../../system/run.ts";
import {
	formatSocket,
	isLocalOnly,
	type ListeningSocket,
	listeningSockets,
} from "../../system/sockets.ts";
import {
	localPortOf,
	type ServedPort,
	servedPorts,
} from "../../tailscale/serveConfig.ts";
import { visible } from "../../visible.ts";
import {
	isOpenWebUi,
	oldName,
	usualPort,
	ports as usualPorts,
	variable,
} from "./step.ts";

const setupStep = "sudo llamagate setup --only open-webui";

/** What a running Open WebUI tells everybody (backend/open_webui/main.py, get_app_config). */
interface WebUiConfig {
	readonly version?: string;
	/** There is no account yet: whoever comes first is made the administrator. */
	readonly onboarding?: boolean;
	readonly features: {
		readonly auth?: boolean;
		readonly enable_signup?: boolean;
	};
}

/** One Open WebUI of this host. */
interface WebUi {
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

interface Look {
	readonly all: readonly WebUi[];
	/** What may be one and does not let it be seen. */
	readonly strangers: readonly ListeningSocket[];
	/** `undefined` where Docker does not run, or not for this user. */
	readonly containers: readonly Container[] | undefined;
}

const look = oncePerLook(lookAnew);

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
		...{ name: nameOf(container), port: place?.port, configs },
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
					...{ name: formatSocket(first.socket), port: first.socket.port },
					...{ published: [], isSilent: false },
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
async function each(
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
			: "there is no Open WebUI here",
	);
}

function unidentified({ strangers }: Look): Outcome {
	return unknown(
		...strangers.map(
			(socket) =>
				`${formatSocket(socket)} listens and does not say whether it is an Open WebUI`,
		),
	);
}

function judgeLoopback(found: readonly WebUi[], seen: Look): Outcome {
	const open = found.flatMap(({ name, sockets, published, configs }) => {
		const wide = sockets.filter((socket) => !isLocalOnly(socket));
		return wide.length === 0 && published.length === 0
			? []
			: {
					isUnguarded: configs.some(({ features }) => features.auth === false),
					says: [
						...wide.map((socket) => `${formatSocket(socket)} listens`),
						...published.map((place) => `Docker publishes ${name} on ${place}`),
					],
				};
	});
	if (open.length > 0)
		return finding(
			open.flatMap(({ says }) => says),
			open.some(({ isUnguarded }) => isUnguarded)
				? { severity: "critical" }
				: {},
		);
	if (seen.strangers.length > 0) return unidentified(seen);
	return ok(
		...found.map(({ name, port, sockets }) =>
			port === undefined
				? `${name} publishes no port`
				: `${name}: ${sockets.map(formatSocket).join(", ") || `port ${port}`}`,
		),
	);
}

function judgeAnswers(found: readonly WebUi[]): Outcome {
	const silent = found.filter(({ isSilent }) => isSilent);
	return silent.length > 0
		? finding(
				silent.map(({ name, port }) => `${name} does not answer on ${port}`),
				{ fix: `docker logs ${silent[0]?.name}` },
			)
		: ok(
				...found.map(
					({ name, configs: [config] }) =>
						`${name}: version ${visible(config?.version ?? "not told")}`,
				),
			);
}

/** Each thing that one of them told of itself. */
function told(
	found: readonly WebUi[],
): { readonly name: string; readonly config: WebUiConfig }[] {
	return found.flatMap(({ name, configs }) =>
		configs.map((config) => ({ name, config })),
	);
}

/** Why what was told is not all, or `undefined` where it is. */
function silence(found: readonly WebUi[], seen: Look): Outcome | undefined {
	if (found.some(({ configs, isSilent }) => isSilent || configs.length === 0))
		return unknown("it does not answer, so it was not to be seen");
	return seen.strangers.length > 0 ? unidentified(seen) : undefined;
}

function judgeAuth(found: readonly WebUi[], seen: Look): Outcome {
	const open = told(found).filter(
		({ config }) => config.features.auth !== true,
	);
	if (open.length > 0)
		return finding(
			unique(
				open.map(
					({ name }) =>
						`${name} asks nobody to log in (features.auth is false in /api/config)`,
				),
			),
		);
	return silence(found, seen) ?? ok("/api/config has features.auth");
}

function judgeSignup(found: readonly WebUi[], seen: Look): Outcome {
	const open = told(found).filter(
		({ config }) =>
			config.onboarding === true ||
			(config.features.auth === true && config.features.enable_signup === true),
	);
	if (open.length > 0)
		return finding(
			unique(
				open.map(({ name, config }) =>
					config.onboarding === true
						? `${name} has no account yet: whoever opens it first is made its administrator`
						: `${name} lets whoever opens it make an account (features.enable_signup in /api/config)`,
				),
			),
		);
	return (
		silence(found, seen) ??
		(told(found).every(({ config }) => !config.features.auth)
			? absent("there are no accounts (see open-webui.auth)")
			: ok("/api/config has no features.enable_signup"))
	);
}

function leadsToPort({ target }: ServedPort, port: number | undefined) {
	return port !== undefined && localPortOf(target) === port;
}

const serveCommand = (at: number, port: number | undefined) =>
	`sudo tailscale serve --bg --https=${at} ${port}`;

/** What is served, or what to answer where that could not be seen. */
async function knownEntrances(): Promise<readonly ServedPort[] | Outcome> {
	if (!(await hasProgram("tailscale")))
		return absent("Tailscale is not installed");
	return (
		(await servedPorts()) ??
		unknown("tailscale serve status fails; see: systemctl status tailscaled")
	);
}

async function judgeHttps(found: readonly WebUi[]): Promise<Outcome> {
	const known = await knownEntrances();
	if ("state" in known) return known;
	const leading = known.filter(
		(served) =>
			served.option === "https" &&
			found.some(({ port }) => leadsToPort(served, port)),
	);
	const [first] = leading;
	const port = found.find((one) => one.port !== undefined)?.port;
	if (first === undefined)
		return finding(
			[
				`Tailscale Serve has no HTTPS that leads to ${found.map((one) => `127.0.0.1:${one.port}`).join(" or ")}`,
			],
			{
				fix: serveCommand(
					known.some((other) => other.port === 443) ? 8443 : 443,
					port,
				),
			},
		);
	if (leading.every(({ foreground }) => foreground))
		return finding(
			[`${first.where} is served as long as a command runs, and no longer`],
			{ fix: serveCommand(first.port, port) },
		);
	return ok(
		...leading.map(({ where, target }) => `${where} leads to ${target}`),
	);
}

async function judgeFunnel(found: readonly WebUi[]): Promise<Outcome> {
	const known = await knownEntrances();
	if ("state" in known) return known;
	const open = known.filter(
		(served) =>
			served.funnel && found.some(({ port }) => leadsToPort(served, port)),
	);
	const [first] = open;
	return first === undefined
		? ok("Tailscale Funnel does not lead to it")
		: finding(
				open.map(
					({ where, target }) =>
						`${where} leads from the internet to ${target}`,
				),
				{
					// Serving a port to the tailnet takes it off the internet.
					fix: serveCommand(
						first.port,
						found.find(({ port }) => leadsToPort(first, port))?.port,
					),
				},
			);
}

async function judgePredecessors(patient: Patient): Promise<Outcome> {
	const { containers: all } = await look(patient);
	if (all === undefined)
		return (await hasProgram("docker"))
			? unknown("docker does not answer; see: systemctl status docker")
			: absent("Docker is not installed");
	const old = all.filter((container) =>
		nameOf(container).endsWith(oldName("")),
	);
	if (old.length === 0)
		return absent("there is no container from before setup");
	const returning = old.filter(
		({ State, HostConfig: { RestartPolicy } }) =>
			State.Running || !["", "no"].includes(RestartPolicy.Name),
	);
	return returning.length === 0
		? ok(`${old.map(nameOf).join(", ")} is stopped and stays so`)
		: finding(
				returning.map(
					(container) =>
						`${nameOf(container)} ${container.State.Running ? "runs" : "is stopped"}, its restart policy is ${container.HostConfig.RestartPolicy.Name || "no"}, and it publishes ${
							publishedPorts(container)
								.map(({ hostAddress, hostPort }) =>
									formatHostPort(hostAddress, hostPort),
								)
								.join(", ") || "nothing"
						}`,
				),
				{
					fix: returning
						.map(nameOf)
						.map(
							(name) =>
								`sudo docker update --restart=no ${name} && sudo docker stop ${name}`,
						)
						.join(" && "),
				},
			);
}

function judgeOthers(found: readonly WebUi[]): Outcome {
	return found.length === 1
		? ok(`${found[0]?.name} is the only one`)
		: finding(
				found.map(
					({ name, port }) =>
						`${name}${port === undefined ? "" : ` on ${port}`}`,
				),
			);
}

const common = { group: "open-webui", layer: "open-webui" } as const;

/** Whether Open WebUI is reached by those who are to, and asks who they are. */
export const openWebUiExaminations: readonly Examination[] = [
	{
		...common,
		id: "open-webui.loopback",
		title: "Open WebUI listens on loopback only",
		severity: "high",
		why: "What it shows goes over the LAN in the clear, and a port that Docker publishes goes around UFW.",
		fix: setupStep,
		step: "open-webui",
		examine: (patient) => each(patient, judgeLoopback),
	},
	{
		...common,
		id: "open-webui.answers",
		title: "Open WebUI answers",
		severity: "warn",
		why: "What does not answer cannot be looked at, and cannot be used.",
		fix: "docker logs open-webui",
		examine: (patient) => each(patient, judgeAnswers),
	},
	{
		...common,
		id: "open-webui.auth",
		title: "Open WebUI asks who one is",
		severity: "high",
		why: "Without accounts whoever opens the page uses every model and reads every chat.",
		fix: "start Open WebUI without WEBUI_AUTH=False",
		examine: (patient) => each(patient, judgeAuth),
	},
	{
		...common,
		id: "open-webui.signup",
		title: "Nobody makes themselves an account in Open WebUI",
		severity: "warn",
		why: "The first account is the administrator's, and with sign-up on any device of the tailnet can ask for another.",
		fix: "make your account, then turn off Admin Panel > Settings > General > Enable New Sign Ups",
		examine: (patient) => each(patient, judgeSignup),
	},
	{
		...common,
		id: "open-webui.https",
		title: "Tailscale Serve leads to Open WebUI by HTTPS",
		severity: "warn",
		why: "On loopback it is reached from other devices that way alone, and a browser wants a certificate for the microphone and the clipboard.",
		fix: `sudo tailscale serve --bg ${usualPort}`,
		step: "open-webui",
		examine: (patient) => each(patient, judgeHttps),
	},
	{
		...common,
		id: "open-webui.funnel",
		title: "Open WebUI is not on the internet",
		severity: "critical",
		why: "Tailscale Funnel opens its login page to everybody, past every firewall.",
		fix: `sudo tailscale serve --bg ${usualPort}`,
		examine: (patient) => each(patient, judgeFunnel),
	},
	{
		...common,
		id: "open-webui.predecessor",
		title: "The container from before setup stays stopped",
		severity: "high",
		why: "Setup keeps it for undo; with a restart policy it comes back with Docker's next start, as open as it was.",
		fix: "sudo docker update --restart=no open-webui-before-llamagate",
		needsRoot: true,
		examine: judgePredecessors,
	},
	{
		...common,
		id: "open-webui.others",
		title: "There is one Open WebUI",
		severity: "info",
		why: "A second one has accounts and settings of its own, and is easily forgotten.",
		fix: "sudo docker ps",
		examine: (patient) => each(patient, judgeOthers),
	},
];
