import { lookup } from "node:dns/promises";
import { lstat, readdir, stat } from "node:fs/promises";
import {
	type BridgeEnd,
	bridgeName,
	bridgeSocket,
	bridgesVariable,
	isBridgeName,
} from "../../config/bridges.ts";
import type { Settings } from "../../config/load.ts";
import { formatState } from "../../config/state.ts";
import { formatUpstream } from "../../config/upstreams.ts";
import {
	formatHostPort,
	isLoopbackAddress,
	isTailscaleAddress,
	parseAddress,
} from "../../net/ranges.ts";
import { takeSnapshot } from "../../setup/snapshot.ts";
import { lookUpUnits, type Properties } from "../../system/units.ts";

const unitFolder = "/etc/systemd/system";
/** A resolver that hangs must not hang setup. */
const lookupMs = 5_000;

/** A bridge that the configuration asks for. */
export interface WantedBridge extends BridgeEnd {
	readonly name: string;
	/** What it is for, for people. */
	readonly whose: string;
	/** Whether it may leave both this machine and the tailnet: what goes there is encrypted, and the other end proves who it is. */
	readonly isEncrypted: boolean;
}

/** The bridges that a gate without a network needs, in the order of the configuration. */
export function wantedBridges({
	upstream,
	hosts,
	state,
}: Pick<Settings, "upstream" | "hosts" | "state">): readonly WantedBridge[] {
	const all = [
		...(hosts ?? [{ name: "Ollama", target: upstream.target }]).map(
			({ name, target }) => ({
				target,
				whose: `${name} (${formatUpstream(target)})`,
				isEncrypted: false,
			}),
		),
		...(state === undefined
			? []
			: [
					{
						target: state.target,
						whose: `Valkey (${formatState(state.target)})`,
						isEncrypted: state.target.kind === "tcp" && state.target.tls,
					},
				]),
	];
	const byName = new Map<string, WantedBridge>();
	for (const { target, whose, isEncrypted } of all) {
		if (target.kind === "unix") continue;
		const { host, port } = target;
		const name = bridgeName(target);
		if (!byName.has(name))
			byName.set(name, { host, port, name, whose, isEncrypted });
	}
	return [...byName.values()];
}

/** Where a bridge is to lead, or why it can lead nowhere. */
export type Found =
	| { readonly kind: "address"; readonly address: string }
	/** A name that nothing is known of now, which may change. */
	| { readonly kind: "not found"; readonly why: string }
	| { readonly kind: "refused"; readonly why: string };

/** How a name is looked up. */
export type Resolve = (name: string) => Promise<readonly string[]>;

const systemsWay: Resolve = async (name) =>
	(await lookup(name, { all: true })).map(({ address }) => address);

/** Finds the address that a bridge leads to, as the gate would with a network. */
export async function findAddress(
	{ host, name, whose, isEncrypted }: WantedBridge,
	resolve = systemsWay,
): Promise<Found> {
	if (!isBridgeName(name))
		return {
			kind: "refused",
			why: `${whose}: the name is too long for a socket, or has signs that a unit's cannot have; write that host's address in the configuration`,
		};
	let addresses: readonly string[];
	if (parseAddress(host) !== undefined) addresses = [host];
	else {
		try {
			addresses = await inTime(resolve(host));
		} catch (error) {
			const { code = "no answer" } = error as NodeJS.ErrnoException;
			return {
				kind: "not found",
				why: `${whose}: the name ${host} is not found (${code}); start Tailscale and look with: getent hosts ${host}`,
			};
		}
	}
	const elsewhere = isEncrypted
		? undefined
		: addresses.find(
				(address) =>
					!isTailscaleAddress(address) &&
					!(address === host && isLoopbackAddress(address)),
			);
	if (elsewhere !== undefined)
		return {
			kind: "refused",
			why: `${whose}: ${host === elsewhere ? "it" : `the name leads to ${elsewhere}, which`} is neither on this machine nor on the tailnet (100.64.0.0/10, fd7a:115c:a1e0::/48), where all that goes there could be read; use that host's name or address in the tailnet${whose.startsWith("Valkey") ? ", or valkeys://" : ""}`,
		};
	const odd = addresses.find((one) => parseAddress(one) === undefined);
	if (odd !== undefined)
		return {
			kind: "refused",
			why: `${whose}: the name leads to ${odd}, an address that no bridge can lead to; write that host's address in the configuration`,
		};
	const address =
		addresses.find((one) => !one.includes(":")) ?? addresses[0] ?? "";
	return address === ""
		? { kind: "not found", why: `${whose}: the name ${host} has no address` }
		: { kind: "address", address };
}

async function inTime(
	looking: Promise<readonly string[]>,
): Promise<readonly string[]> {
	let timer: NodeJS.Timeout | undefined;
	const late = new Promise<never>((_, reject) => {
		timer = setTimeout(
			() => reject(new Error("the resolver does not answer")),
			lookupMs,
		);
	});
	return Promise.race([looking, late]).finally(() => clearTimeout(timer));
}

export function socketUnit(name: string): string {
	return `llamagate-bridge@${name}.socket`;
}

