import { readFileSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { type AlarmSubject, alarmSubjects } from "../../config/alarms.ts";
import type { Log } from "../../log.ts";

/** When subjects were told of last; epoch milliseconds. It outlives this process. */
export interface AlarmBook {
	toldAtMs(subject: AlarmSubject): number;
	setToldAtMs(subject: AlarmSubject, timeMs: number): void;
}

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
		toldAtMs: (subject) => told.get(subject) ?? 0,
		setToldAtMs(subject, timeMs) {
			told.set(subject, timeMs);
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

function readTimes(file: string): [AlarmSubject, number][] {
	try {
		const times = Object(JSON.parse(readFileSync(file, "utf8"))) as Record<
			string,
			unknown
		>;
		return alarmSubjects.flatMap((subject): [AlarmSubject, number][] => {
			const time = times[subject];
			return typeof time === "number" ? [[subject, time]] : [];
		});
	} catch {
		return [];
	}
}
