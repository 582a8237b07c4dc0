import { readSmallJson } from "../../net/smallReply.ts";
import {
	absent,
	type CommandAction,
	done,
	type Proof,
	type Step,
	todo,
	unsafe,
} from "../../setup/step.ts";
import {
	containers,
	differences,
	imageConfig,
	madeBySetup,
	nameOf,
	publishedPorts,
	runCommand,
} from "../../system/docker.ts";
import { hasProgram } from "../../system/run.ts";
import {
	formatSocket,
	isLocalOnly,
	listeningSockets,
} from "../../system/sockets.ts";
import { lookUpUnit } from "../../system/units.ts";
import { becomesTrue } from "../../system/waiting.ts";
import { servedPorts } from "../../tailscale/serveConfig.ts";
import {
	dataFolder,
	isOpenWebUi,
	keepsData,
	looksForHostsOllama,
	oldName,
	rebind,
	usualPort,
	withLabel,
} from "./container.ts";
import { obstacleOfNetworks } from "./networks.ts";
import { entranceTo, leadsToPort, planServe } from "./serve.ts";
import { type Standing, standingOf } from "./standing.ts";

export const ports = [3000, usualPort];
/** Its first start makes a database and loads a model for embeddings. */
const startMs = 120_000;

/** Open WebUI on loopback, and to the tailnet by HTTPS. */
export function openWebUi(): Step {
	/** Where it will be once the plan has been carried out. */
	let port = usualPort;
	let found = false;
	let serves = false;
	return {
		id: "open-webui",
		title: "Open WebUI by HTTPS, for the tailnet alone",
		why: "A port that Docker publishes goes past UFW; on loopback only Tailscale Serve reaches it, with a real certificate.",
		async inspect() {
			const actions: CommandAction[] = [];
			const notes: string[] = [];
			const all = await containers();
			const candidates = all?.filter(isOpenWebUi) ?? [];
			const container =
				candidates.find(({ State }) => State.Running) ?? candidates[0];
			const others = (all ?? []).filter((other) => other !== container);
			const bypassing = others.flatMap((other) =>
				!other.State.Running
					? []
					: publishedPorts(other)
							.filter(
								({ hostAddress }) => !isLocalOnly({ address: hostAddress }),
							)
							.map(
								({ hostAddress, hostPort }) =>
									`${nameOf(other)} on ${hostAddress}:${hostPort}`,
							),
			);
			if (bypassing.length > 0)
				notes.push(
					`Docker publishes ports ahead of UFW, so the LAN (and the internet, where no router is in between) reaches ${bypassing.join(", ")} whatever UFW says. Publish them as 127.0.0.1:PORT:PORT if that is not meant.`,
				);
			const standing = container
				? standingOf(container, await hasOllamaHere())
				: ({ kind: "none", says: "found no Open WebUI here" } as const);
			if (standing.kind === "unsafe") return unsafe(standing.says, notes);
			if (standing.kind === "hidden") return absent(standing.says, notes);
			if (standing.kind === "local") ({ port } = standing);
			else if (standing.kind === "to move") {
				const planned = await planMove(standing);
				if ("unsafe" in planned) return unsafe(planned.unsafe, notes);
				({ port } = planned);
				actions.push(...planned.actions);
				notes.push(...planned.notes);
			} else {
				const program = await lookForProgram();
				if (program === undefined) return absent(standing.says, notes);
				if ("unsafe" in program) return unsafe(program.unsafe, notes);
				({ port } = program);
			}
			const name = "container" in standing && nameOf(standing.container);
			const served = await planServe(port);
			// Whatever else comes to listen there would be served to the tailnet.
			if (
				"actions" in served &&
				served.actions.length > 0 &&
				actions.length === 0 &&
				!(await isHealthy(port))
			)
				return unsafe(
					`Open WebUI does not answer on 127.0.0.1:${port}, so it is not served yet; once it does, run this again${name ? ` (see: docker logs ${name})` : ""}`,
					notes,
				);
			found = true;
			notes.push(
				"The first account that is made in Open WebUI is its administrator: make yours now, and turn sign-up off in its settings.",
			);

			if ("note" in served) notes.push(served.note);
			else {
				serves = true;
				actions.push(...served.actions);
			}
			if (actions.length === 0)
				return done(
					`it is on 127.0.0.1:${port}${serves ? ", and served to the tailnet by HTTPS" : ""}`,
					notes,
				);
			return todo(
				name
					? `it runs in the container ${name}`
					: `it is on 127.0.0.1:${port}, and not served yet`,
				actions,
				notes,
			);
		},
		async prove() {
			if (!found) return [];
			const proofs: Proof[] = [];
			const open = (await listeningSockets()).filter(
				(socket) => ports.includes(socket.port) && !isLocalOnly(socket),
			);
			proofs.push({
				ok: open.length === 0,
				says:
					open.length === 0
						? `ports ${ports.join(" and ")} are open to nobody but this host`
						: `still open: ${open.map(formatSocket).join(", ")}`,
				advice: "find out which program that is, and bind it to 127.0.0.1",
			});
			const all = (await containers()) ?? [];
			const now = all.find(isOpenWebUi);
			const before = all.find(
				(other) => now !== undefined && nameOf(other) === oldName(nameOf(now)),
			);
			if (now !== undefined && before !== undefined) {
				const { container, env } = rebind(before, port);
				const forgotten = differences(container, now, env);
				proofs.push({
					ok: forgotten.length === 0,
					says:
						forgotten.length === 0
							? "the container has all the settings that it had, but for where it listens"
							: `the new container differs from the old one in ${forgotten.join(", ")}`,
					advice: `make it by hand with -p 127.0.0.1:${port}:8080`,
				});
			}
			const healthy = await becomesTrue(() => isHealthy(port), startMs);
			proofs.push({
				ok: healthy,
				says: healthy
					? `Open WebUI answers on 127.0.0.1:${port}`
					: `Open WebUI does not answer on 127.0.0.1:${port}`,
				advice: "see: docker logs open-webui",
			});
			if (serves) {
				const served = (await servedPorts()) ?? [];
				const entrance = entranceTo(served, port);
				const funnelled = served.some(({ funnel }) => funnel);
				proofs.push({
					ok: entrance !== undefined && !funnelled,
					says: funnelled
						? "Tailscale Funnel publishes a port of this host to the internet"
						: entrance
							? `Tailscale Serve leads ${entrance.where.replace(":443/", "/")} to 127.0.0.1:${port}`
							: "Tailscale Serve has no HTTPS for Open WebUI",
					advice: funnelled
						? "tailscale funnel reset"
						: "see: tailscale serve status",
				});
			}
			return proofs;
		},
	};
}

