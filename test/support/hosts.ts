import { askDaemon } from "../../src/admin/client.ts";
import type { GateStatus, HostStatus } from "../../src/admin/status.ts";
import {
	type StandIn,
	type StandInOptions,
	startStandIn,
} from "../../src/ollama/standIn.ts";
import {
	bearer,
	eventually,
	type GateOptions,
	startGate,
	type TestGate,
	testKeys,
} from "./gate.ts";

interface Teardown {
	teardown(action: () => unknown): unknown;
}

/** A stand-in that a test can kill and start again at the same address. */
export interface TestHost {
	readonly name: string;
	readonly url: string;
	standIn: StandIn;
	kill(): Promise<void>;
	start(options?: StandInOptions): Promise<void>;
	/** Inference calls that have reached it since it was started. */
	prompts(): number;
}

export async function startHost(
	t: Teardown,
	name: string,
	options: StandInOptions = {},
): Promise<TestHost> {
	const host: TestHost = {
		name,
		standIn: await startStandIn(options),
		get url() {
			return this.standIn.url;
		},
		kill() {
			return this.standIn.close();
		},
		async start(other = options) {
			const { port } = this.standIn;
			this.standIn = await startStandIn({ ...other, port });
		},
		prompts() {
			return this.standIn.calls.filter(({ method }) => method === "POST")
				.length;
		},
	};
	t.teardown(() => host.kill());
	return host;
}

export type HostsGate = Awaited<ReturnType<typeof startGate>>;

/** A gate with several hosts, once all of them are up. */
export async function startWithHosts(
	t: Teardown,
	upstreams: readonly object[],
	options: GateOptions = {},
	waits = true,
): Promise<HostsGate> {
	const gate = await startGate(t, {
		...options,
		config: { upstreams, ...options.config },
	});
	if (waits) await allAre(gate, "up");
	return gate;
}

export async function statusOf({ folder }: TestGate): Promise<GateStatus> {
	const { body } = await askDaemon(`${folder}/admin.sock`, "GET /status");
	return JSON.parse(body) as GateStatus;
}

export async function hostsOf(gate: TestGate): Promise<readonly HostStatus[]> {
	return (await statusOf(gate)).hosts ?? [];
}

export async function isState(
	gate: TestGate,
	name: string,
	...states: HostStatus["state"][]
): Promise<void> {
	await eventually(async () =>
		(await hostsOf(gate)).some(
			(host) => host.name === name && states.includes(host.state),
		),
	);
}

export async function allAre(
	gate: TestGate,
	state: HostStatus["state"],
): Promise<void> {
	await eventually(async () =>
		(await hostsOf(gate)).every((host) => host.state === state),
	);
}

export interface Sent {
	readonly key?: string;
	readonly path?: string;
	readonly body?: object;
	readonly headers?: Record<string, string>;
	readonly method?: string;
	readonly signal?: AbortSignal;
}

/** A prompt, unless it says otherwise. */
export function send({ url }: TestGate, sent: Sent = {}): Promise<Response> {
	const { key = testKeys.owner, path = "/api/chat", headers, signal } = sent;
	const method = sent.method ?? "POST";
	const body = sent.body ?? {
		model: "qwen3:8b",
		messages: [{ role: "user", content: "hi" }],
	};
	return fetch(`${url}${path}`, {
		method,
		headers: { ...bearer(key), ...headers },
		...(method !== "GET" && { body: JSON.stringify(body) }),
		...(signal && { signal }),
	});
}

/** The error of a reply, in whatever shape. */
export async function errorOf(response: Response): Promise<string> {
	const { error } = (await response.json()) as {
		error: string | { message: string };
	};
	return typeof error === "string" ? error : error.message;
}
