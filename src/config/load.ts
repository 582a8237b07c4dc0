import { stat } from "node:fs/promises";
import path from "node:path";
import { maxTimerDays, parseDuration, parseSize } from "../duration.ts";
import { BadFileError, type Mistake } from "../errors.ts";
import type { LogLevel } from "../log.ts";
import type { Listen } from "../net/listener.ts";
import { parseRange, type Range } from "../net/ranges.ts";
import { type Priority, priorities } from "../priority.ts";
import { isOrigin, readListen, readMetrics } from "./addresses.ts";
import { type AlarmEntry, alarmMistakes } from "./alarms.ts";
import { type BudgetEntry, budgetMistakes } from "./budget.ts";
import { type LedgerSettings, readLedger } from "./ledger.ts";
import { type LoginRule, loginMistakes } from "./logins.ts";
import { readConfig } from "./readConfig.ts";
import { type ConfigFile, configSchema, defaultsOf } from "./schema.ts";
import { exposureOf, isForServiceGroup } from "./secretFile.ts";
import { readState, type StateSettings } from "./state.ts";
import { got, joinPath, parseStrictJson } from "./strictJson.ts";
import { readTls, type TlsSettings } from "./tls.ts";
import {
	type HostSettings,
	isGateItself,
	isOnThisMachine,
	mistakeOfUrl,
	readHosts,
	readUrl,
	type Upstream,
} from "./upstreams.ts";

/** Where the configuration is looked for when no `--config` names it. */
export const defaultConfigPath = "/etc/llamagate/config.json";

/** A command of this program as it is typed: with `--config` where that names another file. */
export function typed(words: string, configFile: string): string {
	if (configFile === defaultConfigPath) return `llamagate ${words}`;
	const quoted = /^[\w./@:+-]+$/.test(configFile)
		? configFile
		: `'${configFile.replaceAll("'", "'\\''")}'`;
	return `llamagate ${words} --config ${quoted}`;
}

/** The configuration as the program uses it: checked, complete, in milliseconds and bytes. */
export interface Settings {
	readonly listen: Listen;
	/** `undefined` for plain HTTP. */
	readonly tls: TlsSettings | undefined;
	readonly sources: readonly Range[];
	readonly onForeignSource: "refuse" | "drop";
	readonly upstream: {
		readonly target: Upstream;
		readonly connectTimeoutMs: number;
		readonly firstByteTimeoutMs: number;
		readonly idleTimeoutMs: number;
		readonly maxConnections: number;
	};
	/** Where there are several; `upstream.target` is then the first of this machine, or of all. */
	readonly hosts: readonly HostSettings[] | undefined;
	/** Absolute, as is the next. */
	readonly configFile: string;
	readonly keysFile: string;
	readonly limits: {
		readonly perKey: {
			readonly requestsPerMinute: number;
			readonly concurrent: number;
		};
		readonly perSource: { readonly requestsPerMinute: number };
		readonly authFailures: {
			readonly max: number;
			readonly windowMs: number;
			readonly lockoutMs: number;
		};
		readonly bodyBytes: number;
	};
	readonly queue: {
		readonly mode: "fair" | "off";
		/** Requests that Ollama works on at once for each model. */
		readonly parallel: number | "auto";
		readonly maxWaiting: number;
		readonly maxWaitingPerUser: number;
		readonly maxWaitMs: Readonly<Record<Priority, number>>;
		readonly turnFactor: number;
		readonly loadGraceMs: number;
		readonly announceAfterMs: number;
	};
	readonly identity: {
		readonly mode: "off" | "log" | "require" | "login";
		/** Whom `login` lets in without a key. */
		readonly rules: readonly LoginRule[];
		/** tailscaled's socket. */
		readonly socket: string;
	};
	readonly corsOrigins: ReadonlySet<string>;
	readonly admin: {
		readonly socket: string | undefined;
		readonly metrics:
			| { readonly host: string; readonly port: number }
			| undefined;
	};
	/** `undefined` where nothing is kept. */
	readonly ledger: LedgerSettings | undefined;
	/** Whom the ledger tells at once; files are absolute. */
	readonly alarms: readonly AlarmEntry[];
	readonly budgets: {
		readonly withoutLedger: "batch" | "refuse";
		/** What keys share, by the names of their groups. */
		readonly groups: Readonly<Record<string, BudgetEntry>>;
	};
	/** `undefined` where the gate shares nothing with others. */
	readonly state: StateSettings | undefined;
	readonly drainTimeoutMs: number;
	readonly logLevel: LogLevel;
	/** How much a request's line says of the person behind it. */
	readonly logPeople: "off" | "hash" | "on";
}

