import { constants, open, readFile } from "node:fs/promises";
import { hostname } from "node:os";
import path from "node:path";
import {
	finding,
	type Outcome,
	ok,
	type Patient,
	unique,
	unknown,
} from "../../doctor/check.ts";
import { formatHostPort, isLoopbackAddress } from "../../net/ranges.ts";
import { networkOf, processesNamed } from "../../system/processes.ts";
import { runProgram } from "../../system/run.ts";
import { holdersOf } from "../../system/sockets.ts";
import { parseEnvironment } from "./serverProcesses.ts";
import { lookForOllama } from "./servers.ts";

/**
 * Programs that take a port of this host's loopback to where others are, by a
 * connection that they make themselves: no socket here shows it, and no firewall
 * stops it. What listens here for others is ollama.listening's.
 */
const tunnelPrograms = [
	"cloudflared",
	"ngrok",
	"frpc",
	"chisel",
	"rathole",
	"bore",
	"zrok",
	"inlets",
	"inlets-pro",
	"pagekite",
	"playit",
	"gost",
] as const;
/** Of these there are many that lead nowhere; one counts where it is seen to lead to Ollama. */
const otherForwarders = ["ssh", "autossh", "sshd", "sshd-session"] as const;

/** Anybody may give any number of programs such a name. */
const mostProcesses = 64;
const mostFiles = 8;
const mostRead = 64 * 2 ** 10;

/** A program that may lead others to Ollama, and what is seen of that. */
export interface Tunnel {
	readonly program: string;
	readonly pid: number;
	/** Of Ollama, as its command line or a file of its settings has it: `localhost:11434`. */
	readonly told: string | undefined;
	/** The same of an ssh's settings, which are for some hosts and not for others. */
	readonly mayBeTold?: string | undefined;
	/** Where it has a connection to Ollama now. */
	readonly connected: string | undefined;
}

/** Looks for programs that lead others to Ollama by a tunnel. */
export async function examineTunnels(patient: Patient): Promise<Outcome> {
	const { ports, places } = await lookForOllama(patient);
	const ollamas = [...new Set([...ports, ...places.map(({ port }) => port)])];
	const own = await networkOf("self");
	const connections = await connectionsTo(ollamas);
	const tunnels: Tunnel[] = [];
	for (const program of [...tunnelPrograms, ...otherForwarders])
		for (const pid of (await processesNamed(program)).slice(0, mostProcesses)) {
			// One in a network of its own has a loopback of its own, too.
			if ((await networkOf(pid)) !== own) continue;
			tunnels.push({
				program,
				pid,
				connected: connections.get(pid),
				...(await placeToldTo(program, pid, ollamas)),
			});
		}
	return judgeTunnels(tunnels);
}

export function judgeTunnels(tunnels: readonly Tunnel[]): Outcome {
	const name = ({ program, pid }: Tunnel) => `${program} (process ${pid})`;
	const isLogin = ({ program }: Tunnel) => program.startsWith("sshd");
	const leading = tunnels.filter(
		({ told, connected }) => told !== undefined || connected !== undefined,
	);
	if (leading.length > 0)
		return finding(
			leading.map((tunnel) =>
				isLogin(tunnel)
					? `a user who is logged in over SSH has ${tunnel.connected} forwarded: ${name(tunnel)}`
					: tunnel.told !== undefined
						? `${name(tunnel)} is told to lead to ${tunnel.told}, ${tunnel.told === everyPort ? "Ollama's too" : "which is Ollama"}`
						: `${name(tunnel)} has a connection to ${tunnel.connected}, which is Ollama`,
			),
			leading.every(isLogin)
				? {
						severity: "warn",
						fix: "ask who it is; to forbid it, AllowTcpForwarding no in sshd_config, then:\nsudo systemctl reload ssh",
					}
				: {},
		);
	const maybe = tunnels.filter(({ mayBeTold }) => mayBeTold !== undefined);
	if (maybe.length > 0)
		return unknown(
			...maybe.map(
				(tunnel) =>
					`${name(tunnel)} may lead to ${tunnel.mayBeTold}: RemoteForward in its settings says so for some hosts, and whether for this one is not looked at here`,
			),
			"see its settings (~/.ssh/config): to the gate's address it may lead, where a key is asked for",
		);
	const others = tunnels.filter(({ program }) =>
		(tunnelPrograms as readonly string[]).includes(program),
	);
	if (others.length > 0)
		return unknown(
			`${others.map(name).join(", ")} brings others to ports of this host, and to which is not to be seen here: its settings may be kept by its provider`,
			"look there whether one of them is Ollama's; to the gate's address it may lead, where a key is asked for",
		);
	return ok(
		"no program that is known for it leads to Ollama, nor does an ssh",
		"one of another name, which connects only while it is used, would not be seen",
	);
}

