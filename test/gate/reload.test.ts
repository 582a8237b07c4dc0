import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { connect } from "node:net";
import t from "tap";
import { digestOf } from "../../src/keys/newKey.ts";
import {
	bearer,
	eventually,
	spawnGate,
	startGate,
	testEntries,
	testKeys,
} from "../support/gate.ts";

async function statusOf(url: string, key: string): Promise<number> {
	const response = await fetch(`${url}/api/tags`, { headers: bearer(key) });
	await response.arrayBuffer();
	return response.status;
}

/** A stream that goes on until somebody ends it. */
async function openEndless(url: string, key: string) {
	const response = await fetch(`${url}/api/chat`, {
		method: "POST",
		headers: bearer(key),
		body: '{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}],"options":{"num_predict":1000000}}',
	});
	const reader = response.body
		?.pipeThrough(new TextDecoderStream())
		.getReader();
	if (reader === undefined) throw new Error("no body");
	let text = (await reader.read()).value ?? "";
	return {
		async readMore(): Promise<void> {
			text += (await reader.read()).value ?? "";
		},
		/** Resolves with all that came, once the connection is cut. */
		async untilCut(): Promise<string> {
			for (;;) {
				try {
					const { done, value } = await reader.read();
					if (done) throw new Error("the stream ended cleanly");
					text += value;
				} catch (error) {
					if ((error as Error).message === "terminated") return text;
					throw error;
				}
			}
		},
		leave: () => reader.cancel().catch(() => {}),
	};
}

const endless = { tokenIntervalMs: 5 };

t.test(
	"SIGHUP takes new keys in and leaves old ones out, without dropping a stream",
	async (t) => {
		const gate = await spawnGate(t, { standIn: endless });
		const stream = await openEndless(gate.url, testKeys.user);
		const fresh = `lg_${"6a".repeat(8)}${"0123456789abcdef".repeat(3)}`;
		const kept = testEntries.filter(({ name }) => name !== "reader");
		await gate.writeKeys([...kept, { name: "fresh", sha256: digestOf(fresh) }]);
		t.equal(await statusOf(gate.url, fresh), 401, "not before it is told");
		gate.child.kill("SIGHUP");
		await gate.logged(({ msg }) => msg === "reloaded");
		t.equal(await statusOf(gate.url, fresh), 200);
		t.equal(await statusOf(gate.url, testKeys.reader), 401);
		t.equal(await statusOf(gate.url, testKeys.user), 200);
		await stream.readMore();
		await stream.readMore();
		t.pass("the stream goes on");
		await stream.leave();
	},
);

t.test(
	"SIGHUP with a broken keys file changes nothing and says what is wrong and where",
	async (t) => {
		const gate = await spawnGate(t, { standIn: endless });
		const stream = await openEndless(gate.url, testKeys.user);
		await writeFile(gate.keysFile, '{ "keys": [\n { "name": "x" },\n ] ]');
		gate.child.kill("SIGHUP");
		t.match(
			await gate.logged(({ msg }) => /reload refused/.test(String(msg))),
			{
				level: "error",
				file: gate.keysFile,
				mistakes: [{ message: String, line: 3 }],
			},
		);
		t.equal(await statusOf(gate.url, testKeys.user), 200);
		await stream.readMore();
		await stream.leave();
	},
);

t.test(
	"SIGHUP with a broken configuration changes nothing, not even good new keys",
	async (t) => {
		const gate = await spawnGate(t);
		await gate.writeKeys([]);
		await gate.writeConfig({ limits: { perKey: { concurent: 3 } } });
		gate.child.kill("SIGHUP");
		t.match(
			await gate.logged(({ msg }) => /reload refused/.test(String(msg))),
			{
				mistakes: [
					{
						path: "limits.perKey.concurent",
						message: /did you mean "concurrent"/,
					},
				],
			},
		);
		t.equal(await statusOf(gate.url, testKeys.user), 200);
	},
);

