import path from "node:path";
import { askDaemon } from "../../src/admin/client.ts";
import type { StateStatus } from "../../src/admin/status.ts";
import {
	eventually,
	type GateOptions,
	startGate,
	type TestGate,
} from "./gate.ts";

interface Test {
	teardown(action: () => unknown): unknown;
}

/** What a gate's admin socket answers. */
export async function askAdmin<T>(
	{ folder }: Pick<TestGate, "folder">,
	line: string,
): Promise<T> {
	const { body } = await askDaemon(path.join(folder, "admin.sock"), line);
	return JSON.parse(body) as T;
}

export async function stateOf(gate: Pick<TestGate, "folder">) {
	return (await askAdmin<{ state: StateStatus }>(gate, "GET /status")).state;
}

/** Waits until a gate shares its limits with so many, itself included. */
export async function sharesWith(
	gate: Pick<TestGate, "folder">,
	gates: number,
): Promise<void> {
	await eventually(async () => {
		const state = await stateOf(gate);
		return state.isConnected && state.gates === gates;
	});
}

/** Two gates that share their limits, once both know of each other. */
export async function startPair(
	t: Test,
	url: string,
	options: GateOptions = {},
) {
	const start = () =>
		startGate(t, {
			...options,
			config: { ...options.config, state: { url, ...stateIn(options) } },
		});
	const [one, other] = [await start(), await start()];
	await Promise.all([sharesWith(one, 2), sharesWith(other, 2)]);
	return [one, other] as const;
}

function stateIn({ config }: GateOptions): object {
	return (config?.state ?? {}) as object;
}

/**
 * Does something with a pair until Valkey was never away meanwhile: on a machine
 * that is busy with other tests it may be, and each gate keeps to its part then.
 */
export async function whileShared<T>(
	t: Test,
	url: string,
	options: GateOptions,
	act: (gates: Awaited<ReturnType<typeof startPair>>) => Promise<T>,
) {
	for (let attempt = 0; ; attempt += 1) {
		const gates = await startPair(t, url, {
			...options,
			config: { ...options.config, state: { prefix: `attempt${attempt}` } },
		});
		const result = await act(gates);
		const states = await Promise.all(gates.map(stateOf));
		if (states.every(({ losses, unanswered }) => losses + unanswered === 0))
			return { gates, result };
	}
}
