import { isDeepStrictEqual } from "node:util";
import { type Ended, outputOf, runProgram } from "./run.ts";

/** What `docker container inspect` tells of a container, as far as setup looks at it. */
export interface Container {
	readonly Id: string;
	/** With a slash before it. */
	readonly Name: string;
	readonly State: {
		readonly Running: boolean;
		/** Of its first process; 0 while it does not run. */
		readonly Pid?: number;
	};
	readonly NetworkSettings?: {
		readonly Ports?: PortBindings | null;
		/** By the networks' names. */
		readonly Networks?: Readonly<Record<string, Endpoint | null>> | null;
	};
	readonly Config: ImageConfig & {
		readonly Image: string;
	};
	readonly HostConfig: Readonly<Record<string, unknown>> & {
		readonly NetworkMode: string;
		readonly Binds: readonly string[] | null;
		readonly PortBindings: PortBindings | null;
		readonly RestartPolicy: {
			readonly Name: string;
			readonly MaximumRetryCount: number;
		};
		readonly ExtraHosts?: readonly string[] | null;
		readonly DeviceRequests?:
			| readonly {
					readonly Count: number;
					readonly DeviceIDs?: readonly string[] | null;
			  }[]
			| null;
		readonly Mounts?:
			| readonly {
					readonly Type: string;
					readonly Source?: string;
					readonly Target: string;
					readonly ReadOnly?: boolean;
			  }[]
			| null;
		readonly ShmSize?: number;
		readonly Memory?: number;
		readonly Privileged?: boolean;
		readonly CapAdd?: readonly string[] | null;
		readonly CapDrop?: readonly string[] | null;
		readonly SecurityOpt?: readonly string[] | null;
	};
}

/** A container's place in one of Docker's networks. */
interface Endpoint {
	/** Names that it has there besides its own; engines before version 25 put the start of its id among them. */
	readonly Aliases?: readonly string[] | null;
	/** The addresses that a person chose for it. */
	readonly IPAMConfig?: Readonly<Record<string, unknown>> | null;
}

/** `8080/tcp` to where it is published. */
type PortBindings = Readonly<
	Record<
		string,
		readonly { readonly HostIp?: string; readonly HostPort: string }[] | null
	>
>;

/** What an image sets and a container may set otherwise. */
interface ImageConfig {
	readonly Env?: readonly string[] | null;
	readonly Labels?: Readonly<Record<string, string>> | null;
	readonly Hostname?: string;
	readonly User?: string;
	readonly WorkingDir?: string;
	readonly Cmd?: readonly string[] | null;
	readonly Entrypoint?: readonly string[] | null;
}

/** Every container of this host; `undefined` if Docker does not run here. */
export async function containers(): Promise<Container[] | undefined> {
	const ids = await outputOf("docker", "ps", "-a", "-q", "--no-trunc");
	if (ids === undefined) return undefined;
	const list = ids.split("\n").filter(Boolean);
	if (list.length === 0) return [];
	return readContainers(
		await runProgram(["docker", "container", "inspect", ...list]),
	);
}

/**
 * Reads what `docker container inspect` prints. Of a container that has gone since
 * it was listed it says so, ends with a code, and tells of the others all the same.
 */
export function readContainers({
	code,
	stdout,
	stderr,
}: Ended): Container[] | undefined {
	const complaints = stderr.split("\n").filter((line) => line.trim() !== "");
	const haveGone =
		complaints.length > 0 &&
		complaints.every((line) => /no such container/i.test(line));
	return code === 0 || haveGone
		? (JSON.parse(stdout) as Container[])
		: undefined;
}

