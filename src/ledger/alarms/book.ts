import { readFileSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { alarmSubjects } from "../../config/alarms.ts";
import type { Log } from "../../log.ts";

/** When topics (`topicOf`) were told of last; epoch milliseconds. It outlives this process. */
export interface AlarmBook {
	toldAtMs(topic: string): number;
	setToldAtMs(topic: string, timeMs: number): void;
}

/** More than there are hosts and subjects; those of hosts that are gone make room. */
const maxTopics = 100;

/**
 * Opens `alarms.json` beside the ledger's file. One that cannot be read is taken
 * for empty, and one that cannot be written is said: an alarm twice is better than none.
 *
 * @param ledgerFile absolute, or `:memory:`, where nothing is written
 */
export function openAlarmBook(ledgerFile: string, log: Log): AlarmBook {
	const file = path.isAbsolute(ledgerFile)
		? path.join(path.dirname(ledgerFile), "alarms.json")
		: undefined;
	const told = new Map(file === undefined ? [] : readTimes(file));
	return {
		toldAtMs: (topic) => told.get(topic) ?? 0,
		setToldAtMs(topic, timeMs) {
			told.set(topic, timeMs);
			if (file === undefined) return;
			try {
				const text = `${JSON.stringify(Object.fromEntries(told))}\n`;
				writeFileSync(`${file}.new`, text, { mode: 0o600 });
				renameSync(`${file}.new`, file);
			} catch (error) {
				const { code } = error as NodeJS.ErrnoException;
				log.warn({ file, code }, "when people were told was not written down");
			}
		},
	};
}

function readTimes(file: string): [string, number][] {
	try {
		const times = Object(JSON.parse(readFileSync(file, "utf8"))) as Record<
			string,
			unknown
		>;
		return Object.entries(times)
			.filter(
				(entry): entry is [string, number] =>
					typeof entry[1] === "number" &&
					alarmSubjects.some((subject) => subject === entry[0].split(" ")[0]),
			)
			.slice(-maxTopics);
	} catch {
		return [];
	}
}
