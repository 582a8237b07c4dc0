import { networkInterfaces } from "node:os";
import { loadConfig } from "../../config/load.ts";
import {
	absent,
	type Examination,
	finding,
	type Outcome,
	ok,
	type Patient,
	unique,
	unknown,
} from "../../doctor/check.ts";
import { formatHostPort, isLoopbackAddress } from "../../net/ranges.ts";
import { testedOllama } from "../../ollama/testedVersion.ts";
import { askEach, type Knock, knock } from "../../system/httpProbe.ts";
import { runProgram } from "../../system/run.ts";
import { formatSocket, isLocalOnly } from "../../system/sockets.ts";
import { lookUpUnit, parseUnit } from "../../system/units.ts";
import { visible } from "../../visible.ts";
import { propertiesOf } from "../gate/inspect.ts";
import {
	describeDialer,
	isUp,
	type LoopbackDialer,
	loopbackDialers,
	tunnelFix,
} from "../tailscale/userspace.ts";
import { advisoriesAsOf, advisoriesFor, isNewerThan } from "./advisories.ts";
import { nextValue, trimQuotes, type UnitSettings } from "./environment.ts";
import { parallelVariable, readParallel } from "./parallel.ts";
import { longestValue, lookForOllama, type Server } from "./servers.ts";

const group = "ollama";
const layer = "ollama";
const bind = "sudo llamagate setup --only ollama";

export const ollamaExaminations: readonly Examination[] = [
	{
		id: "ollama.listening",
		group,
		layer,
		title: "Ollama listens on loopback only",
		severity: "critical",
		why: "Ollama lets everybody in who reaches it, and a firewall that is wrong for a moment is enough.",
		fix: bind,
		step: "ollama",
		examine: examineListening,
	},
	{
		id: "ollama.reachable",
		group,
		layer,
		title: "No other device gets an answer from Ollama itself",
		severity: "critical",
		why: "Whoever gets one has all of Ollama without a key: at an address of this host other than loopback, or by a tailscaled that dials loopback for its peers.",
		fix: bind,
		step: "ollama",
		examine: examineReachable,
	},
	{
		id: "ollama.tunnels",
		group,
		layer,
		title: "No tunnel leads others to Ollama",
		severity: "critical",
		why: "A program that brings a port of loopback to others (cloudflared, ngrok, ssh -R) goes past the gate and every firewall, to an Ollama that asks for no key.",
		fix: "end that program, or have it lead to the gate's address in place of Ollama's, where a key is asked for",
		needsRoot: true,
		examine: async (patient) =>
			(await import("./tunnels.ts")).examineTunnels(patient),
	},
	{
		id: "ollama.host",
		group,
		layer,
		title: "The running Ollama was told to listen on loopback",
		severity: "high",
		why: "OLLAMA_HOST of the running process decides, not what its unit says since.",
		fix: `${bind}; where the unit is right already: sudo systemctl restart ollama`,
		step: "ollama",
		needsRoot: true,
		examine: examineHost,
	},
	{
		id: "ollama.restart",
		group,
		layer,
		title: "Ollama stays on loopback when it starts again",
		severity: "high",
		why: "A changed unit or drop-in takes effect at the next restart or boot, when nobody looks.",
		fix: bind,
		step: "ollama",
		examine: examineRestart,
	},
	{
		id: "ollama.api-key",
		group,
		layer,
		title: "No OLLAMA_API_KEY pretends to protect the server",
		severity: "warn",
		why: "Ollama's server never asks for that key, it only shows it to ollama.com, so it gives false safety.",
		fix: "take OLLAMA_API_KEY out of what sets it (systemctl cat ollama), then: sudo systemctl daemon-reload && sudo systemctl restart ollama",
		examine: (patient) =>
			examineVariable(patient, "OLLAMA_API_KEY", () => [
				"OLLAMA_API_KEY is set, and anybody who reaches Ollama needs no key all the same",
			]),
	},
	{
		id: "ollama.origins",
		group,
		layer,
		title: "Ollama does not serve every web page",
		severity: "high",
		why: "With * in OLLAMA_ORIGINS any page that a browser on this host opens may use and change Ollama.",
		fix: "take the * out of OLLAMA_ORIGINS (systemctl cat ollama), then: sudo systemctl daemon-reload && sudo systemctl restart ollama; pages use the gate by its cors.origins",
		examine: (patient) =>
			examineVariable(patient, "OLLAMA_ORIGINS", (value) => {
				const open = value.split(",").filter(isEveryOrigin);
				return open.length === 0
					? undefined
					: [`OLLAMA_ORIGINS lets every page in: ${visible(open.join(", "))}`];
			}),
	},
	{
		id: "ollama.request-log",
		group,
		layer,
		title: "Ollama does not write prompts to disk",
		severity: "warn",
		why: "With OLLAMA_DEBUG_LOG_REQUESTS every prompt is kept in a file.",
		fix: "take OLLAMA_DEBUG_LOG_REQUESTS out (systemctl cat ollama), then: sudo systemctl daemon-reload && sudo systemctl restart ollama",
		examine: (patient) =>
			examineVariable(patient, "OLLAMA_DEBUG_LOG_REQUESTS", (value) =>
				isTrue(value) ? [`it is on: ${visible(value)}`] : undefined,
			),
	},
	{
		id: "ollama.version",
		group,
		layer,
		title: "This version of Ollama has no known serious fault",
		severity: "high",
		why: "A key with the scope manage, a program on this host or a model from elsewhere is enough to use most of these.",
		fix: "curl -fsSL https://ollama.com/install.sh | sh",
		examine: (patient) => examineVersions(patient, judgeVersion),
	},
	{
		id: "ollama.tested",
		group,
		layer,
		title: "llamagate was tested with this version of Ollama",
		// A fault of security is often mended in a version that is newer than what was run.
		severity: "info",
		why: "A newer Ollama may have calls, options or replies that this llamagate does not know: what it does not know it refuses, or counts wrongly.",
		fix: "look for a newer llamagate, whose docs/compatibility.md says which Ollama it was tested with",
		examine: (patient) => examineVersions(patient, judgeTested),
	},
	{
		id: "ollama.parallel",
		group,
		layer,
		title: "The gate counts on as many requests at once as Ollama works on",
		severity: "warn",
		why: "Where queue.parallel is less than Ollama's own OLLAMA_NUM_PARALLEL, Ollama idles while requests wait; where it is more, Ollama decides who waits, and first come is first served.",
		fix: bind,
		step: "ollama",
		needsRoot: true,
		examine: examineParallel,
	},
	{
		id: "ollama.cloud",
		group,
		layer,
		title: "Cloud models are off",
		severity: "info",
		why: "With a cloud model a prompt leaves this host for ollama.com, on its owner's account.",
		fix: "sudo llamagate setup --only ollama --no-cloud",
		examine: examineCloud,
	},
];

