import type { GateStatus } from "../../admin/status.ts";
import {
	absent,
	finding,
	type Outcome,
	ok,
	unknown,
} from "../../doctor/check.ts";
import { type KeyEntry, parseTime } from "../../keys/keyFile.ts";
import { restart as restartGate } from "./units.ts";

const dayMs = 86_400_000;
const expiryNoticeMs = 7 * dayMs;
const unusedMs = 90 * dayMs;
const oldMs = 365 * dayMs;

/** How much later than the reload that read it a file may be dated: file systems keep coarse time. */
const slackMs = 1_000;

/** A file, and when it came to be as it is, in epoch milliseconds. */
export interface ChangedFile {
	readonly file: string;
	readonly atMs: number;
}

/** Whether what is stored is what the running gate has. */
export function judgeInForce({
	names,
	status,
	changed,
}: {
	/** The names in the keys file. */
	readonly names: readonly string[];
	readonly status: Pick<GateStatus, "keys" | "lastReload" | "restart">;
	/** The files that a gate reads at its start and at a reload alone. */
	readonly changed: readonly ChangedFile[];
}): Outcome {
	const { keys, lastReload, restart = [] } = status;
	const gone = keys.filter((name) => !names.includes(name));
	const waiting = names.filter((name) => !keys.includes(name));
	const readAtMs = Date.parse(lastReload.at);
	const evidence = [
		...(gone.length > 0
			? [
					`keys that were taken out of the keys file are still let in: ${gone.join(", ")}`,
				]
			: []),
		...(waiting.length > 0
			? [
					`keys that are in the keys file are not let in yet: ${waiting.join(", ")}`,
				]
			: []),
		...(lastReload.ok
			? []
			: [`the last reload, at ${lastReload.at}, was refused`]),
		...(lastReload.ok
			? changed
					.filter(({ atMs }) => atMs > readAtMs + slackMs)
					.map(
						({ file, atMs }) =>
							`${file} was changed at ${new Date(atMs).toISOString()}, and the gate has read it at ${lastReload.at} last`,
					)
			: []),
	];
	if (evidence.length > 0)
		return finding(evidence, gone.length > 0 ? { severity: "critical" } : {});
	if (restart.length > 0)
		return finding(
			[
				`the gate goes on with what it was started with of: ${restart.join(", ")}`,
			],
			{ fix: restartGate },
		);
	return ok(
		`${keys.length} key(s) in force, as stored: ${keys.join(", ")}; read at ${lastReload.at}`,
	);
}

/** Keys whose time has come, or comes within seven days. */
export function judgeLifetimes(
	keys: readonly KeyEntry[],
	nowMs: number,
): Outcome {
	const ending = keys.flatMap(({ name, expires }) => {
		const atMs = expires === undefined ? undefined : parseTime(expires);
		return atMs === undefined || atMs > nowMs + expiryNoticeMs
			? []
			: [{ name, expires, isOver: atMs <= nowMs }];
	});
	return ending.length > 0
		? finding(
				ending.map(
					({ name, expires, isOver }) =>
						`the key ${name} ${isOver ? "has expired: it was good until" : "expires soon: it is good until"} ${expires}`,
				),
				{
					fix: ending
						.map(({ name, isOver }) =>
							isOver
								? `sudo llamagate keys revoke ${name}`
								: `sudo llamagate keys rotate ${name} --expires 90d`,
						)
						.join(" && "),
				},
			)
		: ok(
				`${keys.length} key(s), of which ${keys.filter(({ expires }) => expires !== undefined).length} expire one day`,
			);
}

