import type { AlarmSubject } from "../../src/config/alarms.ts";
import type { AlarmBook } from "../../src/ledger/alarms/book.ts";
import { AlarmDispatcher } from "../../src/ledger/alarms/dispatcher.ts";
import type { AlarmTarget } from "../../src/ledger/alarms/targets.ts";
import { collectedLog } from "./ledger.ts";
import { type Receiver, TestClock } from "./receiver.ts";

interface Teardown {
	teardown(action: () => unknown): unknown;
}

/** The receiver's, which is a secret. */
export const topic = "a-topic-that-nobody-guesses";

export function memoryBook(): AlarmBook {
	const told = new Map<string, number>();
	return {
		toldAtMs: (subject) => told.get(subject) ?? 0,
		setToldAtMs: (subject, timeMs) => void told.set(subject, timeMs),
	};
}

/** What sends alarms to a receiver, by a clock that the test moves. */
export function dispatch(
	t: Teardown,
	receiver: Receiver,
	on: readonly AlarmSubject[] = ["canary", "budget"],
	book = memoryBook(),
) {
	const clock = new TestClock();
	const { log, lines } = collectedLog();
	const target: AlarmTarget = {
		name: "ntfy at here",
		form: "ntfy",
		url: new URL(`${receiver.url}/${topic}`),
		on: new Set(on),
	};
	const alarms = new AlarmDispatcher([target], book, log, clock);
	t.teardown(() => alarms.close());
	return { alarms, clock, lines };
}
