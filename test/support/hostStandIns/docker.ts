import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import {
	answerCommands,
	type Command,
	type Ending,
	failure,
} from "./answerCommands.ts";
import {
	type Container,
	commands,
	type DockerState,
	type Image,
	type PortBinding,
	readState,
	type Volume,
	writeState,
} from "./dockerState.ts";

/**
 * What a host that is booted for a test has as Docker's engine, which answers
 * all of `docker`: the calls that llamagate makes or advises, with the syntax
 * and the output of Docker 29. There are no containers; where one would listen,
 * a program listens that answers as Open WebUI does (openWebUi.ts).
 */
class Failure extends Error {
	readonly exitCode: number;
	constructor(message: string, exitCode = 1) {
		super(message);
		this.exitCode = exitCode;
	}
}

/** What the command that is carried out works with: there is one at a time. */
let state = readState();
let environment: Command["environment"] = {};
/** What it has printed. */
let said = "";

function say(line: string): void {
	said += `${line}\n`;
}

async function answer(command: Command): Promise<Ending> {
	// It may have been changed by hand.
	state = readState();
	environment = command.environment;
	said = "";
	const [name = "", ...rest] = command.args;
	try {
		await run(name, rest);
		return { code: 0, stdout: said, stderr: "" };
	} catch (error) {
		if (!(error instanceof Failure)) throw error;
		return { ...failure(error.exitCode, error.message), stdout: said };
	}
}

async function run(command: string, args: string[]): Promise<void> {
	switch (command) {
		case "--version":
			return say("Docker version 29.0.1, build 1a2b3c4");
		case "version":
			return say(
				args.includes("--format") || args.includes("-f")
					? "29.0.1"
					: "Client: Docker Engine - Community\n Version:           29.0.1\n\nServer: Docker Engine - Community\n Engine:\n  Version:          29.0.1",
			);
		case "container":
			if (args[0] === "inspect")
				return inspect(args.slice(1), state.containers, "container");
			return run(args[0] === "ls" ? "ps" : (args[0] ?? ""), args.slice(1));
		case "ps":
			return list(args);
		case "image":
			if (args[0] === "inspect")
				return inspect(args.slice(1), state.images, "image");
			break;
		case "network":
			if (args[0] === "ls") return listNetworks(args.slice(1));
			break;
		case "inspect":
			// Whatever has that name.
			return inspect(
				args,
				[...state.containers, ...state.images, ...state.volumes],
				"object",
			);
		case "pull":
			imageNamed(args.at(-1) ?? "");
			return say(args.at(-1) ?? "");
		case "create":
		case "run":
			return start(args, command === "run");
		case "start":
			for (const name of args) await startContainer(containerNamed(name));
			return done(args);
		case "stop":
		case "kill":
			for (const name of names(args)) stopContainer(containerNamed(name));
			return done(names(args));
		case "restart":
			for (const name of names(args)) {
				stopContainer(containerNamed(name));
				await startContainer(containerNamed(name));
			}
			return done(names(args));
		case "rename": {
			const [from = "", to = ""] = args;
			const container = containerNamed(from);
			refuseTakenName(to);
			container.Name = `/${to}`;
			return writeState(state);
		}
		case "rm":
			for (const name of names(args)) remove(name, args);
			return done(names(args));
		case "update": {
			const policy = args.find((arg) => arg.startsWith("--restart="));
			for (const name of names(args))
				containerNamed(name).HostConfig.RestartPolicy = restartPolicy(
					policy?.slice("--restart=".length) ?? "no",
				);
			return done(names(args));
		}
	}
	throw new Failure(
		`docker: unknown command: docker ${command}\n\nRun 'docker --help' for more information`,
	);
}

function done(names: string[]): void {
	writeState(state);
	for (const name of names) say(name);
}

/** Arguments that are no flags; `-t 10` of `stop` has a value. */
function names(args: string[]): string[] {
	return args.filter(
		(arg, index) =>
			!arg.startsWith("-") &&
			!["-t", "--time", "-s", "--signal"].includes(args[index - 1] ?? ""),
	);
}

