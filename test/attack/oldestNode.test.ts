import t from "tap";
import { spawnGate, testEntries, testKeys } from "../support/gate.ts";
import { oldestNode } from "../support/oldestNode.ts";
import {
	attack,
	head,
	honestStatus,
	openRaw,
	shows,
	strayCalls,
} from "../support/raw.ts";

// Older Nodes leave header lines out behind the thousandth, and go by them all the same.
const padding = Array.from({ length: 1_100 }, () => "a:");

for (const [name, node] of [
	["the oldest Node", await oldestNode()],
	["this Node", process.execPath],
] as const)
	t.test(
		`on ${name} a body is seen that is announced behind a thousand header lines`,
		async (t) => {
			const gate = await spawnGate(t, { node, keys: testEntries });
			const json = JSON.stringify({
				model: "qwen3:8b",
				max_tokens: 1,
				messages: [{ role: "user", content: "hi" }],
			});
			for (const [what, framing, pieces] of [
				[
					"by its length",
					`Content-Length: ${json.length}`,
					[json.slice(0, 5), json.slice(5)],
				],
				[
					"by chunks",
					"Transfer-Encoding: chunked",
					[
						`5\r\n${json.slice(0, 5)}\r\n`,
						`${(json.length - 5).toString(16)}\r\n${json.slice(5)}\r\n0\r\n\r\n`,
					],
				],
			] as const)
				for (const key of [testKeys.user, "nobody's"]) {
					const client = await openRaw(gate.port);
					client.write(
						head(
							"POST /v1/messages HTTP/1.1",
							"Host: gate",
							"Content-Type: application/json",
							shows(key),
							...padding,
							framing,
						),
					);
					// A piece at a time, each read before the next.
					for (const piece of pieces) {
						client.write(piece);
						await honestStatus(gate);
					}
					const [reply] = await client.untilReplies(1);
					client.destroy();
					const expected = key === testKeys.user ? 200 : 401;
					t.equal(reply?.status, expected, `${what}: ${reply?.body}`);
				}
			t.strictSame(
				strayCalls(gate),
				["POST /v1/messages", "POST /v1/messages"],
				"those with a key reached Ollama",
			);
		},
	);

t.test(
	"twice announced behind a thousand header lines is refused",
	async (t) => {
		const gate = await spawnGate(t, { node: await oldestNode() });
		const { status } = await attack(
			gate,
			`${head(
				"POST /api/chat HTTP/1.1",
				"Host: gate",
				shows(testKeys.owner),
				...padding,
				"Content-Type: application/json",
				"Content-Type: text/plain",
				"Content-Length: 2",
			)}{}`,
		);
		t.equal(status, 400);
		t.strictSame(gate.standIn.calls, [], "nothing reached Ollama");
	},
);
