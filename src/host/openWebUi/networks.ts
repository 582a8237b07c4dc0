import { type Container, nameOf, networksOf } from "../../system/docker.ts";
import { byHand } from "./standing.ts";

/**
 * Why a container cannot be made anew without losing a network of Docker's, or
 * what it is called there; `undefined` where it loses nothing. `docker run` puts
 * it into one network alone. Where it moves into the host's, it knows no other
 * container by its name any more, and none knows it: that is nothing to one on
 * Docker's own bridge, which has no names.
 *
 * @param anew as it is to be
 */
export function obstacleOfNetworks(
	container: Container,
	anew: Container,
): string | undefined {
	const networks = networksOf(container);
	const name = nameOf(container);
	const moves =
		anew.HostConfig.NetworkMode === "host" &&
		container.HostConfig.NetworkMode !== "host";
	if (moves) {
		const left = [...networks.keys()].filter((other) => other !== "bridge");
		return left.length === 0
			? undefined
			: `the container ${name} is in Docker's network ${left.join(" and ")}, which it would leave for the host's own to reach this host's Ollama on loopback; ${byHand}`;
	}
	const lost = [
		...(networks.size > 1
			? [`in Docker's networks ${[...networks.keys()].join(" and ")}`]
			: []),
		...[...networks].flatMap(([network, { aliases, addresses }]) => [
			...(aliases.length > 0
				? [`called ${aliases.join(" and ")} in ${network}`]
				: []),
			...(Object.keys(addresses).length > 0
				? [`at an address of its own in ${network}`]
				: []),
		]),
	];
	return lost.length === 0
		? undefined
		: `the container ${name} is ${lost.join(", ")}, which setup does not make anew; publish its ports on 127.0.0.1 by hand (-p 127.0.0.1:PORT:PORT), and run this again`;
}
