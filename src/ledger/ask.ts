import { connect } from "node:net";
import { type Answer, maxAnswerLength, onLines } from "./protocol.ts";
import type { UsageQuery, UsageRow } from "./store.ts";

const strange = "what answers is not a ledger";
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
	return new Promise((resolve) => {
		const socket = connect(socketPath);
		const end = (answer: readonly UsageRow[] | string) => {
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
			if ("rows" in answer) end(answer.rows);
			else end("error" in answer ? answer.error : strange);
		});
		socket.write(`${JSON.stringify({ query })}\n`);
	});
}

function readAnswer(line: string): Answer {
	try {
		return Object(JSON.parse(line)) as Answer;
	} catch {
		return { error: strange };
	}
}