/** Which process has a connection to one of these ports of loopback, and to which. */
async function connectionsTo(
	ports: readonly number[],
): Promise<Map<number, string>> {
	const { code, stdout, stderr } = await runProgram(
		"ss -H -O -t -n -e state established".split(" "),
	);
	if (code !== 0) throw new Error(stderr.trim());
	const places = new Map(
		parseConnections(stdout)
			.filter(
				({ host, port }) => ports.includes(port) && isLoopbackAddress(host),
			)
			.map(({ host, port, inode }) => [inode, formatHostPort(host, port)]),
	);
	const connected = new Map<number, string>();
	for (const [inode, pids] of await holdersOf(new Set(places.keys())))
		for (const pid of pids) connected.set(pid, places.get(inode) ?? "");
	return connected;
}

/** Reads the far ends of what `ss -H -O -t -n -e state established` prints. */
export function parseConnections(
	output: string,
): { readonly host: string; readonly port: number; readonly inode: number }[] {
	return output.split("\n").flatMap((line) => {
		const [, host = "", port, inode] =
			/^\s*\d+\s+\d+\s+\S+:\d+\s+(\S+):(\d+)\s.*?\bino:(\d+)/.exec(line) ?? [];
		return port === undefined
			? []
			: [
					{
						host: host.replace(/^\[(?:::ffff:)?|\]$/g, ""),
						port: Number(port),
						inode: Number(inode),
					},
				];
	});
}

/** The place of Ollama's that a process was told to lead to. What else it was told may be secret, and is not shown. */
async function placeToldTo(
	program: string,
	pid: number,
	ports: readonly number[],
): Promise<Pick<Tunnel, "told" | "mayBeTold">> {
	const text = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
	const words = text.split("\0").slice(1);
	const told = (place: string | undefined) => ({ told: place });
	if (program.startsWith("sshd")) return told(undefined);
	if (program === "ssh" || program === "autossh") {
		const ofAutossh = program === "autossh" ? "M" : "";
		const place = placeForwarded(remoteForwards(words, ofAutossh), ports);
		if (place !== undefined) return told(place);
		const kept = await sshSettingsOf(pid, optionsOf(words, ofAutossh));
		return { told: undefined, mayBeTold: placeForwarded(kept, ports) };
	}
	for (const word of words) {
		const place = findPlace(word, ports);
		if (place !== undefined) return told(place);
	}
	for (const file of await settingsOf(pid, words)) {
		const place = findPlace(await beginningOf(file), ports);
		if (place !== undefined) return told(place);
	}
	return told(undefined);
}

/** Options of ssh(1) that are followed by a value. */
const withValue = "BbcDEeFIiJLlmOoPpQRSWw";

/** The options of an ssh, also those behind the host; not what the other side is to run. */
function optionsOf(
	words: readonly string[],
	alsoWithValue: string,
): (readonly [letter: string, value: string])[] {
	const options: (readonly [string, string])[] = [];
	let hosts = 0;
	for (let index = 0; index < words.length; index += 1) {
		const word = words[index] ?? "";
		if (word === "--") break;
		if (!/^-./.test(word)) {
			hosts += 1;
			if (hosts === 2) break;
			continue;
		}
		for (let at = 1; at < word.length; at += 1) {
			const letter = word.charAt(at);
			if (!(withValue + alsoWithValue).includes(letter)) continue;
			const joined = word.slice(at + 1);
			if (joined === "") index += 1;
			options.push([letter, joined || (words[index] ?? "")]);
			break;
		}
	}
	return options;
}

/**
 * What an ssh brings to this side by its command line; what `-L` names is the other side's.
 *
 * @param alsoWithValue options of a program around it that are followed by a value
 */
export function remoteForwards(
	words: readonly string[],
	alsoWithValue = "",
): string[] {
	return optionsOf(words, alsoWithValue).flatMap(([letter, value]) =>
		letter === "R" ? [value] : letter === "o" ? forwardIn(value) : [],
	);
}

