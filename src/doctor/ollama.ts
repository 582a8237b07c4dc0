import { readdir, readFile, readlink } from "node:fs/promises";
import { request } from "node:http";
import { networkInterfaces } from "node:os";
import { formatSocket, isLocalOnly } from "../host/listeningSockets.ts";
import { runProgram } from "../host/program.ts";
import { lookUpUnit, parseUnit, type Unit } from "../host/units.ts";
import {
	formatHostPort,
	isLoopbackAddress,
	isTailscaleAddress,
} from "../net/ranges.ts";
import { visible } from "../visible.ts";
import {
	absent,
	type Examination,
	finding,
	type Outcome,
	ok,
	type Patient,
	unknown,
} from "./examination.ts";
import { advisoriesAsOf, advisoriesFor } from "./ollamaAdvisories.ts";
import { findGateOwner, isHeldByGate, propertiesOf } from "./runningGate.ts";
import { type OwnedSocket, ownedSockets, runsProgram } from "./sockets.ts";

const port = 11434;
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
		title: "Nothing answers as Ollama on this host's other addresses",
		severity: "critical",
		why: "Whoever reaches one of these addresses would have all of Ollama without a key.",
		fix: bind,
		step: "ollama",
		examine: examineReachable,
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
		examine: examineVersion,
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

/** A process that serves as Ollama. */
interface Server {
	readonly pid: number;
	/** Where it listens, as far as this network's sockets tell. */
	readonly sockets: readonly OwnedSocket[];
	/** Not in this network, as in a container. */
	readonly isElsewhere: boolean;
	/** As it was started; `undefined` where this user may not see it. */
	readonly environment: ReadonlyMap<string, string> | undefined;
}

async function isOllamas(socket: OwnedSocket): Promise<boolean> {
	if (socket.port === port || socket.programs.includes("ollama")) return true;
	const held = await Promise.all(
		socket.pids.map((pid) => runsProgram(pid, "ollama")),
	);
	return held.includes(true);
}

/** The sockets of the port and of programs that are Ollama, without the gate's own. */
async function ollamaSockets(patient: Patient): Promise<OwnedSocket[]> {
	const [sockets, gate] = await Promise.all([
		ownedSockets(),
		findGateOwner(patient),
	]);
	const found: OwnedSocket[] = [];
	for (const socket of sockets) {
		const isGates =
			socket.device !== undefined && isTailscaleAddress(socket.address);
		// Without root its owners are not to be seen, and its form is what there is.
		if (isGates && (isHeldByGate(socket, gate) || !patient.isRoot)) continue;
		// A gate that opened its sockets itself, which gate.listening looks at.
		if (isTailscaleAddress(socket.address) && isHeldByGate(socket, gate))
			continue;
		if (await isOllamas(socket)) found.push(socket);
	}
	return found;
}

async function examineListening(patient: Patient): Promise<Outcome> {
	const sockets = await ollamaSockets(patient);
	const open = sockets.filter((socket) => !isLocalOnly(socket));
	if (open.length > 0) {
		const evidence = open.map(
			(socket) => `open to others: ${formatSocket(socket)}`,
		);
		const isForwarder = open.every(
			({ programs }) => programs.length > 0 && !programs.includes("ollama"),
		);
		return finding(
			evidence,
			isForwarder
				? {
						fix: `stop that program, or have it take 127.0.0.1 alone (in a container: publish 127.0.0.1:${port}:${port})`,
					}
				: {},
		);
	}
	if (!patient.isRoot)
		return unknown(
			`port ${port} is open on loopback at most; whether a program named ollama has another port, only root can see`,
		);
	const elsewhere = (await findServers(sockets)).filter(
		({ isElsewhere }) => isElsewhere,
	);
	const notes = elsewhere.map(
		({ pid }) =>
			`process ${pid} is an Ollama in a network of its own (a container); what leads to it is seen here by port ${port} alone`,
	);
	if (sockets.length === 0 && elsewhere.length === 0)
		return absent(`no program has port ${port}, and none is named ollama`);
	return ok(...sockets.map(formatSocket), ...notes);
}

/** What a call without a key was answered with. */
type Knock =
	| { readonly kind: "refused" }
	| { readonly kind: "silent" }
	| { readonly kind: "failed"; readonly code: string }
	| { readonly kind: "answer"; readonly status: number; readonly body: string };

