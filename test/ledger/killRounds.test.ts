import { readdir, readFile, readlink } from "node:fs/promises";
import t, { type Test } from "tap";
import { startStandIn } from "../../src/ollama/standIn.ts";
import { bearer, eventually, spawnGate, testKeys } from "../support/gate.ts";
import {
	killLedger,
	type LedgerPlace,
	ledgerPlace,
	requestsIn,
	spawnLedger,
	type TestLedger,
} from "../support/ledger.ts";
import {
	postgres,
	startPostgres,
	type TestPostgres,
} from "../support/postgres.ts";

/** How often one of the two is killed. */
const rounds = Number(process.env.SOAK_KILLS ?? 6);
const seed = Number(process.env.SOAK_SEED ?? Date.now() % 2 ** 31);
/** Clients that ask one thing after the other. */
const clients = 4;
/** What a gate that is killed may lose. */
const lostMs = 1_000;

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

/** How many Unix sockets a ledger has: its own, and gates'. */
async function socketsOf({ child }: TestLedger): Promise<number> {
	const folder = `/proc/${child.pid}/fd`;
	const table = await readFile(`/proc/${child.pid}/net/unix`, "utf8");
	const inodes = new Set(
		table.split("\n").map((line) => line.trim().split(/\s+/)[6]),
	);
	const links = await Promise.all(
		(await readdir(folder)).map((name) =>
			readlink(`${folder}/${name}`).catch(() => ""),
		),
	);
	return links.filter((link) =>
		inodes.has(/^socket:\[(\d+)\]$/.exec(link)?.[1] ?? "none"),
	).length;
}

/** What its clients saw of one run of a gate. */
class Load {
	readonly #url: string;
	/** When each whole reply was there. */
	readonly endedAtMs: number[] = [];
	asked = 0;
	#goesOn = false;
	#clients: Promise<void>[] = [];

	constructor(url: string) {
		this.#url = url;
		this.start();
	}

	start(): void {
		this.#goesOn = true;
		this.#clients = Array.from({ length: clients }, () => this.#work());
	}

	async #work(): Promise<void> {
		while (this.#goesOn) {
			this.asked += 1;
			try {
				const reply = await fetch(`${this.#url}/api/generate`, {
					method: "POST",
					headers: bearer(testKeys.worker),
					body: JSON.stringify({
						model: "qwen3:8b",
						prompt: "a",
						options: { num_predict: 1 },
					}),
				});
				await reply.arrayBuffer();
				if (reply.status === 200) this.endedAtMs.push(performance.now());
			} catch {
				// The gate was killed.
				return;
			}
		}
	}

	/** How many whole replies were there by then. */
	endedBy(timeMs: number): number {
		return this.endedAtMs.filter((one) => one <= timeMs).length;
	}

	async stop(): Promise<void> {
		this.#goesOn = false;
		await Promise.all(this.#clients);
	}
}

interface Kept {
	readonly place: LedgerPlace;
	/** Ends the database without a word, where there is one. */
	readonly database?: Pick<TestPostgres, "stop" | "start">;
}

async function killRounds(
	t: Test,
	{ place, database }: Kept,
	rounds: number,
): Promise<void> {
	t.setTimeout((60 + 20 * rounds) * 1000);
	t.comment(`seed ${seed}`);
	const random = randomFrom(seed);
	const standIn = await startStandIn({ remember: false });
	t.teardown(() => standIn.close());
	const open = async () => {
		const gate = await spawnGate(t, {
			upstreamUrl: standIn.url,
			config: {
				ledger: place.section,
				limits: {
					perKey: { requestsPerMinute: 1_000_000 },
					perSource: { requestsPerMinute: 1_000_000 },
				},
			},
		});
		return { gate, load: new Load(gate.url) };
	};
	let ledger = await spawnLedger(t, place);
	const idle = await socketsOf(ledger);
	let { gate, load } = await open();
	/** What is in the ledger of gates that are gone. */
	let before = 0;
	const sums = { ended: 0, asked: 0, unrecorded: 0 };
	const kills = { gate: 0, ledger: 0, database: 0 };
	const add = () => {
		sums.ended += load.endedAtMs.length;
		sums.asked += load.asked;
	};
	const some = async () => {
		const due = load.asked + Math.ceil(random() * 250);
		await eventually(() => load.asked >= due);
	};
	// While the database is away, nobody tells.
	const told = () => requestsIn(place).catch(() => -1);
	const sides = ["gate", "ledger", ...(database ? ["database"] : [])] as const;
	for (let round = 0; round < rounds; round += 1) {
		const side = sides[
			Math.floor(random() * sides.length)
		] as keyof typeof kills;
		await some();
		kills[side] += 1;
		if (side !== "gate") {
			if (side === "ledger") await killLedger(ledger);
			else await database?.stop("immediate");
			await some();
			if (side === "ledger") ledger = await spawnLedger(t, place);
			else await database?.start();
			// What came meanwhile is caught up with, to the last, and no further.
			await load.stop();
			const due = before + load.endedAtMs.length;
			await eventually(async () => (await told()) === due);
			load.start();
			continue;
		}
		gate.child.kill("SIGKILL");
		const killedAtMs = performance.now();
		await gate.exited;
		await load.stop();
		// What it had sent is read to its end.
		await eventually(async () => (await socketsOf(ledger)) === idle);
		const found = (await requestsIn(place)) - before;
		const due = load.endedBy(killedAtMs - lostMs);
		if (found < due || found > load.asked)
			t.fail(`${found} of ${due} to ${load.asked} are in the ledger`);
		add();
		before += found;
		({ gate, load } = await open());
	}
	await load.stop();
	gate.child.kill("SIGTERM");
	t.equal(await gate.exited, 0);
	const last = (await requestsIn(place)) - before;
	t.equal(last, load.endedAtMs.length, "the last one's are all there, once");
	add();
	const found = await requestsIn(place);
	sums.unrecorded = sums.ended - found;
	t.comment(JSON.stringify({ ...sums, kills, found }));
}

t.test(
	`${rounds} times either side is killed at a random moment, and no record is lost or counted twice`,
	{ skip: process.platform === "linux" ? false : "reads /proc" },
	async (t) => killRounds(t, { place: await ledgerPlace(t) }, rounds),
);

t.test(
	`${rounds} times one of gate, ledger and database is killed, with the same`,
	postgres(),
	async (t) => {
		const database = await startPostgres(t);
		const { url } = await database.createDatabase();
		const { passwordFile } = database;
		const place = await ledgerPlace(t, { url, passwordFile, gate: "here" });
		await killRounds(t, { place, database }, rounds);
	},
);
