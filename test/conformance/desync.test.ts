import t from "tap";
import { startGate, testKeys } from "../support/gate.ts";
import { chunk, head, honestStatus, openRaw, shows } from "../support/raw.ts";
import { startWire } from "../support/wire.ts";
import { oddJoints, scenarios } from "./desyncCases.ts";
import { judge } from "./judge.ts";

for (const [what, cases] of [
	["no request is smuggled behind another", scenarios],
	["an odd byte in a framing header is read in one way only", oddJoints],
] as const)
	t.test(what, async (t) => {
		const wire = await startWire(t);
		for (const one of cases) {
			const verdict = await judge(wire, one, one.bytes);
			t.ok(verdict.held, `${one.id}: ${verdict.account.slice(0, 60)}`, {
				account: verdict.account,
			});
		}
	});

t.test("a request may come in any pieces, and waits for its end", async (t) => {
	const gate = await startGate(t);
	const json = '{"model":"qwen3:8b"}';
	const request = `${head("POST /api/embed HTTP/1.1", "Host: gate", shows(testKeys.user), "Transfer-Encoding: chunked")}${chunk(json)}0\r\n\r\n`;
	const early: number[] = [];
	const wrong: number[] = [];
	for (let cut = 1; cut < request.length; cut++) {
		const client = await openRaw(gate.port);
		client.socket.setNoDelay();
		client.write(request.slice(0, cut));
		if ((await honestStatus(gate)) !== 200 || client.text() !== "")
			early.push(cut);
		client.write(request.slice(cut));
		const [reply] = await client.untilReplies(1);
		if (reply?.status !== 200) wrong.push(cut);
		client.destroy();
	}
	t.strictSame(early, [], "no piece of it is answered");
	t.strictSame(wrong, [], "cut in two anywhere it is served");
	const client = await openRaw(gate.port);
	client.socket.setNoDelay();
	for (const byte of request) {
		client.write(byte);
		await new Promise(setImmediate);
	}
	const [reply] = await client.untilReplies(1);
	t.equal(reply?.status, 200, "and a byte at a time");
	client.destroy();
	const bodies = gate.standIn.calls
		.filter(({ target }) => target === "/api/embed")
		.map(({ body }) => body.toString());
	t.equal(bodies.length, request.length, "each ran once");
	t.ok(
		bodies.every((body) => body === json),
		"and had its whole body",
	);
});