async function isHealthy(port: number): Promise<boolean> {
	try {
		const reply = await fetch(`http://127.0.0.1:${port}/health`, {
			signal: AbortSignal.timeout(3_000),
		});
		const body = (await readSmallJson(reply)) as { status?: boolean };
		return reply.ok && body.status === true;
	} catch {
		return false;
	}
}

// What takes a change back finds nothing left to do where an undo that was cut off has
// done it. A plain "docker inspect" would find a volume of that name, and there mostly is one.

/** Undo comes days later: by then the name may be another container's, and the old one pruned. */
const removeOwn = `docker container inspect "$1" >/dev/null || {
	echo "$1 is gone: $0 stays" >&2
	exit 1
}
now=$(docker container inspect "$0" 2>/dev/null) || exit 0
echo "$now" | grep -q '"${madeBySetup}"' || {
	echo "$0 is not the container that setup made: it stays" >&2
	exit 1
}
docker rm -f "$0"`;

/** The old one is open: where it does not come back, it is not to start by itself either. */
const restartWhereNameIsFree = `if docker container inspect "$0" >/dev/null 2>&1; then
	echo "the name $0 is taken: $2 stays as it is" >&2
	exit 1
fi
docker update "--restart=$1" "$2"`;

const renameBack = `docker container inspect "$1" 2>/dev/null | grep -qF "\\"$2\\"" ||
	docker rename "$0" "$1"`;

/** Open WebUI without a container, by how it answers. */
async function lookForProgram(): Promise<
	{ port: number } | { unsafe: string } | undefined
> {
	const open = (await listeningSockets()).filter((socket) =>
		ports.includes(socket.port),
	);
	const reachable = open.filter((socket) => !isLocalOnly(socket));
	if (reachable.length > 0)
		return {
			unsafe: `${reachable.map(formatSocket).join(", ")} is open to the LAN and the tailnet; if that is Open WebUI, start it with HOST=127.0.0.1 (open-webui serve --host 127.0.0.1) and run this again`,
		};
	const local = open.find(isLocalOnly);
	return local && (await isHealthy(local.port)) ? local : undefined;
}

