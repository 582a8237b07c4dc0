import { type AlarmSubject, alarmSubjects } from "../../config/alarms.ts";
import { visibleLine } from "../../visible.ts";

/** Something that an owner wants to know at once. It never holds a key, a prompt or a reply. */
export interface Alarm {
	readonly subject: AlarmSubject;
	/** A sentence. */
	readonly text: string;
}

/** Tells of something, and never waits or throws. */
export type Raise = (subject: AlarmSubject, text: string) => void;

/** One may be longer, and is cut. */
export const maxTextLength = 400;

/**
 * Reads what came over the ledger's socket: anyone who has taken a gate over may
 * send anything.
 *
 * @returns `undefined` where it is not an alarm
 */
export function readAlarm(value: unknown): Alarm | undefined {
	const { subject, text } = Object(value) as Record<keyof Alarm, unknown>;
	if (
		typeof text !== "string" ||
		!alarmSubjects.includes(subject as AlarmSubject)
	)
		return undefined;
	return {
		subject: subject as AlarmSubject,
		text: visibleLine(text.slice(0, maxTextLength)),
	};
}
