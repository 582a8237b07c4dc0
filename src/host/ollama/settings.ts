import {
	absent,
	finding,
	type Outcome,
	ok,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { isLoopbackAddress } from "../../net/ranges.ts";
import { runProgram } from "../../system/run.ts";
import { lookUpUnit, parseUnit } from "../../system/units.ts";
import { visible } from "../../visible.ts";
import { propertiesOf } from "../gate/inspect.ts";
import { nextValue, trimQuotes, type UnitSettings } from "./environment.ts";
import { longestValue, type Server } from "./serverProcesses.ts";
import { lookForOllama } from "./servers.ts";

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
export async function runningServers(
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

export async function examineHost(patient: Patient): Promise<Outcome> {
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

export async function examineRestart(): Promise<Outcome> {
	const unit = await lookUpUnit("ollama.service");
	if (unit === undefined) return unknown("systemd does not answer here");
	if (!unit.exists) return absent("ollama.service does not exist");
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

export function sayUnreadable({ unreadable }: { unreadable: string }): string {
	return `${unreadable} is read by ollama.service and cannot be read here`;
}

/** What a unit's files say as they are on disk now, read by systemd or not. */
async function settingsOnDisk(name: string): Promise<UnitSettings | undefined> {
	const { code, stdout } = await runProgram([
		"systemd-analyze",
		"cat-config",
		`systemd/system/${name}`,
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
export async function examineVariable(
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

/** The entries of an `OLLAMA_ORIGINS` that take every page (envconfig/config.go:AllowedOrigins). */
export function openOrigins(value: string): string[] {
	return trimQuotes(value).split(",").filter(isEveryOrigin);
}

/** Whether an entry of OLLAMA_ORIGINS takes every page, or every page of one scheme. */
function isEveryOrigin(entry: string): boolean {
	return /^\s*(?:\*|(?:https?|\*):\/\/\*(?::\*|:\d+)?\/?)\s*$/.test(entry);
}

/** Go's strconv.ParseBool, and Ollama's word that what it cannot read is on (envconfig/config.go:Bool). */
export function isTrue(value: string): boolean {
	const text = trimQuotes(value);
	return text !== "" && !/^(?:0|f|F|false|FALSE|False)$/.test(text);
}