async function examineListening(patient: Patient): Promise<Outcome> {
	const seen = await lookForOllama(patient);
	const { sockets, led, servers, exposed, ports } = seen;
	const named = ports.map((port) => `port ${port}`).join(" or ");
	const open = sockets.filter((socket) => !isLocalOnly(socket));
	const ways = led.filter(({ isLocal }) => !isLocal);
	const foreign = seen.foreign.map(
		(socket) =>
			`${formatSocket(socket)} is held by ${socket.pids.map((pid) => `process ${pid}`).join(", ")}, which is ${seen.hasUnit ? "not ollama.service" : "no Ollama"}: what is sent there, prompts too, goes to that program`,
	);
	if (open.length > 0 || ways.length > 0 || exposed.length > 0) {
		const isForwarder =
			open.length > 0 &&
			open.every(
				({ programs }) => programs.length > 0 && !programs.includes("ollama"),
			);
		const isDialed =
			exposed.length > 0 || ways.some(({ dialer }) => dialer !== undefined);
		const [first] = open;
		const fixes = unique([
			...(first === undefined
				? []
				: isForwarder
					? [
							`stop that program, or have it take 127.0.0.1 alone (in a container: publish 127.0.0.1:${first.port}:${first.port})`,
						]
					: [bind]),
			...ways.flatMap(({ removal, dialer }) =>
				dialer === undefined && open.length === 0 ? (removal ?? bind) : [],
			),
		]);
		// One that is logged out or stopped leads nobody there yet.
		const isYetToCome =
			open.length === 0 &&
			exposed.length === 0 &&
			ways.every(({ dialer }) => dialer !== undefined && !isUp(dialer));
		return finding(
			[
				...open.map(
					(socket) => `others reach Ollama at ${formatSocket(socket)}`,
				),
				...ways.map(({ says }) => `others reach Ollama: ${says}`),
				...exposed.map((line) => `others reach Ollama: ${line}`),
				...foreign,
			],
			{
				...(isYetToCome ? { severity: "high" } : {}),
				fix: [fixes.join(" && "), ...(isDialed ? [tunnelFix] : [])]
					.filter(Boolean)
					.join("\n"),
			},
		);
	}
	if (foreign.length > 0)
		return finding(foreign, {
			severity: seen.hasUnit ? "high" : "warn",
			fix: `end that program (sudo ss -ltnp sport = :${seen.foreign[0]?.port}), then:\nsudo systemctl restart ollama`,
		});
	const { dialers } = await loopbackDialers();
	if (dialers.some(({ isElsewhere }) => !isElsewhere))
		return unknown(
			...dialers.map(describeDialer),
			"nothing answers as Ollama on 127.0.0.1 now; see ollama.reachable",
		);
	if (!patient.isRoot)
		return unknown(
			`${named} is open on loopback at most; whether a program named ollama has another port, only root can see`,
		);
	const unseen = seen.unseen.map(
		({ pid }) =>
			`process ${pid} is an Ollama in a network of its own (a container); whether others get there is not to be seen here`,
	);
	if (unseen.length > 0 || seen.missed.length > 0)
		return unknown(...unseen, ...seen.missed);
	if (sockets.length === 0 && servers.length === 0)
		return absent(`no program has ${named}, and none is named ollama`);
	return ok(
		...sockets.map(formatSocket),
		...led.map(({ says }) => says),
		...servers
			.filter(({ isElsewhere }) => isElsewhere)
			.map(
				({ pid }) =>
					`process ${pid} is an Ollama in a container that Docker publishes on loopback at most`,
			),
	);
}