/** The name without its slash. */
export function nameOf({ Name }: Container): string {
	return Name.replace(/^\//, "");
}

/** A port of a container's, and where it is published on the host. */
export interface PublishedPort {
	/** `8080/tcp` */
	readonly containerPort: string;
	readonly hostAddress: string;
	readonly hostPort: number;
}

/** What a container was told to publish, `0.0.0.0` where it did not say. */
export function publishedPorts({ HostConfig }: Container): PublishedPort[] {
	return readBindings(HostConfig.PortBindings);
}

/** What a running container publishes now; Docker may have chosen the ports itself (`-P`). */
export function openPorts({
	HostConfig,
	NetworkSettings,
}: Container): PublishedPort[] {
	return readBindings(NetworkSettings?.Ports ?? HostConfig.PortBindings);
}

function readBindings(bindings: PortBindings | null): PublishedPort[] {
	return Object.entries(bindings ?? {}).flatMap(([containerPort, places]) =>
		(places ?? []).map(({ HostIp, HostPort }) => ({
			containerPort,
			hostAddress: HostIp === undefined || HostIp === "" ? "0.0.0.0" : HostIp,
			hostPort: Number(HostPort),
		})),
	);
}

/** What kind each of Docker's networks is: `bridge`, `macvlan`; `undefined` if it does not say. */
export async function networkDrivers(): Promise<
	ReadonlyMap<string, string> | undefined
> {
	const output = await outputOf(
		"docker",
		"network",
		"ls",
		"--format",
		"{{.Name}} {{.Driver}}",
	);
	return output === undefined
		? undefined
		: new Map(
				output
					.split("\n")
					.filter(Boolean)
					.map((line) => line.split(" ") as [string, string]),
			);
}

/** The settings of an image, by its name. */
export async function imageConfig(
	image: string,
): Promise<ImageConfig | undefined> {
	const output = await outputOf("docker", "image", "inspect", image);
	if (output === undefined) return undefined;
	return (JSON.parse(output) as { Config: ImageConfig }[])[0]?.Config;
}

/**
 * The `docker run` that makes a container anew as it is, but for its published
 * ports, the variables in `env`, and what `networksOf` tells of networks besides
 * the first. Whether nothing was forgotten is for `differences` to say.
 */
export function runCommand(
	container: Container,
	image: ImageConfig,
	publish: readonly string[],
	env: readonly string[],
): string[] {
	const { Config, HostConfig } = container;
	const options: string[] = [];
	const each = (flag: string, values: readonly string[] | null | undefined) => {
		for (const value of values ?? []) options.push(flag, value);
	};
	const { Name: restart, MaximumRetryCount } = HostConfig.RestartPolicy;
	if (restart !== "" && restart !== "no")
		options.push(
			"--restart",
			restart === "on-failure" && MaximumRetryCount > 0
				? `on-failure:${MaximumRetryCount}`
				: restart,
		);
	each("-p", publish);
	if (!["default", "bridge"].includes(HostConfig.NetworkMode))
		options.push("--network", HostConfig.NetworkMode);
	if (ownHostname(container) !== undefined)
		options.push("--hostname", ownHostname(container) ?? "");
	each("-v", HostConfig.Binds);
	each(
		"--mount",
		HostConfig.Mounts?.map(({ Type, Source, Target, ReadOnly }) =>
			[
				`type=${Type}`,
				...(Source ? [`source=${Source}`] : []),
				`target=${Target}`,
				...(ReadOnly ? ["readonly"] : []),
			].join(","),
		),
	);
	each("--add-host", HostConfig.ExtraHosts);
	for (const { Count, DeviceIDs } of HostConfig.DeviceRequests ?? [])
		options.push(
			"--gpus",
			DeviceIDs?.length
				? `"device=${DeviceIDs.join(",")}"`
				: Count < 0
					? "all"
					: String(Count),
		);
	if (HostConfig.Privileged) options.push("--privileged");
	each("--cap-add", HostConfig.CapAdd);
	each("--cap-drop", HostConfig.CapDrop);
	each("--security-opt", HostConfig.SecurityOpt);
	if (HostConfig.ShmSize && HostConfig.ShmSize !== 64 * 2 ** 20)
		options.push("--shm-size", String(HostConfig.ShmSize));
	if (HostConfig.Memory) options.push("--memory", String(HostConfig.Memory));
	const own = (Config.Env ?? []).filter(
		(entry) =>
			!(image.Env ?? []).includes(entry) &&
			!env.some((other) => other.split("=")[0] === entry.split("=")[0]),
	);
	each("-e", [...own, ...env]);
	each(
		"--label",
		Object.entries(Config.Labels ?? {})
			.filter(([label, value]) => image.Labels?.[label] !== value)
			.map(([label, value]) => `${label}=${value}`),
	);
	if (Config.User && Config.User !== image.User)
		options.push("--user", Config.User);
	if (Config.WorkingDir && Config.WorkingDir !== image.WorkingDir)
		options.push("--workdir", Config.WorkingDir);
	const command = isDeepStrictEqual(Config.Cmd ?? null, image.Cmd ?? null)
		? []
		: (Config.Cmd ?? []);
	return [
		"docker",
		"run",
		"-d",
		"--name",
		nameOf(container),
		...options,
		Config.Image,
		...command,
	];
}

/** The name that a person gave the machine inside; by default it is the start of the id. */
function ownHostname({ Id, Config, HostConfig }: Container) {
	const { Hostname } = Config;
	return HostConfig.NetworkMode === "host" ||
		!Hostname ||
		Id.startsWith(Hostname)
		? undefined
		: Hostname;
}

/**
 * What is not a setting of a container, or is compared elsewhere: where it
 * publishes its ports, what `docker update` was told, and how the terminal was
 * that it was started from (docker/cli, createContainer and runContainer).
 */
const notCompared = [
	"PortBindings",
	"ExposedPorts",
	"RestartPolicy",
	"Hostname",
	"ContainerIDFile",
	"ConsoleSize",
	"AttachStdin",
	"AttachStdout",
	"AttachStderr",
	"StdinOnce",
];

/** What a person chose for a container in each of its networks, by their names: further names, and addresses. */
export function networksOf({ Id, NetworkSettings }: Container): ReadonlyMap<
	string,
	{
		readonly aliases: readonly string[];
		readonly addresses: Readonly<Record<string, unknown>>;
	}
> {
	return new Map(
		Object.entries(NetworkSettings?.Networks ?? {})
			.sort(([one], [other]) => (one < other ? -1 : 1))
			.map(([network, endpoint]) => [
				network,
				{
					aliases: (endpoint?.Aliases ?? [])
						.filter((alias) => !Id.startsWith(alias))
						.sort(),
					addresses: endpoint?.IPAMConfig ?? {},
				},
			]),
	);
}

/** The label of a container that setup made, by which undo knows it. */
export const madeBySetup = "llamagate.setup";

/** Settings that differ between two containers, but for where they publish their ports. */
export function differences(
	a: Container,
	b: Container,
	env: readonly string[],
): string[] {
	const found: string[] = [];
	const nameOfVariable = (entry: string) => entry.split("=")[0];
	const ours = env.map(nameOfVariable);
	const plain = (name: string, value: unknown) => {
		if (value === null || value === undefined || value === "") return undefined;
		if (name === "Env")
			return (value as string[])
				.filter((entry) => !ours.includes(nameOfVariable(entry)))
				.sort();
		if (name === "Labels") {
			const { [madeBySetup]: _, ...labels } = value as Record<string, string>;
			return labels;
		}
		// Newer engines write the one where older ones wrote the other.
		if (name === "NetworkMode" && value === "default") return "bridge";
		return Array.isArray(value) && value.length === 0 ? undefined : value;
	};
	const compare = (where: string, left: object, right: object) => {
		for (const name of new Set([...Object.keys(left), ...Object.keys(right)])) {
			if (notCompared.includes(name)) continue;
			const [one, other] = [left, right].map((side) =>
				plain(name, side[name as never]),
			);
			if (!isDeepStrictEqual(one, other)) found.push(`${where}.${name}`);
		}
	};
	compare("Config", a.Config, b.Config);
	if (ownHostname(a) !== ownHostname(b)) found.push("Config.Hostname");
	compare("HostConfig", a.HostConfig, b.HostConfig);
	// The host's is the only one of a container that is in it, and NetworkMode says so.
	if (
		a.HostConfig.NetworkMode !== "host" &&
		!isDeepStrictEqual(networksOf(a), networksOf(b))
	)
		found.push("NetworkSettings.Networks");
	return found;
}
