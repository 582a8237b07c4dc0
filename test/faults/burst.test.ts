import t from "tap";
import { spawnGate, testKeys } from "../support/gate.ts";
import { head, openRaw, shows, within } from "../support/raw.ts";

t.test(
	"connections that come all at once, while the gate has no time, wait in a queue that holds them",
	async (t) => {
		// So that it is the queue that is tried, and not how fast the stand-in answers.
		const gate = await spawnGate(t, {
			config: { upstream: { maxConnections: 3_000 } },
		});
		gate.child.kill("SIGSTOP");
		// A queue that is full swallows handshakes, which clients repeat after 1, 2, 4 and more seconds.
		const clients = await within(
			Promise.all(
				Array.from({ length: 3_000 }, (_, n) =>
					openRaw(gate.port, `127.0.0.${2 + (n % 4)}`),
				),
			),
			"3,000 handshakes with a gate that stands still",
		);
		t.teardown(() => {
			for (const client of clients) client.destroy();
		});
		for (const client of clients)
			client.write(
				head("GET /api/tags HTTP/1.1", "Host: gate", shows(testKeys.user)),
			);
		gate.child.kill("SIGCONT");
		const statuses = new Set<number | undefined>();
		for (const client of clients)
			statuses.add((await client.untilReplies(1))[0]?.status);
		t.strictSame([...statuses], [200]);
	},
);