/** Every address of this host but loopback's; a link-local one with its link. */
export function otherAddresses(
	interfaces: ReturnType<typeof networkInterfaces>,
): string[] {
	return Object.entries(interfaces).flatMap(([name, addresses = []]) =>
		addresses
			.filter(({ address }) => !isLoopbackAddress(address))
			.map(({ address, family }) =>
				family === "IPv6" && address.startsWith("fe80:")
					? `${address}%${name}`
					: address,
			),
	);
}

async function examineReachable(patient: Patient): Promise<Outcome> {
	const { sockets, led, exposed, ports } = await lookForOllama(patient);
	const { dialers, unclear } = await loopbackDialers();
	const addresses = otherAddresses(networkInterfaces());
	const asked = new Set([
		...ports,
		...sockets
			.filter((socket) => !isLocalOnly(socket))
			.map((open) => open.port),
		...led.flatMap(({ isLocal, entrance, dialer }) =>
			isLocal || dialer !== undefined ? [] : (entrance ?? []),
		),
	]);
	const knocks = await Promise.all(
		addresses.flatMap((address) =>
			[...asked].map(async (at) => ({
				where: formatHostPort(address, at),
				came: await knock(address, at, "/api/version"),
			})),
		),
	);
	const local = judgeKnocks(knocks);
	const byDialer = judgeDialers(
		dialers.filter(({ isElsewhere }) => !isElsewhere),
		led.flatMap(({ dialer, port }) => (dialer === undefined ? [] : [port])),
		exposed,
	);
	if (byDialer === undefined) {
		if (local.state === "ok" && unclear.length > 0) return unknown(...unclear);
		return addresses.length === 0
			? ok("this host has no address but loopback's")
			: local;
	}
	if (local.state !== "finding") return byDialer;
	return finding([...byDialer.evidence, ...local.evidence], {
		fix: `${byDialer.fix}\n${bind}`,
	});
}

/**
 * What the peers of a tailscaled without a tunnel device get to; `undefined`
 * where there is none.
 *
 * @param dialers those of this network
 * @param ports where Ollama answered when it was dialled as they dial
 * @param exposed what they lead to in other networks
 */