function find<T extends Container | Image | Volume>(
	all: T[],
	name: string,
): T | undefined {
	return all.find(
		(one) =>
			("Name" in one &&
				one.Name === ("Mountpoint" in one ? name : `/${name}`)) ||
			("RepoTags" in one &&
				(one.RepoTags as string[]).some(
					(tag) => tag === name || tag === `${name}:latest`,
				)) ||
			("Id" in one &&
				name.length >= 4 &&
				(one as Container | Image).Id.replace(/^sha256:/, "").startsWith(
					name.replace(/^sha256:/, ""),
				)),
	);
}

function containerNamed(name: string): Container {
	const container = find(state.containers, name);
	if (container === undefined)
		throw new Failure(`Error response from daemon: No such container: ${name}`);
	return container;
}

function imageNamed(name: string): Image {
	const image = find(state.images, name);
	if (image === undefined)
		throw new Failure(
			`Unable to find image '${name}' locally\ndocker: Error response from daemon: pull access denied for ${name}, repository does not exist or may require 'docker login'`,
			125,
		);
	return image;
}

function refuseTakenName(name: string): void {
	const taken = find(state.containers, name);
	if (taken?.Name === `/${name}`)
		throw new Failure(
			`docker: Error response from daemon: Conflict. The container name "/${name}" is already in use by container "${taken.Id}". You have to remove (or rename) that container to be able to reuse that name.\n\nRun 'docker run --help' for more information`,
			125,
		);
}

/** A template that names one field (`{{.Id}}`, `{{json .Config.Env}}`), or all of it. */
function format(template: string, value: unknown): string {
	return template.replace(
		/\{\{\s*(json\s+)?\.([\w.]*)\s*\}\}/g,
		(_, json: string | undefined, fields: string) => {
			const found = fields
				.split(".")
				.filter((name) => name !== "")
				.reduce<unknown>(
					(from, name) => (from as Record<string, unknown> | null)?.[name],
					value,
				);
			return json === undefined
				? String(found ?? "<no value>")
				: JSON.stringify(found ?? null);
		},
	);
}

function formatIn(args: string[]): string | undefined {
	const index = args.findIndex((arg) => /^(--format|-f)$/.test(arg));
	if (index !== -1) return args.splice(index, 2)[1];
	const joined = args.findIndex((arg) => /^(--format|-f)=/.test(arg));
	return joined === -1
		? undefined
		: args.splice(joined, 1)[0]?.replace(/^[^=]*=/, "");
}

function inspect(
	args: string[],
	among: (Container | Image | Volume)[],
	kind: "container" | "image" | "object",
): void {
	const template = formatIn(args);
	const wanted = args.filter((arg) => !arg.startsWith("--"));
	const found: unknown[] = [];
	const missing: string[] = [];
	for (const name of wanted) {
		const one = find(among, name);
		if (one === undefined) missing.push(name);
		else found.push(one);
	}
	if (template === undefined) say(JSON.stringify(found, undefined, 4));
	else for (const one of found) say(format(template, one));
	if (missing.length > 0)
		throw new Failure(
			missing.map((name) => `Error: No such ${kind}: ${name}`).join("\n"),
		);
}

function list(args: string[]): void {
	const template = formatIn(args);
	const all = args.some((arg) => arg === "--all" || /^-\w*a/.test(arg));
	const quiet = args.some((arg) => arg === "--quiet" || /^-\w*q/.test(arg));
	if (template === undefined && !quiet)
		say("CONTAINER ID   IMAGE   COMMAND   CREATED   STATUS   PORTS   NAMES");
	for (const container of state.containers) {
		const { Id, Config, State, HostConfig } = container;
		if (!all && !State.Running) continue;
		const id = args.includes("--no-trunc") ? Id : Id.slice(0, 12);
		const row = {
			Command: '"bash start.sh"',
			CreatedAt: container.Created.replace("T", " ").replace(
				/\..*/,
				" +0000 UTC",
			),
			ID: id,
			Image: Config.Image,
			Labels: Object.entries(Config.Labels)
				.map(([name, value]) => `${name}=${value}`)
				.join(","),
			LocalVolumes: String((HostConfig.Binds ?? []).length),
			Mounts: (HostConfig.Binds ?? [])
				.map((bind) => bind.split(":")[0])
				.join(","),
			Names: container.Name.slice(1),
			Networks: HostConfig.NetworkMode,
			Ports: State.Running ? portsText(container) : "",
			RunningFor: "2 minutes ago",
			Size: "0B",
			State: State.Status,
			Status: State.Running
				? "Up 2 minutes (healthy)"
				: "Exited (0) 1 minute ago",
		};
		if (quiet) say(id);
		else if (template === undefined)
			say(
				[
					id,
					row.Image,
					row.Command,
					row.RunningFor,
					row.Status,
					row.Ports,
					row.Names,
				].join("   "),
			);
		else say(format(template, row));
	}
}

