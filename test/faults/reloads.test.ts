import { existsSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import {
	eventually,
	spawnGate,
	temporaryFolder,
	testKeys,
} from "../support/gate.ts";
import { descriptorsOf } from "../support/process.ts";
import { head, openRaw, post, shows } from "../support/raw.ts";

t.test(
	"a hundred reloads a second that move listener and upstream break no stream and leave nothing behind",
	async (t) => {
		const warnings = path.join(await temporaryFolder(t), "warnings");
		const gate = await spawnGate(t, {
			nodeArgs: [`--redirect-warnings=${warnings}`],
			standIn: { tokenIntervalMs: 5 },
		});
		const { pid } = gate.child;
		const status = async () =>
			JSON.parse(
				(await askDaemon(path.join(gate.folder, "admin.sock"), "GET /status"))
					.body,
			) as { listening: string[]; streams: number };
		const body =
			'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}],"options":{"num_predict":1000000}}';
		const streams = await Promise.all(
			Array.from({ length: 4 }, async () => {
				const client = await openRaw(gate.port);
				t.teardown(() => client.destroy());
				client.write(post("/api/chat", body, shows(testKeys.user)));
				await client.until((text) => text.includes('"done":false'));
				return client;
			}),
		);
		const before = await descriptorsOf(pid);
		for (let n = 0; n < 120; n++) {
			await gate.writeConfig({
				listen: { address: `127.0.0.${1 + (n % 3)}` },
				upstream: {
					url: `http://127.0.0.${1 + (n % 2)}:${gate.standIn.port}`,
					connectTimeout: `${1 + (n % 7)}s`,
				},
			});
			gate.child.kill("SIGHUP");
			await delay(10);
		}
		await gate.writeConfig({ listen: { address: "127.0.0.9" } });
		gate.child.kill("SIGHUP");
		await eventually(async () => {
			const { listening } = await status();
			return (
				listening.length === 1 &&
				listening[0]?.startsWith("127.0.0.9:") === true
			);
		});
		const seen = streams.map((client) => client.text().length);
		for (const [n, client] of streams.entries())
			await client.until((text) => text.length > (seen[n] ?? 0) + 1_000);
		t.notOk(
			streams.some((client) => client.isClosed()),
			"streams go on",
		);
		await eventually(async () => (await descriptorsOf(pid)) <= before + 1);
		t.pass("no descriptor is left open");
		t.ok((await gate.standIn.openConnections()) <= streams.length + 1);
		const port = Number((await status()).listening[0]?.split(":")[1]);
		const client = await openRaw(port, "127.0.0.9", "127.0.0.9");
		client.write(
			head("GET /api/version HTTP/1.1", "Host: gate", shows(testKeys.user)),
		);
		t.equal((await client.untilReplies(1))[0]?.status, 200);
		client.destroy();
		t.notOk(existsSync(warnings), "no listeners pile up");
		const counts = Map.groupBy(gate.log, ({ msg }) => msg);
		t.ok((counts.get("reloaded")?.length ?? 0) > 30);
		t.notOk(gate.log.some(({ level }) => level === "error"));
	},
);
