import { connect } from "node:net";
import type { Trial } from "./alarms/dispatcher.ts";
import { type AlarmTarget, markOf } from "./alarms/targets.ts";
import {
	type Answer,
	maxAnswerLength,
	onLines,
	type Question,
	readAnswer,
	strange,
} from "./protocol.ts";
import { amountNames } from "./record.ts";
import { dimensions, type UsageQuery, type UsageRow } from "./store.ts";

/** A ledger that is asked for much says nothing else meanwhile. */
const answerMs = 60_000;

/**
 * Asks the ledger for sums.
 *
 * @returns them, or why there are none
 */
export function askLedger(
	socketPath: string,
	query: UsageQuery,
): Promise<readonly UsageRow[] | string> {
	return ask(socketPath, { query }, (answer) =>
		"rows" in answer && areSums(answer.rows) ? answer.rows : undefined,
	);
}

/** A budget of which too little is known, or no number, would let everything through. */
function areSums(rows: unknown): boolean {
	return (
		Array.isArray(rows) &&
		rows.every((row) => {
			const sum = Object(row) as Record<string, unknown>;
			return (
				[...amountNames, "refused"].every(
					(name) => Number.isFinite(sum[name]) && Number(sum[name]) >= 0,
				) && dimensions.every((name) => isName(sum[name]))
			);
		})
	);
}

/** An older ledger does not know all of them. */
function isName(value: unknown): boolean {
	return value === undefined || value === null || typeof value === "string";
}

/**
 * Has the ledger send a message to everybody whom it would alarm.
 *
 * @returns what came of each, or why none was sent
 */
export function tryAlarmsOf(
	socketPath: string,
): Promise<readonly Trial[] | string> {
	return ask(socketPath, { trial: true }, (answer) =>
		"trials" in answer ? answer.trials : undefined,
	);
}

/**
 * Whether the running ledger tells these, of the same subjects.
 *
 * @returns that, or why it is not known; an older ledger does not know the question
 */
export function askWhetherTells(
	socketPath: string,
	targets: readonly AlarmTarget[],
): Promise<boolean | string> {
	return ask(socketPath, { tells: markOf(targets) }, (answer) =>
		"tells" in answer && typeof answer.tells === "boolean"
			? answer.tells
			: undefined,
	);
}

function ask<T>(
	socketPath: string,
	question: Question,
	read: (answer: Answer) => T | undefined,
): Promise<T | string> {
	return new Promise((resolve) => {
		const socket = connect(socketPath);
		const end = (answer: T | string) => {
			resolve(answer);
			socket.destroy();
		};
		socket.setTimeout(answerMs, () =>
			end(`the ledger did not answer in ${answerMs / 1000} s`),
		);
		socket.on("error", ({ code, message }: NodeJS.ErrnoException) =>
			end(
				code === "EACCES"
					? `this user may not ask the ledger on ${socketPath}; try sudo`
					: `no ledger answers on ${socketPath} (${code ?? message})`,
			),
		);
		socket.on("close", () => end("the ledger closed the connection"));
		onLines(socket, maxAnswerLength, (line) => {
			const answer = readAnswer(line);
			end(read(answer) ?? ("error" in answer ? answer.error : strange));
		});
		socket.write(`${JSON.stringify(question)}\n`);
	});
}
