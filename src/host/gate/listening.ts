import {
	absent,
	finding,
	type Outcome,
	ok,
	type Patient,
} from "../../doctor/check.ts";
import { isTailscaleAddress } from "../../net/ranges.ts";
import { readGuard } from "../../system/guard.ts";
import { formatSocket, isLocalOnly } from "../../system/sockets.ts";
import {
	describeDialer,
	loopbackDialers,
	tunnelFix,
} from "../tailscale/userspace.ts";
import { followed, isHeldByGate, noUnit, socketsAndOwner } from "./inspect.ts";
import { gatePlace } from "./step.ts";

export async function examineListening(patient: Patient): Promise<Outcome> {
	const { sockets, gate } = await socketsAndOwner(patient);
	const own = sockets.filter((socket) => isHeldByGate(socket, gate));
	const around = await waysAround();
	if (
		around.length > 0 &&
		// Sockets stay for a while on addresses that have gone.
		(own.every(isLocalOnly) || (await followed()).addresses.length === 0)
	)
		return finding(
			[
				"no device of the tailnet meets the gate: it has no Tailscale interface to listen on",
				...around,
				...own.map(formatSocket),
			],
			{
				severity: "high",
				fix: `${tunnelFix}, then:\nsudo systemctl restart tailscaled`,
			},
		);
	if (own.length === 0) {
		if (gate.pids.size === 0)
			return (
				(await noUnit()) ??
				finding(["the gate does not run"], {
					severity: "high",
					fix: "sudo llamagate setup --only gate",
				})
			);
		const { device, addresses } = await followed();
		return addresses.length === 0
			? ok(`no TCP socket: ${device} has no Tailscale address now`)
			: finding(
					[`nothing listens on ${device}, which has ${addresses.join(", ")}`],
					{
						severity: "high",
						fix: "sudo systemctl restart llamagate-listen llamagate.socket llamagate",
					},
				);
	}
	const open = own.filter(
		(socket) => !isLocalOnly(socket) && !isTailscaleAddress(socket.address),
	);
	if (open.length > 0)
		return finding(
			open.map(
				(socket) => `${formatSocket(socket)} is not a Tailscale address`,
			),
		);
	const unbound = own.filter(
		(socket) => !isLocalOnly(socket) && socket.device === undefined,
	);
	if (unbound.length > 0)
		return finding(
			unbound.map(
				(socket) =>
					`${formatSocket(socket)} is held to no interface, so a LAN neighbour that routes this address here reaches it`,
			),
			{ severity: "high" },
		);
	if (own.every(isLocalOnly))
		return absent(
			`the gate listens on loopback alone, so no device of the tailnet reaches it: ${own.map(formatSocket).join(", ")}`,
		);
	const { device } = await gatePlace();
	const astray = own.filter(
		(socket) => !isLocalOnly(socket) && socket.device !== device,
	);
	if (astray.length > 0)
		return finding(
			astray.map(
				(socket) =>
					`${formatSocket(socket)} is not held to ${device}, which the follower follows`,
			),
			{ severity: "high" },
		);
	const guard = await readGuard();
	const half = own
		.map((socket) => ({ socket, held: guard.holding(socket) }))
		.find(({ held }) => new Set(held.map(isHeld)).size === 1);
	if (half !== undefined) {
		const there = half.held[0]?.table;
		return finding(
			[
				`of the two tables that hold ${formatSocket(half.socket)} there, only inet ${there} is in force`,
			],
			{
				severity: "warn",
				fix: "sudo systemctl restart llamagate-listen",
			},
		);
	}
	return ok(...own.map(formatSocket));
}

const isHeld = ({ table }: { readonly table: string }) => table !== "llamagate";

/** Every tailscaled that leads its peers to this host's loopback, past the gate. */
export async function waysAround(): Promise<string[]> {
	const { dialers } = await loopbackDialers();
	return dialers
		.filter(({ isElsewhere }) => !isElsewhere)
		.map(
			(dialer) =>
				`${describeDialer(dialer)} and leads them past the gate; see ollama.reachable`,
		);
}