export function serviceUnit(name: string): string {
	return `llamagate-bridge@${name}.service`;
}

/** The folder of what setup writes for a bridge. */
export function dropInFolder(name: string, folder = unitFolder): string {
	return `${folder}/${serviceUnit(name)}.d`;
}

/** Says where a bridge leads. */
export function dropInFile(name: string, folder = unitFolder): string {
	return `${dropInFolder(name, folder)}/llamagate.conf`;
}

export function dropInOf(
	{ whose, port }: WantedBridge,
	address: string,
): string {
	return `# Written by "llamagate setup" for ${whose.replaceAll(/[^\x20-\x7e]/g, "?")}. It goes by config.json: change that, and run setup again.
[Service]
Environment=ADDRESS=${formatHostPort(address, port)}
IPAddressAllow=${address}
`;
}

/** A bridge as it is on this host. */
export interface MadeBridge {
	readonly name: string;
	/** What setup has written for it; `undefined` where there is nothing. */
	readonly dropIn: string | undefined;
	readonly isEnabled: boolean;
	readonly isActive: boolean;
	/** Where it leads by what systemd has in force; empty where that is nowhere. */
	readonly address: string;
	/** Of its two units, by whoever else has written them. */
	readonly foreignDropIns: readonly string[];
	readonly service: Properties;
}

/**
 * The names of all bridges that were made here, whether anything needs them. What
 * somebody else has written for one's units makes none.
 */
export async function madeBridgeNames(
	folder = unitFolder,
): Promise<readonly string[]> {
	const [folders, wants] = await Promise.all([
		namesIn(folder, /^llamagate-bridge@(.+)\.service\.d$/),
		namesIn(
			`${folder}/sockets.target.wants`,
			/^llamagate-bridge@(.+)\.socket$/,
		),
	]);
	const written = await Promise.all(
		folders.map(
			async (name) =>
				(await takeSnapshot(dropInFile(name, folder))).snapshot.kind !==
				"nothing",
		),
	);
	const own = folders.filter((_, index) => written[index]);
	return [...new Set([...own, ...wants])].sort();
}

async function namesIn(folder: string, pattern: RegExp): Promise<string[]> {
	const entries = await readdir(folder).catch(
		({ code }: NodeJS.ErrnoException) => {
			if (code === "ENOENT") return [];
			throw new Error(`${folder} cannot be read (${code})`);
		},
	);
	return entries.flatMap((entry) => pattern.exec(entry)?.[1] ?? []);
}

/** Looks at bridges; `undefined` where systemd does not answer. */
export async function lookAtBridges(
	names: readonly string[],
): Promise<readonly MadeBridge[] | undefined> {
	if (names.length === 0) return [];
	const units = await lookUpUnits(
		names.flatMap((name) => [socketUnit(name), serviceUnit(name)]),
		"IPAddressAllow",
		"IPAddressDeny",
	);
	return (
		units &&
		Promise.all(
			names.map(async (name, index) => {
				const socket = units[index * 2];
				const service = units[index * 2 + 1];
				const { content } = await takeSnapshot(dropInFile(name));
				return {
					name,
					dropIn: content?.toString("utf8"),
					isEnabled: socket?.isEnabled === true,
					isActive: socket?.isActive === true,
					address: service?.environment.get("ADDRESS") ?? "",
					foreignDropIns: [
						...(socket?.dropIns ?? []),
						...(service?.dropIns ?? []),
					].filter((file) => file !== dropInFile(name)),
					service: service?.properties ?? new Map(),
				};
			}),
		)
	);
}

/** Which of these others than root may change. What root does by them would be theirs to say. */
export async function changeableByOthers(
	...files: readonly string[]
): Promise<readonly string[]> {
	const looks = await Promise.all(
		files.map(async (file) => {
			const { uid, mode } = await stat(file);
			return uid !== 0 || (mode & 0o022) !== 0 ? [file] : [];
		}),
	);
	return looks.flat();
}

/**
 * Whether a gate's unit is one of somebody's own, with a network and no word of
 * bridges: the gate dials by itself there, and needs none.
 *
 * @param unit what systemd has of it
 */
export function hasOwnNetwork(unit: Properties | undefined): boolean {
	return (
		unit?.get("LoadState") === "loaded" &&
		unit.get("PrivateNetwork") === "no" &&
		unit.get("Environment")?.includes(`${bridgesVariable}=`) !== true
	);
}

/** Who may open a bridge's socket, besides root; what is wrong with that, or `undefined`. */
export async function socketTrouble(
	end: BridgeEnd,
	group: number | undefined,
): Promise<string | undefined> {
	const file = bridgeSocket(end);
	const stats = await lstat(file).catch(() => undefined);
	if (stats === undefined) return `found no socket ${file}`;
	if (!stats.isSocket()) return `${file} is not a socket`;
	const mode = stats.mode & 0o777;
	return stats.uid === 0 && stats.gid === group && (mode & 0o007) === 0
		? undefined
		: `others than the gate may open ${file}: owner ${stats.uid}, group ${stats.gid}, mode ${mode.toString(8)}`;
}
