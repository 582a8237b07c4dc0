import { networkInterfaces } from "node:os";
import {
	absent,
	finding,
	type Outcome,
	ok,
	type Patient,
	unique,
	unknown,
} from "../../doctor/check.ts";
import { formatHostPort, isLoopbackAddress } from "../../net/ranges.ts";
import { type Knock, knock } from "../../system/httpProbe.ts";
import { formatSocket, isLocalOnly } from "../../system/sockets.ts";
import {
	describeDialer,
	isUp,
	type LoopbackDialer,
	loopbackDialers,
	tunnelFix,
} from "../tailscale/userspace.ts";
import type { LedPlace } from "./portForwards.ts";
import { lookForOllama } from "./servers.ts";

/** What puts Ollama on loopback. */
export const bind = "sudo llamagate setup --only ollama";

export async function examineListening(patient: Patient): Promise<Outcome> {
	const seen = await lookForOllama(patient);
	const { sockets, led, servers, exposed, ports } = seen;
	const named = ports.map((port) => `port ${port}`).join(" or ");
	const open = sockets.filter((socket) => !isLocalOnly(socket));
	const ways = led.filter(({ isLocal }) => !isLocal);
	const foreign = seen.foreign.map(
		(socket) =>
			`${formatSocket(socket)} is held by ${socket.pids.map((pid) => `process ${pid}`).join(", ")}, which is ${seen.hasUnit ? "not ollama.service" : "no Ollama"}: what is sent there, prompts too, goes to that program`,
	);
	if (open.length > 0 || ways.length > 0 || exposed.length > 0) {
		const isForwarder =
			open.length > 0 &&
			open.every(
				({ programs }) => programs.length > 0 && !programs.includes("ollama"),
			);
		const isDialed =
			exposed.length > 0 || ways.some(({ dialer }) => dialer !== undefined);
		const [first] = open;
		const fixes = unique([
			...(first === undefined
				? []
				: isForwarder
					? [
							`stop that program, or have it take 127.0.0.1 alone (in a container: publish 127.0.0.1:${first.port}:${first.port})`,
						]
					: [bind]),
			...ways.flatMap(({ removal, dialer }) =>
				dialer === undefined && open.length === 0 ? (removal ?? bind) : [],
			),
		]);
		// One that is logged out or stopped leads nobody there yet.
		const isYetToCome =
			open.length === 0 &&
			exposed.length === 0 &&
			ways.every(({ dialer }) => dialer !== undefined && !isUp(dialer));
		return finding(
			[
				...open.map(
					(socket) => `others reach Ollama at ${formatSocket(socket)}`,
				),
				...ways.map(({ says }) => `others reach Ollama: ${says}`),
				...exposed.map((line) => `others reach Ollama: ${line}`),
				...foreign,
			],
			{
				...(isYetToCome ? { severity: "high" } : {}),
				fix: [fixes.join(" && "), ...(isDialed ? [tunnelFix] : [])]
					.filter(Boolean)
					.join("\n"),
			},
		);
	}
	if (foreign.length > 0)
		return finding(foreign, {
			severity: seen.hasUnit ? "high" : "warn",
			fix: `end that program (sudo ss -ltnp sport = :${seen.foreign[0]?.port}), then:\nsudo systemctl restart ollama`,
		});
	const { dialers } = await loopbackDialers();
	if (dialers.some(({ isElsewhere }) => !isElsewhere))
		return unknown(
			...dialers.map(describeDialer),
			"nothing answers as Ollama on 127.0.0.1 now; see ollama.reachable",
		);
	if (!patient.isRoot)
		return unknown(
			`${named} is open on loopback at most; whether a program named ollama has another port, only root can see`,
		);
	const unseen = seen.unseen.map(
		({ pid }) =>
			`process ${pid} is an Ollama in a network of its own (a container); whether others get there is not to be seen here`,
	);
	if (unseen.length > 0 || seen.missed.length > 0)
		return unknown(...unseen, ...seen.missed);
	if (sockets.length === 0 && servers.length === 0)
		return absent(`no program has ${named}, and none is named ollama`);
	return ok(
		...sockets.map(formatSocket),
		...led.map(({ says }) => says),
		...servers
			.filter(({ isElsewhere }) => isElsewhere)
			.map(
				({ pid }) =>
					`process ${pid} is an Ollama in a container that Docker publishes on loopback at most`,
			),
	);
}

/** Every address of this host but loopback's; a link-local one with its link. */
export function otherAddresses(
	interfaces: ReturnType<typeof networkInterfaces>,
): string[] {
	return Object.entries(interfaces).flatMap(([name, addresses = []]) =>
		addresses
			.filter(({ address }) => !isLoopbackAddress(address))
			.map(({ address, family }) =>
				family === "IPv6" && address.startsWith("fe80:")
					? `${address}%${name}`
					: address,
			),
	);
}

