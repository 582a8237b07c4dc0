import { AsyncLocalStorage } from "node:async_hooks";

/** What has been asked in a look at the host, with the answers. */
const looks = new AsyncLocalStorage<
	Map<unknown, Promise<unknown>> | undefined
>();

/**
 * Takes one look at the host: a program that is run twice in it, with the same
 * arguments, is run once, and both see one answer. For what changes nothing.
 */
export function inOneLook<T>(action: () => Promise<T>): Promise<T> {
	return looks.run(new Map(), action);
}

/** Asks anew, inside of a look too: for what waits until an answer changes. */
export function outsideOfLooks<T>(action: () => Promise<T>): Promise<T> {
	return looks.run(undefined, action);
}

/**
 * Asks, or gives the answer that this look has already had to the same question.
 *
 * @param question what tells it from others: a text, or a function that is itself the question
 */
export function askedOnce<T>(
	question: unknown,
	ask: () => Promise<T>,
): Promise<T> {
	const answers = looks.getStore();
	if (answers === undefined) return ask();
	const answer = (answers.get(question) as Promise<T> | undefined) ?? ask();
	answers.set(question, answer);
	return answer;
}
