import { eventually, type TestGate } from "./gate.ts";
import { send } from "./hosts.ts";
import type { Puppet } from "./puppet.ts";
import { waitUntil } from "./queue.ts";

/** What those ask who are lined up. */
export const body = { model: "m", messages: [], stream: false };

/**
 * Has an Ollama that works on one request at a time work on one, and so many others
 * wait behind it, who came one after the other.
 *
 * @returns what they are answered, the one at work first
 */
export async function oneAtWork(
	gate: TestGate,
	{ prompts }: Puppet,
	waiting: number,
): Promise<Promise<Response>[]> {
	const asked = [send(gate, { body })];
	await eventually(() => prompts.length === 1);
	for (let count = 1; count <= waiting; count += 1) {
		asked.push(send(gate, { body }));
		await waitUntil(gate, count);
	}
	return asked;
}
