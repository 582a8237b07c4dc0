import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import t from "tap";
import {
	eventually,
	spawnGate,
	startGate,
	testEntries,
	testKeys,
} from "../support/gate.ts";
import {
	attack,
	head,
	openRaw,
	post,
	shows,
	statusOf,
} from "../support/raw.ts";

const body = '{"model":"qwen3:8b","stream":false}';
const withoutUser = testEntries.filter(({ name }) => name !== "user");
const announced = (length: number) =>
	head(
		"POST /api/embed HTTP/1.1",
		"Host: gate",
		shows(testKeys.user),
		`Content-Length: ${length}`,
	);

t.test(
	"a key that is revoked while its body arrives never reaches Ollama",
	async (t) => {
		const gate = await startGate(t);
		const client = await openRaw(gate.port);
		client.write(announced(body.length) + body.slice(0, 10));
		await eventually(async () => (await statusOf(gate)).streams === 1);
		await gate.writeKeys(withoutUser);
		await gate.daemon.reload();
		client.write(body.slice(10));
		const [reply] = await client.untilReplies(1);
		t.not(reply?.status, 200);
		await client.closed;
		t.equal(gate.standIn.calls.length, 0);
		t.equal((await statusOf(gate)).streams, 0);
	},
);

t.test(
	"a connection over which a revoked key came is nobody's any more",
	async (t) => {
		const gate = await startGate(t);
		const client = await openRaw(gate.port);
		const request = head(
			"GET /api/tags HTTP/1.1",
			"Host: gate",
			shows(testKeys.user),
		);
		client.write(request);
		t.equal((await client.untilReplies(1))[0]?.status, 200);
		await gate.writeKeys(withoutUser);
		await gate.daemon.reload();
		client.write(request);
		t.equal((await client.untilReplies(2))[1]?.status, 401);
		client.destroy();
		t.equal(gate.standIn.calls.length, 1);
	},
);

t.test("a key that changes hands takes no stream along", async (t) => {
	const gate = await startGate(t, {
		standIn: { misbehave: () => "stall-mid-stream" },
	});
	const client = await openRaw(gate.port);
	client.write(
		post(
			"/api/chat",
			'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
			shows(testKeys.user),
		),
	);
	await client.until((text) => text.includes('"done":false'));
	const aborted = once(gate.standIn.events, "abort");
	await gate.writeKeys(
		testEntries.map((entry) =>
			entry.name === "user" ? { ...entry, name: "somebody-else" } : entry,
		),
	);
	await gate.daemon.reload();
	await client.closed;
	await aborted;
	t.notMatch(client.text(), /"done":true/, "no made-up end");
});

t.test(
	"another upstream does not break a request whose body is still coming",
	async (t) => {
		const gate = await startGate(t);
		const client = await openRaw(gate.port);
		client.write(announced(body.length) + body.slice(0, 10));
		await eventually(async () => (await statusOf(gate)).streams === 1);
		await gate.writeConfig({ upstream: { connectTimeout: "7s" } });
		await gate.daemon.reload();
		client.write(body.slice(10));
		const [reply] = await client.untilReplies(1);
		t.equal(reply?.status, 200, reply?.body ?? "no reply");
		client.destroy();
	},
);

t.test("the daemon outlives any keys file", async (t) => {
	const gate = await spawnGate(t);
	const files: Record<string, string> = {
		"nested without end": "[".repeat(100_000),
		"nested deeply": `${'{"keys":'.repeat(20_000)}1${"}".repeat(20_000)}`,
		"no JSON": "\0\x01\x02",
		empty: "",
		null: "null",
		"of another shape": '{"keys":{"__proto__":[]}}',
	};
	for (const [what, text] of Object.entries(files)) {
		await writeFile(gate.keysFile, text, { mode: 0o600 });
		const refusals = () =>
			gate.log.filter(({ msg }) => String(msg).startsWith("reload refused"))
				.length;
		const before = refusals();
		gate.child.kill("SIGHUP");
		await eventually(() => refusals() > before || gate.child.exitCode !== null);
		const outcome =
			gate.child.exitCode === null
				? "refused"
				: `died with exit code ${gate.child.exitCode}`;
		t.equal(outcome, "refused", what);
		if (outcome !== "refused") return;
		const { status } = await attack(
			gate,
			head("GET /api/tags HTTP/1.1", "Host: gate", shows(testKeys.user)),
		);
		t.equal(status, 200, `${what}: the old keys stay in force`);
	}
});
