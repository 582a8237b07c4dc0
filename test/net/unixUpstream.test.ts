import path from "node:path";
import t from "tap";
import { startStandIn } from "../../src/ollama/standIn.ts";
import { temporaryFolder, testKeys } from "../support/gate.ts";
import {
	ask,
	gateV4,
	gateV6,
	joinTailnet,
	makeNamespace,
	network,
	startDaemon,
} from "../support/namespaces.ts";

t.test(
	"with Ollama behind a Unix socket the gate needs no network but the one it listens on",
	network(),
	async (t) => {
		// Not even loopback is up here, and the stand-in is in another network.
		const server = await makeNamespace(t, { loopback: false });
		const peer = await makeNamespace(t);
		await joinTailnet(server, peer);
		const socketPath = path.join(await temporaryFolder(t), "ollama.sock");
		const standIn = await startStandIn({ socketPath });
		t.teardown(() => standIn.close());
		const { log } = await startDaemon(t, server, {
			upstream: { url: `unix:${socketPath}` },
		});
		await log.seen(({ msg }) => msg === "started");

		for (const gate of [gateV4, gateV6]) {
			const answer = await ask(peer, gate, { key: testKeys.reader });
			t.equal(answer.status, 200, gate);
			t.match(answer.body, /qwen3:8b/);
		}
		t.equal((await ask(peer, gateV4)).status, 401);
		t.strictSame(
			standIn.calls.map(({ target, headers }) => [target, headers.host]),
			[
				["/api/tags", "127.0.0.1:11434"],
				["/api/tags", "127.0.0.1:11434"],
			],
		);
	},
);
