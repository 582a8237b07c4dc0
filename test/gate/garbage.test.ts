import { Agent, request } from "node:http";
import { fileURLToPath } from "node:url";
import t from "tap";
import { bearer, spawnGate, testKeys } from "../support/gate.ts";

const probe = fileURLToPath(
	new URL("../support/heapProbe.mjs", import.meta.url),
);
const requestsAtOnce = 16;
const requestsEach = 250;
const requestCount = requestsAtOnce * requestsEach;
/** A request has 8 KB of objects and more; those that are under way when the heap is collected are kept. */
const mostBytesEach = 4096;

/**
 * What a request leaves must be gone with the next collection of the young heap.
 * What is taken into the old one waits for a collection of the whole, which
 * holds up every stream (docs/adr/0019).
 */
for (const [what, path, body] of [
	["a small reply", "/api/tags", undefined],
	[
		"a stream",
		"/api/chat",
		JSON.stringify({
			model: "qwen3:8b",
			messages: [{ role: "user", content: "a" }],
			options: { num_predict: 5 },
		}),
	],
] as const)
	t.test(`the garbage of ${what} dies young`, async (t) => {
		const gate = await spawnGate(t, {
			nodeArgs: [
				`--import=${probe}`,
				"--max-semi-space-size=1",
				"--single-threaded-gc",
			],
			standIn: { remember: false, tokenIntervalMs: 0 },
		});
		const agent = new Agent({ keepAlive: true, maxSockets: requestsAtOnce });
		t.teardown(() => agent.destroy());
		const call = () =>
			new Promise<void>((resolve, reject) => {
				const req = request(`${gate.url}${path}`, {
					method: body === undefined ? "GET" : "POST",
					headers: bearer(testKeys.user),
					agent,
				});
				req.on("response", (res) => {
					if (res.statusCode !== 200) reject(new Error(`${res.statusCode}`));
					res.resume().on("end", resolve);
				});
				req.on("error", reject);
				req.end(body);
			});
		const work = () =>
			Promise.all(
				Array.from({ length: requestsAtOnce }, async () => {
					for (let done = 0; done < requestsEach; done++) await call();
				}),
			);
		const heap = async () => {
			gate.log.length = 0;
			gate.child.kill("SIGUSR2");
			return (await gate.logged(({ msg }) => msg === "heap")) as unknown as {
				oldBytes: number;
				collections: number;
			};
		};
		// Code that is compiled on the way is kept for good.
		await work();
		await work();
		const kept: number[] = [];
		while (kept.length < 3) {
			const before = await heap();
			await work();
			const after = await heap();
			// In between the whole heap was collected: it says nothing.
			if (after.collections === before.collections)
				kept.push((after.oldBytes - before.oldBytes) / requestCount);
		}
		t.comment(`memory ${kept.map(Math.round).join(", ")} bytes a request`);
		t.ok(Math.min(...kept) < mostBytesEach, "no request's objects are kept");
	});
