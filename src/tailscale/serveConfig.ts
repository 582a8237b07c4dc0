import { isLoopbackAddress } from "../net/ranges.ts";
import { outputOf } from "../system/run.ts";

/** Something that tailscaled itself answers for this host, by `tailscale serve` or `tailscale funnel`. */
export interface ServedPort {
	readonly port: number;
	/** The option of the command that set it up: `https`, `http`, `tcp` or `tls-terminated-tcp`. */
	readonly option: string;
	/** What people would open: `https://server.example.ts.net:8443/`. */
	readonly where: string;
	/** As it was set up: a URL, `host:port`, `unix:/path`, or words for what is not a proxy. */
	readonly target: string;
	/** Whether the internet reaches it. */
	readonly funnel: boolean;
	/** Whether it ends with the command that set it up. */
	readonly foreground: boolean;
	/** The Tailscale Service that it belongs to: `svc:name`. */
	readonly service: string | undefined;
}

interface Handler {
	readonly Proxy?: string;
	readonly Path?: string;
	readonly Text?: string;
	readonly Redirect?: string;
}

interface TcpHandler {
	readonly HTTPS?: boolean;
	readonly HTTP?: boolean;
	readonly TCPForward?: string;
	readonly TerminateTLS?: string;
}

/** ipn/serve.go:ServeConfig, as far as it says who is led where. */
interface ServeConfig {
	readonly TCP?: Readonly<Record<string, TcpHandler>>;
	readonly Web?: Readonly<
		Record<
			string,
			{ readonly Handlers?: Readonly<Record<string, Handler>> | null }
		>
	>;
	readonly AllowFunnel?: Readonly<Record<string, boolean>>;
	readonly Foreground?: Readonly<Record<string, ServeConfig>>;
	readonly Services?: Readonly<Record<string, ServeConfig>>;
}

/**
 * What Tailscale Serve and Funnel lead where; `undefined` where tailscale does not say.
 *
 * @throws if it prints something else
 */
export async function servedPorts(): Promise<ServedPort[] | undefined> {
	const output = await outputOf("tailscale", "serve", "status", "--json");
	return output === undefined ? undefined : readServeConfig(output);
}

/**
 * Reads what `tailscale serve status --json` prints.
 *
 * @throws if that is not JSON of this shape
 */
export function readServeConfig(text: string): ServedPort[] {
	const config = JSON.parse(text) as ServeConfig | null;
	if (config === null) return [];
	if (typeof config !== "object" || Array.isArray(config))
		throw new Error("tailscale serve status --json printed no object");
	return [
		...portsOf(config, false, undefined),
		...Object.values(config.Foreground ?? {}).flatMap((session) =>
			portsOf(session, true, undefined),
		),
		...Object.entries(config.Services ?? {}).flatMap(([name, service]) =>
			portsOf(service, false, name),
		),
	];
}

function portsOf(
	{ TCP, Web, AllowFunnel }: ServeConfig,
	foreground: boolean,
	service: string | undefined,
): ServedPort[] {
	const funnels = Object.entries(AllowFunnel ?? {})
		.filter(([, allowed]) => allowed)
		.map(([hostPort]) => hostPort);
	const found: ServedPort[] = [];
	for (const [text, { TCPForward, TerminateTLS }] of Object.entries(
		TCP ?? {},
	)) {
		if (TCPForward === undefined || TCPForward === "") continue;
		const port = Number(text);
		found.push({
			port,
			option: TerminateTLS ? "tls-terminated-tcp" : "tcp",
			where: `TCP port ${text}`,
			target: TCPForward,
			funnel: funnels.some((hostPort) => portOf(hostPort) === port),
			foreground,
			service,
		});
	}
	for (const [hostPort, { Handlers }] of Object.entries(Web ?? {})) {
		const port = portOf(hostPort);
		const option = TCP?.[String(port)]?.HTTP ? "http" : "https";
		for (const [mount, handler] of Object.entries(Handlers ?? {}))
			found.push({
				port,
				option,
				where: `${option}://${hostPort}${mount}`,
				target: targetOf(handler),
				funnel: funnels.includes(hostPort),
				foreground,
				service,
			});
	}
	// A Funnel is open whether or not something is behind it already.
	for (const hostPort of funnels)
		if (!found.some(({ funnel, port }) => funnel && port === portOf(hostPort)))
			found.push({
				port: portOf(hostPort),
				option: "https",
				where: hostPort,
				target: "nothing yet",
				funnel: true,
				foreground,
				service,
			});
	return found;
}

