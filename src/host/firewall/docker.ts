import { networkInterfaces } from "node:os";
import {
	absent,
	finding,
	type Outcome,
	ok,
	unique,
	unknown,
} from "../../doctor/check.ts";
import {
	type Address,
	formatHostPort,
	parseAddress,
} from "../../net/ranges.ts";
import { translations } from "../../netfilter/evaluate.ts";
import type { Severity } from "../../report/result.ts";
import {
	type Container,
	containers,
	nameOf,
	openPorts,
	type PublishedPort,
} from "../../system/docker.ts";
import type { KernelFilter } from "../../system/kernelFilter.ts";
import { unguardedService } from "../../system/knownServices.ts";
import type { Look } from "./facts.ts";
import { strangers } from "./fixes.ts";
import { severityOf, worst } from "./listeners.ts";

export async function judgeDocker({ filter }: Look): Promise<Outcome> {
	const own = new Set(
		Object.values(networkInterfaces())
			.flat()
			.flatMap((entry) => entry?.address ?? []),
	);
	const isOwn = (address: Address) =>
		own.has(address.toString()) || address.range() === "loopback";
	return judgePublished(filter, await containers(), isOwn);
}

/** A port that a container that runs is published on. */
interface Published extends PublishedPort {
	readonly name: string;
	/** `tcp`, `udp` or `sctp`. */
	readonly protocol: string;
}

/** Docker tells of a port on all addresses once for each family. */
function publishedBy(container: Container): Published[] {
	const ports = openPorts(container);
	return ports
		.filter(
			({ hostAddress, hostPort, containerPort }) =>
				hostAddress !== "::" ||
				!ports.some(
					(other) =>
						other.hostAddress === "0.0.0.0" &&
						other.hostPort === hostPort &&
						other.containerPort === containerPort,
				),
		)
		.map((port) => ({
			...port,
			name: nameOf(container),
			protocol: port.containerPort.split("/")[1] ?? "tcp",
		}));
}

/**
 * What leads around UFW to containers, or elsewhere.
 *
 * @param all every container; `undefined` where Docker does not run
 * @param isOwn whether an address is this host's
 */
export function judgePublished(
	filter: KernelFilter,
	all: readonly Container[] | undefined,
	isOwn: (address: Address) => boolean,
): Outcome {
	const published = (all ?? [])
		.filter(({ State }) => State.Running)
		.flatMap(publishedBy);
	const led = (["tcp", "udp"] as const)
		.flatMap((protocol) => strangers(filter, undefined, protocol))
		.flatMap((packets) => translations(filter, packets, isOwn));
	const open = led.filter(({ share }) => share !== "none");
	const isLed = ({ hostPort, protocol }: Published) =>
		led.some(
			({ packets }) =>
				packets.port === hostPort && packets.protocol === protocol,
		);
	const lines: string[] = [];
	const severities: Severity[] = [];
	const fixes: string[] = [];
	for (const { ending, packets, to, port } of open) {
		const where =
			to === undefined
				? "this host"
				: to === "unknown"
					? "where the rule looks it up"
					: to.toString();
		const container = published.find(
			({ hostPort, containerPort, protocol }) =>
				hostPort === packets.port &&
				protocol === packets.protocol &&
				Number.parseInt(containerPort, 10) === port,
		);
		const leads = `leads ahead of UFW to ${port === undefined ? where : formatHostPort(where, port)}${container === undefined ? "" : `, the container ${container.name}`}: ${ending.rule?.text ?? ""}`;
		const sent = `on ${packets.interfaceIn}: port ${packets.port ?? "any"}`;
		const address = packets.to;
		if (address?.range() === "loopback") {
			lines.push(
				`${sent} of ${address} ${leads}`,
				`a neighbour on the same link reaches it by sending there what is for ${address}`,
			);
			severities.push("warn");
			fixes.push(
				`upgrade Docker: since version 28 it drops what others send to ${address}`,
			);
			continue;
		}
		lines.push(`${sent} ${leads}`);
		severities.push(
			severityOf(
				unguardedService(port ?? 0) ?? unguardedService(packets.port ?? 0),
				"warn",
			),
		);
		fixes.push(
			container === undefined
				? (ending.rule?.removal ?? "")
				: publishLocally(container),
		);
	}
	for (const container of published) {
		const { hostAddress, hostPort, name } = container;
		const isLocal = parseAddress(hostAddress)?.range() === "loopback";
		if (isLocal || isLed(container)) continue;
		lines.push(
			`the container ${name} is published on ${formatHostPort(hostAddress, hostPort)}; no rule of Docker's leads there at the moment, and with one it goes ahead of UFW`,
		);
		severities.push("warn");
		fixes.push(publishLocally(container));
	}
	if (lines.length > 0)
		return finding(unique(lines), {
			severity: worst(severities),
			fix: unique(fixes).join(" && "),
		});
	if (filter.unread.length > 0) return unknown(...filter.unread);
	if (all === undefined && led.length === 0)
		return absent("Docker does not run here, and no rule translates addresses");
	return ok(
		led.length > 0
			? `${unique(led.map(({ packets }) => String(packets.port ?? "any"))).length} ports are translated, and what comes from outside for them is dropped`
			: "no container is published on more than loopback",
	);
}

function publishLocally({ name, hostPort, containerPort }: Published): string {
	return /open-?webui/.test(name)
		? "sudo llamagate setup --only open-webui"
		: `make the container ${name} anew with -p 127.0.0.1:${hostPort}:${containerPort.replace("/tcp", "")}`;
}