export async function examineReachable(patient: Patient): Promise<Outcome> {
	const { sockets, led, exposed, ports, missed } = await lookForOllama(patient);
	const { dialers } = await loopbackDialers();
	const addresses = otherAddresses(networkInterfaces());
	const asked = new Set([
		...ports,
		...sockets
			.filter((socket) => !isLocalOnly(socket))
			.map((open) => open.port),
		...led.flatMap(({ isLocal, entrance, dialer }) =>
			isLocal || dialer !== undefined ? [] : (entrance ?? []),
		),
	]);
	const knocks = await Promise.all(
		addresses.flatMap((address) =>
			[...asked].map(async (at) => ({
				where: formatHostPort(address, at),
				came: await knock(address, at, "/api/version"),
			})),
		),
	);
	const local = withWays(
		judgeKnocks(knocks),
		led.filter(({ isLocal, dialer }) => !isLocal && dialer === undefined),
	);
	const byDialer = judgeDialers(
		dialers.filter(({ isElsewhere }) => !isElsewhere),
		led.flatMap(({ dialer, port }) => (dialer === undefined ? [] : [port])),
		exposed,
	);
	if (byDialer === undefined) {
		if (local.state !== "ok") return local;
		const unseen = patient.isRoot
			? missed
			: [
					...local.evidence,
					"whether a rule leads others to Ollama, only root can see",
					...missed,
				];
		if (unseen.length > 0) return unknown(...unseen);
		return addresses.length === 0
			? ok("this host has no address but loopback's")
			: local;
	}
	if (local.state !== "finding") return byDialer;
	return finding([...byDialer.evidence, ...local.evidence], {
		fix: `${byDialer.fix}\n${local.fix ?? bind}`,
	});
}

/** What answers on the host's own addresses, and what has answered where Docker or a rule leads others. */
function withWays(knocks: Outcome, ways: readonly LedPlace[]): Outcome {
	if (ways.length === 0) return knocks;
	const isOpen = knocks.state === "finding";
	return finding(
		[
			...(isOpen ? knocks.evidence : []),
			...ways.map(({ says }) => `others get an answer from Ollama: ${says}`),
		],
		{
			fix: unique([
				...(isOpen ? [bind] : []),
				...ways.map(({ removal }) => removal ?? bind),
			]).join(" && "),
		},
	);
}

/**
 * What the peers of a tailscaled without a tunnel device get to; `undefined`
 * where there is none.
 *
 * @param dialers those of this network
 * @param ports where Ollama answered when it was dialled as they dial
 * @param exposed what they lead to in other networks
 */
export function judgeDialers(
	dialers: readonly LoopbackDialer[],
	ports: readonly number[],
	exposed: readonly string[],
): Outcome | undefined {
	if (dialers.length === 0 && exposed.length === 0) return undefined;
	const isOpen = ports.length > 0 || exposed.length > 0;
	return finding(
		[
			...unique(
				ports.map(
					(port) =>
						`devices of the tailnet get Ollama without a key: tailscaled passes what they send to port ${port} on to 127.0.0.1:${port}, where Ollama answers`,
				),
			),
			...dialers.map(describeDialer),
			...exposed,
			...(isOpen
				? [
						"what holds off some of them is the tailnet's policy alone: the gate is not on this way, and Ollama's check of the Host header does not protect",
					]
				: [
						"Ollama does not answer on 127.0.0.1 now; where it does, or starts a helper there for a model, peers get to it",
					]),
		],
		{
			fix: `${tunnelFix}, then:\nsudo systemctl restart tailscaled`,
			// Nobody gets through one that is logged out or stopped.
			severity:
				isOpen && (exposed.length > 0 || dialers.some(isUp))
					? "critical"
					: "high",
		},
	);
}

/** What answers without a key on the host's own addresses. */
export function judgeKnocks(
	knocks: readonly { readonly where: string; readonly came: Knock }[],
): Outcome {
	const evidence = knocks.map(({ where, came }) => `${where}: ${says(came)}`);
	const open = knocks.filter(
		({ came }) => came.kind === "answer" && came.status === 200,
	);
	if (open.length > 0)
		return finding(
			open.map(
				({ where, came }) =>
					`${where} answers /api/version without a key: ${says(came)}`,
			),
		);
	const unclear = knocks.filter(
		({ came }) => !["answer", "refused"].includes(came.kind),
	);
	if (unclear.length > 0)
		return unknown(
			...unclear.map(
				({ where, came }) =>
					`${where}: ${says(came)}${came.kind === "nameless" ? "" : ", so a firewall may stand between this host and itself"}`,
			),
		);
	return ok(...evidence);
}

export function says(came: Knock): string {
	switch (came.kind) {
		case "refused":
			return "nothing listens";
		case "silent":
			return "no answer in 3 s";
		case "nameless":
			return "TLS that answers to those alone who know its name";
		case "failed":
			return `the call failed (${came.code})`;
		case "answer": {
			const version = readVersion(came.body);
			return version === undefined
				? `answered ${came.status}`
				: `answered ${came.status} as Ollama ${version}`;
		}
	}
}

export function readVersion(body: string): string | undefined {
	try {
		const { version } = JSON.parse(body) as { version?: unknown };
		return typeof version === "string" && /^[\w.+-]{1,64}$/.test(version)
			? version
			: undefined;
	} catch {
		return undefined;
	}
}