/** Whether this host has an Ollama of its own. */
async function hasOllamaHere(): Promise<boolean> {
	return (
		(await lookUpUnit("ollama.service"))?.exists === true ||
		(await listeningSockets()).some(
			(socket) =>
				socket.programs.includes("ollama") ||
				(socket.port === 11434 && isLocalOnly(socket)),
		)
	);
}

/** Whether Tailscale leads to a port of this host's; where it does not say, it may. */
async function mayBeServed(port: number): Promise<boolean> {
	if (!(await hasProgram("tailscale"))) return false;
	const served = await servedPorts();
	return served?.some((one) => leadsToPort(one, port)) ?? true;
}

/** The container made anew on loopback, its predecessor kept for undo. */
async function planMove({
	container,
	port,
	keepsPort,
}: Standing & { kind: "to move" }): Promise<
	| { unsafe: string }
	| { port: number; actions: CommandAction[]; notes: string[] }
> {
	const { Config, HostConfig } = container;
	const name = nameOf(container);
	const onHost = HostConfig.NetworkMode === "host";
	if (Config.Labels?.["com.docker.compose.project"] !== undefined)
		return {
			unsafe: `the container ${name} is Docker Compose's (${Config.Labels["com.docker.compose.project.config_files"] ?? "its file"}); there, take its "ports" out and give it network_mode: host with HOST: 127.0.0.1 and OLLAMA_BASE_URL: http://127.0.0.1:11434, run docker compose up -d, and run this again`,
		};
	if (!container.State.Running)
		return {
			unsafe: `the container ${name} does not run; start it, and run this again`,
		};
	if (!keepsData(container))
		return {
			unsafe: `the container ${name} keeps its accounts and chats inside itself, without a volume at ${dataFolder}: one made anew would begin empty, and anyone who opens it first would be its administrator; copy the data out (docker cp ${name}:${dataFolder} .), start it with -v open-webui:${dataFolder} -p 127.0.0.1:8080:8080, and run this again`,
		};
	const image = await imageConfig(Config.Image);
	if (image === undefined)
		return {
			unsafe: `the image ${Config.Image} of the container ${name} is gone, so it could not be made anew; pull it, and run this again`,
		};
	const taken = (await listeningSockets()).some(
		(socket) => socket.port === usualPort && port !== usualPort,
	);
	// What leads to a port on loopback, such as Tailscale Serve, goes on leading to it.
	const stays = keepsPort || taken || (await mayBeServed(port));
	const rebound = rebind(container, stays ? port : usualPort);
	const obstacle = obstacleOfNetworks(container, rebound.container);
	if (obstacle !== undefined) return { unsafe: obstacle };
	const restart = HostConfig.RestartPolicy.Name || "no";
	const old = oldName(name);
	const notes: string[] = [];
	if (rebound.container !== container)
		notes.push(
			`${name} moves into the host's own network, bound to 127.0.0.1: from Docker's bridge it would no longer reach Ollama, which is on loopback.`,
		);
	else if (!onHost && looksForHostsOllama(container))
		notes.push(
			`${name} publishes other ports too and stays on Docker's bridge, from where it no longer reaches Ollama on loopback; give it network_mode host and HOST=127.0.0.1 by hand.`,
		);
	return {
		port: rebound.port,
		notes,
		actions: [
			{
				kind: "command",
				command: ["docker", "stop", name],
				undo: [["docker", "start", name]],
			},
			{
				kind: "command",
				command: ["docker", "rename", name, old],
				undo: [["sh", "-c", renameBack, old, name, container.Id]],
			},
			{
				// One that is stopped comes back with Docker's own restart, open as it was.
				kind: "command",
				command: ["docker", "update", "--restart=no", old],
				undo: [["sh", "-c", restartWhereNameIsFree, name, restart, old]],
			},
			{
				kind: "command",
				command: withLabel(
					runCommand(rebound.container, image, rebound.publish, rebound.env),
				),
				undo: [["sh", "-c", removeOwn, name, old]],
			},
		],
	};
}
