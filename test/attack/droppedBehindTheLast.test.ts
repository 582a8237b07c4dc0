import t from "tap";
import { testKeys } from "../support/gate.ts";
import { passIdleTimeout, startPipelined } from "../support/pipelined.ts";
import { framed, post, shows } from "../support/raw.ts";

/** Whole requests behind one whose reply closes the connection: they are dropped, with their bodies. */

const owner = shows(testKeys.owner);
const body = '{"model":"m","stream":false}';
const generate = (...lines: string[]) =>
	post("/api/generate", body, owner, ...lines);
const lastRequests = {
	"HTTP/1.0": generate("Connection: keep-alive").replace("1.1", "1.0"),
	"an Expect": generate("Expect: 100-continue"),
	"Connection: close": generate("Connection: close"),
};
const large = post("/api/chat", body + " ".repeat(300_000), owner);
const json = { "content-type": "application/json" };
const reply = JSON.stringify({ model: "m", response: "z".repeat(1_000_000) });
const ofReply = { ...json, "content-length": reply.length };
const ofGenerate = ({ msg, route }: Record<string, unknown>) =>
	msg === "request" && route === "POST /api/generate";

for (const [what, last] of Object.entries(lastRequests)) {
	t.test(
		`a large request behind ${what} costs nothing of a reply that is read late`,
		async (t) => {
			const place = await startPipelined(t);
			const { gate, client, ollamas, asked } = place;
			client.write(last);
			const front = await ollamas("/api/generate");
			client.write(large);
			await passIdleTimeout(t, gate);
			client.socket.pause();
			front.writeHead(200, ofReply).end(reply);
			t.match(await gate.logged(ofGenerate), { outcome: "ok" });
			client.socket.resume();
			await client.closed;
			t.ok(client.text().endsWith(reply), "all of it");
			t.notOk(asked.includes("/api/chat"), "and is not carried out");
		},
	);

	t.test(`nor does a broken one behind ${what}`, async (t) => {
		const place = await startPipelined(t);
		const { gate, client, ollamas } = place;
		client.write(last);
		const front = await ollamas("/api/generate");
		const chunks = "5\r\nabcde\r\nzz\r\n";
		client.write(
			framed(["Transfer-Encoding: chunked"], chunks, testKeys.owner),
		);
		await passIdleTimeout(t, gate);
		front.writeHead(200, json).end("{}");
		await client.closed;
		t.match(client.text(), /\{\}/);
		t.match(await gate.logged(ofGenerate), { outcome: "ok" });
	});

	for (const how of ["closes", "resets"])
		t.test(
			`who ${how} behind ${what} and a large request is gone`,
			async (t) => {
				const place = await startPipelined(t);
				const { gate, client, ollamas } = place;
				client.write(last);
				await ollamas("/api/generate");
				client.write(large);
				await passIdleTimeout(t, gate);
				if (how === "closes") client.socket.end();
				else client.socket.resetAndDestroy();
				t.match(await gate.logged(ofGenerate), { outcome: "client_gone" });
			},
		);
}

t.test(
	"a gate that stops drops what comes behind the last reply all the same",
	async (t) => {
		const place = await startPipelined(t, { drainTimeout: "10m" });
		const { gate, client, ollamas } = place;
		client.write(generate());
		const front = await ollamas("/api/generate");
		const stopped = gate.daemon.stop(120_000);
		await gate.logged(({ msg }) => msg === "stopping");
		front.writeHead(200, ofReply);
		front.write(reply.slice(0, 1));
		await client.until((text) => text.includes("connection: close"));
		client.write(large);
		client.socket.pause();
		front.end(reply.slice(1));
		t.match(await gate.logged(ofGenerate), { outcome: "ok" });
		client.socket.resume();
		await client.closed;
		t.ok(client.text().endsWith(reply), "all of it");
		await stopped;
	},
);