/** Keys that nobody has used for 90 days, as far back as the running gate remembers. */
export function judgeUse(
	keys: readonly KeyEntry[],
	{ keyUse, startedAt }: Pick<GateStatus, "keyUse" | "startedAt">,
	nowMs: number,
): Outcome {
	const unused: string[] = [];
	const names: string[] = [];
	const unclear: string[] = [];
	const startedMs = Date.parse(startedAt);
	for (const { name, created, canary } of keys) {
		if (canary === true) continue;
		const createdMs = created === undefined ? undefined : parseTime(created);
		if (createdMs !== undefined && createdMs > nowMs - unusedMs) continue;
		const lastUsed = keyUse[name]?.lastUsed;
		if (lastUsed !== undefined) {
			if (Date.parse(lastUsed) >= nowMs - unusedMs) continue;
			unused.push(`the key ${name} was last used at ${lastUsed}`);
			names.push(name);
		} else if (startedMs < nowMs - unusedMs) {
			unused.push(`the key ${name} was not used since ${startedAt}`);
			names.push(name);
		} else unclear.push(name);
	}
	if (unused.length > 0)
		return finding(unused, { fix: eachOf("revoke", names) });
	return unclear.length > 0
		? unknown(
				`not used since the gate started at ${startedAt}, and what was before it does not remember: ${unclear.join(", ")}`,
			)
		: ok(`each of ${keys.length} key(s) is new or was used within 90 days`);
}

function eachOf(action: string, names: readonly string[]): string {
	return names
		.map((name) => `sudo llamagate keys ${action} ${name}`)
		.join(" && ");
}

/** Keys that have been the same for a year. A canary is to stay. */
export function judgeRotation(
	keys: readonly KeyEntry[],
	nowMs: number,
): Outcome {
	const old: string[] = [];
	const undated: string[] = [];
	const rotated: string[] = [];
	for (const { name, created, canary, ollamaKey } of keys) {
		if (canary === true) continue;
		const atMs = created === undefined ? undefined : parseTime(created);
		if (atMs === undefined) undated.push(name);
		else if (atMs >= nowMs - oldMs) continue;
		else if (ollamaKey === undefined) {
			old.push(`the key ${name} is older than a year: it is of ${created}`);
			rotated.push(name);
		} else
			old.push(
				`the key ${name} is older than a year: it is of ${created}; its client makes a new one, and it is revoked and added again`,
			);
	}
	if (old.length > 0)
		return finding(
			old,
			rotated.length > 0 ? { fix: eachOf("rotate", rotated) } : {},
		);
	return undated.length > 0
		? unknown(`the keys file does not say since when: ${undated.join(", ")}`)
		: ok(`${keys.length} key(s), none older than a year`);
}

/** A canary that was shown. */
export interface CanaryUse {
	readonly key: string;
	readonly ip: string;
	/** ISO 8601. */
	readonly at: string;
}

/** Uses of the canaries that are laid out now: taking one away says that its use was dealt with. */
export function judgeCanaries(
	keys: readonly KeyEntry[],
	uses: readonly CanaryUse[],
): Outcome {
	const canaries = keys.filter(({ canary }) => canary === true);
	if (canaries.length === 0) return absent("found no canary key");
	const shown = uses.filter(({ key, at }) =>
		canaries.some(
			({ name, created }) =>
				name === key &&
				Date.parse(at) >= (parseTime(created ?? "") ?? 0) - slackMs,
		),
	);
	return shown.length > 0
		? finding(
				shown.map(
					({ key, ip, at }) =>
						`the canary key ${key} was shown by ${ip} at ${at}`,
				),
			)
		: ok(
				`the journal of 90 days, as far as it is kept, tells of no use of ${canaries.map(({ name }) => name).join(", ")}`,
			);
}

/** Reads the gate's log for uses of canaries. */
export function readCanaryUses(log: string): CanaryUse[] {
	return log.split("\n").flatMap((text) => {
		// Another text may have the word in it; the event is a line of its own.
		if (!text.startsWith("{")) return [];
		try {
			const { event, key, ip, time } = JSON.parse(text) as Record<
				string,
				unknown
			>;
			return event === "canary_used"
				? [{ key: String(key), ip: String(ip), at: String(time) }]
				: [];
		} catch {
			return [];
		}
	});
}