/** Those that Docker makes itself; a container may name another. */
function listNetworks(args: string[]): void {
	const template = formatIn(args) ?? "{{.Name}} {{.Driver}}";
	for (const [Name, Driver] of [
		["bridge", "bridge"],
		["host", "host"],
		["none", "null"],
	])
		say(format(template, { Name, Driver }));
}

function portsText({ NetworkSettings, Config }: Container): string {
	const texts = Object.entries(NetworkSettings.Ports).flatMap(
		([inside, bindings]) =>
			(bindings ?? []).map(({ HostIp, HostPort }) => {
				const host = HostIp.includes(":") ? `[${HostIp}]` : HostIp;
				return `${host}:${HostPort}->${inside}`;
			}),
	);
	return texts.length > 0
		? texts.join(", ")
		: Object.keys((Config.ExposedPorts ?? {}) as object).join(", ");
}

function addVolume(name: string): void {
	if (state.volumes.some(({ Name }) => Name === name)) return;
	state.volumes.push({
		Name: name,
		Driver: "local",
		Mountpoint: `/var/lib/docker/volumes/${name}/_data`,
		Scope: "local",
	});
}

/** `docker run` and `docker create`. */
async function start(args: string[], runs: boolean): Promise<void> {
	const container = parseRun(args);
	const name = container.Name.slice(1);
	refuseTakenName(name);
	state.containers.unshift(container);
	for (const { Type, Name } of container.Mounts as ReturnType<typeof mountOf>[])
		if (Type === "volume" && Name !== undefined) addVolume(Name);
	writeState(state);
	if (runs) await startContainer(container, true);
	writeState(state);
	say(container.Id);
}

/** Flags of `docker run` that have a value, by the name that they are kept under. */
const valued: Record<string, string> = {
	"-p": "publish",
	"--publish": "publish",
	"-v": "volume",
	"--volume": "volume",
	"--mount": "mount",
	"-e": "env",
	"--env": "env",
	"--name": "name",
	"--restart": "restart",
	"--network": "network",
	"--net": "network",
	"--add-host": "add-host",
	"--gpus": "gpus",
	"-l": "label",
	"--label": "label",
	"-h": "hostname",
	"--hostname": "hostname",
	"-u": "user",
	"--user": "user",
	"-w": "workdir",
	"--workdir": "workdir",
	"--entrypoint": "entrypoint",
	"-m": "memory",
	"--memory": "memory",
	"--cap-add": "cap-add",
	"--cap-drop": "cap-drop",
	"--security-opt": "security-opt",
	"--device": "device",
	"--log-driver": "log-driver",
	"--log-opt": "log-opt",
	"--pull": "pull",
};

