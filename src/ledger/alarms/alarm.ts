import { type AlarmSubject, alarmSubjects } from "../../config/alarms.ts";
import { visibleLine } from "../../visible.ts";

/** Something that an owner wants to know at once. It never holds a key, a prompt or a reply. */
export interface Alarm extends About {
	readonly subject: AlarmSubject;
	/** A sentence. */
	readonly text: string;
}

/** What of a subject is meant, where that is told of by itself. */
export interface About {
	/** The one of several hosts. */
	readonly host?: string;
	/** What was told of is over. */
	readonly isOver?: true;
	/**
	 * A host was given that the ledger, which alone says so, has not read of at its
	 * start. It may be any of several, so one's end is not another's.
	 */
	readonly isUnknownHost?: true;
}

/** Tells of something, and never waits or throws. */
export type Raise = (
	subject: AlarmSubject,
	text: string,
	about?: About,
) => void;

/** A sentence with the time: the same is news when it happens again, and may be read an hour later. */
export function dated(text: string): string {
	return `${text} (${new Date().toISOString().slice(0, 19)}Z)`;
}

/** One may be longer, and is cut. */
export const maxTextLength = 400;

/**
 * Names what is told of at most once an hour: the subject, and of it each host and
 * each end by itself, so that no host's alarm waits behind another's.
 */
export function topicOf({
	subject,
	host,
	isOver,
	isUnknownHost,
}: About & Pick<Alarm, "subject">): string {
	return [subject, host, isUnknownHost && "(unknown)", isOver && "(over)"]
		.filter((part) => part !== undefined)
		.join(" ");
}

/**
 * Names the topic that says the opposite: of what is down that it is up again, and
 * the other way about. Its news makes what this one has not told yet untrue.
 *
 * @returns `undefined` where no topic does
 */
export function oppositeOf({
	subject,
	host,
	isOver,
	isUnknownHost,
}: About & Pick<Alarm, "subject">): string | undefined {
	if (subject !== "upstream_down" || isUnknownHost) return undefined;
	return topicOf({
		subject,
		...(host !== undefined && { host }),
		...(!isOver && { isOver: true }),
	});
}

/**
 * Reads what came over the ledger's socket: anyone who has taken a gate over may
 * send anything.
 *
 * @param hosts those that there are; all others' alarms share a topic, their ends
 *   too, so that no number of names makes as many messages and none is overtaken
 * @returns `undefined` where it is not an alarm
 */
export function readAlarm(
	value: unknown,
	hosts: readonly string[],
): Alarm | undefined {
	const { subject, text, host, isOver } = Object(value) as Record<
		keyof Alarm,
		unknown
	>;
	if (
		typeof text !== "string" ||
		!alarmSubjects.includes(subject as AlarmSubject)
	)
		return undefined;
	const known = hosts.find((name) => name === host);
	const said = {
		subject: subject as AlarmSubject,
		text: visibleLine(text.slice(0, maxTextLength)),
	};
	if (host !== undefined && known === undefined)
		return { ...said, isUnknownHost: true };
	return {
		...said,
		...(known !== undefined && { host: known }),
		...(isOver === true && { isOver }),
	};
}
