import { testKeys } from "../support/gate.ts";
import { readRequestsLikeGo } from "../support/goHttp.ts";
import { shows } from "../support/raw.ts";
import type { Traffic, Wire } from "../support/wire.ts";

/**
 * What a suite says of a case's bytes: `invalid` must be turned away,
 * `doubtful` may also be passed on in one plain form, `valid` must be
 * answered, and to `unfinished` there is no answer yet.
 */
export type Label = "valid" | "doubtful" | "invalid" | "unfinished";

/** Bytes with a verdict of somebody else's. */
export interface Case {
	/** Where it stands in its suite. */
	readonly id: string;
	readonly label: Label;
	/** In Latin-1, a character a byte. */
	readonly bytes: string;
}

/** How the gate took a case. */
export type Outcome = "refused" | "passed on" | "waiting" | "fault";

export interface Verdict {
	readonly outcome: Outcome;
	readonly held: boolean;
	/** One line that says what happened. */
	readonly account: string;
}

/** Of one suite: how many cases of a label ended in which way. */
export interface Score {
	readonly commit: string;
	readonly counts: Readonly<
		Partial<Record<Label, Partial<Record<Outcome, number>>>>
	>;
	readonly held: number;
	readonly total: number;
}

/**
 * Sends a case twice: as it is, and made into what the gate would let through
 * if only its framing were good, with a key, a Host and a route that exists.
 *
 * @param addsHost where a suite's cases leave Host out because they are about something else
 */
export async function judgeBoth(
	wire: Wire,
	one: Case,
	addsHost: boolean,
): Promise<Verdict> {
	const asItIs = await judge(wire, one, one.bytes);
	const withKey = await judge(wire, one, letIn(one.bytes, addsHost));
	return asItIs.held ? withKey : asItIs;
}

export async function judge(
	wire: Wire,
	{ label }: Case,
	bytes: string,
): Promise<Verdict> {
	const traffic = await wire.send(bytes);
	const outcome = outcomeOf(traffic);
	const statuses = traffic.replies.map(({ status }) => status).join(", ");
	const account = [
		`${outcome}: ${statuses || "no reply"}${traffic.closed ? ", closed" : ""}`,
		...traffic.faults,
		`to ${JSON.stringify(bytes.slice(0, 1500))}`,
	].join("; ");
	return { outcome, held: isHeld(label, outcome, bytes, traffic), account };
}

function outcomeOf({ replies, closed, faults }: Traffic): Outcome {
	const last = replies.at(-1)?.status ?? 0;
	if (faults.length > 0 || last >= 500) return "fault";
	if (last >= 400) return "refused";
	if (last >= 200) return "passed on";
	return closed ? "refused" : "waiting";
}

function isHeld(
	label: Label,
	outcome: Outcome,
	bytes: string,
	{ replies, closed }: Traffic,
): boolean {
	switch (label) {
		case "unfinished":
			return outcome === "waiting" || outcome === "refused";
		case "doubtful":
			return outcome !== "fault";
		case "invalid":
			// What ends in one way only, and is refused for its content, may leave the connection open.
			return (
				outcome === "refused" &&
				(closed || readRequestsLikeGo(bytes).end === "clean")
			);
		case "valid":
			// The case may have its head only.
			if (outcome === "waiting")
				return readRequestsLikeGo(bytes).end === "incomplete";
			return (
				outcome !== "fault" && replies.every(({ status }) => status !== 400)
			);
	}
}

const requestHead =
	/^(GET|HEAD|POST|PUT|DELETE|PATCH) \/[\w/.-]* (HTTP\/1\.[01])\r\n((?:[^\r\n]+\r\n)*)/gm;

/** The routes stand for what the suites have of paths; a body goes where one may go. */
function letIn(bytes: string, addsHost: boolean): string {
	const key = shows(testKeys.owner);
	return bytes.replace(
		requestHead,
		(_all, method: string, version: string, headers: string) => {
			const isRead = method === "GET" || method === "HEAD";
			const line = isRead
				? `${method} /api/tags ${version}`
				: `POST /api/embed ${version}`;
			const added = [
				...(addsHost && !/^host[ \t]*:/im.test(headers) ? ["Host: gate"] : []),
				...(headers.includes(key) ? [] : [key]),
			];
			return [line, ...added, headers].join("\r\n");
		},
	);
}