function parseRun(args: string[]): Container {
	const given: Record<string, string[]> = {};
	let index = 0;
	let isPrivileged = false;
	for (; index < args.length; index += 1) {
		const arg = args[index] ?? "";
		if (!arg.startsWith("-")) break;
		const [, flag = arg, joined] = /^(--[\w-]+)=(.*)$/s.exec(arg) ?? [];
		const kept = valued[flag] ?? valued[arg.slice(0, 2)];
		if (arg === "--privileged") isPrivileged = true;
		else if (
			["-d", "--detach", "-i", "-t", "-it", "-dit", "--init", "--rm"].includes(
				arg,
			)
		)
			continue;
		else if (
			valued[flag] === undefined &&
			(arg.startsWith("--") || kept === undefined)
		)
			throw new Failure(
				`unknown flag: ${flag}\n\nRun 'docker run --help' for more information`,
				125,
			);
		else {
			// -p3000:8080 is good, too.
			const glued = valued[flag] === undefined ? arg.slice(2) : joined;
			const value = glued ?? args[++index] ?? "";
			given[kept ?? ""] = [...(given[kept ?? ""] ?? []), value];
		}
	}
	const [imageName = "", ...cmd] = args.slice(index);
	if (imageName === "")
		throw new Failure("docker: 'docker run' requires at least 1 argument", 125);
	const image = imageNamed(imageName);
	const id = randomBytes(32).toString("hex");
	const one = (name: string, otherwise: string) =>
		given[name]?.at(-1) ?? otherwise;
	const env = new Map(
		[...(given.env ?? []).map(fromEnvironment), ...image.Config.Env].map(
			(line) => [line.split("=")[0] ?? "", line],
		),
	);
	// What was given stands first, and in the place of the image's own.
	for (const line of (given.env ?? []).map(fromEnvironment))
		env.set(line.split("=")[0] ?? "", line);
	const network = one("network", "bridge");
	const bindings: Record<string, PortBinding[]> = {};
	for (const text of given.publish ?? []) {
		const { inside, binding } = parsePublished(text);
		bindings[inside] = [...(bindings[inside] ?? []), binding];
	}
	const volumes = given.volume ?? [];
	const mounts = (given.mount ?? []).map(parseMount);
	const now = new Date().toISOString().replace("Z", "000000Z");
	return {
		Id: id,
		Created: now,
		Path: image.Config.Cmd[0] ?? "",
		Args: image.Config.Cmd.slice(1),
		State: {
			Status: "created",
			Running: false,
			Paused: false,
			Restarting: false,
			OOMKilled: false,
			Dead: false,
			Pid: 0,
			ExitCode: 0,
			Error: "",
			StartedAt: "0001-01-01T00:00:00Z",
			FinishedAt: "0001-01-01T00:00:00Z",
		},
		Image: image.Id,
		Name: `/${one("name", `eager_${id.slice(0, 6)}`)}`,
		RestartCount: 0,
		Driver: "overlay2",
		Platform: "linux",
		MountLabel: "",
		ProcessLabel: "",
		AppArmorProfile: "docker-default",
		ExecIDs: null,
		HostConfig: {
			Binds: volumes.length > 0 ? volumes : null,
			ContainerIDFile: "",
			LogConfig: {
				Type: one("log-driver", "json-file"),
				Config: Object.fromEntries(
					(given["log-opt"] ?? []).map((text) =>
						text.split(/=(.*)/s).slice(0, 2),
					),
				),
			},
			NetworkMode: network,
			PortBindings: bindings,
			RestartPolicy: restartPolicy(one("restart", "no")),
			AutoRemove: args.includes("--rm"),
			VolumeDriver: "",
			VolumesFrom: null,
			ConsoleSize: [0, 0],
			CapAdd: given["cap-add"] ?? null,
			CapDrop: given["cap-drop"] ?? null,
			CgroupnsMode: "private",
			Dns: [],
			DnsOptions: [],
			DnsSearch: [],
			ExtraHosts: given["add-host"] ?? null,
			GroupAdd: null,
			IpcMode: "private",
			Cgroup: "",
			Links: null,
			OomScoreAdj: 0,
			PidMode: "",
			Privileged: isPrivileged,
			PublishAllPorts: false,
			ReadonlyRootfs: false,
			SecurityOpt: given["security-opt"] ?? null,
			UTSMode: "",
			UsernsMode: "",
			ShmSize: 67_108_864,
			Runtime: "runc",
			Memory: 0,
			NanoCpus: 0,
			Devices: [],
			DeviceRequests:
				given.gpus === undefined ? null : given.gpus.map(parseGpus),
			Mounts: mounts.length > 0 ? mounts : undefined,
			Init: args.includes("--init") || undefined,
		},
		Mounts: [
			...volumes.map(mountOfBind),
			...mounts.map(({ Type, Source, Target, ReadOnly }) =>
				mountOf(Type, Source, Target, ReadOnly ? "ro" : "z"),
			),
		],
		Config: {
			Hostname: one("hostname", id.slice(0, 12)),
			Domainname: "",
			User: one("user", ""),
			AttachStdin: false,
			AttachStdout: false,
			AttachStderr: false,
			ExposedPorts: {
				...image.Config.ExposedPorts,
				...Object.fromEntries(
					Object.keys(bindings).map((inside) => [inside, {}]),
				),
			},
			Tty: false,
			OpenStdin: false,
			StdinOnce: false,
			Env: [...env.values()],
			Cmd: cmd.length > 0 ? cmd : image.Config.Cmd,
			Image: imageName,
			Volumes: null,
			WorkingDir: one("workdir", String(image.Config.WorkingDir ?? "")),
			Entrypoint: given.entrypoint ?? null,
			OnBuild: null,
			Labels: {
				...image.Config.Labels,
				...Object.fromEntries(
					(given.label ?? []).map((text) => [
						text.split("=")[0],
						text.split(/=(.*)/s)[1] ?? "",
					]),
				),
			},
		},
		NetworkSettings: {
			Bridge: "",
			SandboxID: "",
			SandboxKey: "",
			Ports: {},
			Networks: {
				[network]: {
					IPAMConfig: null,
					Links: null,
					Aliases: null,
					DriverOpts: null,
					NetworkID: "",
					EndpointID: "",
					Gateway: "",
					IPAddress: "",
					IPPrefixLen: 0,
					MacAddress: "",
				},
			},
		},
	};
}