/**
 * Reads and checks a configuration file.
 *
 * @throws {BadFileError} with every mistake in it, also when it cannot be read
 */
export async function loadConfig(file: string): Promise<Settings> {
	const settings = parseConfig(await readConfig(file), file);
	if (settings.alarms.some(({ url }) => url !== undefined)) {
		const stats = await stat(file);
		const exposure = exposureOf(path.resolve(file), stats);
		if (exposure !== undefined)
			throw new BadFileError(file, [
				{
					path: "alarms",
					message: `has a url, which is a secret, and of the file: ${exposure}; run: sudo chmod ${isForServiceGroup(stats) ? "o-rwx" : "600"} ${file}, or keep the address in a urlFile`,
				},
			]);
	}
	return settings;
}

/**
 * Checks the text of a configuration file.
 *
 * @param file its path, from whose folder `keysFile` and other paths are resolved
 * @throws {BadFileError} with every mistake in it
 */
export function parseConfig(text: string, file: string): Settings {
	const json = parseStrictJson(text, configSchema, true);
	if (json.mistakes.length > 0) throw new BadFileError(file, json.mistakes);

	const config = withDefaults(json.value as Partial<ConfigFile>);
	const mistakes: Mistake[] = [];
	const refuse = (where: readonly (string | number)[], message: string) => {
		const line = json.lineOf(where);
		const at = joinPath(where);
		mistakes.push(
			line === undefined ? { path: at, message } : { path: at, message, line },
		);
	};

	const given = json.value as {
		listen?: object;
		ledger?: object;
		upstream?: { url?: string };
		upstreams?: unknown;
	};
	const listen = readListen(
		config,
		"interface" in (given.listen ?? {}),
		refuse,
	);
	const sources = config.sources.flatMap((text, index) => {
		const range = parseRange(text);
		if (range === undefined)
			refuse(
				["sources", index],
				`expected an address range such as 100.64.0.0/10${got(text)}`,
			);
		return range === undefined ? [] : [range];
	});
	const hosts =
		config.upstreams &&
		readHosts(config.upstreams, file, listen, refuse, json.lineOf);
	const target =
		hosts === undefined
			? readUpstream(config.upstream.url)
			: (hosts.find((host) => isOnThisMachine(host.target)) ?? hosts[0])
					?.target;
	if (hosts !== undefined) {
		if (given.upstream?.url !== undefined)
			refuse(
				["upstream", "url"],
				'is there beside upstreams; keep one. With upstreams, make this one of its entries: { "name": …, "url": … }',
			);
	} else if (target === undefined)
		refuse(
			["upstream", "url"],
			`expected http:// on a loopback address, or unix:/path of a socket${got(config.upstream.url)}${mistakeOfUrl(config.upstream.url)}. Ollama must stay on loopback; another machine's is reached through its own llamagate, as one of upstreams (docs/hosts.md)`,
		);
	else if (isGateItself(target, listen))
		refuse(
			["upstream", "url"],
			"is the gate's own address and port, so the gate would call itself",
		);
	for (const [index, origin] of config.cors.origins.entries()) {
		if (!isOrigin(origin))
			refuse(
				["cors", "origins", index],
				`expected an origin such as https://chat.example (no path, no *)${got(origin)}`,
			);
	}
	for (const [where, message] of loginMistakes(
		config.identity.mode,
		config.identity.rules,
	))
		refuse(["identity", ...where], message);
	for (const [where, message] of alarmMistakes(
		config.alarms,
		config.ledger !== undefined,
	))
		refuse(["alarms", ...where], message);
	const groups: Readonly<Record<string, BudgetEntry>> = config.budgets.groups;
	for (const [name, budget] of Object.entries(groups))
		for (const [where, message] of budgetMistakes(budget))
			refuse(["budgets", "groups", name, ...where], message);
	for (const where of durations) {
		const text = where.reduce<unknown>(
			(node, name) => (node as Record<string, unknown>)[name],
			config,
		);
		if (inMs(String(text)) > maxTimerDays * 86_400_000)
			refuse(
				where,
				`expected at most "${maxTimerDays}d"${got(text)}; a longer timer cannot be set`,
			);
	}
	const metrics = readMetrics(config.admin.metrics);
	if (metrics === null)
		refuse(
			["admin", "metrics"],
			`expected a loopback address and port such as 127.0.0.1:9464, or "off"${got(config.admin.metrics)}`,
		);
	const ledger = readLedger(
		config.ledger,
		"file" in (given.ledger ?? {}),
		file,
		refuse,
	);
	const state = readState(config.state, path.dirname(file), (where, message) =>
		refuse(["state", ...where], message),
	);
	if (
		mistakes.length > 0 ||
		listen === undefined ||
		target === undefined ||
		metrics === null
	)
		throw new BadFileError(file, mistakes);

	const { limits, queue, upstream } = config;
	return {
		listen,
		tls: readTls(config.listen.tls, path.dirname(path.resolve(file))),
		sources,
		onForeignSource: config.onForeignSource,
		upstream: {
			target,
			connectTimeoutMs: inMs(upstream.connectTimeout),
			firstByteTimeoutMs: inMs(upstream.firstByteTimeout),
			idleTimeoutMs: inMs(upstream.idleTimeout),
			maxConnections: upstream.maxConnections,
		},
		hosts,
		configFile: path.resolve(file),
		keysFile: path.resolve(path.dirname(file), config.keysFile),
		limits: {
			perKey: limits.perKey,
			perSource: limits.perSource,
			authFailures: {
				max: limits.authFailures.max,
				windowMs: inMs(limits.authFailures.window),
				lockoutMs: inMs(limits.authFailures.lockout),
			},
			bodyBytes: parseSize(limits.body) ?? 0,
		},
		queue: {
			mode: queue.mode,
			parallel: queue.parallel,
			maxWaiting: queue.maxWaiting,
			maxWaitingPerUser: queue.maxWaitingPerUser,
			maxWaitMs: {
				interactive: inMs(queue.maxWait.interactive),
				normal: inMs(queue.maxWait.normal),
				batch: inMs(queue.maxWait.batch),
			},
			turnFactor: queue.turnFactor,
			loadGraceMs: inMs(queue.loadGrace),
			announceAfterMs: inMs(queue.announceAfter),
		},
		identity: {
			...config.identity,
			socket: path.resolve(path.dirname(file), config.identity.socket),
		},
		corsOrigins: new Set(config.cors.origins),
		admin: {
			socket: resolveSocket(file, config.admin.socket),
			metrics,
		},
		ledger,
		alarms: config.alarms.map((alarm) =>
			alarm.urlFile === undefined
				? alarm
				: {
						...alarm,
						urlFile: path.resolve(path.dirname(file), alarm.urlFile),
					},
		),
		budgets: { ...config.budgets, groups },
		state,
		drainTimeoutMs: inMs(config.drainTimeout),
		logLevel: config.log.level,
		logPeople: config.log.people,
	};
}

