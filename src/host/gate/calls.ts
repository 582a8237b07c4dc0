import { stat } from "node:fs/promises";
import { Agent } from "undici";
import { tryOut } from "../../clients/tryOut.ts";
import {
	finding,
	type Outcome,
	ok,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { formatHostPort } from "../../net/ranges.ts";
import { asLocal, type Caller, openCaller } from "../../probe/caller.ts";
import { checkWithoutKey } from "../../probe/withoutKey.ts";
import type { TlsStatus } from "../../tls/keeper.ts";
import { askGate, followed, noUnit } from "./inspect.ts";
import { localSocket } from "./step.ts";

/**
 * The examinations that call the gate as its clients do. They are apart from the
 * others of the gate since the client library takes a fifth of a second to load.
 */

/** Calls over root's own socket, as `openCaller` makes them over TCP. */
function openLocalCaller(): Pick<Caller, "call" | "origin" | "close"> {
	const agent = new Agent({ connect: { socketPath: localSocket } });
	return {
		origin: "http://localhost",
		async call({ method, path, headers, body }) {
			const startedAt = performance.now();
			try {
				const reply = await agent.request({
					origin: "http://localhost",
					path,
					method: method as "GET",
					headers: { "content-type": "application/json", ...headers },
					headersTimeout: 10_000,
					bodyTimeout: 10_000,
					...(body === undefined ? {} : { body }),
				});
				return {
					status: reply.statusCode,
					headers: Object.fromEntries(
						Object.entries(reply.headers).map(([name, value]) => [
							name,
							String(value ?? ""),
						]),
					),
					body: await reply.body.text(),
					durationMs: performance.now() - startedAt,
				};
			} catch (error) {
				const { code, message } = error as NodeJS.ErrnoException;
				return { code: code ?? message };
			}
		},
		close: () => agent.destroy(),
	};
}

export async function examineRefusals(patient: Patient): Promise<Outcome> {
	const missing = await noUnit();
	if (missing !== undefined && (await askGate(patient)).kind !== "status")
		return missing;
	const { port, addresses } = await followed();
	const tls = await tlsOf(patient);
	const ways: { readonly name: string; readonly caller: Caller }[] =
		addresses.map((address) => ({
			name: formatHostPort(address, port),
			caller: openCaller(
				tls === undefined
					? `http://${formatHostPort(address, port)}`
					: `https://${tls.names[0]}:${port}`,
				[address],
				true,
			),
		}));
	const hasLocal = await stat(localSocket).then(
		() => true,
		() => false,
	);
	if (hasLocal)
		ways.push({ name: localSocket, caller: openLocalCaller() as Caller });
	if (ways.length === 0)
		return unknown(
			`the gate is not to be reached: ${localSocket} is not there, and no Tailscale address either`,
		);
	const outcomes = await Promise.all(
		ways.map(async ({ name, caller }) => {
			try {
				const [known, strange] = await checkWithoutKey(asLocal(caller));
				return { name, results: [known, strange] };
			} finally {
				await caller.close();
			}
		}),
	);
	const evidenceOf = (state: Outcome["state"]) =>
		outcomes.flatMap(({ name, results }) =>
			results
				.filter((result) => result?.state === state)
				.flatMap((result) => result?.evidence ?? [])
				.map((line) => `${name}: ${line}`),
		);
	const states = outcomes.flatMap(({ results }) =>
		results.map((result) => result?.state ?? "unknown"),
	);
	if (states.includes("finding")) return finding(evidenceOf("finding"));
	return states.every((state) => state === "ok")
		? ok(...evidenceOf("ok"))
		: unknown(...evidenceOf("unknown"));
}

/** `undefined` where the gate speaks plain HTTP, or does not say. */
async function tlsOf(patient: Patient): Promise<TlsStatus | undefined> {
	const asked = await askGate(patient);
	return asked.kind === "status" ? asked.status.tls : undefined;
}

export async function examineKey(patient: Patient): Promise<Outcome> {
	const { key } = patient;
	if (key === undefined)
		return unknown("give a key with --key-stdin to try it");
	const { device, port, addresses } = await followed();
	const [address] = addresses;
	if (address === undefined)
		return unknown(`${device} has no Tailscale address to call`);
	const tls = await tlsOf(patient);
	if (tls?.source === "files")
		return unknown(
			"the gate has a certificate of your own, which this host need not trust; try it from a client: llamagate connect --server https://NAME:PORT --key-stdin --try",
		);
	const server =
		tls === undefined
			? `http://${formatHostPort(address, port)}`
			: `https://${tls.names[0]}:${port}`;
	const tried = await tryOut(
		server,
		key,
		undefined,
		() => {},
		() => {},
	);
	return tried.ok
		? ok(
				`${server} answered with ${tried.model}: first token after ${Math.round(tried.firstTokenMs)} ms, ${tried.tokens} tokens in ${tried.arrivals} arrivals`,
			)
		: finding([`${server}: ${tried.problem}`], { fix: tried.advice });
}
