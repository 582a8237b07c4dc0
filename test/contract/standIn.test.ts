import t from "tap";
import { startStandIn } from "../../src/ollama/standIn.ts";
import { testedOllama } from "../../src/ollama/testedVersion.ts";
import { runContract } from "./contract.ts";
import { compareVersions, moved } from "./moved.ts";
import type { Subject } from "./server.ts";

/** The stand-in, which stands for the newest Ollama that the contract was run on. */
const standIn: Subject = {
	version: testedOllama,
	async start(t, { parallel = 1, ...settings }) {
		const server = await startStandIn({
			...{ ...settings, parallel, version: testedOllama },
			models: ["smol", "other"].map((name) => ({
				name: `${name}:latest`,
				capabilities: ["completion"],
			})),
			...{ isOffline: true, loadMs: 80, tokenIntervalMs: 2 },
		});
		t.teardown(() => server.close());
		return {
			port: server.port,
			async killRunner() {
				for (const { file } of server.scheduler.loaded())
					server.scheduler.kill(file);
			},
			terminate: () => server.close(),
		};
	},
};

t.test("the stand-in keeps the contract", async (t) => {
	await runContract(t, standIn);
});

t.test(
	"nothing moves in a version that the contract was not run on",
	async (t) => {
		for (const [name, { since }] of Object.entries(moved))
			t.ok(compareVersions(since, testedOllama) <= 0, name);
	},
);
