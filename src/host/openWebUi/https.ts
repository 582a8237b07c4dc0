import {
	absent,
	finding,
	type Outcome,
	ok,
	unknown,
} from "../../doctor/check.ts";
import { hasProgram } from "../../system/run.ts";
import { type ServedPort, servedPorts } from "../../tailscale/serveConfig.ts";
import type { WebUi } from "./facts.ts";
import { leadsToPort } from "./serve.ts";

const serveCommand = (at: number, port: number | undefined) =>
	`sudo tailscale serve --bg --https=${at} ${port}`;

/** What is served, or what to answer where that could not be seen. */
async function knownEntrances(): Promise<readonly ServedPort[] | Outcome> {
	if (!(await hasProgram("tailscale")))
		return absent("Tailscale is not installed");
	return (
		(await servedPorts()) ??
		unknown("tailscale serve status fails; see: systemctl status tailscaled")
	);
}

export async function judgeHttps(found: readonly WebUi[]): Promise<Outcome> {
	const known = await knownEntrances();
	if ("state" in known) return known;
	const leading = known.filter(
		(served) =>
			served.option === "https" &&
			found.some(({ port }) => leadsToPort(served, port)),
	);
	const [first] = leading;
	const port = found.find((one) => one.port !== undefined)?.port;
	if (first === undefined)
		return finding(
			[
				`Tailscale Serve has no HTTPS that leads to ${found.map((one) => `127.0.0.1:${one.port}`).join(" or ")}`,
			],
			{
				fix: serveCommand(
					known.some((other) => other.port === 443) ? 8443 : 443,
					port,
				),
			},
		);
	if (leading.every(({ foreground }) => foreground))
		return finding(
			[`${first.where} is served as long as a command runs, and no longer`],
			{ fix: serveCommand(first.port, port) },
		);
	return ok(
		...leading.map(({ where, target }) => `${where} leads to ${target}`),
	);
}

export async function judgeFunnel(found: readonly WebUi[]): Promise<Outcome> {
	const known = await knownEntrances();
	if ("state" in known) return known;
	const open = known.filter(
		(served) =>
			served.funnel && found.some(({ port }) => leadsToPort(served, port)),
	);
	const [first] = open;
	return first === undefined
		? ok("Tailscale Funnel does not lead to it")
		: finding(
				open.map(
					({ where, target }) =>
						`${where} leads from the internet to ${target}`,
				),
				{
					// Serving a port to the tailnet takes it off the internet.
					fix: serveCommand(
						first.port,
						found.find(({ port }) => leadsToPort(first, port))?.port,
					),
				},
			);
}