export function judgeDialers(
	dialers: readonly LoopbackDialer[],
	ports: readonly number[],
	exposed: readonly string[],
): Outcome | undefined {
	if (dialers.length === 0 && exposed.length === 0) return undefined;
	const isOpen = ports.length > 0 || exposed.length > 0;
	return finding(
		[
			...unique(
				ports.map(
					(port) =>
						`devices of the tailnet get Ollama without a key: tailscaled passes what they send to port ${port} on to 127.0.0.1:${port}, where Ollama answers`,
				),
			),
			...dialers.map(describeDialer),
			...exposed,
			...(isOpen
				? [
						"what holds off some of them is the tailnet's policy alone: the gate is not on this way, and Ollama's check of the Host header is no protection",
					]
				: [
						"Ollama does not answer on 127.0.0.1 now; where it does, or starts a helper there for a model, peers get to it",
					]),
		],
		{
			fix: `${tunnelFix}, then:\nsudo systemctl restart tailscaled`,
			// Nobody gets through one that is logged out or stopped.
			severity:
				isOpen && (exposed.length > 0 || dialers.some(isUp))
					? "critical"
					: "high",
		},
	);
}

/** What answers without a key on the host's own addresses. */
export function judgeKnocks(
	knocks: readonly { readonly where: string; readonly came: Knock }[],
): Outcome {
	const evidence = knocks.map(({ where, came }) => `${where}: ${says(came)}`);
	const open = knocks.filter(
		({ came }) => came.kind === "answer" && came.status === 200,
	);
	if (open.length > 0)
		return finding(
			open.map(
				({ where, came }) =>
					`${where} answers /api/version without a key: ${says(came)}`,
			),
		);
	const unclear = knocks.filter(
		({ came }) => came.kind === "silent" || came.kind === "failed",
	);
	if (unclear.length > 0)
		return unknown(
			...unclear.map(
				({ where, came }) =>
					`${where}: ${says(came)}, so a firewall may stand between this host and itself`,
			),
		);
	return ok(...evidence);
}

function says(came: Knock): string {
	switch (came.kind) {
		case "refused":
			return "nothing listens";
		case "silent":
			return "no answer in 3 s";
		case "failed":
			return `the call failed (${came.code})`;
		case "answer": {
			const version = readVersion(came.body);
			return version === undefined
				? `answered ${came.status}`
				: `answered ${came.status} as Ollama ${version}`;
		}
	}
}

/**
 * Whether an `OLLAMA_HOST` keeps Ollama on loopback (envconfig/config.go:Host).
 * A name other than localhost may be any address, so it does not.
 */
export function keepsToLoopback(value: string | undefined): boolean {
	const text = trimQuotes(value ?? "");
	if (text.length > longestValue) return false;
	const [authority = ""] = text.replace(/^[^/]*?:\/\//, "").split("/");
	if (authority === "") return text === "";
	const [, v6, v4 = authority] =
		/^(?:\[([^\]]*)\](?::.*)?|([^:]*)(?::[^:]*)?)$/.exec(authority) ?? [];
	// An IPv6 address without brackets has no port.
	const host = v6 ?? v4;
	return host === "localhost" || isLoopbackAddress(host);
}

/** The processes whose environment counts, or why none does. */
async function runningServers(
	patient: Patient,
): Promise<(Server & Required<Pick<Server, "environment">>)[] | Outcome> {
	const { servers, answering } = await lookForOllama(patient);
	if (servers.length > 0) return [...servers];
	if (!patient.isRoot)
		return unknown("only root can see whether Ollama runs, and with what");
	return answering.length === 0
		? absent("no Ollama runs here")
		: unknown(
				`an Ollama answers on ${answering.join(", ")}, and none of the programs here is named ollama`,
			);
}

async function examineHost(patient: Patient): Promise<Outcome> {
	const servers = await runningServers(patient);
	if (!Array.isArray(servers)) return servers as Outcome;
	const evidence: string[] = [];
	const wrong: string[] = [];
	for (const { pid, environment, isElsewhere } of servers) {
		if (environment === undefined)
			return unknown(`the environment of process ${pid} cannot be read`);
		const host = environment.get("OLLAMA_HOST");
		const line = `process ${pid} runs with ${host === undefined ? "no OLLAMA_HOST, which means 127.0.0.1:11434" : `OLLAMA_HOST=${visible(host)}`}`;
		// In a container all addresses are those of the container.
		if (isElsewhere) evidence.push(`${line}, in a network of its own`);
		else (keepsToLoopback(host) ? evidence : wrong).push(line);
	}
	return wrong.length > 0 ? finding(wrong) : ok(...evidence);
}

