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