/** `-e NAME` takes the value that the variable has here. */
function fromEnvironment(text: string): string {
	return text.includes("=") ? text : `${text}=${environment[text] ?? ""}`;
}

function restartPolicy(text: string) {
	const [Name = "no", count = "0"] = text.split(":");
	return { Name, MaximumRetryCount: Number(count) };
}

/** `[[IP:]PORT:]PORT[/PROTOCOL]` */
function parsePublished(text: string): {
	inside: string;
	binding: PortBinding;
} {
	const [, v6, v4, outside = "", inside = "", protocol = "tcp"] =
		/^(?:(?:\[([^\]]+)\]:|([\d.]+):)?(\d*):)?(\d+)(?:\/(\w+))?$/.exec(text) ??
		[];
	if (inside === "")
		throw new Failure(`docker: invalid publish opts format (${text})`, 125);
	return {
		inside: `${inside}/${protocol}`,
		binding: { HostIp: v6 ?? v4 ?? "", HostPort: outside },
	};
}

/** `--mount type=volume,source=open-webui,target=/app/backend/data` */
function parseMount(text: string) {
	const fields = Object.fromEntries(
		text.split(",").map((field) => field.split(/=(.*)/s).slice(0, 2)),
	) as Record<string, string>;
	return {
		Type: fields.type ?? "volume",
		Source: fields.source ?? fields.src ?? "",
		Target: fields.target ?? fields.dst ?? fields.destination ?? "",
		ReadOnly: "readonly" in fields || "ro" in fields,
	};
}

function mountOfBind(bind: string) {
	const [source = "", target = "", mode = "z"] = bind.split(":");
	return mountOf(
		source.startsWith("/") ? "bind" : "volume",
		source,
		target,
		mode,
	);
}

function mountOf(type: string, source: string, target: string, mode: string) {
	return type === "volume"
		? {
				Type: type,
				Name: source,
				Source: `/var/lib/docker/volumes/${source}/_data`,
				Destination: target,
				Driver: "local",
				Mode: mode,
				RW: mode !== "ro",
				Propagation: "",
			}
		: {
				Type: type,
				Source: source,
				Destination: target,
				Mode: mode === "z" ? "" : mode,
				RW: mode !== "ro",
				Propagation: "rprivate",
			};
}

function parseGpus(text: string) {
	return {
		Driver: "",
		Count: text === "all" ? -1 : Number(text) || 0,
		DeviceIDs: null,
		Capabilities: [["gpu"]],
		Options: {},
	};
}

