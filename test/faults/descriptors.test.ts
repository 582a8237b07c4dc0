import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import {
	eventually,
	spawnGate,
	temporaryFolder,
	testKeys,
} from "../support/gate.ts";
import {
	ask,
	gateV4,
	joinTailnet,
	makeNamespace,
	network,
	startDaemon,
	startStandInProcess,
} from "../support/namespaces.ts";
import { descriptorsOf } from "../support/process.ts";
import {
	honestStatus,
	openRaw,
	post,
	shows,
	statusOf,
	within,
} from "../support/raw.ts";

/** Lets a program open so many files; Node raises its own limit as far as it may. */
const limitedTo = (count: number) => [
	...["sh", "-c", `ulimit -n ${count}; exec "$@"`, "sh"],
];

t.test(
	"when connections would take all file descriptors, new ones are closed with one line in the log, streams and reloads go on, and who comes later is served",
	async (t) => {
		const gate = await spawnGate(t, {
			launcher: limitedTo(160),
			standIn: { tokenIntervalMs: 5 },
		});
		const stream = await openRaw(gate.port, "127.0.0.9");
		const manyTokens =
			'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}],"options":{"num_predict":1000000}}';
		stream.write(post("/api/chat", manyTokens, shows(testKeys.user)));
		await stream.until((text) => text.includes('"done":false'));

		const before = await descriptorsOf(gate.child.pid);

		const flood = (from: string) =>
			Promise.all(Array.from({ length: 150 }, () => openRaw(gate.port, from)));
		const first = await flood("127.0.0.2");
		t.equal(
			await honestStatus(gate),
			200,
			"one address leaves some for others",
		);
		const clients = [...first, ...(await flood("127.0.0.3"))];
		t.teardown(() => {
			for (const client of clients) client.destroy();
		});
		await gate.logged(({ msg }) => String(msg).includes("file descriptors"));
		const reload = await within(
			askDaemon(path.join(gate.folder, "admin.sock"), "POST /reload"),
			"a reload",
		);
		t.equal(reload.status, 200, "a reload can read its files");
		const seen = stream.text().length;
		await stream.until((text) => text.length > seen + 1_000);
		t.pass("a stream goes on");

		for (const client of clients) client.destroy();
		await eventually(async () => (await honestStatus(gate)) === 200);
		t.pass("who comes later is served");
		await eventually(
			async () => (await descriptorsOf(gate.child.pid)) <= before + 2,
		);
		t.pass("and no descriptor stays taken");
		t.equal(
			gate.log.filter(({ msg }) => String(msg).includes("file descriptors"))
				.length,
			1,
		);
		t.notOk(gate.log.some(({ level }) => level === "error"));
		t.notOk(stream.isClosed());
		stream.destroy();
	},
);

t.test(
	"a daemon without one file descriptor left goes on listening, says what is wrong, and serves once there are some",
	network(),
	async (t) => {
		const host = await makeNamespace(t);
		await joinTailnet(host, await makeNamespace(t));
		await startStandInProcess(host);
		const pidFile = path.join(await temporaryFolder(t), "pid");
		const daemon = await startDaemon(t, host, {}, [
			...["sh", "-c", `echo $$ >${pidFile}; exec "$@"`, "sh"],
		]);
		await daemon.log.seen(({ msg }) => msg === "started");
		const pid = Number(await readFile(pidFile, "utf8"));
		const giveBack = takeDescriptors(pid);
		await daemon.log.seen(({ msg }) =>
			String(msg).startsWith("the interface cannot be looked at"),
		);
		giveBack();
		t.equal((await ask(host, gateV4, { key: testKeys.user })).status, 200);
		t.strictSame(
			daemon.log.all.filter(({ msg }) => String(msg).includes("gone")),
			[],
			"it never stopped listening",
		);
	},
);

t.test(
	"a request for which no connection to Ollama can be opened is told that file descriptors are lacking",
	async (t) => {
		const gate = await spawnGate(t);
		const client = await openRaw(gate.port);
		t.teardown(() => client.destroy());
		await eventually(async () => (await statusOf(gate)).connections === 1);
		const request = post(
			"/api/chat",
			'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}],"stream":false}',
			shows(testKeys.user),
		);
		const giveBack = takeDescriptors(gate.child.pid);
		client.write(request);
		const [refused] = await client.untilReplies(1);
		t.match(refused, {
			status: 502,
			body: /no file descriptor left .* \(EMFILE\)/,
		});
		giveBack();
		client.write(request);
		t.equal((await client.untilReplies(2))[1]?.status, 200);
	},
);

/** Leaves a process none that is free, until the function that is returned is called. */
function takeDescriptors(pid: number | undefined): () => void {
	const limitTo = (count: number) =>
		execFileSync("prlimit", ["--pid", String(pid), `--nofile=${count}:`]);
	const open = new Set(readdirSync(`/proc/${pid}/fd`).map(Number));
	let lowestFree = 0;
	while (open.has(lowestFree)) lowestFree += 1;
	limitTo(lowestFree);
	return () => limitTo(1_024);
}