/** GET /api/version of an address, as somebody asks who knows that Ollama wants a Host of its own. */
function knock(host: string, at: number, path: string): Promise<Knock> {
	return new Promise((resolve) => {
		const req = request(
			{
				host,
				port: at,
				path,
				headers: { host: `127.0.0.1:${port}` },
				agent: false,
				timeout: 3_000,
			},
			(res) => {
				let body = "";
				res.setEncoding("utf8");
				res.on("data", (text: string) => {
					body += text;
					if (body.length > 65_536) req.destroy();
				});
				res.on("end", () =>
					resolve({ kind: "answer", status: res.statusCode ?? 0, body }),
				);
				res.on("error", () =>
					resolve({ kind: "answer", status: res.statusCode ?? 0, body }),
				);
			},
		);
		req.on("timeout", () => {
			resolve({ kind: "silent" });
			req.destroy();
		});
		req.on("error", ({ code = "" }: NodeJS.ErrnoException) =>
			resolve(
				code === "ECONNREFUSED"
					? { kind: "refused" }
					: code === "ETIMEDOUT"
						? { kind: "silent" }
						: { kind: "failed", code },
			),
		);
		req.end();
	});
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
	const addresses = otherAddresses(networkInterfaces());
	if (addresses.length === 0)
		return ok("this host has no address but loopback's");
	const sockets = await ollamaSockets(patient);
	const ports = new Set([
		port,
		...sockets
			.filter((socket) => !isLocalOnly(socket))
			.map((open) => open.port),
	]);
	const knocks = await Promise.all(
		addresses.flatMap((address) =>
			[...ports].map(async (at) => ({
				where: formatHostPort(address, at),
				came: await knock(address, at, "/api/version"),
			})),
		),
	);
	return judgeKnocks(knocks);
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

/** Ollama's servers among the processes of this host. */
async function findServers(sockets: readonly OwnedSocket[]): Promise<Server[]> {
	const servers: Server[] = [];
	const own = await networkOf("self");
	for (const pid of await processesNamed("ollama")) {
		const held = sockets.filter(({ pids }) => pids.includes(pid));
		const network = await networkOf(pid);
		const isElsewhere =
			network !== undefined && own !== undefined && network !== own;
		// The command listens nowhere.
		if (held.length === 0 && !(isElsewhere && (await isServing(pid)))) continue;
		servers.push({
			pid,
			sockets: held,
			isElsewhere,
			environment: await environmentOf(pid),
		});
	}
	return servers;
}

async function processesNamed(name: string): Promise<number[]> {
	const found: number[] = [];
	for (const entry of await readdir("/proc")) {
		if (!/^\d+$/.test(entry)) continue;
		const pid = Number(entry);
		const comm = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "");
		if (comm.trim() === name || (await runsProgram(pid, name))) found.push(pid);
	}
	return found;
}

/** Whether a process holds a TCP socket that listens, in whichever network. */
async function isServing(pid: number): Promise<boolean> {
	const tables = await Promise.all(
		["tcp", "tcp6"].map((table) =>
			readFile(`/proc/${pid}/net/${table}`, "utf8").catch(() => ""),
		),
	);
	const listening = new Set(tables.flatMap(listeningInodes));
	const open = await readdir(`/proc/${pid}/fd`).catch(() => []);
	for (const fd of open) {
		const file = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => "");
		const [, inode = ""] = /^socket:\[(\d+)\]$/.exec(file) ?? [];
		if (listening.has(inode)) return true;
	}
	return false;
}

/** The inodes of the listening sockets in a text of `/proc/net/tcp` (proc_net_tcp.txt: the state is 0A). */
function listeningInodes(table: string): string[] {
	return table.split("\n").flatMap((line) => {
		const columns = line.trim().split(/\s+/);
		return columns[3] === "0A" && columns[9] !== undefined ? [columns[9]] : [];
	});
}

function networkOf(pid: number | "self"): Promise<string | undefined> {
	return readlink(`/proc/${pid}/ns/net`).catch(() => undefined);
}

async function environmentOf(
	pid: number,
): Promise<ReadonlyMap<string, string> | undefined> {
	const text = await readFile(`/proc/${pid}/environ`, "utf8").catch(
		() => undefined,
	);
	return text === undefined ? undefined : parseEnvironment(text);
}

