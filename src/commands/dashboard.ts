import { once } from "node:events";
import { hostname } from "node:os";
import { askLiveOn } from "../admin/live.ts";
import { defaultConfigPath, loadConfig, typed } from "../config/load.ts";
import type { AccessRules } from "../dashboard/access.ts";
import { createDashboard } from "../dashboard/server.ts";
import { Watch } from "../dashboard/snapshot.ts";
import { exitCodes, Finding, UsageError } from "../errors.ts";
import { formatHostPort, parseLoopbackPort } from "../net/ranges.ts";
import { describePortHolder } from "../system/portHolder.ts";
import { visibleLine } from "../visible.ts";
import { type Command, readArgs } from "./command.ts";

const defaultListen = "127.0.0.1:9465";

export const dashboard: Command = {
	help: `
Usage: sudo llamagate dashboard [--listen ${defaultListen}]
            [--host NAME --allow LOGIN] [--config FILE]

Serves a page that shows the gate live: who is at work and who waits, tokens a
second, first tokens, refusals, models, budgets, each user's share of the GPU,
and how doctor's last look ended. It changes nothing. It goes on until Ctrl-C.

It listens on loopback alone, and anyone who is on this machine may read it. For
the tailnet, have tailscale serve bring people, and say under which name and
whom:

  sudo llamagate dashboard --host gpu.tail1a2b.ts.net --allow me@example.com
  tailscale serve --bg --https=9465 http://${defaultListen}

  --listen ADDRESS   a loopback address and port (default: ${defaultListen})
  --host NAME        a name under which tailscale serve brings others; may be
                     given several times
  --allow LOGIN      a login that may read it there, may be given several times;
                     "any" for each that tailscale serve proves
  -c, --config FILE  the gate's configuration (default: ${defaultConfigPath})

Exit codes: 0 stopped as told, 1 it cannot listen, or may not ask the gate,
            2 usage, 78 bad configuration

Example: sudo llamagate dashboard
`,
	async run(args) {
		const { values } = readArgs(args, {
			listen: { type: "string", default: defaultListen },
			host: { type: "string", multiple: true, default: [] },
			allow: { type: "string", multiple: true, default: [] },
			config: { type: "string", short: "c", default: defaultConfigPath },
		});
		const listen = readListen(values.listen);
		const people = readPeople(values.host, values.allow);
		const settings = await loadConfig(values.config);
		const adminSocket = settings.admin.socket;
		if (adminSocket === undefined)
			throw new Finding(
				'admin.socket is "off", so the gate cannot be asked, and there is nothing to show',
			);
		// A gate that is away may come; one that may not be asked never can be.
		const asked = await askLiveOn(adminSocket);
		if (asked.kind === "denied")
			throw new Finding(
				`${asked.why}; run: sudo ${typed("dashboard", values.config)}`,
			);
		if (asked.kind !== "live")
			process.stderr.write(
				`llamagate dashboard: ${visibleLine(asked.why)}; the page says so until one does\n`,
			);
		process.title = "llamagate-dashboard";
		const { promise: stopped, resolve: stop } = Promise.withResolvers<void>();
		process.once("SIGINT", () => stop());
		process.once("SIGTERM", () => stop());
		const watch = new Watch({
			adminSocket,
			ledgerSocket: settings.ledger?.socket,
			people: settings.logPeople,
		});
		let port = listen.port;
		const address = formatHostPort(listen.host, 0).replace(/:0$/, "");
		const page = createDashboard(hostname(), watch, () => ({
			port,
			address,
			...people,
		}));
		page.server.listen(listen.port, listen.host);
		await once(page.server, "listening").catch(async (error: unknown) => {
			throw new Finding(await describe(error as NodeJS.ErrnoException, listen));
		});
		const bound = page.server.address();
		if (bound !== null && typeof bound === "object") port = bound.port;
		process.stdout.write(
			`The page is at http://${formatHostPort(listen.host, port)}/\n${[...people.hosts].map((name) => `and by tailscale serve, at the address that it prints, under the name ${name}\n`).join("")}`,
		);
		await stopped;
		page.close();
		return exitCodes.ok;
	},
};

function readListen(text: string): { host: string; port: number } {
	const listen = parseLoopbackPort(text);
	if (listen === undefined)
		throw new UsageError(
			`--listen ${text} is not a loopback address and port such as ${defaultListen}; the page listens nowhere else. For the tailnet use: tailscale serve, with --host and --allow`,
		);
	return listen;
}

function readPeople(
	hosts: readonly string[],
	logins: readonly string[],
): Pick<AccessRules, "hosts" | "allow"> {
	for (const host of hosts)
		if (!/^[a-z0-9-]+(\.[a-z0-9-]+)*$/i.test(host))
			throw new UsageError(
				`--host ${host} is not a name such as gpu.tail1a2b.ts.net`,
			);
	if (hosts.length > 0 && logins.length === 0)
		throw new UsageError(
			"--host lets the tailnet in, so say whom: --allow me@example.com, or --allow any",
		);
	if (logins.length > 0 && hosts.length === 0)
		throw new UsageError(
			"--allow is about people whom tailscale serve brings; say under which name: --host gpu.tail1a2b.ts.net",
		);
	const lower = (text: string) => text.toLowerCase();
	return {
		hosts: new Set(hosts.map(lower)),
		allow: logins.includes("any") ? "any" : new Set(logins.map(lower)),
	};
}

async function describe(
	{ code, message }: NodeJS.ErrnoException,
	{ host, port }: { host: string; port: number },
): Promise<string> {
	const at = formatHostPort(host, port);
	return code === "EADDRINUSE"
		? `${at} is taken. It is held by ${await describePortHolder(port)}; name another with --listen`
		: `cannot listen on ${at}: ${code ?? message}`;
}
