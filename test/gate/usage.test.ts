import t from "tap";
import { openLedger } from "../../src/ledger/server.ts";
import type { Misbehaviour } from "../../src/ollama/standIn.ts";
import {
	bearer,
	eventually,
	type LogLine,
	spawnGate,
	startGate,
	type TestGate,
	testEntries,
	testKeys,
} from "../support/gate.ts";
import {
	collectedLog,
	killLedger,
	ledgerPlace,
	requestsIn,
	spawnLedger,
	sumsOf,
} from "../support/ledger.ts";

const body = (more: object = {}) => ({
	model: "qwen3:8b",
	messages: [{ role: "user", content: "a" }],
	prompt: "a",
	input: "a",
	max_tokens: 20,
	...more,
});

async function post(
	{ url }: Pick<TestGate, "url">,
	path: string,
	sent: object = body(),
	key: string = testKeys.user,
	signal?: AbortSignal,
): Promise<number> {
	const reply = await fetch(`${url}${path}`, {
		method: "POST",
		headers: { ...bearer(key), "content-type": "application/json" },
		body: JSON.stringify(sent),
		...(signal && { signal }),
	});
	await reply.arrayBuffer();
	return reply.status;
}

const inference =
	/^POST \/(api\/(generate|chat|embed|embeddings)|v1\/(chat\/completions|completions|embeddings|responses|messages))$/;

/** The requests of inference in the log, of known keys. */
function chargedIn(log: readonly LogLine[]): LogLine[] {
	return log.filter(
		({ msg, key, route }) =>
			msg === "request" && key !== null && inference.test(String(route)),
	);
}

t.test(
	"the ledger's counts are the access log's, over aborts, cuts, failures and refusals",
	async (t) => {
		const place = await ledgerPlace(t);
		await spawnLedger(t, place);
		let next: Misbehaviour | undefined;
		const gate = await startGate(t, {
			config: { ledger: place.section },
			standIn: {
				tokenIntervalMs: 1,
				misbehave: () => {
					const one = next;
					next = undefined;
					return one;
				},
			},
		});
		for (const path of [
			"/api/chat",
			"/api/generate",
			"/api/embed",
			"/v1/chat/completions",
			"/v1/completions",
			"/v1/responses",
			"/v1/messages",
		])
			for (const stream of [true, false])
				for (const key of [testKeys.user, testKeys.worker])
					t.equal(
						await post(
							gate,
							path,
							body({
								stream,
								stream_options: { include_usage: true },
								...(path === "/api/embed" && {
									model: "nomic-embed-text:latest",
								}),
							}),
							key,
						),
						200,
						path,
					);
		t.equal(await post(gate, "/api/chat", body({ model: "none:1b" })), 404);
		t.equal(await post(gate, "/api/chat", body(), testKeys.reader), 403);
		t.equal(await post(gate, "/api/chat", body(), testKeys.wrong), 401);
		t.equal(await post(gate, "/api/show", body()), 200, "not inference");
		for (const failure of ["die-mid-stream", "status-500"] as const) {
			next = failure as Misbehaviour;
			await post(gate, "/api/chat").catch(() => {});
		}
		// Clients that leave in the middle of a stream.
		for (let n = 0; n < 5; n += 1) {
			next = "stall-mid-stream";
			const controller = new AbortController();
			const left = fetch(`${gate.url}/api/chat`, {
				method: "POST",
				headers: bearer(testKeys.user),
				body: JSON.stringify(body()),
				signal: controller.signal,
			});
			await (await left).body?.getReader().read();
			controller.abort();
		}
		// One that is cut since its key is revoked.
		next = "stall-mid-stream";
		const cut = await fetch(`${gate.url}/api/chat`, {
			method: "POST",
			headers: bearer(testKeys.worker),
			body: JSON.stringify(body()),
		});
		await cut.body?.getReader().read();
		await gate.writeKeys(testEntries.filter(({ name }) => name !== "worker"));
		await gate.daemon.reload();
		const count = (outcome: string) =>
			chargedIn(gate.log).filter((line) => line.outcome === outcome).length;
		await eventually(() => count("client_gone") === 5 && count("cut") === 1);

		const lines = chargedIn(gate.log);
		await eventually(async () => (await requestsIn(place)) === lines.length);
		const wanted = new Map<string, Record<string, number>>();
		for (const line of lines) {
			const id = `${line.key} ${line.model ?? null}`;
			const sum = wanted.get(id) ?? {
				requests: 0,
				refused: 0,
				tokensIn: 0,
				tokensOut: 0,
			};
			sum.requests = (sum.requests ?? 0) + 1;
			sum.refused = (sum.refused ?? 0) + Number(line.outcome === "refused");
			sum.tokensIn = (sum.tokensIn ?? 0) + Number(line.tokensIn ?? 0);
			sum.tokensOut = (sum.tokensOut ?? 0) + Number(line.tokensOut ?? 0);
			wanted.set(id, sum);
		}
		const rows = await sumsOf(place, ["key", "model"]);
		t.equal(rows.length, wanted.size);
		for (const { key, model, requests, refused, tokensIn, tokensOut } of rows) {
			const sum = wanted.get(`${key} ${model}`);
			t.match(
				{ requests, refused, tokensIn },
				{
					requests: sum?.requests,
					refused: sum?.refused,
					tokensIn: sum?.tokensIn,
				},
			);
			// Nobody but the ledger counts what passed of streams that were left.
			t.ok(tokensOut >= (sum?.tokensOut ?? 0), `${key} ${model}`);
		}
		const users = await sumsOf(place, ["user"]);
		t.same(
			new Set(users.map(({ user }) => user)),
			new Set(["key:user", "key:worker", "key:reader"]),
		);
	},
);

