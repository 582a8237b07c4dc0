import { once } from "node:events";
import { request } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import t, { type Test } from "tap";
import { digestOf } from "../../src/keys/newKey.ts";
import { bearer, startGate, testKeys } from "../support/gate.ts";
import { send } from "../support/queue.ts";

// However slow the machine is: these promise how soon at the earliest.

/** How long what a gate refuses took from its beginning. */
async function took(refused: () => Promise<unknown>): Promise<number> {
	// What was answered last was so at a sweep; this begins between two of them.
	await delay(100);
	const startedMs = performance.now();
	await refused();
	return performance.now() - startedMs;
}

/** A body of 100,000 bytes of which so many come, and then one now and then, if it drips. */
async function beginBody(t: Test, url: string, bytes: number, drips: boolean) {
	const req = request(`${url}/api/chat`, {
		method: "POST",
		headers: { ...bearer(testKeys.user), "content-length": 100_000 },
	});
	req.on("error", () => {});
	req.write(" ".repeat(bytes));
	const drip = setInterval(() => drips && req.write(" "), 100);
	t.teardown(() => clearInterval(drip));
	const [res] = await once(req, "response");
	clearInterval(drip);
	t.equal(res.statusCode, 408);
	req.destroy();
}

/** @param idleTimeoutMs how long it may stand still */
function startJudging(t: Test, idleTimeoutMs: number) {
	return startGate(t, {
		config: { upstream: { idleTimeout: `${idleTimeoutMs}ms` } },
		keys: [
			{ name: "few", sha256: digestOf(testKeys.user), models: ["qwen3:*"] },
		],
	});
}

t.test("firstByteTimeout is no shorter than it says", async (t) => {
	const gate = await startGate(t, {
		config: { upstream: { firstByteTimeout: "500ms" } },
		standIn: { misbehave: () => "hang" },
	});
	for (let round = 0; round < 3; round += 1) {
		const tookMs = await took(async () =>
			t.equal((await send(gate).response).status, 504),
		);
		// Timers go by whole milliseconds.
		t.ok(tookMs >= 499);
	}
});

t.test("nor is idleTimeout for a body", async (t) => {
	const gate = await startJudging(t, 500);
	for (let round = 0; round < 3; round += 1)
		t.ok((await took(() => beginBody(t, gate.url, 1000, false))) >= 499);
});

t.test(
	"nor is the time in which a large body has to bring enough",
	async (t) => {
		const gate = await startJudging(t, 4500);
		// At 16 KiB a second, by then it would have to be 73,728 bytes.
		t.ok((await took(() => beginBody(t, gate.url, 66_000, true))) >= 4499);
	},
);