function portOf(hostPort: string): number {
	return Number(hostPort.slice(hostPort.lastIndexOf(":") + 1));
}

function targetOf({ Proxy: proxy, Path, Text, Redirect }: Handler): string {
	if (proxy) return proxy;
	if (Path) return `the files in ${Path}`;
	if (Redirect) return `a redirect to ${Redirect}`;
	return Text === undefined ? "nothing" : "a fixed text";
}

/** What listens where on this host. */
export interface LocalPlaces {
	/** Ports of loopback on which Ollama answers. */
	readonly ollamaPorts: readonly number[];
	/** Ports of loopback on which Open WebUI would answer. */
	readonly webUiPorts: readonly number[];
	readonly gatePort: number;
	/** This host's addresses in the tailnet, where the gate listens. */
	readonly tailnetAddresses: readonly string[];
}

function parseTarget(
	target: string,
): { readonly address: string; readonly port: number } | undefined {
	const [, host = "", port] =
		/^(?:[a-z+]+:\/\/)?(?:[^/@]*@)?(\[[^\]]+\]|[^:/]*):(\d+)/i.exec(target) ??
		/^()(\d+)$/.exec(target) ??
		[];
	if (port === undefined) return undefined;
	const address = host.replace(/[[\]]/g, "").toLowerCase();
	return { address, port: Number(port) };
}

/** The port of this host's loopback that a target of Serve's leads to, if it leads there. */
export function localPortOf(target: string): number | undefined {
	const { address, port } = parseTarget(target) ?? { address: "elsewhere" };
	const isLocal =
		["", "localhost", "0.0.0.0", "::"].includes(address) ||
		isLoopbackAddress(address);
	return isLocal ? port : undefined;
}

/** What a target of Serve's leads to, of what is to be guarded here. */
export function guardedBehind(
	target: string,
	{ ollamaPorts, webUiPorts, gatePort, tailnetAddresses }: LocalPlaces,
): "Ollama" | "the gate" | "Open WebUI" | undefined {
	if (target.includes("/run/llamagate-ollama/")) return "Ollama";
	if (target.includes("/run/llamagate-local/")) return "the gate";
	const { address, port } = parseTarget(target) ?? {};
	if (address !== undefined && tailnetAddresses.includes(address))
		return port === gatePort ? "the gate" : undefined;
	const local = localPortOf(target);
	if (local === undefined) return undefined;
	if (ollamaPorts.includes(local)) return "Ollama";
	return webUiPorts.includes(local) ? "Open WebUI" : undefined;
}

/** Whether it leads to Ollama without a key, or is where the gate is. */
export function goesAroundGate(
	{ target, port, service }: ServedPort,
	places: LocalPlaces,
): boolean {
	return (
		guardedBehind(target, places) === "Ollama" ||
		(port === places.gatePort && service === undefined)
	);
}

/** The command that takes a served port back. */
export function offCommand({
	option,
	port,
	funnel,
	foreground,
	service,
}: ServedPort): string {
	const command = funnel ? "funnel" : "serve";
	if (foreground)
		return `end the "tailscale ${command}" that runs in a terminal (Ctrl-C)`;
	const of = service === undefined ? "" : ` --service=${service}`;
	return `sudo tailscale ${command}${of} --${option}=${port} off`;
}
