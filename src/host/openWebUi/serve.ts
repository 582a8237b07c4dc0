import type { CommandAction } from "../../setup/step.ts";
import { hasProgram } from "../../system/run.ts";
import {
	localPortOf,
	type ServedPort,
	servedPorts,
} from "../../tailscale/serveConfig.ts";
import { tailscaleStatus } from "../tailscale/step.ts";

/** Whether something that Tailscale answers leads to a port of this host's loopback. */
export function leadsToPort(
	{ target }: ServedPort,
	port: number | undefined,
): boolean {
	return port !== undefined && localPortOf(target) === port;
}

/** Where HTTPS leads to a port of loopback for good: on port 443 where there are several. */
export function entranceTo(
	served: readonly ServedPort[],
	port: number,
): ServedPort | undefined {
	return served
		.filter(
			(one) =>
				one.option === "https" && isLasting(one) && leadsToPort(one, port),
		)
		.toSorted((a, b) => Number(b.port === 443) - Number(a.port === 443))[0];
}

/** Whether it leads there for good and with every path, as Open WebUI needs it. */
function isLasting({ where, foreground, service }: ServedPort): boolean {
	return /:\d+\/$/.test(where) && !foreground && !service;
}

/** Where HTTPS on port 443 leads. */
function handlerOf(served: readonly ServedPort[]): string | undefined {
	return served.find((one) => one.port === 443 && isLasting(one))?.target;
}

const endOwnServe = `served=$(tailscale serve status --json) || exit
case $served in
*"\\"http://127.0.0.1:$0\\""*) tailscale serve --https=443 off ;;
*'"443":'*)
	echo "HTTPS leads elsewhere by now and stays so" >&2
	exit 1
	;;
esac`;

/** What brings the tailnet to Open WebUI, or why nothing does yet. */
export async function planServe(
	port: number,
): Promise<{ note: string } | { actions: CommandAction[] }> {
	if (!(await hasProgram("tailscale")))
		return {
			note: "Tailscale is not installed, so Open WebUI is not served to other devices yet.",
		};
	const status = await tailscaleStatus();
	if (status?.backendState !== "Running")
		return {
			note: "Tailscale does not run, so Open WebUI is not served to other devices yet.",
		};
	const served = (await servedPorts()) ?? [];
	if (entranceTo(served, port) !== undefined) return { actions: [] };
	const leadsTo = handlerOf(served);
	if (leadsTo !== undefined)
		return {
			note: `Tailscale Serve leads HTTPS to ${leadsTo} already, and stays so. For Open WebUI take another port: tailscale serve --bg --https=8443 ${port}`,
		};
	if (status.certDomains?.length === 0)
		return {
			note: `HTTPS certificates are off in the tailnet, so Open WebUI is not served yet: turn them on at https://login.tailscale.com/admin/dns and run this again.`,
		};
	return {
		actions: [
			{
				kind: "command",
				command: ["tailscale", "serve", "--bg", String(port)],
				undo: [["sh", "-c", endOwnServe, String(port)]],
				timeoutMs: 30_000,
			},
		],
	};
}