/** Where `admin.socket` is, from the folder of its configuration; `undefined` where it is off. */
export function resolveSocket(
	configFile: string,
	text: string,
): string | undefined {
	return text === "off"
		? undefined
		: path.resolve(path.dirname(configFile), text);
}

/** Every setting that is a duration. */
const durations: readonly (readonly string[])[] = [
	["upstream", "connectTimeout"],
	["upstream", "firstByteTimeout"],
	["upstream", "idleTimeout"],
	["limits", "authFailures", "window"],
	["limits", "authFailures", "lockout"],
	...priorities.map((priority) => ["queue", "maxWait", priority]),
	["queue", "loadGrace"],
	["queue", "announceAfter"],
	["drainTimeout"],
];

/** The schema's pattern has been checked before, so there is always a number. */
function inMs(text: string): number {
	return parseDuration(text) ?? 0;
}

function withDefaults(given: Partial<ConfigFile>): ConfigFile {
	const merge = (base: unknown, over: unknown): unknown => {
		if (!isObject(base) || !isObject(over))
			return over === undefined ? base : over;
		const merged: Record<string, unknown> = { ...base };
		for (const [name, value] of Object.entries(over))
			merged[name] = merge(base[name], value);
		return merged;
	};
	const defaults = defaultsOf(configSchema) as Record<string, unknown>;
	// A section that may be left out has defaults once it is there.
	for (const name of ["ledger", "state"] as const)
		if (given[name] !== undefined)
			defaults[name] = defaultsOf({
				properties: configSchema.properties[name].properties,
			});
	return merge(defaults, given) as ConfigFile;
}

function isObject(value: unknown): value is Record<string, unknown> {
	return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The one Ollama of this machine. */
function readUpstream(url: string): Upstream | undefined {
	const target = readUrl(url);
	return target !== undefined && isOnThisMachine(target) ? target : undefined;
}
