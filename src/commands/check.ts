import type { Stats } from "node:fs";
import { stat } from "node:fs/promises";
import path from "node:path";
import { styleText } from "node:util";
import { Agent, request } from "undici";
import { defaultConfigPath, type Settings, typed } from "../config/load.ts";
import { userName } from "../config/readConfig.ts";
import {
	exposureOf,
	isForServiceGroup,
	repairOf,
} from "../config/secretFile.ts";
import { formatUpstream, type HostSettings } from "../config/upstreams.ts";
import { exitCodes } from "../errors.ts";
import { loadRules } from "../gate/rules.ts";
import {
	defaultScopes,
	type KeyEntry,
	loadKeys,
	parseTime,
} from "../keys/keyFile.ts";
import { inheritedSocketNames } from "../net/listener.ts";
import {
	formatHostPort,
	isLoopbackAddress,
	isPermittedSource,
	parseAddress,
	parseRange,
} from "../net/ranges.ts";
import { readSmallText } from "../net/smallReply.ts";
import { formatJson } from "../report/json.ts";
import { createWhois } from "../tailscale/whois.ts";
import type { Certificate } from "../tls/certificate.ts";
import { noticeMs } from "../tls/keeper.ts";
import { hostHeaderOf } from "../upstream/client.ts";
import { tryOut } from "../upstream/hosts/tryOut.ts";
import { visibleLine } from "../visible.ts";
import { type Command, readArgs } from "./command.ts";
import { listenAddresses, whoListens } from "./whoListens.ts";

interface Line {
	readonly subject: string;
	readonly ok: boolean;
	readonly says: string;
}

export const check: Command = {
	help: `
Usage: llamagate check [--config FILE] [--json]

Reads the configuration and the keys as the gate would, without starting it.

  -c, --config FILE  the configuration (default: ${defaultConfigPath})
  --json             print JSON

Exit codes: 0 all is well, 1 something needs attention, 2 usage,
            78 the configuration or the keys would not load

Example: llamagate check --config ./config.json
`,
	async run(args) {
		const { values } = readArgs(args, {
			config: { type: "string", short: "c", default: defaultConfigPath },
			json: { type: "boolean", default: false },
		});
		// The two together, as the daemon takes them, and then each for what it says.
		const { settings, certificate, hostKeys } = await loadRules(values.config);
		const keys = await loadKeys(settings.keysFile);
		const lines: Line[] = [
			{
				subject: "configuration",
				ok: true,
				says: `${values.config} loads, read as ${userName()}`,
			},
			await describeKeys(keys, settings.keysFile, values.config),
			...(await describeListening(settings)),
			...(await describeTls(settings, certificate)),
			...describeSources(settings),
			...(settings.hosts === undefined
				? [await describeUpstream(settings)]
				: await describeHosts(settings, settings.hosts, hostKeys)),
			...(await describeIdentity(settings)),
		];
		const ok = lines.every((line) => line.ok);
		if (values.json) process.stdout.write(formatJson({ ok, lines }));
		else
			for (const line of lines) {
				const mark = line.ok
					? styleText("green", "ok  ")
					: styleText("yellow", "look");
				process.stdout.write(
					`${mark}  ${line.subject}: ${visibleLine(line.says)}\n`,
				);
			}
		return ok ? exitCodes.ok : exitCodes.finding;
	},
};

async function describeKeys(
	keys: readonly KeyEntry[],
	file: string,
	configFile: string,
): Promise<Line> {
	const subject = "keys";
	if (keys.length === 0)
		return {
			subject,
			ok: false,
			says: `${file} has no key, so nobody would be let in; make one with: ${typed("keys add NAME", configFile)}`,
		};
	const expired = keys.filter(
		({ expires }) =>
			expires !== undefined && (parseTime(expires) ?? 0) <= Date.now(),
	);
	if (expired.length > 0)
		return {
			subject,
			ok: false,
			says: `expired: ${expired.map(({ name }) => name).join(", ")}; rotate or revoke them`,
		};
	const stats = await stat(file);
	const exposure = exposureOf(path.resolve(file), stats);
	if (exposure !== undefined)
		return {
			subject,
			ok: false,
			says: `${file} holds digests, and ${exposure}; ${closingOf(file, stats)}`,
		};
	return {
		subject,
		ok: true,
		says: `${keys.length} in ${file}: ${keys.map(({ name }) => name).join(", ")}`,
	};
}

