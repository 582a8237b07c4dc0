import { setTimeout as delay } from "node:timers/promises";
import t from "tap";
import { startGate, testKeys } from "../support/gate.ts";
import { head, openRaw, type RawClient, shows } from "../support/raw.ts";

/** Who is answered with no more than 64 KiB of a body still to come may send that on, however slow the link is. */

/** A model file that Ollama has, and whose upload it does not read. */
const blob = `sha256:${"0".repeat(64)}`;

function headOf(target: string, key: string, length: number): string {
	return head(
		`POST ${target} HTTP/1.1`,
		"Host: gate",
		shows(key),
		`Content-Length: ${length}`,
	);
}

/** Sends 60,000 bytes, for longer than a stranger would be listened to. */
async function sendSlowly(client: RawClient): Promise<void> {
	for (let n = 0; n < 40; n++) {
		client.write("x".repeat(1_500));
		await delay(100);
	}
}

t.test(
	"who shows a key and is refused in a short upload can send all of it, and reads the answer",
	async (t) => {
		const gate = await startGate(t);
		const client = await openRaw(gate.port);
		client.socket.pause();
		client.write(headOf("/api/chat", testKeys.reader, 60_000));
		await sendSlowly(client);
		t.notOk(client.isClosed(), "it was not reset");
		client.socket.resume();
		t.equal((await client.untilReplies(1))[0]?.status, 403);
		// Nothing is left of it, so the next request follows.
		client.write(
			head("GET /api/version HTTP/1.1", "Host: gate", shows(testKeys.reader)),
		);
		t.equal((await client.untilReplies(2))[1]?.status, 200);
		client.destroy();
	},
);

t.test(
	"whom Ollama answers before the end of an upload can send the rest, and reads the answer",
	async (t) => {
		const gate = await startGate(t, { standIn: { blobs: [blob] } });
		const client = await openRaw(gate.port);
		client.socket.pause();
		client.write(
			headOf(`/api/blobs/${blob}`, testKeys.owner, 100_000) +
				"x".repeat(40_000),
		);
		await sendSlowly(client);
		t.notOk(client.isClosed(), "it was not reset");
		client.socket.resume();
		t.equal((await client.untilReplies(1))[0]?.status, 200);
		client.destroy();
	},
);

t.test(
	"who shows a key and sends nothing more of a short upload that was refused is cut off",
	async (t) => {
		const gate = await startGate(t);
		const client = await openRaw(gate.port);
		client.write(headOf("/api/chat", testKeys.reader, 60_000));
		t.equal((await client.untilReplies(1))[0]?.status, 403);
		await client.closed;
	},
);