t.test(
	"a reload puts new limits, sources, upstream and address in force",
	async (t) => {
		const gate = await startGate(t);
		const other = await startGate(t);
		await gate.writeConfig({
			upstream: { url: other.standIn.url },
			limits: { perKey: { requestsPerMinute: 7 } },
		});
		t.match(await gate.daemon.reload(), { ok: true });
		const response = await fetch(`${gate.url}/api/tags`, {
			headers: bearer(testKeys.user),
		});
		t.equal(response.headers.get("ratelimit-limit"), "7");
		t.equal(other.standIn.calls.length, 1, "the new upstream was asked");
		await response.arrayBuffer();

		await gate.writeConfig({ listen: { address: "127.0.0.2" } });
		await gate.daemon.reload();
		await eventually(
			() => gate.daemon.bound()[0]?.startsWith("127.0.0.2:") ?? false,
		);
		t.equal(
			await statusOf(`http://${gate.daemon.bound()[0]}`, testKeys.user),
			200,
		);
		const socket = connect(gate.port, "127.0.0.1");
		const [error] = await once(socket, "error");
		t.equal(error.code, "ECONNREFUSED", "the old address is closed");

		await gate.writeConfig({
			listen: { address: "127.0.0.2" },
			sources: ["127.0.0.9"],
		});
		await gate.daemon.reload();
		t.equal(
			await statusOf(`http://${gate.daemon.bound()[0]}`, testKeys.user),
			403,
		);
	},
);

t.test(
	"a revoked key's open streams are cut with an error in the stream",
	async (t) => {
		const gate = await startGate(t, { standIn: endless });
		const revoked = await openEndless(gate.url, testKeys.user);
		const other = await openEndless(gate.url, testKeys.worker);
		await gate.writeKeys(testEntries.filter(({ name }) => name !== "user"));
		const aborted = once(gate.standIn.events, "abort");
		await gate.daemon.reload();
		t.match(await revoked.untilCut(), /\n\{"error":"[^"]*revoked[^"]*"\}\n$/);
		await aborted;
		t.match(await gate.logged(({ outcome }) => outcome === "cut"), {
			key: "user",
			reason: "revoked",
		});
		await other.readMore();
		t.pass("another key's stream goes on");
		await other.leave();
	},
);

t.test(
	"a key that expires while it streams is cut when its time has come",
	async (t) => {
		const gate = await startGate(t, { standIn: endless });
		const stream = await openEndless(gate.url, testKeys.user);
		// Set only now: a slow machine may take its time to get here.
		const expires = new Date(Date.now() + 600).toISOString();
		await gate.writeKeys([
			{ name: "user", sha256: digestOf(testKeys.user), expires },
		]);
		await gate.daemon.reload();
		t.match(await stream.untilCut(), /\n\{"error":".*expired on .*"\}\n$/);
		t.equal(
			await statusOf(gate.url, testKeys.user),
			403,
			"and refused from then on",
		);
	},
);

t.test("a key whose scope is taken away has its stream cut", async (t) => {
	const gate = await startGate(t, { standIn: endless });
	const stream = await openEndless(gate.url, testKeys.user);
	await gate.writeKeys([
		{ name: "user", sha256: digestOf(testKeys.user), scopes: ["read"] },
	]);
	await gate.daemon.reload();
	t.match(await stream.untilCut(), /needs the scope/);
});

t.test(
	"a request that waits for its first token is cut too when its key is revoked",
	async (t) => {
		const gate = await startGate(t, { standIn: { misbehave: () => "hang" } });
		const answered = fetch(`${gate.url}/api/chat`, {
			method: "POST",
			headers: bearer(testKeys.user),
			body: '{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
		});
		await once(gate.standIn.events, "body");
		const aborted = once(gate.standIn.events, "abort");
		await gate.writeKeys([]);
		await gate.daemon.reload();
		t.equal((await answered).status, 401);
		await aborted;
	},
);

t.test(
	"a hundred SIGHUPs under load lose no request and end with the newest keys",
	async (t) => {
		// Its newest key is a wrong one until the last reload.
		const gate = await spawnGate(t, {
			config: { limits: { authFailures: { max: 1_000_000 } } },
		});
		let going = true;
		const load = (async () => {
			let count = 0;
			while (going) {
				if ((await statusOf(gate.url, testKeys.user)) !== 200)
					throw new Error("refused");
				count += 1;
			}
			return count;
		})();
		for (let i = 0; i < 100; i++) {
			await gate.writeKeys([
				...testEntries,
				{ name: `k${i}`, sha256: digestOf(`${testKeys.wrong}${i}`) },
			]);
			gate.child.kill("SIGHUP");
		}
		await eventually(
			async () => (await statusOf(gate.url, `${testKeys.wrong}99`)) === 200,
		);
		going = false;
		t.ok((await load) > 0);
		t.notOk(gate.log.some(({ level }) => level === "error"));
	},
);