/** How to close a keys file to others with no daemon shut out, of whose user nothing is known here. */
function closingOf(file: string, stats: Stats): string {
	const isOwn = stats.uid !== 0 && stats.uid === process.getuid?.();
	return isOwn || isForServiceGroup(stats)
		? repairOf(stats)
		: `let the daemon's user alone read it: sudo chown USER ${file} && sudo chmod 600 ${file}`;
}

async function describeListening({ listen }: Settings): Promise<Line[]> {
	const subject = "listening";
	const inherited = inheritedSocketNames(process.env);
	if (inherited.length > 0)
		return [
			{
				subject,
				ok: true,
				says: `on ${inherited.length} inherited socket(s)`,
			},
		];
	const addresses = listenAddresses(listen);
	if (listen.kind === "interface" && addresses.length === 0)
		return [
			{
				subject,
				ok: false,
				says: `${listen.name} has no Tailscale address now; the gate would wait for one (is Tailscale up? see: tailscale status)`,
			},
		];
	return Promise.all(
		addresses.map((address) => describeAddress(address, listen.port)),
	);
}

async function describeAddress(address: string, port: number): Promise<Line> {
	const subject = "listening";
	const where = formatHostPort(address, port);
	const holder = await whoListens(address, port);
	switch (holder.kind) {
		case "nobody":
			return { subject, ok: true, says: `on ${where}` };
		case "gate":
			return { subject, ok: true, says: `a gate runs on ${where} already` };
		case "unbindable":
			return {
				subject,
				ok: false,
				says: `${where} cannot be bound (${holder.code})`,
			};
		case "ollama":
			return {
				subject,
				ok: false,
				says: `Ollama itself answers on ${where}, without a key; set OLLAMA_HOST=127.0.0.1:11434 for it and restart it`,
			};
		case "other":
			return {
				subject,
				ok: false,
				says: `${where} is taken by ${holder.says}`,
			};
	}
}

async function describeTls(
	{ tls, identity }: Settings,
	certificate: Certificate | undefined,
): Promise<Line[]> {
	const subject = "https";
	if (tls === undefined) return [];
	if (certificate !== undefined)
		return [
			{
				subject,
				ok: certificate.notAfterMs - Date.now() > noticeMs,
				says: `a certificate for ${certificate.names.join(", ")}, until ${new Date(certificate.notAfterMs).toISOString().slice(0, 10)}`,
			},
		];
	const answer = await createWhois({ socket: identity.socket }).status();
	if (answer.kind !== "status")
		return [{ subject, ok: false, says: answer.reason }];
	const { certDomains, dnsName } = answer.status;
	return [
		certDomains.length > 0
			? { subject, ok: true, says: `tailscaled has ${dnsName} certified` }
			: {
					subject,
					ok: false,
					says: "this tailnet gives no certificates: enable HTTPS on the DNS page of its admin console; Headscale has none, so name files in listen.tls there",
				},
	];
}

function describeSources({ listen, sources }: Settings): Line[] {
	const lines: Line[] = [];
	if (
		listen.kind === "address" &&
		isLoopbackAddress(listen.address) &&
		!contains(sources, listen.address)
	)
		lines.push({
			subject: "sources",
			ok: false,
			says: `the gate would listen on ${listen.address}, but no range in sources contains it, so every client would be refused`,
		});
	const everything = [parseRange("0.0.0.0/0"), parseRange("::/0")];
	if (
		sources.some((range) =>
			everything.some((all) => String(all) === String(range)),
		)
	)
		lines.push({
			subject: "sources",
			ok: false,
			says: "a range in sources contains every address; name the ranges that clients come from",
		});
	return lines;
}

