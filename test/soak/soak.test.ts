import { readdir, readFile } from "node:fs/promises";
import { request } from "node:http";
import { connect } from "node:net";
import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import {
	bearer,
	eventually,
	spawnGate,
	testEntries,
	testKeys,
} from "../support/gate.ts";
import {
	killLedger,
	ledgerPlace,
	requestsIn,
	spawnLedger,
} from "../support/ledger.ts";

/** How long; CI sets minutes. The seed makes the order of events repeatable, not their timing. */
const seconds = Number(process.env.SOAK_SECONDS ?? 20);
const seed = Number(process.env.SOAK_SEED ?? Date.now() % 2 ** 31);
const workerCount = 40;
t.setTimeout((seconds + 90) * 1000);

function randomFrom(start: number): () => number {
	// mulberry32
	let state = start;
	return () => {
		state = (state + 0x6d2b79f5) | 0;
		let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
		mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
		return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
	};
}

t.test(
	`${seconds} s of streams, uploads, refusals and sudden ends leak nothing`,
	async (t) => {
		t.setTimeout((seconds + 90) * 1000);
		t.comment(`seed ${seed}`);
		const faults = ["die-mid-stream", "reset", "truncate", "garbage"] as const;
		const random = randomFrom(seed);
		const place = await ledgerPlace(t);
		const killed = await spawnLedger(t, place);
		const gate = await spawnGate(t, {
			// With room, V8 lets garbage pile up for minutes, and a leak would hide in it.
			nodeArgs: ["--max-old-space-size=64", "--max-semi-space-size=4"],
			config: {
				limits: { authFailures: { max: 1_000_000_000 } },
				ledger: place.section,
			},
			standIn: {
				remember: false,
				tokenIntervalMs: 2,
				misbehave: () =>
					random() < 0.05
						? faults[Math.floor(random() * faults.length)]
						: undefined,
			},
		});
		const socket = `${gate.folder}/admin.sock`;
		const status = async () =>
			JSON.parse(
				(await askDaemon(socket, "GET /status"))?.body ?? "{}",
			) as Record<string, unknown>;
		const rssBytes = async () =>
			1024 *
			Number(
				/VmRSS:\s+(\d+)/.exec(
					await readFile(`/proc/${gate.child.pid}/status`, "utf8"),
				)?.[1],
			);
		const descriptors = async () =>
			(await readdir(`/proc/${gate.child.pid}/fd`)).length;

		const endsAt = performance.now() + seconds * 1000;
		const counts = { finished: 0, left: 0, refused: 0, broken: 0 };

		/** One request that is left to itself or ended after a random while. */
		function call(
			path: string,
			key: string,
			body: string | Buffer,
			chunked: boolean,
		): Promise<void> {
			const neverEnds = chunked && random() < 0.3;
			const patienceMs = neverEnds || random() < 0.5 ? random() * 120 : 60_000;
			return new Promise((resolve) => {
				const req = request(`${gate.url}${path}`, {
					method: "POST",
					headers: bearer(key),
					agent: false,
				});
				let left = false;
				const timer = setTimeout(() => {
					counts.left += 1;
					left = true;
					req.destroy();
				}, patienceMs);
				req.on("response", (res) => {
					if (res.statusCode === 401) counts.refused += 1;
					res.on("end", () => {
						counts.finished += 1;
					});
					res.on("error", () => {
						if (!left) counts.broken += 1;
					});
					res.resume();
				});
				req.on("error", () => {});
				req.on("close", () => {
					clearTimeout(timer);
					resolve();
				});
				if (chunked) req.write(body);
				if (neverEnds) return;
				req.end(chunked ? undefined : body);
			});
		}

		function nonsense(): Promise<void> {
			return new Promise((resolve) => {
				const socket = connect(gate.port, "127.0.0.1");
				socket.on("error", () => {});
				socket.on("close", () => resolve());
				socket.write(random() < 0.5 ? "GET / HTT" : "nonsense\r\n\r\n");
				setTimeout(() => socket.destroy(), random() * 50);
			});
		}

		async function work(): Promise<void> {
			while (performance.now() < endsAt) {
				const dice = random();
				const chat = JSON.stringify({
					model: "qwen3:8b",
					prompt: "a",
					messages: [{ role: "user", content: "a" }],
					options: { num_predict: 1 + Math.floor(random() * 60) },
				});
				if (dice < 0.6)
					await call(
						random() < 0.5 ? "/api/chat" : "/api/generate",
						testKeys.user,
						chat,
						false,
					);
				else if (dice < 0.75)
					await call(
						`/api/blobs/sha256:${"0".repeat(64)}`,
						testKeys.owner,
						Buffer.alloc(random() * 300_000),
						true,
					);
				else if (dice < 0.9)
					await call("/api/chat", testKeys.wrong, chat, random() < 0.5);
				else await nonsense();
			}
		}

		const workers = Array.from({ length: workerCount }, work);
		await new Promise((resolve) => setTimeout(resolve, (seconds * 1000) / 4));
		const early = { rss: await rssBytes(), descriptors: await descriptors() };
		await killLedger(killed);
		await spawnLedger(t, place);
		await Promise.all(workers);
		t.comment(JSON.stringify(counts));
		t.ok(
			counts.finished > 0 &&
				counts.left > 0 &&
				counts.refused > 0 &&
				counts.broken > 0,
			"every kind of end happened",
		);

		await eventually(() => gate.standIn.activeCalls() === 0);
		t.pass("no call goes on upstream");
		await eventually(async () => {
			const { connections, streams } = await status();
			return connections === 0 && streams === 0;
		});
		t.pass("no client connection and no stream is left");
		t.ok(
			(await gate.standIn.openConnections()) <= workerCount,
			"no upstream connection beyond those that work at once",
		);
		const late = { rss: await rssBytes(), descriptors: await descriptors() };
		t.comment(
			`memory ${early.rss >> 20} MiB at a quarter, ${late.rss >> 20} MiB at the end; descriptors ${early.descriptors}, ${late.descriptors}`,
		);
		t.ok(late.rss < early.rss + (24 << 20), "memory does not grow");
		t.ok(late.descriptors <= early.descriptors, "file descriptors do not grow");
		const known = new Set(testEntries.map(({ name }) => name));
		const inferred = () =>
			gate.log.filter(
				({ msg, key, route }) =>
					msg === "request" &&
					known.has(String(key)) &&
					/^POST \/api\/(chat|generate)$/.test(String(route)),
			).length;
		await eventually(async () => (await requestsIn(place)) === inferred());
		t.comment(`${inferred()} requests are in the ledger, as in the log`);
		t.notOk(
			gate.log.some(({ level }) => level === "error" || level === "fatal"),
			"nothing failed inside",
		);
	},
);
