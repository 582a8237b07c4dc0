import {
	type Container,
	madeBySetup,
	nameOf,
	publishedPorts,
} from "../../system/docker.ts";

/** Where Open WebUI listens unless it was told otherwise. */
export const usualPort = 8080;
export const oldName = (name: string) => `${name}-before-llamagate`;
export function isOpenWebUi(container: Container): boolean {
	return (
		/(^|\/)open-webui(:|@|$)/.test(container.Config.Image) &&
		!nameOf(container).endsWith(oldName(""))
	);
}

/** A container as it is to be made anew. */
interface Rebound {
	readonly port: number;
	readonly container: Container;
	/** Variables that it gets in place of its own. */
	readonly env: readonly string[];
	readonly publish: readonly string[];
}

export function variable(
	{ Config }: Container,
	name: string,
): string | undefined {
	return Config.Env?.find((entry) => entry.startsWith(`${name}=`))?.slice(
		name.length + 1,
	);
}

/**
 * Whether it looks for Ollama on this host, which is on loopback by now and so
 * out of a container's sight. The image's own default, `/ollama`, means
 * host.docker.internal; an image whose tag says `ollama` brings one along.
 */
export function looksForHostsOllama(container: Container): boolean {
	if (/:[^/]*ollama/.test(container.Config.Image)) return false;
	if (/^false$/i.test(variable(container, "ENABLE_OLLAMA_API") ?? ""))
		return false;
	const url = variable(container, "OLLAMA_BASE_URL") ?? "";
	return ["", "/ollama"].includes(url) || url.includes("host.docker.internal");
}

/** Moves a container to loopback; where it needs the host's Ollama, into the host's network, as Open WebUI's own documentation has it. */
export function rebind(container: Container, port: number): Rebound {
	const { HostConfig } = container;
	const inside = Number(variable(container, "PORT") ?? usualPort);
	if (HostConfig.NetworkMode === "host")
		return { port: inside, container, env: ["HOST=127.0.0.1"], publish: [] };
	const published = publishedPorts(container);
	const others = published.filter(
		({ containerPort }) => containerPort !== `${inside}/tcp`,
	);
	if (!looksForHostsOllama(container) || others.length > 0)
		return {
			port,
			container,
			env: [],
			publish: [
				`127.0.0.1:${port}:${inside}`,
				...others.map(
					({ containerPort, hostPort }) =>
						`127.0.0.1:${hostPort}:${containerPort}`,
				),
			],
		};
	const url = variable(container, "OLLAMA_BASE_URL") ?? "";
	return {
		port,
		container: {
			...container,
			HostConfig: {
				...HostConfig,
				NetworkMode: "host",
				// An address that was saved in its settings goes on leading to Ollama.
				ExtraHosts: [
					...(HostConfig.ExtraHosts ?? []).filter(
						(entry) => !entry.startsWith("host.docker.internal:"),
					),
					"host.docker.internal:127.0.0.1",
				],
			},
		},
		env: [
			"HOST=127.0.0.1",
			`PORT=${port}`,
			...(["", "/ollama"].includes(url)
				? ["OLLAMA_BASE_URL=http://127.0.0.1:11434"]
				: []),
		],
		publish: [],
	};
}

export function withLabel([
	docker = "",
	run = "",
	...rest
]: string[]): string[] {
	return [docker, run, "--label", `${madeBySetup}=1`, ...rest];
}

/** Where Open WebUI's image keeps what it is told. */
export const dataFolder = "/app/backend/data";

/** Whether its accounts outlive it: in a volume, a folder of the host's, or a database elsewhere. */
export function keepsData(container: Container): boolean {
	const { Binds, Mounts } = container.HostConfig;
	const places = [
		...(Binds ?? []).map((bind) => bind.split(":")[1] ?? ""),
		...(Mounts ?? []).map(({ Target }) => Target),
	];
	const folder = variable(container, "DATA_DIR") ?? dataFolder;
	return (
		(variable(container, "DATABASE_URL") ?? "").startsWith("postgres") ||
		places.some((place) =>
			`${folder}/`.startsWith(`${place.replace(/\/$/, "")}/`),
		)
	);
}
