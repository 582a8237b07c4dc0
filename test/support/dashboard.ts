import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, request } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import type { GateLive } from "../../src/admin/live.ts";
import type { TopRequest } from "../../src/admin/top.ts";
import type { AccessRules } from "../../src/dashboard/access.ts";
import { createDashboard } from "../../src/dashboard/server.ts";
import { Watch } from "../../src/dashboard/snapshot.ts";
import {
	type ViewerLimits,
	viewerLimits,
} from "../../src/dashboard/viewers.ts";
import { temporaryFolder } from "./temporaryFolder.ts";

interface Teardown {
	teardown(action: () => unknown): unknown;
}

export interface DashboardOptions extends Partial<AccessRules> {
	readonly ledgerSocket?: string;
	readonly people?: "off" | "hash" | "on";
	readonly limits?: Partial<ViewerLimits>;
	readonly freshMs?: number;
	/** A file with a result of doctor's; there is none otherwise. */
	readonly doctorFile?: string;
}

/** The page of a gate, on a real socket. */
export async function startDashboard(
	t: Teardown,
	{ folder }: { readonly folder: string },
	options: DashboardOptions = {},
) {
	const {
		ledgerSocket,
		people = "off",
		limits,
		doctorFile,
		freshMs,
		...rules
	} = options;
	const watch = new Watch({
		adminSocket: path.join(folder, "admin.sock"),
		ledgerSocket,
		people,
		...(freshMs !== undefined && { freshMs }),
		doctorFile: doctorFile ?? path.join(folder, "doctor.json"),
	});
	let port = 0;
	const page = createDashboard(
		"mini",
		watch,
		() => ({
			port,
			address: "127.0.0.1",
			hosts: new Set(),
			allow: new Set(),
			...rules,
		}),
		{ ...viewerLimits, ...limits },
	);
	await once(page.server.listen(0, "127.0.0.1"), "listening");
	({ port } = page.server.address() as AddressInfo);
	t.teardown(() => page.close());
	return { ...page, port, url: `http://127.0.0.1:${port}/` };
}

/** An admin socket that answers as the test says, and counts who asks. */
export async function startFakeGate(t: Teardown, live: () => GateLive) {
	const folder = await temporaryFolder(t);
	const gate = { folder, looks: 0, isAway: false };
	const server = createServer((_, res) => {
		gate.looks += 1;
		if (gate.isAway) res.destroy();
		else res.end(JSON.stringify(live()));
	});
	t.teardown(() => {
		server.close();
		server.closeAllConnections();
	});
	await once(server.listen(path.join(folder, "admin.sock")), "listening");
	return gate;
}

/** What a gate says on which nothing goes on. */
export function idleLive(): GateLive {
	const none = { count: 0, medianMs: null, p95Ms: null };
	return {
		startedAt: new Date(Date.now() - 60_000).toISOString(),
		top: { version: "0.1.0", atWork: 0, waiting: 0, requests: [] },
		pieces: 0,
		firstTokens: { lastMinute: none, tenMinutes: none },
		refusals: [],
		lockedOut: 0,
		budgets: [],
		loaded: [],
	};
}

/** A request that runs, with the names that are given. */
export function runningRequest(over: Partial<TopRequest> = {}): TopRequest {
	return {
		id: "a-1",
		user: "key:laptop",
		key: "laptop",
		node: null,
		route: "POST /api/chat",
		model: "qwen3:8b",
		priority: "normal",
		state: "running",
		ahead: null,
		ageMs: 5_000,
		waitedMs: 0,
		runsMs: 5_000,
		repliesMs: 4_000,
		pieces: 41,
		...over,
	};
}

/** One request, with the headers as they are given, Host too. */
export function ask(
	port: number,
	target: string,
	headers: Record<string, string | string[]> = {},
	method = "GET",
): Promise<{
	status: number;
	headers: IncomingHttpHeaders;
	body: Buffer;
}> {
	return new Promise((resolve, reject) => {
		const req = request(
			{ host: "127.0.0.1", port, path: target, method, headers, agent: false },
			(res) => {
				const pieces: Buffer[] = [];
				res.on("data", (piece: Buffer) => pieces.push(piece));
				res.on("error", reject);
				res.on("end", () =>
					resolve({
						status: res.statusCode ?? 0,
						headers: res.headers,
						body: Buffer.concat(pieces),
					}),
				);
			},
		);
		req.on("error", reject);
		req.end();
	});
}

/** What a page is sent; each holds until the viewer leaves. */
export interface Look {
	readonly sections: Readonly<Record<string, string>>;
	readonly points: readonly (readonly (number | null)[])[];
	readonly isWhole: boolean;
}

/** Opens the stream of events as a page does. */
export async function openViewer(
	t: Teardown,
	url: string,
	headers: Record<string, string> = {},
) {
	const controller = new AbortController();
	const response = await fetch(`${url}events`, {
		headers,
		signal: controller.signal,
	});
	t.teardown(() => controller.abort());
	return {
		response,
		looks: looksOf(response),
		leave: () => controller.abort(),
	};
}

async function* looksOf(response: Response): AsyncGenerator<Look, undefined> {
	let rest = "";
	for await (const piece of response.body?.pipeThrough(
		new TextDecoderStream(),
	) ?? []) {
		const parts = (rest + piece).split("\n\n");
		rest = parts.pop() ?? "";
		for (const part of parts) {
			const data = /^event: look\ndata: (.*)$/.exec(part)?.[1];
			if (data !== undefined) yield JSON.parse(data) as Look;
		}
	}
}