/** What the commonest failures mean to whoever wrote the address. */
const remedies: Readonly<Record<string, string>> = {
	ECONNREFUSED:
		"; nothing listens there: start it, or mend the port in its url",
	ENOTFOUND:
		"; the name is not known: is that host in the tailnet (tailscale status), and the name spelt so?",
};

/** Each of several hosts, asked once. */
function describeHosts(
	{ upstream }: Settings,
	hosts: readonly HostSettings[],
	keys: ReadonlyMap<string, string>,
): Promise<Line[]> {
	return Promise.all(
		hosts.map(async (host) => {
			const tried = await tryOut(host, upstream, keys.get(host.name));
			const { name, url, models, why, isBare } = tried;
			return {
				subject: "upstream",
				ok: why === undefined && !isBare,
				says: isBare
					? `${name} at ${url} answers without a key: anyone who reaches it has all of it; on that host: sudo llamagate setup`
					: why === undefined
						? `${name} answers at ${url}, and has ${models} model(s)`
						: `${name} at ${url} is of no use: ${why}${remedies[why] ?? ""}`,
			};
		}),
	);
}

async function describeUpstream({ upstream }: Settings): Promise<Line> {
	const subject = "upstream";
	const where = formatUpstream(upstream.target);
	const { target } = upstream;
	const agent = new Agent(
		target.kind === "unix"
			? { connect: { socketPath: target.socketPath } }
			: undefined,
	);
	try {
		const url = `http://${hostHeaderOf(target)}/api/version`;
		const { statusCode, body } = await request(url, {
			dispatcher: agent,
			signal: AbortSignal.timeout(5_000),
		});
		const version = versionIn(await readSmallText(body));
		if (statusCode !== 200 || version === undefined)
			return {
				subject,
				ok: false,
				says: `something at ${where} answers, but not as Ollama does (status ${statusCode})`,
			};
		return {
			subject,
			ok: true,
			says: `Ollama ${version} answers at ${where}`,
		};
	} catch (error) {
		const { code, name } = error as Error & { code?: string };
		return {
			subject,
			ok: false,
			says: `Ollama does not answer at ${where} (${code ?? name}); see: systemctl status ollama`,
		};
	} finally {
		await agent.destroy();
	}
}

/** The version that an Ollama tells; `undefined` in what is no answer of one. */
function versionIn(text: string): string | undefined {
	try {
		const { version } = Object(JSON.parse(text)) as { version?: unknown };
		return typeof version === "string" ? version : undefined;
	} catch {
		// What is not JSON is not Ollama's.
		return undefined;
	}
}

function contains(ranges: Settings["sources"], text: string): boolean {
	const address = parseAddress(text);
	return address !== undefined && isPermittedSource(address, ranges);
}

async function describeIdentity({ identity }: Settings): Promise<Line[]> {
	if (identity.mode === "off") return [];
	const subject = "identity";
	const answer = await createWhois({ socket: identity.socket }).status();
	if (answer.kind !== "status")
		return [
			{
				subject,
				ok: false,
				says: `tailscaled cannot be asked at ${identity.socket}: ${answer.reason}${{ require: "; everybody would be refused", login: "; everybody would need a key" }[identity.mode as string] ?? ""}`,
			},
		];
	const { backendState, userspace } = answer.status;
	return [
		...(identity.mode === "login" ? [describeLogins(identity, userspace)] : []),
		{
			subject,
			ok: backendState === "Running",
			says: `tailscaled answers at ${identity.socket}, in state ${backendState}`,
		},
	];
}

/** @param userspace whether tailscaled has no tunnel device */
function describeLogins(
	{ rules }: Settings["identity"],
	userspace: boolean,
): Line {
	const subject = "login";
	if (userspace)
		return {
			subject,
			ok: false,
			says: "tailscaled has no tunnel device, so every peer comes from loopback, and nobody is let in by login",
		};
	const opened = rules.map(
		({ users, scopes = defaultScopes, models = [] }) =>
			`${users.join(", ")} (${[scopes.join(", "), ...models].join("; ")})`,
	);
	return {
		subject,
		ok: true,
		says: `no key is needed on the devices of ${opened.join(", ")}`,
	};
}