t.test(
	"a stream that is left is charged by time and by what passed",
	async (t) => {
		const place = await ledgerPlace(t);
		await spawnLedger(t, place);
		const gate = await startGate(t, {
			config: { ledger: place.section },
			standIn: { misbehave: () => "stall-mid-stream", tokenIntervalMs: 5 },
		});
		const controller = new AbortController();
		const reply = await fetch(`${gate.url}/v1/chat/completions`, {
			method: "POST",
			headers: bearer(testKeys.user),
			body: JSON.stringify(body({ stream: true })),
			signal: controller.signal,
		});
		const reader = reply.body?.getReader();
		for (let n = 0; n < 3; n += 1) await reader?.read();
		controller.abort();
		await eventually(async () => (await requestsIn(place)) === 1);
		const [row] = await sumsOf(place, ["user", "model"]);
		t.equal(row?.model, "qwen3:8b");
		t.ok((row?.tokensOut ?? 0) >= 2);
		t.ok((row?.gpuMs ?? 0) > 0);
	},
);

t.test(
	"Ollama's own times count where it tells them, not how slowly a client reads",
	async (t) => {
		const place = await ledgerPlace(t);
		await spawnLedger(t, place);
		const gate = await startGate(t, {
			config: { ledger: place.section },
			standIn: { loadMs: 40, firstTokenMs: 5, tokenIntervalMs: 2 },
		});
		const reply = await fetch(`${gate.url}/api/generate`, {
			method: "POST",
			headers: bearer(testKeys.user),
			body: JSON.stringify(body()),
		});
		const last = JSON.parse(
			(await reply.text()).trim().split("\n").at(-1) ?? "",
		);
		await eventually(async () => (await requestsIn(place)) === 1);
		t.match(await sumsOf(place), [
			{
				gpuMs: Math.round(
					(last.prompt_eval_duration + last.eval_duration) / 1e6,
				),
				loadMs: Math.round(last.load_duration / 1e6),
				tokensOut: last.eval_count,
			},
		]);
	},
);

t.test("a gate that is killed has handed over what ended before", async (t) => {
	const place = await ledgerPlace(t);
	await spawnLedger(t, place);
	const gate = await spawnGate(t, { config: { ledger: place.section } });
	for (let n = 0; n < 30; n += 1)
		t.equal(await post(gate, "/api/generate"), 200);
	// It does not wait for more, nor for the gate's end.
	await eventually(async () => (await requestsIn(place)) === 30);
	gate.child.kill("SIGKILL");
	await gate.exited;
	t.equal(await requestsIn(place), 30);
});

t.test("a gate that is stopped hands over the rest", async (t) => {
	const place = await ledgerPlace(t);
	await spawnLedger(t, place);
	const gate = await spawnGate(t, { config: { ledger: place.section } });
	for (let n = 0; n < 30; n += 1) await post(gate, "/api/generate");
	gate.child.kill("SIGTERM");
	t.equal(await gate.exited, 0);
	t.equal(await requestsIn(place), 30);
});

t.test(
	"a ledger that is killed or hangs stops no request, and is caught up with",
	async (t) => {
		const place = await ledgerPlace(t);
		const gate = await startGate(t, { config: { ledger: place.section } });
		const send = async () => {
			for (let n = 0; n < 20; n += 1)
				t.equal(await post(gate, "/api/generate"), 200);
		};
		await send();
		const killed = await spawnLedger(t, place);
		await send();
		await killLedger(killed);
		await send();
		const hangs = await spawnLedger(t, place);
		await eventually(async () => (await requestsIn(place)) === 60);
		hangs.child.kill("SIGSTOP");
		await send();
		hangs.child.kill("SIGCONT");
		await eventually(async () => (await requestsIn(place)) === 80);
	},
);

t.test(
	"a full disk stops no request, and what it missed is made up for",
	async (t) => {
		const place = await ledgerPlace(t);
		const { log } = collectedLog();
		const retentionMs = 90 * 86_400_000;
		// There is room for the tables, and for what is on their first pages.
		const full = await openLedger({ ...place, retentionMs, maxPages: 9 }, log);
		const gate = await startGate(t, { config: { ledger: place.section } });
		let sent = 0;
		const send = async () => {
			sent += 1;
			t.equal(await post(gate, "/api/generate"), 200);
		};
		const isAway = ({ event, why }: LogLine) =>
			event === "ledger_away" && why === "the disk is full";
		while (!gate.log.some(isAway)) await send();
		for (let n = 0; n < 20; n += 1) await send();
		t.ok((await requestsIn(place)) < sent);
		await full.close();
		await spawnLedger(t, place);
		await eventually(async () => (await requestsIn(place)) === sent);
	},
);
