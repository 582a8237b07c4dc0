import { type Asked, askGateOn, askWhetherHas } from "../../admin/client.ts";
import { findPlaces } from "../../admin/places.ts";
import { defaultConfigPath } from "../../config/load.ts";
import {
	absent,
	type Outcome,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { readTailscaleAddresses } from "../../net/listener.ts";
import { formatHostPort } from "../../net/ranges.ts";
import { isWildcard } from "../../system/httpProbe.ts";
import { outsideOfLooks } from "../../system/memo.ts";
import { runProgram } from "../../system/run.ts";
import {
	type ListeningSocket,
	listeningSockets,
} from "../../system/sockets.ts";
import { type Properties, parseProperties } from "../../system/units.ts";
import { gatePlace } from "./step.ts";

export const gateService = "llamagate.service";

/** Asks systemd; `undefined` where none answers. */
export async function propertiesOf(
	unit: string,
): Promise<Properties | undefined> {
	const { code, stdout } = await runProgram([
		"systemctl",
		"show",
		"--all",
		"--no-pager",
		unit,
	]);
	return code === 0 ? parseProperties(stdout) : undefined;
}

/** Whether systemd has such a unit. */
export function isLoaded(properties: Properties | undefined): boolean {
	return properties?.get("LoadState") === "loaded";
}

/** The process id of a unit's main process; `undefined` while it has none. */
export function mainPidOf(
	properties: Properties | undefined,
): number | undefined {
	const pid = Number(properties?.get("MainPID"));
	return Number.isInteger(pid) && pid > 0 ? pid : undefined;
}

/** The socket on which the running gate can be asked; `undefined` where its configuration names none. */
function adminSocketOf({ configFile }: Patient): Promise<string | undefined> {
	// A configuration that has been broken since the gate started does not tell where it is.
	return findPlaces(configFile).then(
		({ adminSocket }) => adminSocket,
		() =>
			configFile === defaultConfigPath
				? "/run/llamagate/admin.sock"
				: undefined,
	);
}

/** Whether the running gate has read what is marked so (`NotedRules`); `undefined` where it does not say. */
export async function gateHas(
	patient: Patient,
	mark: string,
): Promise<boolean | undefined> {
	const socket = await adminSocketOf(patient);
	return socket === undefined ? undefined : askWhetherHas(socket, mark);
}

/** Asks the running gate about itself, on the socket that its configuration names. */
export async function askGate(patient: Patient): Promise<Asked> {
	const { configFile } = patient;
	const socket = await adminSocketOf(patient);
	return socket === undefined
		? {
				kind: "denied",
				why: `${configFile} names no admin.socket to ask the gate on`,
			}
		: askGateOn(socket);
}

/** Who the gate's sockets belong to. */
export interface GateOwner {
	/** Of the daemon, where it runs. */
	readonly pids: ReadonlySet<number>;
	/** What systemd opens for it, as `placeOf` writes it. */
	readonly opened: ReadonlySet<string>;
}

/**
 * Lists the sockets that listen, and then asks anew whose the gate's are: one that was
 * opened meanwhile is not taken for somebody else's.
 */
export async function socketsAndOwner(patient: Patient): Promise<{
	readonly sockets: readonly ListeningSocket[];
	readonly gate: GateOwner;
}> {
	const sockets = await listeningSockets();
	return { sockets, gate: await findGateOwner(patient) };
}

async function findGateOwner(patient: Patient): Promise<GateOwner> {
	const [service, socket, asked] = await Promise.all([
		propertiesOf(gateService),
		outsideOfLooks(() => propertiesOf("llamagate.socket")),
		askGate(patient),
	]);
	const pids = [
		isLoaded(service) ? mainPidOf(service) : undefined,
		asked.kind === "status" ? asked.status.pid : undefined,
	].filter((pid) => pid !== undefined);
	return {
		pids: new Set(pids),
		opened: new Set(
			isLoaded(socket) && mayBeOpen(socket)
				? openedBy(socket?.get("Listen") ?? "")
				: [],
		),
	};
}

/** Sockets are open for a while before a unit is active, and after it. */
function mayBeOpen(unit: Properties | undefined): boolean {
	return ["activating", "active", "deactivating"].includes(
		unit?.get("ActiveState") ?? "",
	);
}

/** Reads what `systemctl show` prints as `Listen`: `[::]:11434 (Stream)`. */
function openedBy(listen: string): string[] {
	return [...listen.matchAll(/^\[?(\S+?)\]?:(\d+) \(Stream\)$/gm)].map(
		([, address = "", port]) => placeOf(address, Number(port)),
	);
}

/** systemd writes `[::]` for what the kernel has as `*`, which takes both families. */
function placeOf(address: string, port: number): string {
	return formatHostPort(isWildcard({ address }) ? "*" : address, port);
}

/** Whether the gate holds a socket, or systemd does so for it. */
export function isHeldByGate(
	socket: ListeningSocket,
	gate: GateOwner,
): boolean {
	return socket.pids.some(
		(pid) => gate.pids.has(pid) || (pid === 1 && isOpenedForGate(socket, gate)),
	);
}

/** Whether systemd says that it opens such a socket for the gate. */
export function isOpenedForGate(
	{ address, port }: ListeningSocket,
	gate: GateOwner,
): boolean {
	return gate.opened.has(placeOf(address, port));
}

/** Why the unit cannot be looked at, or `undefined` if it exists. */
export async function noUnit(): Promise<Outcome | undefined> {
	const properties = await propertiesOf(gateService);
	if (properties === undefined) return unknown("systemd does not answer here");
	return isLoaded(properties)
		? undefined
		: absent(`${gateService} does not exist`);
}

/** The interface that the follower follows, its Tailscale addresses and the gate's port. */
export async function followed(): Promise<{
	readonly device: string;
	readonly port: number;
	readonly addresses: readonly string[];
}> {
	const { device, port } = await gatePlace();
	return { device, port, addresses: readTailscaleAddresses(device) };
}
