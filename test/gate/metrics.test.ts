import { readFile } from "node:fs/promises";
import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import { bearer, startGate, testKeys } from "../support/gate.ts";
import { isState, startHost, startWithHosts } from "../support/hosts.ts";

/** What differs from run to run is taken out: times, and what is open just now. */
function settled(metrics: string): string {
	return metrics
		.replace(/^(llamagate_request_seconds_total\{.*\}) .*$/gm, "$1 SECONDS")
		.replace(/^(llamagate_connections) \d+$/m, "$1 NOW");
}

t.test("the counters are these, with these labels", async (t) => {
	const gate = await startGate(t, {
		config: { admin: { metrics: "127.0.0.1:0" } },
	});
	const ask = async (path: string, key: string, body?: object) => {
		const reply = await fetch(`${gate.url}${path}`, {
			method: body === undefined ? "GET" : "POST",
			headers: bearer(key),
			...(body && { body: JSON.stringify(body) }),
		});
		await reply.arrayBuffer();
	};
	await ask("/api/ps", testKeys.user);
	await ask("/api/generate", testKeys.user, { model: "nobody:1b" });
	await ask("/api/tags", testKeys.wrong);
	await ask("/api/pull", testKeys.user, { model: "nobody:1b" });
	await ask("/no/such/path", testKeys.user);
	await gate.logged(({ reason }) => reason === "unknown_route");

	const { body } = await askDaemon(`${gate.folder}/admin.sock`, "GET /metrics");
	t.equal(settled(body), await readFile("test/fixtures/metrics.txt", "utf8"));
});

t.test("of several hosts there are these besides", async (t) => {
	const { url } = await startHost(t, "a");
	const gate = await startWithHosts(
		t,
		[
			{ name: "a", url },
			{ name: "away", url: "http://127.0.0.1:1" },
		],
		{},
		false,
	);
	await isState(gate, "a", "up");
	await isState(gate, "away", "down");
	const { body } = await askDaemon(`${gate.folder}/admin.sock`, "GET /metrics");
	const ofHosts = body
		.split("\n")
		.filter((line) => /\bllamagate_host_/.test(line));
	t.equal(
		`${ofHosts.join("\n")}\n`,
		await readFile("test/fixtures/hostMetrics.txt", "utf8"),
	);
});
