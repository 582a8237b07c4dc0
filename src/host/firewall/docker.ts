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
import { containers, nameOf, publishedPorts } from "../../system/docker.ts";
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
	const all = await containers();
	const running = (all ?? []).filter(({ State }) => State.Running);
	const published = running.flatMap((container) =>
		publishedPorts(container).map((port) => ({
			...port,
			name: nameOf(container),
		})),
	);
	const led = (["tcp", "udp"] as const)
		.flatMap((protocol) => strangers(filter, undefined, protocol))
		.flatMap((packets) => translations(filter, packets, isOwn));
	const open = led.filter(({ share }) => share !== "none");
	const isLed = (hostPort: number) =>
		led.some(({ packets }) => packets.port === hostPort);
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
			({ hostPort, containerPort }) =>
				hostPort === packets.port &&
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
		if (isLocal || isLed(hostPort)) continue;
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

function publishLocally({
	name,
	hostPort,
	containerPort,
}: {
	name: string;
	hostPort: number;
	containerPort: string;
}): string {
	return /open-?webui/.test(name)
		? "sudo llamagate setup --only open-webui"
		: `make the container ${name} anew with -p 127.0.0.1:${hostPort}:${containerPort.replace("/tcp", "")}`;
}
