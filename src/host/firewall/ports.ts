import {
	absent,
	finding,
	type Outcome,
	ok,
	unique,
} from "../../doctor/check.ts";
import { wayIn } from "../../netfilter/evaluate.ts";
import {
	isOpen,
	tailnetPeers,
	tailnet as usualTailnet,
} from "../../netfilter/ufwPackets.ts";
import { formatSocket } from "../../system/sockets.ts";
import { describe, familyName, type Look, listenersOn } from "./facts.ts";
import {
	fixFor,
	isByCommand,
	letTailnetIn,
	peers,
	strangers,
} from "./fixes.ts";

const ollamaPort = 11434;

export const webPorts = [3000, 8080];

export function judgeGatePort(seen: Look): Outcome {
	const { filter, tailnet, gatePort } = seen;
	const open = [...new Set([ollamaPort, gatePort])].flatMap((port) => {
		const endings = strangers(filter, port).flatMap(
			(packets) => wayIn(filter, packets).by,
		);
		const listening = listenersOn(seen, port);
		return endings.length > 0 ? { port, endings, listening } : [];
	});
	if (open.length > 0)
		return finding(
			open.flatMap(({ port, endings, listening }) => [
				...unique(endings.map((ending) => `port ${port} ${describe(ending)}`)),
				...listening.map((socket) => `and ${formatSocket(socket)} listens`),
			]),
			{
				severity: open.some(({ listening }) => listening.length > 0)
					? "critical"
					: "high",
				// Setup knows Ollama's alone, and has no more than UFW's commands.
				...(open.every(
					({ port, endings }) =>
						port === ollamaPort &&
						endings.every(
							(ending) => ending.rule === undefined || isByCommand(ending),
						),
				)
					? {}
					: {
							fix: unique(
								open.map(({ port, endings }) => fixFor(seen, endings, port)),
							).join(" && "),
						}),
			},
		);
	const shut = filter.families.filter(
		(family) =>
			wayIn(filter, peers(tailnet, family, gatePort)).share === "none",
	);
	if (shut.length > 0) {
		// Where UFW allows it already, tailscaled's own rules are what is missing.
		const isAllowed = seen.ufwRules.every(({ kind, rules }) =>
			isOpen(rules, { ...tailnetPeers(kind, gatePort), interfaceIn: tailnet }),
		);
		return finding(
			[
				`${shut.map((family) => familyName[family]).join(" and ")}: the tailnet does not get to the gate, ${tailnet} is shut for port ${gatePort}`,
			],
			{
				severity: "warn",
				...(isAllowed
					? { fix: "sudo systemctl restart tailscaled" }
					: gatePort === ollamaPort && tailnet === usualTailnet
						? {}
						: { fix: letTailnetIn(seen).join(" && ") }),
			},
		);
	}
	return ok(
		`${gatePort} is open on ${tailnet}, ${unique([ollamaPort, gatePort].map(String)).join(" and ")} dropped on ${filter.outside.join(" and ")}, for ${filter.families.map((family) => familyName[family]).join(" and ")}`,
	);
}

export function judgeWebPorts(seen: Look): Outcome {
	const { filter } = seen;
	const ports = webPorts.filter(
		(port) =>
			!seen.sshPorts.includes(port) ||
			listenersOn(seen, port).some((socket) => !seen.sshSockets.has(socket)),
	);
	const open = ports.map((port) => ({
		port,
		endings: strangers(filter, port).flatMap(
			(packets) => wayIn(filter, packets).by,
		),
		listening: listenersOn(seen, port),
	}));
	const bad = open.filter(({ endings }) => endings.length > 0);
	const [first] = bad;
	if (first === undefined)
		return ok(`ports ${ports.join(" and ")} are shut for all but the tailnet`);
	return finding(
		unique(
			bad.flatMap(({ endings, listening, port }) => [
				...endings.map((ending) => `port ${port} ${describe(ending)}`),
				...listening.map((socket) => `and ${formatSocket(socket)} listens`),
			]),
		),
		{
			severity: bad.some(({ listening }) => listening.length > 0)
				? "high"
				: "warn",
			fix: bad
				.map(({ endings, port }) => fixFor(seen, endings, port))
				.filter((fix, index, all) => all.indexOf(fix) === index)
				.join(" && "),
		},
	);
}

export function judgeSsh(seen: Look): Outcome {
	const { filter, sshPorts: ports } = seen;
	if (ports.length === 0) return absent("no sshd runs here");
	const open = ports.map((port) => ({
		port,
		endings: strangers(filter, port).flatMap(
			(packets) => wayIn(filter, packets).by,
		),
	}));
	const endings = open.flatMap((one) => one.endings);
	if (endings.length === 0)
		return ok(`port ${ports.join(" and ")} is open to the tailnet alone`);
	const fixes = open
		.filter((one) => one.endings.length > 0)
		.map((one) => fixFor(seen, one.endings, one.port));
	return finding(unique(endings.map(describe)), {
		fix: `once Tailscale SSH lets you in from another device, with this session still open: ${unique(fixes).join(" && ")}`,
	});
}