async function examineRestart(): Promise<Outcome> {
	const unit = await lookUpUnit("ollama.service");
	if (unit === undefined) return unknown("systemd does not answer here");
	if (!unit.exists) return absent("there is no ollama.service");
	const loaded = await nextHost(unit);
	const isStale =
		(await propertiesOf("ollama.service"))?.get("NeedDaemonReload") === "yes";
	const onDisk = isStale ? await settingsOnDisk(unit.name) : undefined;
	if (isStale && onDisk === undefined)
		return unknown(
			"files of ollama.service have changed since systemd read them, and systemd-analyze cat-config does not show them",
		);
	const afterReload = onDisk === undefined ? loaded : await nextHost(onDisk);
	if (typeof loaded === "object") return loaded;
	if (typeof afterReload === "object") return afterReload;
	const wrong: string[] = [];
	if (!keepsToLoopback(loaded))
		wrong.push(`at the next restart it gets OLLAMA_HOST=${visible(loaded)}`);
	if (isStale && !keepsToLoopback(afterReload))
		wrong.push(
			`files of its unit have changed since systemd read them; after a daemon-reload or a boot it gets OLLAMA_HOST=${visible(afterReload)}`,
		);
	if (wrong.length > 0) return finding(wrong);
	return ok(
		`the next start gets ${afterReload === "" ? "no OLLAMA_HOST, which means 127.0.0.1:11434" : `OLLAMA_HOST=${visible(afterReload)}`}`,
		...unit.dropIns.map((file) => `by ${file}`),
	);
}

/** The `OLLAMA_HOST` that a start with these would get; "" for none. */
async function nextHost(settings: UnitSettings): Promise<string | Outcome> {
	const next = await nextValue(settings, "OLLAMA_HOST");
	return "unreadable" in next ? unknown(sayUnreadable(next)) : next.value;
}

function sayUnreadable({ unreadable }: { unreadable: string }): string {
	return `${unreadable} is read by ollama.service and cannot be read here`;
}

/** What a unit's files say as they are on disk now, read by systemd or not. */
async function settingsOnDisk(name: string): Promise<UnitSettings | undefined> {
	const { code, stdout } = await runProgram([
		...["systemd-analyze", "cat-config", `systemd/system/${name}`],
	]);
	return code === 0 ? readSettings(stdout) : undefined;
}

/** Reads `Environment=` and `EnvironmentFile=` of a unit's files, one after the other; an empty one takes back those before it. */
export function readSettings(text: string): UnitSettings {
	const environment = new Map<string, string>();
	const environmentFiles: string[] = [];
	for (const line of text.replace(/\\\n/g, " ").split("\n")) {
		const [, name, value = ""] =
			/^\s*(Environment|EnvironmentFile)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
		if (name === "EnvironmentFile") {
			if (value === "") environmentFiles.length = 0;
			else environmentFiles.push(value.replace(/^-/, ""));
		} else if (name !== undefined) {
			if (value === "") environment.clear();
			const words = value.replace(/'([^']*)'/g, '"$1"');
			for (const [key, set] of parseUnit("", `Environment=${words}`)
				.environment)
				environment.set(key, set);
		}
	}
	return { environment, environmentFiles };
}

/** Looks at a variable of the running servers and of the unit. */
async function examineVariable(
	patient: Patient,
	name: string,
	judge: (value: string) => readonly string[] | undefined,
): Promise<Outcome> {
	const unit = await lookUpUnit("ollama.service");
	const seen: string[] = [];
	const wrong: string[] = [];
	const look = (
		environment: ReadonlyMap<string, string>,
		where: string,
	): void => {
		const value = environment.get(name);
		const found =
			value === undefined
				? undefined
				: value.length > longestValue
					? [`${name} is longer than ${longestValue} characters`]
					: judge(value);
		if (found === undefined)
			seen.push(
				`${where}: ${value === undefined ? `no ${name}` : `${name} is set, and in order`}`,
			);
		else wrong.push(...found.map((line) => `${where}: ${line}`));
	};
	const servers = await runningServers(patient);
	if (Array.isArray(servers))
		for (const { pid, environment } of servers) {
			if (environment === undefined)
				return unknown(`the environment of process ${pid} cannot be read`);
			look(environment, `process ${pid}`);
		}
	if (unit?.exists) look(unit.environment, unit.name);
	if (wrong.length > 0) return finding(wrong);
	if (!Array.isArray(servers))
		return unit?.exists && patient.isRoot
			? ok(...seen, "no Ollama runs now")
			: (servers as Outcome);
	return ok(...seen);
}

