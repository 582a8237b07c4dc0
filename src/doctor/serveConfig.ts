import { isLoopbackAddress } from "../net/ranges.ts";

/** Something that tailscaled itself answers for this host, by `tailscale serve` or `tailscale funnel`. */
export interface ServedPort {
	readonly port: number;
	/** The option of the command that set it up: `https`, `http`, `tcp` or `tls-terminated-tcp`. */
	readonly option: string;
	/** What people would open: `https://server.example.ts.net:8443/`. */
	readonly where: string;
	/** As it was set up: a URL, `host:port`, `unix:/path`, or words for what is no proxy. */
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

/** What a target of Serve's leads to, of what is to be guarded here. */
export function guardedBehind(
	target: string,
	{ ollamaPorts, webUiPorts, gatePort, tailnetAddresses }: LocalPlaces,
): "Ollama" | "the gate" | "Open WebUI" | undefined {
	if (target.includes("/run/llamagate-ollama/")) return "Ollama";
	if (target.includes("/run/llamagate-local/")) return "the gate";
	const [, host = "", port] =
		/^(?:[a-z+]+:\/\/)?(?:[^/@]*@)?(\[[^\]]+\]|[^:/]*):(\d+)/i.exec(target) ??
		/^()(\d+)$/.exec(target) ??
		[];
	if (port === undefined) return undefined;
	const address = host.replace(/[[\]]/g, "").toLowerCase();
	const number = Number(port);
	if (tailnetAddresses.includes(address))
		return number === gatePort ? "the gate" : undefined;
	const isLocal =
		["", "localhost", "0.0.0.0", "::"].includes(address) ||
		isLoopbackAddress(address);
	if (!isLocal) return undefined;
	if (ollamaPorts.includes(number)) return "Ollama";
	return webUiPorts.includes(number) ? "Open WebUI" : undefined;
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