/** Has something listen where the container would. */
async function startContainer(
	container: Container,
	isNew = false,
): Promise<void> {
	if (container.State.Running) return;
	const { PortBindings, NetworkMode } = container.HostConfig;
	const env = Object.fromEntries(
		container.Config.Env.map((line) => line.split(/=(.*)/s).slice(0, 2)),
	) as Record<string, string>;
	const ports: Record<string, PortBinding[] | null> = Object.fromEntries(
		Object.keys((container.Config.ExposedPorts ?? {}) as object).map(
			(inside) => [inside, null],
		),
	);
	const places: { host: string; port: number }[] = [];
	if (NetworkMode === "host")
		// As its start.sh has it.
		places.push({
			host: env.HOST ?? "0.0.0.0",
			port: Number(env.PORT ?? 8080),
		});
	else
		for (const [inside, bindings] of Object.entries(PortBindings))
			ports[inside] = bindings.flatMap(({ HostIp, HostPort }) => {
				const port = Number(HostPort) || 32_768;
				const hosts = HostIp === "" ? ["0.0.0.0", "::"] : [HostIp];
				places.push({ host: HostIp === "" ? "::" : HostIp, port });
				return hosts.map((host) => ({ HostIp: host, HostPort: String(port) }));
			});
	for (const { host, port } of places) {
		if (await canListen(host, port)) continue;
		throw new Failure(
			`${isNew ? "docker: " : ""}Error response from daemon: failed to set up container networking: driver failed programming external connectivity on endpoint ${container.Name.slice(1)} (${container.Id}): failed to bind host port ${host === "::" ? "0.0.0.0" : host}:${port}/tcp: address already in use`,
			isNew ? 125 : 1,
		);
	}
	if (places.length > 0)
		execFileSync("systemd-run", [
			...["--quiet", "--collect", `--unit=${unitOf(container)}`],
			...container.Config.Env.map((line) => `--setenv=${line}`),
			process.execPath,
			path.join(import.meta.dirname, "openWebUi.mjs"),
			JSON.stringify(places),
		]);
	// Docker's own proxy listens before the command has ended.
	for (const place of places) while (!(await answers(place))) await delay(20);
	container.NetworkSettings.Ports = ports;
	Object.assign(container.State, {
		Status: "running",
		Running: true,
		Pid: 4242,
		StartedAt: new Date().toISOString(),
	});
}

async function canListen(host: string, port: number): Promise<boolean> {
	const server = createServer();
	server.listen(port, host);
	try {
		await once(server, "listening");
		return true;
	} catch {
		return false;
	} finally {
		server.close();
	}
}

/** Looks without taking the port from the program that is about to listen on it. */
async function answers({
	host,
	port,
}: {
	host: string;
	port: number;
}): Promise<boolean> {
	const socket = connect(
		port,
		{ "0.0.0.0": "127.0.0.1", "::": "::1" }[host] ?? host,
	);
	try {
		await once(socket, "connect");
		return true;
	} catch {
		return false;
	} finally {
		socket.destroy();
	}
}

function unitOf({ Id }: Container): string {
	return `docker-stand-in-${Id.slice(0, 12)}.service`;
}

function stopContainer(container: Container): void {
	if (!container.State.Running) return;
	try {
		execFileSync("systemctl", ["stop", unitOf(container)], { stdio: "ignore" });
	} catch {
		// It had ended by itself.
	}
	container.NetworkSettings.Ports = {};
	Object.assign(container.State, {
		Status: "exited",
		Running: false,
		Pid: 0,
		FinishedAt: new Date().toISOString(),
	});
}

function remove(name: string, args: string[]): void {
	const container = containerNamed(name);
	const isForced = args.includes("-f") || args.includes("--force");
	if (container.State.Running && !isForced)
		throw new Failure(
			`Error response from daemon: cannot remove container "${container.Name.slice(1)}": container is running: stop the container before removing or force remove`,
		);
	stopContainer(container);
	state.containers = (state satisfies DockerState).containers.filter(
		(one) => one !== container,
	);
}

/** What the engine does when the host boots. */
async function bringBackContainers(): Promise<void> {
	for (const container of state.containers) {
		const { Name } = container.HostConfig.RestartPolicy;
		const isWanted =
			Name === "always" ||
			(Name === "unless-stopped" && container.State.Running);
		container.State.Running = false;
		container.State.Status = "exited";
		if (isWanted)
			await startContainer(container).catch(({ message }: Error) =>
				console.error(message),
			);
	}
	writeState(state);
}

// Last, when everything above is there.
await bringBackContainers();
await answerCommands(commands, answer);
execFileSync("systemd-notify", ["--ready"]);
