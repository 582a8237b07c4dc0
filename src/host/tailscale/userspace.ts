import { readdir, readFile, readlink } from "node:fs/promises";
import { askedOnce } from "../../system/memo.ts";
import { networkOf, processesNamed } from "../../system/processes.ts";
import type { TailscaleStatus } from "../../tailscale/localApi.ts";
import { createWhois } from "../../tailscale/whois.ts";
import { visible } from "../../visible.ts";

const usualSocket = "/run/tailscale/tailscaled.sock";
/** Anybody may name a program so; a host has one, and now and then a second in a container. */
const mostAsked = 32;

/**
 * A tailscaled without a tunnel device (userspace networking). It ends the
 * connections of peers itself and dials 127.0.0.1 for them, at the port that
 * they called, whichever address of the host they called it at
 * (wgengine/netstack/netstack.go:acceptTCP). What listens there for this host
 * alone is open to every peer that the tailnet's policy lets through.
 */
export interface LoopbackDialer {
	/** `undefined` where its process is not to be seen, as without root. */
	readonly pid: number | undefined;
	/** The network that it dials in, as the kernel names it; `undefined` for this one where that is not to be seen. */
	readonly network: string | undefined;
	/** Not in the network of this program, as in a container. */
	readonly isElsewhere: boolean;
	/** `tailscaled (process 812)`. */
	readonly name: string;
	/** ipn.State, where it said so. Only in `Running` does it have peers. */
	readonly state: string | undefined;
}

interface Dialers {
	readonly dialers: readonly LoopbackDialer[];
	/** Why a tailscaled here may be one more. */
	readonly unclear: readonly string[];
}

/** Every tailscaled here that dials loopback for its peers; looked for once in a look at the host. */
export function loopbackDialers(): Promise<Dialers> {
	return askedOnce(loopbackDialers, lookForDialers);
}

async function lookForDialers(): Promise<Dialers> {
	const own = await networkOf("self");
	const all = await processesNamed("tailscaled");
	const hidden: number[] = [];
	const found = await Promise.all(
		all.slice(0, mostAsked).map(async (pid): Promise<LoopbackDialer[]> => {
			const network = await networkOf(pid);
			if (network === undefined) {
				hidden.push(pid);
				return [];
			}
			const status = await statusOf(`/proc/${pid}/root${await socketOf(pid)}`);
			const isUserspace = status?.userspace ?? (await holdsNoTunnel(pid));
			if (!isUserspace) return [];
			return [
				{
					pid,
					network,
					isElsewhere: network !== own,
					name: `tailscaled (process ${pid})`,
					state: status?.backendState,
				},
			];
		}),
	);
	const dialers = found.flat();
	const status = await statusOf(usualSocket);
	if (status?.userspace && !dialers.some(({ isElsewhere }) => !isElsewhere))
		dialers.push({
			pid: undefined,
			network: own,
			isElsewhere: false,
			name: "tailscaled",
			state: status.backendState,
		});
	// The one that answers at the usual place is one of those that are hidden.
	const isClear = hidden.length <= (status === undefined ? 0 : 1);
	return {
		dialers,
		unclear: [
			...(isClear
				? []
				: [
						`only root can see whether tailscaled (${hidden.map((pid) => `process ${pid}`).join(", ")}) has a tunnel device`,
					]),
			...(all.length > mostAsked
				? [
						`${all.length} processes are named tailscaled, and ${mostAsked} of them were looked at`,
					]
				: []),
		],
	};
}

async function statusOf(socket: string): Promise<TailscaleStatus | undefined> {
	const answer = await createWhois({ socket, timeoutMs: 5_000 }).status();
	return answer.kind === "status" ? answer.status : undefined;
}

/** Where a tailscaled has its LocalAPI, as its command line says (`--socket`). */
async function socketOf(pid: number): Promise<string> {
	const text = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
	const words = text.split("\0");
	for (const [index, word] of words.entries()) {
		const [, value] = /^--?socket(?:=(.*))?$/s.exec(word) ?? [];
		const given = value ?? (/^--?socket$/.test(word) ? words[index + 1] : "");
		// What begins at the root begins at the process's own, whose /var/run is a link.
		if (given?.startsWith("/")) return given.replace(/^\/var\/run\//, "/run/");
	}
	return usualSocket;
}

/** Whether a tailscaled that does not say so has no tunnel device open; false where that cannot be seen. */
async function holdsNoTunnel(pid: number): Promise<boolean> {
	const folder = `/proc/${pid}/fd`;
	const files = await readdir(folder).catch(() => undefined);
	if (files === undefined) return false;
	const open = await Promise.all(
		files.map((file) => readlink(`${folder}/${file}`).catch(() => "")),
	);
	return !open.some((file) => /^\/dev\/(?:net\/)?tun$/.test(file));
}

/** What to do about one, as a person is told. */
export const tunnelFix =
	"give that tailscaled a tunnel device: take --tun=userspace-networking out of FLAGS in /etc/default/tailscaled (in a container: TS_USERSPACE=false, /dev/net/tun and CAP_NET_ADMIN)";

/** Whether it has peers now; where it did not say, it may. */
export function isUp({ state }: LoopbackDialer): boolean {
	return state === undefined || state === "Running";
}

/** What it does, in one line. */
export function describeDialer(dialer: LoopbackDialer): string {
	const { name, state } = dialer;
	return `${name} has no tunnel device (userspace networking) and dials 127.0.0.1 for its peers${isUp(dialer) ? "" : ` as soon as it is up (it is in state ${visible(state ?? "")})`}`;
}