/** Whether an entry of OLLAMA_ORIGINS takes every page, or every page of one scheme. */
export function isEveryOrigin(entry: string): boolean {
	return /^\s*(?:\*|(?:https?|\*):\/\/\*(?::\*|:\d+)?\/?)\s*$/.test(entry);
}

/** Go's strconv.ParseBool, and Ollama's word that what it cannot read is on (envconfig/config.go:Bool). */
function isTrue(value: string): boolean {
	const text = trimQuotes(value);
	return text !== "" && !/^(?:0|f|F|false|FALSE|False)$/.test(text);
}

/** One place where an Ollama is to answer, and what it said there. */
interface Told {
	readonly where: string;
	/** `undefined` where it did not answer with 200. */
	readonly body: string | undefined;
	readonly said: string;
}

/** Asks every Ollama that can be asked from here. */
async function askOllamas(
	patient: Patient,
	path: string,
): Promise<readonly Told[]> {
	const { places } = await lookForOllama(patient);
	return askEach(places, async ({ address, port: at }) => {
		const came = await knock(address, at, path);
		const where = formatHostPort(address, at);
		return {
			where,
			body:
				came.kind === "answer" && came.status === 200 ? came.body : undefined,
			said: `${where}${path}: ${says(came)}`,
		};
	});
}

function readVersion(body: string): string | undefined {
	try {
		const { version } = JSON.parse(body) as { version?: unknown };
		return typeof version === "string" && /^[\w.+-]{1,64}$/.test(version)
			? version
			: undefined;
	} catch {
		return undefined;
	}
}

/** Judges the version of every Ollama that can be asked, and says the worst. */
async function examineVersions(
	patient: Patient,
	judge: (version: string | undefined, where: string) => Outcome,
): Promise<Outcome> {
	const told = await askOllamas(patient, "/api/version");
	const { unasked } = await lookForOllama(patient);
	const outcomes = [
		...told.map(({ where, body, said }) =>
			body === undefined ? unknown(said) : judge(readVersion(body), where),
		),
		...unasked.map(({ pid }) =>
			unknown(
				`process ${pid} is an Ollama in a network of its own, and is not to be asked from here`,
			),
		),
	];
	for (const state of ["finding", "unknown", "ok"] as const) {
		const such = outcomes.filter((outcome) => outcome.state === state);
		const evidence = unique(such.flatMap((outcome) => outcome.evidence));
		if (such.length > 0) return { state, evidence };
	}
	return absent("no Ollama listens here");
}

/** What is known of the version that an Ollama says it is. */
export function judgeVersion(
	version: string | undefined,
	where: string,
): Outcome {
	const known = version === undefined ? undefined : advisoriesFor(version);
	if (version === undefined || known === undefined)
		return unknown(`${where} does not say a version that can be compared`);
	const running = `Ollama ${version} answers on ${where}`;
	const table = `compared with what was known on ${advisoriesAsOf}; what came to light later is not in it`;
	return known.length === 0
		? ok(running, table)
		: finding([
				`${running}; ${known.map(({ id }) => id).join(", ")} is mended in ${known[0]?.fixed} at the latest`,
				...known.map(
					({ id, says, fixed, source }) =>
						`${id}: ${says}; mended in ${fixed} (${source})`,
				),
				table,
			]);
}

/** Whether a version is one that llamagate was tested with, or older. */
export function judgeTested(
	version: string | undefined,
	where: string,
): Outcome {
	const isNewer =
		version === undefined ? undefined : isNewerThan(version, testedOllama);
	if (version === undefined || isNewer === undefined)
		return unknown(`${where} does not say a version that can be compared`);
	const running = `Ollama ${version} answers on ${where}`;
	const tested = `llamagate was tested with Ollama ${testedOllama} at the newest`;
	return isNewer
		? finding([`${running}; ${tested}`])
		: ok(`${running}; ${tested}`);
}