/** Reads `/proc/PID/environ`. Of a name that stands twice, the first counts, as it does for getenv(3). */
export function parseEnvironment(text: string): Map<string, string> {
	const environment = new Map<string, string>();
	for (const word of text.split("\0")) {
		const equals = word.indexOf("=");
		if (equals <= 0) continue;
		const name = word.slice(0, equals);
		if (!environment.has(name)) environment.set(name, word.slice(equals + 1));
	}
	return environment;
}

/**
 * Whether an `OLLAMA_HOST` keeps Ollama on loopback (envconfig/config.go:Host).
 * A name other than localhost may be any address, so it does not.
 */
export function keepsToLoopback(value: string | undefined): boolean {
	const text = (value ?? "").trim().replace(/^["']+|["']+$/g, "");
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
	const servers = await findServers(await ollamaSockets(patient));
	if (servers.length > 0) return servers;
	return patient.isRoot
		? absent("no Ollama runs here")
		: unknown("only root can see whether Ollama runs, and with what");
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
	if (unit === undefined) return unknown("systemctl does not answer");
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

/** What a unit gives the environment of its process. */
type Settings = Pick<Unit, "environment" | "environmentFiles">;

/** The `OLLAMA_HOST` that a start with these would get; "" for none. */
async function nextHost({
	environment,
	environmentFiles,
}: Settings): Promise<string | Outcome> {
	let host = environment.get("OLLAMA_HOST") ?? "";
	// What a file says counts more than what the unit says (systemd.exec(5)).
	for (const file of environmentFiles) {
		const text = await readFile(file, "utf8").catch(
			({ code }: NodeJS.ErrnoException) => (code === "ENOENT" ? "" : undefined),
		);
		if (text === undefined)
			return unknown(
				`${file} is read by ollama.service and cannot be read here`,
			);
		for (const [, value = ""] of text.matchAll(
			/^\s*OLLAMA_HOST\s*=\s*(.*?)\s*$/gm,
		))
			host = value;
	}
	return host;
}

/** What a unit's files say as they are on disk now, read by systemd or not. */
async function settingsOnDisk(name: string): Promise<Settings | undefined> {
	const { code, stdout } = await runProgram([
		...["systemd-analyze", "cat-config", `systemd/system/${name}`],
	]);
	return code === 0 ? readSettings(stdout) : undefined;
}

/** Reads `Environment=` and `EnvironmentFile=` of a unit's files, one after the other; an empty one takes back those before it. */
export function readSettings(text: string): Settings {
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
		const found = value === undefined ? undefined : judge(value);
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
	const text = value.trim().replace(/^["']+|["']+$/g, "");
	return text !== "" && !/^(?:0|f|F|false|FALSE|False)$/.test(text);
}

/** Where the running Ollama is asked: on loopback, as this host's programs do. */
async function askOllama(
	patient: Patient,
	path: string,
): Promise<{ readonly body: string; readonly where: string } | Outcome> {
	const local = (await ollamaSockets(patient)).filter(
		(socket) => socket.port === port || socket.programs.includes("ollama"),
	);
	const [first] = local.toSorted(
		(a, b) => Math.abs(a.port - port) - Math.abs(b.port - port),
	);
	if (first === undefined) return absent("no Ollama listens here");
	const anyV4 = ["*", "0.0.0.0"].includes(first.address);
	const host = anyV4
		? "127.0.0.1"
		: first.address === "::"
			? "::1"
			: first.address;
	const came = await knock(host, first.port, path);
	const where = formatHostPort(host, first.port);
	return came.kind === "answer" && came.status === 200
		? { body: came.body, where }
		: unknown(`${where}${path}: ${says(came)}`);
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

async function examineVersion(patient: Patient): Promise<Outcome> {
	const asked = await askOllama(patient, "/api/version");
	if ("state" in asked) return asked;
	return judgeVersion(readVersion(asked.body), asked.where);
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

async function examineCloud(patient: Patient): Promise<Outcome> {
	const asked = await askOllama(patient, "/api/status");
	if (!("state" in asked)) {
		const disabled = readCloud(asked.body);
		if (disabled !== undefined) {
			const seen = `${asked.where}/api/status says that cloud features are ${disabled ? "off" : "on"}`;
			return disabled ? ok(seen) : finding([seen]);
		}
	} else if (asked.state === "absent") return asked;
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