/** What a line of settings brings to this side: `RemoteForward 8000 localhost:11434`. */
function forwardIn(line: string): string[] {
	const [, forward] =
		/^\s*RemoteForward(?:\s*=\s*|\s+)(.*)$/is.exec(line) ?? [];
	return forward === undefined ? [] : [forward];
}

/** What an ssh leads to that is not told where: the other side asks, by SOCKS (ssh(1), -R). */
const everyPort = "every port of this host";

/** The first place of Ollama's that forwards of an ssh lead to: `8000:localhost:11434`, `8000 localhost:11434`, or `1080` alone. */
export function placeForwarded(
	forwards: readonly string[],
	ports: readonly number[],
): string | undefined {
	for (const forward of forwards) {
		const words = forward.replaceAll('"', "").trim().split(/\s+/);
		const [target = ""] = words.slice(-1);
		// With two words the first is the other side's.
		const place =
			words.length === 1 && /^(?:\[[^\]]*\]:|[^:/]*:)?\d+$/.test(target)
				? everyPort
				: findPlace(target, ports);
		if (place !== undefined) return place;
	}
	return undefined;
}

/** Every RemoteForward in the settings that an ssh has read, whichever host it is for. */
async function sshSettingsOf(
	pid: number,
	options: ReturnType<typeof optionsOf>,
): Promise<string[]> {
	const given = options.flatMap(([letter, value]) =>
		letter === "F" ? [value] : [],
	);
	const files = given.length > 0 ? given : [".ssh/config"];
	const home = await homeOf(pid);
	const texts = await Promise.all(
		[...files.slice(0, mostFiles), "/etc/ssh/ssh_config"].map((file) =>
			beginningOf(
				file.startsWith("/")
					? `/proc/${pid}/root${file}`
					: given.length > 0
						? path.join(`/proc/${pid}/cwd`, file)
						: path.join(`/proc/${pid}/root${home}`, file),
			),
		),
	);
	return texts.flatMap((text) => text.split("\n")).flatMap(forwardIn);
}

/** `localhost:11434` or `11434`, where a text leads to one of these ports of this host. */
export function findPlace(
	text: string,
	ports: readonly number[],
): string | undefined {
	const places = text.matchAll(
		/(?<![\w.])(?:(\[[0-9a-f:.]+\]|[\w.-]+):)?(\d{1,5})(?![\w.:])/gi,
	);
	for (const [place, host, port] of places) {
		if (!ports.includes(Number(port))) continue;
		const bare = host?.replace(/^\[|\]$/g, "").toLowerCase();
		if (
			bare === undefined ||
			["localhost", "0.0.0.0", "::", hostname().toLowerCase()].includes(bare) ||
			isLoopbackAddress(bare)
		)
			return place;
	}
	return undefined;
}

/** The files that its command line names, and those where its settings usually are, as it sees them. */
async function settingsOf(
	pid: number,
	words: readonly string[],
): Promise<string[]> {
	const home = await homeOf(pid);
	const named = words.flatMap((word) => {
		const file = word.replace(/^--?[\w-]+=/, "");
		return file.startsWith("-") || !/[./]/.test(file) || file.includes("://")
			? []
			: [
					file.startsWith("/")
						? `/proc/${pid}/root${file}`
						: path.join(`/proc/${pid}/cwd`, file),
				];
	});
	const usual = [
		"/etc/cloudflared/config.yml",
		...[".cloudflared/config.yml", ".config/ngrok/ngrok.yml"].map((file) =>
			path.join(home, file),
		),
	].map((file) => `/proc/${pid}/root${file}`);
	return unique([...named.slice(0, mostFiles), ...usual]);
}

async function homeOf(pid: number): Promise<string> {
	const environ = await readFile(`/proc/${pid}/environ`, "utf8").catch(
		() => "",
	);
	return parseEnvironment(environ).get("HOME") ?? "/root";
}

/** The beginning of a file, without what follows a #; "" for what is not a file, or not to be read. */
async function beginningOf(file: string): Promise<string> {
	try {
		// A pipe would be waited for.
		const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
		try {
			if (!(await handle.stat()).isFile()) return "";
			const { buffer, bytesRead } = await handle.read({
				buffer: Buffer.alloc(mostRead),
			});
			return buffer.toString("utf8", 0, bytesRead).replace(/(^|\s)#.*$/gm, "");
		} finally {
			await handle.close();
		}
	} catch {
		return "";
	}
}
