import { formatHostPort } from "../../net/ranges.ts";
import {
	type Container,
	nameOf,
	openPorts,
	publishedPorts,
} from "../../system/docker.ts";
import { isLocalOnly } from "../../system/sockets.ts";
import { looksForHostsOllama, usualPort, variable } from "./container.ts";

/** How a container of Open WebUI stands, before anything is done to it. */
export type Standing =
	/** It runs, others do not reach it, and it reaches what it needs. */
	| {
			readonly kind: "local";
			readonly container: Container;
			readonly port: number;
	  }
	/** It is to be made anew on loopback; `keepsPort` where it has a port there already. */
	| {
			readonly kind: "to move";
			readonly container: Container;
			/** Of this host, where it is now. */
			readonly port: number;
			readonly keepsPort: boolean;
	  }
	/** Nothing of it is to be reached from this host. */
	| { readonly kind: "hidden"; readonly says: string }
	| { readonly kind: "stopped"; readonly says: string }
	| { readonly kind: "unsafe"; readonly says: string };

/**
 * @param hasOllama whether this host has an Ollama, which is on loopback once
 *   setup is through
 */
export function standingOf(container: Container, hasOllama: boolean): Standing {
	const { HostConfig, State } = container;
	const name = nameOf(container);
	const inside = Number(variable(container, "PORT") ?? usualPort);
	const stopped = {
		kind: "stopped",
		says: `the container ${name} does not run`,
	} as const;
	if (HostConfig.NetworkMode === "host") {
		if (variable(container, "HOST") !== "127.0.0.1")
			return { kind: "to move", container, port: inside, keepsPort: false };
		return State.Running ? { kind: "local", container, port: inside } : stopped;
	}
	const told = publishedPorts(container);
	// Docker may have chosen them itself, and a container that is stopped has none.
	const open = State.Running ? openPorts(container) : told;
	const isMain = ({ containerPort }: { readonly containerPort: string }) =>
		containerPort === `${inside}/tcp`;
	const main = open.find(isMain);
	const wide = open.filter(
		({ hostAddress }) => !isLocalOnly({ address: hostAddress }),
	);
	const missesOllama = hasOllama && looksForHostsOllama(container);
	if (main !== undefined && !told.some(isMain))
		return {
			kind: "unsafe",
			says: `Docker chose itself where it publishes the container ${name} (-P): on ${formatHostPort(main.hostAddress, main.hostPort)}; start it with -p 127.0.0.1:${usualPort}:${inside} instead, and run this again`,
		};
	if (main === undefined && wide.length > 0)
		return {
			kind: "unsafe",
			says: `the container ${name} publishes ${wide.map(({ hostAddress, hostPort, containerPort }) => `${formatHostPort(hostAddress, hostPort)} for its ${containerPort}`).join(", ")}, past UFW, and not ${inside}/tcp, where Open WebUI is; publish that as 127.0.0.1:PORT:PORT, and run this again`,
		};
	if (main === undefined && missesOllama && State.Running)
		return {
			kind: "unsafe",
			says: `the container ${name} publishes no port, and looks for Ollama on this host, which is out of its reach once Ollama is on loopback; ${byHand}`,
		};
	if (main === undefined)
		return State.Running
			? {
					kind: "hidden",
					says: `the container ${name} publishes no port, and what leads to it is yours`,
				}
			: stopped;
	if (open.some(({ hostAddress }) => hostAddress !== "127.0.0.1"))
		return {
			kind: "to move",
			container,
			port: main.hostPort,
			keepsPort: false,
		};
	if (!State.Running) return stopped;
	if (!missesOllama) return { kind: "local", container, port: main.hostPort };
	if (
		open.every(isMain) &&
		["default", "bridge"].includes(HostConfig.NetworkMode)
	)
		return { kind: "to move", container, port: main.hostPort, keepsPort: true };
	return {
		kind: "unsafe",
		says: `the container ${name} ${open.every(isMain) ? `is in Docker's network ${HostConfig.NetworkMode}` : "publishes other ports too"}, from where it does not reach this host's Ollama on loopback; ${byHand}`,
	};
}

/** What is left to the person where it would lose this host's Ollama. */
export const byHand =
	"give it network_mode host, HOST=127.0.0.1 and OLLAMA_BASE_URL=http://127.0.0.1:11434 by hand, or another OLLAMA_BASE_URL if it does not use this Ollama, and run this again";
