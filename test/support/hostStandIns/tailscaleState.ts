import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import {
	loggedOutStatus,
	type NodeOptions,
	runningStatus,
	type Status,
	type WhoIsResponse,
	whoIsNode,
} from "../localApi.ts";

/** What the stand-ins for tailscaled and tailscale know. Tests may write it; it outlives a reboot. */
export interface TailscaleState {
	/** This host's own, IPv4 first. */
	addresses: string[];
	loggedIn: boolean;
	/** The other devices of the tailnet. */
	peers: (NodeOptions & { addresses: string[] })[];
	prefs: Prefs;
	/** Nil until the first `serve`, and empty after a `serve reset`. */
	serve: ServeConfig | null;
	/** A key and its certificates in PEM, by name. */
	certs?: Record<string, string>;
	/** What LocalAPI's status is to say instead, of the host and of its node. */
	status?: Status;
	self?: Status;
}

/** ipn/prefs.go:Prefs, as far as somebody looks at it. */
export interface Prefs {
	WantRunning: boolean;
	LoggedOut: boolean;
	RunSSH: boolean;
	ShieldsUp: boolean;
	Hostname: string;
	AdvertiseTags: string[] | null;
	/** 0 off, 1 nodivert, 2 on. */
	NetfilterMode: 0 | 1 | 2;
	[name: string]: unknown;
}

/** ipn/serve.go:ServeConfig */
export interface ServeConfig {
	TCP?: Record<string, Record<string, unknown>>;
	Web?: Record<string, { Handlers: Record<string, Record<string, unknown>> }>;
	AllowFunnel?: Record<string, boolean>;
	Foreground?: Record<string, ServeConfig>;
	Services?: Record<string, unknown>;
}

/** Where it is, in the host. */
export const stateFile = "/var/lib/tailscale-stand-in/state.json";

/** Where tailscaled answers commands. */
export const commands = "/run/tailscale/commands.sock";

export const initialState: TailscaleState = {
	addresses: ["100.101.102.104", "fd7a:115c:a1e0::104"],
	loggedIn: true,
	peers: [
		{
			name: "laptop",
			addresses: ["100.101.102.105", "fd7a:115c:a1e0::105"],
		},
	],
	prefs: {
		ControlURL: "https://controlplane.tailscale.com",
		RouteAll: false,
		ExitNodeID: "",
		ExitNodeIP: "",
		InternalExitNodePrior: "",
		ExitNodeAllowLANAccess: false,
		CorpDNS: true,
		RunSSH: false,
		RunWebClient: false,
		WantRunning: true,
		LoggedOut: false,
		ShieldsUp: false,
		AdvertiseTags: null,
		Hostname: "",
		NotepadURLs: false,
		AdvertiseRoutes: null,
		AdvertiseServices: null,
		NoSNAT: false,
		NoStatefulFiltering: true,
		NetfilterMode: 2,
		AutoUpdate: { Check: true, Apply: null },
		AppConnector: { Advertise: false },
		PostureChecking: false,
		NetfilterKind: "",
		DriveShares: null,
		Config: null,
	},
	serve: null,
};

export function readState(file = stateFile): TailscaleState {
	return JSON.parse(readFileSync(file, "utf8")) as TailscaleState;
}

export function writeState(state: TailscaleState, file = stateFile): void {
	mkdirSync(path.dirname(file), { recursive: true });
	writeFileSync(`${file}.new`, JSON.stringify(state, undefined, "\t"));
	renameSync(`${file}.new`, file);
}

/** What LocalAPI says of this host, and of the others if asked. */
export function statusOf(
	{ addresses, loggedIn, peers, prefs, ...other }: TailscaleState,
	withPeers = false,
): Status {
	if (!loggedIn) return loggedOutStatus();
	const status = runningStatus();
	const self = status.Self as Record<string, unknown>;
	const tags = prefs.AdvertiseTags ?? [];
	return {
		...status,
		BackendState: prefs.WantRunning ? "Running" : "Stopped",
		TailscaleIPs: addresses,
		Self: {
			...self,
			...(prefs.Hostname === "" ? undefined : { HostName: prefs.Hostname }),
			...(tags.length === 0 ? undefined : { Tags: tags }),
			TailscaleIPs: addresses,
			// Half a year, whenever this runs.
			KeyExpiry: new Date(Date.now() + 182 * 86_400_000).toISOString(),
			...other.self,
		},
		...other.status,
		Peer: withPeers
			? Object.fromEntries(peers.map((peer) => peerOf(self, peer)))
			: null,
	};
}

/** ipn/ipnstate/ipnstate.go:PeerStatus, under its public key. */
function peerOf(
	self: Record<string, unknown>,
	{ name = "", addresses, tags }: TailscaleState["peers"][number],
): [string, Record<string, unknown>] {
	const key = `nodekey:${Buffer.from(name).toString("hex").padEnd(64, "0")}`;
	return [
		key,
		{
			...self,
			ID: `n${name}CNTRL`,
			PublicKey: key,
			HostName: name,
			DNSName: `${name}.tail1234.ts.net.`,
			TailscaleIPs: addresses,
			...(tags === undefined ? undefined : { Tags: tags }),
		},
	];
}

/** What the commands print that ask most. */
export const questions = {
	"status --json": (state: TailscaleState) =>
		JSON.stringify(statusOf(state, true), undefined, 2),
	"serve status --json": ({ serve }: TailscaleState) =>
		`${JSON.stringify(serve, undefined, 2)}\n`,
	"debug prefs": ({ prefs }: TailscaleState) =>
		`${JSON.stringify(prefs, undefined, "\t")}\n`,
};

/** Who LocalAPI says is behind which address. */
export function whoIsOf({
	addresses,
	peers,
}: TailscaleState): Map<string, WhoIsResponse> {
	const nodes = new Map<string, WhoIsResponse>();
	for (const node of [{ name: "server", addresses }, ...peers])
		for (const address of node.addresses) nodes.set(address, whoIsNode(node));
	return nodes;
}