async function examineCloud(patient: Patient): Promise<Outcome> {
	const told = (await askOllamas(patient, "/api/status")).map((one) => ({
		...one,
		isOff: one.body === undefined ? undefined : readCloud(one.body),
	}));
	const { unasked } = await lookForOllama(patient);
	const say = ({ where, isOff }: (typeof told)[0]) =>
		`${where}/api/status says that cloud features are ${isOff ? "off" : "on"}`;
	const open = told.filter(({ isOff }) => isOff === false);
	if (open.length > 0) return finding(open.map(say));
	if (told.length === 0 && unasked.length === 0)
		return absent("no Ollama listens here");
	if (unasked.length === 0 && told.every(({ isOff }) => isOff))
		return ok(...told.map(say));
	// Versions before /api/status: what the process was started with.
	const servers = await runningServers(patient);
	if (!Array.isArray(servers)) return servers as Outcome;
	const on: string[] = [];
	for (const { pid, environment } of servers) {
		if (environment === undefined)
			return unknown(
				"Ollama does not say it, and only root can see its environment",
			);
		const value = environment.get("OLLAMA_NO_CLOUD");
		if (value === undefined || !isTrue(value))
			on.push(`process ${pid} runs without OLLAMA_NO_CLOUD`);
	}
	return on.length > 0 ? finding(on) : ok("OLLAMA_NO_CLOUD is set");
}

function readCloud(body: string): boolean | undefined {
	try {
		const { cloud } = JSON.parse(body) as { cloud?: { disabled?: unknown } };
		return typeof cloud?.disabled === "boolean" ? cloud.disabled : undefined;
	} catch {
		return undefined;
	}
}

async function examineParallel(patient: Patient): Promise<Outcome> {
	const { queue } = await loadConfig(patient.configFile);
	if (queue.mode === "off") return absent("queue.mode is off: nothing waits");
	if (queue.parallel === "auto")
		return ok("queue.parallel is auto: the gate finds it out");
	const { servers, gatePort } = await lookForOllama(patient);
	const unit = await lookUpUnit("ollama.service");
	const told = await askOllamas(patient, "/api/version");
	const { body } =
		told.find(({ where }) => where.endsWith(`:${gatePort}`)) ?? {};
	const version = body === undefined ? undefined : readVersion(body);
	const seen: SeenParallel[] = [];
	// A second Ollama is not the one that the gate passes requests on to.
	for (const { pid, sockets, environment } of servers)
		if (sockets.some(({ port }) => port === gatePort)) {
			if (environment === undefined)
				return unknown(`the environment of process ${pid} cannot be read`);
			const value = environment.get(parallelVariable);
			seen.push({
				...{ where: `process ${pid}`, value, isRunning: true },
				parallel: readParallel(value, version),
			});
		}
	if (unit?.exists) {
		const next = await nextValue(unit, parallelVariable);
		if ("unreadable" in next) return unknown(sayUnreadable(next));
		seen.push({
			...{ where: "the next start", isRunning: false },
			value: next.value === "" ? undefined : next.value,
			parallel: readParallel(next.value, version),
		});
	}
	return judgeParallel(queue.parallel, seen);
}

/** What an Ollama has, or is to have, of `OLLAMA_NUM_PARALLEL`, and what it makes of that. */
export interface SeenParallel {
	readonly where: string;
	readonly isRunning: boolean;
	readonly value: string | undefined;
	readonly parallel: number | undefined;
}

/** Whether `queue.parallel` is what Ollama itself goes by, now and after its next start. */
export function judgeParallel(
	configured: number,
	seen: readonly SeenParallel[],
): Outcome {
	if (seen.length === 0)
		return unknown(
			`queue.parallel is ${configured}; what the Ollama behind the gate was started with is not to be seen here`,
		);
	const say = ({ where, value, parallel }: SeenParallel) =>
		`${where}: ${value === undefined ? `no ${parallelVariable}` : `${parallelVariable}=${visible(value.slice(0, 20))}`}${parallel === undefined ? "" : `, which is ${parallel}`}`;
	const other = seen.filter(
		({ parallel }) => parallel !== undefined && parallel !== configured,
	);
	if (other.length > 0)
		return finding([`queue.parallel is ${configured}`, ...seen.map(say)], {
			// What it is to have after a restart is what the gate counts on already.
			...(other.every(({ isRunning }) => isRunning) &&
			seen.some(({ isRunning }) => !isRunning)
				? { fix: "sudo systemctl restart ollama" }
				: {}),
		});
	return seen.some(({ parallel }) => parallel === undefined)
		? unknown(
				...seen.map(say),
				"it does not say its version, by which its own number is known",
			)
		: ok(`queue.parallel is ${configured}`, ...seen.map(say));
}
