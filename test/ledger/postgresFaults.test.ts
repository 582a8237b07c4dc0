import { execFileSync } from "node:child_process";
import { chmodSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import path from "node:path";
import { Client } from "pg";
import t, { type Test } from "tap";
import { readDatabaseUrl } from "../../src/config/databaseUrl.ts";
import { askLedger } from "../../src/ledger/ask.ts";
import { PostgresStore } from "../../src/ledger/postgres/store.ts";
import { dayMs } from "../../src/ledger/store.ts";
import { eventually, runCli } from "../support/gate.ts";
import {
	killLedger,
	ledgerPlace,
	recordOf,
	requestsIn,
	spawnLedger,
	startLedgerClient,
	sumsOf,
} from "../support/ledger.ts";
import {
	giveToServer,
	postgres,
	startPostgres,
	type TestDatabase,
	type TestPostgres,
} from "../support/postgres.ts";
import { tinyDisk } from "../support/tinyDisk.ts";

const sectionOf = (
	{ url }: TestDatabase,
	{ passwordFile }: TestPostgres,
	gate = "here",
) => ({ url, passwordFile, gate });

t.test("the database's faults", postgres(), async (t) => {
	const server = await startPostgres(t);
	const openStore = (t: Test, { database }: TestDatabase, limits = {}) => {
		const { passwordFile } = server;
		const store = new PostgresStore({
			...{ database, passwordFile, retentionMs: 90 * dayMs, gate: "here" },
			...limits,
		});
		t.teardown(() => store.close());
		return store;
	};

	/** Holds the table of records until it ends. */
	const lockRecords = async ({ name, database }: TestDatabase) => {
		const client = new Client({
			...{ host: server.folder, port: server.port, database: name },
			...{ user: database.user, password: server.password },
		});
		await client.connect();
		await client.query("BEGIN; LOCK TABLE llamagate.records");
		return client;
	};

	await t.test(
		"several gates write into one, told apart and summed",
		async (t) => {
			const base = await server.createDatabase();
			const gates = await Promise.all(
				["north", "south"].map(async (gate) => {
					const place = await ledgerPlace(t, sectionOf(base, server, gate));
					await spawnLedger(t, place);
					return { gate, place, client: startLedgerClient(t, place).client };
				}),
			);
			for (const [index, { client }] of gates.entries())
				for (let n = 0; n <= 500 * (index + 1); n += 1)
					client.record(recordOf({ tokensIn: 1 }));
			await eventually(() =>
				gates.every(({ client }) => client.counts.waiting === 0),
			);
			for (const [index, { place, gate }] of gates.entries()) {
				// What a gate takes up of its budgets after a restart.
				const own = await askLedger(place.socket, {
					...{ sinceMs: 0, by: ["gate", "key"], own: true },
				});
				t.match(own, [{ gate, requests: 500 * (index + 1) + 1 }]);
				t.equal(own.length, 1);
				t.match(await sumsOf(place), [{ requests: 1502, tokensIn: 1502 }]);
				const byGate = await sumsOf(place, ["gate"]);
				t.strictSame(
					Object.fromEntries(byGate.map((row) => [row.gate, row.requests])),
					{ north: 501, south: 1001 },
				);
				const { stdout } = await runCli([
					...["usage", "--config", place.configFile],
					...["--by", "gate,key", "--csv"],
				]);
				t.match(stdout, /^south,laptop,1001,1001,/m);
				t.match(stdout, /^north,laptop,501,501,/m);
			}
		},
	);

	await t.test(
		"kill -9 of the ledger, again and again, loses nothing and counts nothing twice",
		async (t) => {
			const place = await ledgerPlace(
				t,
				sectionOf(await server.createDatabase(), server),
			);
			const { client } = startLedgerClient(t, place);
			let sent = 0;
			const send = (count: number) => {
				for (let n = 0; n < count; n += 1) client.record(recordOf());
				sent += count;
			};
			for (let round = 0; round < 4; round += 1) {
				const ledger = await spawnLedger(t, place);
				send(1_000);
				const { written } = client.counts;
				await eventually(() => client.counts.written > written);
				send(3_000);
				await killLedger(ledger);
			}
			await spawnLedger(t, place);
			await eventually(() => client.counts.waiting === 0);
			t.match(client.counts, { written: sent, lost: 0, aggregated: 0 });
			t.equal(await requestsIn(place), sent);
		},
	);

	await t.test(
		"a database that is away, crashes and comes back costs no record",
		async (t) => {
			const place = await ledgerPlace(
				t,
				sectionOf(await server.createDatabase(), server),
			);
			await server.stop();
			const ledger = await spawnLedger(t, place);
			t.match(
				ledger.log.find(({ event }) => event === "ledger_unwritable"),
				{ why: /no database answers there/ },
				"it starts without it",
			);
			const { client, lines } = startLedgerClient(t, place);
			for (let n = 0; n < 600; n += 1) client.record(recordOf());
			await eventually(() =>
				lines.some(({ event }) => event === "ledger_away"),
			);
			t.match(
				lines.find(({ event }) => event === "ledger_away"),
				{ why: /no database answers there/ },
				"the gate's log says why",
			);
			await server.start();
			await eventually(() => client.counts.waiting === 0);
			for (const how of ["immediate", "fast"] as const) {
				for (let n = 0; n < 2_000; n += 1) client.record(recordOf());
				const { written } = client.counts;
				await eventually(() => client.counts.written > written);
				await server.stop(how);
				for (let n = 0; n < 100; n += 1) client.record(recordOf());
				await server.start();
			}
			await eventually(() => client.counts.waiting === 0);
			t.match(client.counts, { written: 4_800, lost: 0 });
			t.equal(await requestsIn(place), 4_800);
		},
	);

	await t.test(
		"a server that stands still holds nobody up, and what it does later counts once",
		async (t) => {
			const base = await server.createDatabase();
			const store = openStore(t, base, { writeMs: 200 });
			await store.append("gate", 1, [recordOf()]);
			const backends = await server.sql(
				base.name,
				"SELECT pid FROM pg_stat_activity WHERE application_name = 'llamagate-ledger'",
			);
			const pids = backends.map(({ pid }) => Number(pid));
			t.equal(pids.length, 1);
			for (const pid of pids) process.kill(pid, "SIGSTOP");
			await t.rejects(store.append("gate", 2, [recordOf()]), {
				message: /did not answer in/,
			});
			t.equal(await store.lastBatch("gate"), 1, "a new connection serves");
			for (const pid of pids) process.kill(pid, "SIGCONT");
			await store.append("gate", 2, [recordOf()]);
			t.match(await store.usage({ sinceMs: 0, by: [] }), [{ requests: 2 }]);
			// Nobody takes connections any more, and the kernel does.
			const fresh = openStore(t, base, { writeMs: 200 });
			process.kill(server.pid, "SIGSTOP");
			const asked = fresh.lastBatch("gate");
			await t.rejects(asked, { message: /did not answer in/ });
			process.kill(server.pid, "SIGCONT");
			t.equal(await fresh.lastBatch("gate"), 2);
		},
	);

	await t.test(
		"a table that is locked is told of, and waited for",
		async (t) => {
			const base = await server.createDatabase();
			const store = openStore(t, base, { writeMs: 400 });
			await store.append("gate", 1, [recordOf()]);
			const other = await lockRecords(base);
			const failure = await store
				.append("gate", 2, [recordOf()])
				.catch((error: unknown) => error);
			t.match(store.explain(failure), /locked by another program/);
			await other.end();
			await store.append("gate", 2, [recordOf()]);
			t.match(await store.usage({ sinceMs: 0, by: [] }), [{ requests: 2 }]);
		},
	);

	await t.test(
		"while the database stands still, the ledger reads no further",
		async (t) => {
			const base = await server.createDatabase();
			const place = await ledgerPlace(t, sectionOf(base, server));
			await spawnLedger(t, place);
			t.equal(await requestsIn(place), 0);
			const other = await lockRecords(base);
			const socket = connect(place.socket);
			socket.on("error", () => {});
			t.teardown(() => socket.destroy());
			let batch = 0;
			let answers = "";
			socket.setEncoding("utf8").on("data", (text: string) => {
				answers += text;
			});
			const records = Array.from({ length: 256 }, () => recordOf());
			// Until nothing more is taken from this side: the kernel's buffers and one chunk.
			const most = 400;
			while (batch < most && socket.writableLength < 4 * 2 ** 20) {
				batch += 1;
				socket.write(`${JSON.stringify({ source: "raw", batch, records })}\n`);
				await new Promise((resolve) => setImmediate(resolve));
			}
			t.ok(batch < most, `${batch} batches fill what there is between`);
			t.equal(answers, "", "none of them is answered");
			await other.end();
			await eventually(() => answers.includes(`{"done":${batch}}`));
			t.equal(await requestsIn(place), 256 * batch);
		},
	);

	await t.test(
		"the longest retention of the gates counts for all",
		async (t) => {
			const base = await server.createDatabase();
			const nowMs = Date.now();
			const [short, long] = [2, 20].map((days) =>
				openStore(t, base, { gate: `${days}`, retentionMs: days * dayMs }),
			) as [PostgresStore, PostgresStore];
			for (const [index, store] of [short, long].entries())
				await store.append(
					`gate-${index}`,
					1,
					[1, 10, 30].map((ago) => recordOf({ time: nowMs - ago * dayMs })),
				);
			for (const store of [short, long])
				while (await store.forgetSome(1, nowMs));
			const [left] = await server.sql(
				base.name,
				"SELECT count(*)::int AS records FROM llamagate.records",
			);
			t.strictSame(left, { records: 4 });
			t.match(
				await short.usage(
					{ sinceMs: nowMs - 10.5 * dayMs, by: ["gate"] },
					nowMs,
				),
				[{ requests: 2 }, { requests: 2 }],
			);
			// One that has not been seen for a month no longer does.
			await server.sql(
				base.name,
				"UPDATE llamagate.gates SET seen = 0 WHERE name = '20'",
			);
			while (await short.forgetSome(1, nowMs));
			const [after] = await server.sql(
				base.name,
				"SELECT count(*)::int AS records FROM llamagate.records",
			);
			t.strictSame(after, { records: 2 });
		},
	);

	await t.test(
		"two that write the same batch at once write it once",
		async (t) => {
			const base = await server.createDatabase();
			const stores = [1, 2, 3].map(() => openStore(t, base));
			for (let batch = 1; batch <= 40; batch += 1)
				await Promise.all(
					stores.map((store) =>
						store.append("gate", batch, [
							recordOf({ user: `key:${batch}` }),
							recordOf({ user: `key:${batch - 1}` }),
						]),
					),
				);
			t.match(await stores[0]?.usage({ sinceMs: 0, by: [] }), [
				{ requests: 80 },
			]);
		},
	);

	await t.test(
		"what will never do is refused, and says what to do",
		async (t) => {
			const refused = async (settings: Record<string, string>, why: RegExp) => {
				const place = await ledgerPlace(t, settings);
				const { code, stderr } = await runCli([
					...["ledger", "--config", place.configFile],
				]);
				t.equal(code, 1, String(why));
				t.match(stderr, why);
			};
			const newer = await server.createDatabase();
			await openStore(t, newer).lastBatch("");
			await server.sql(newer.name, "UPDATE llamagate.version SET form = 99");
			await refused(
				sectionOf(newer, server),
				/newer llamagate.*install that version here too/,
			);
			const strange = await server.createDatabase();
			await server.sql(
				strange.name,
				"CREATE SCHEMA llamagate; CREATE TABLE llamagate.photos ()",
			);
			await refused(sectionOf(strange, server), /another program's/);
			const latin = await server.createDatabase(
				"ENCODING 'LATIN1' TEMPLATE template0",
			);
			await refused(
				sectionOf(latin, server),
				/LATIN1.*createdb --encoding=UTF8/,
			);
			const good = await server.createDatabase();
			const { url } = good;
			await refused({ url }, /asks for a password.*ledger\.passwordFile/);
			const open = path.join(server.folder, "open");
			writeFileSync(open, server.password);
			chmodSync(open, 0o644);
			await refused({ url, passwordFile: open }, /run chmod 600 on it/);
			await refused(
				{ url, passwordFile: "/no/such" },
				/\/no\/such does not exist/,
			);
			writeFileSync(open, "two\nlines\n", { mode: 0o600 });
			chmodSync(open, 0o600);
			await refused({ url, passwordFile: open }, /one line, and nothing else/);
		},
	);

	await t.test(
		"what may yet be put right is told of, and tried again",
		async (t) => {
			const base = await server.createDatabase();
			const passwordFile = path.join(server.folder, "changed");
			writeFileSync(passwordFile, "wrong", { mode: 0o600 });
			const place = await ledgerPlace(t, { url: base.url, passwordFile });
			const ledger = await spawnLedger(t, place);
			t.match(
				ledger.log.find(({ event }) => event === "ledger_unwritable"),
				{ why: /refuses the password/ },
			);
			const { client } = startLedgerClient(t, place);
			client.record(recordOf());
			writeFileSync(passwordFile, server.password);
			await eventually(() => client.counts.waiting === 0);
			const text = JSON.stringify(ledger.log);
			t.notMatch(text, server.password, "it is in no log");
			const missing = openStore(t, {
				...base,
				database: { ...base.database, name: "nowhere" },
			});
			t.match(await missing.probe(), /no such database/);
			await server.sql(
				base.name,
				`ALTER DATABASE ${base.name} SET default_transaction_read_only = on`,
			);
			const store = openStore(t, base);
			t.match(await store.probe(), /can only be read/);
		},
	);

	await t.test(
		"what is acknowledged is on the disk, whatever the server is used to",
		async (t) => {
			const base = await server.createDatabase();
			await server.sql(
				base.name,
				`ALTER DATABASE ${base.name} SET synchronous_commit = off`,
			);
			const store = openStore(t, base);
			await store.append("gate", 1, [recordOf()]);
			const other = await server.sql(base.name, "SHOW synchronous_commit");
			t.match(other, [{ synchronous_commit: "off" }]);
			t.equal(await store.show("synchronous_commit"), "on");
		},
	);

	await t.test(
		"off this host the server proves itself, or nothing is said to it",
		async (t) => {
			const base = await server.createDatabase();
			// As if it were far away: with TLS, in which the address must be the certificate's.
			const at = (parameters: string) => {
				const database = readDatabaseUrl(`${base.url}?${parameters}`);
				if (typeof database === "string") throw new Error(database);
				return openStore(t, { ...base, database });
			};
			const plain = at("sslmode=verify-full");
			t.match(await plain.probe(), /does not support SSL/);
			const make = (name: string, subject: string) => {
				const [key, certificate] = ["key", "crt"].map((end) =>
					path.join(server.folder, `${name}.${end}`),
				) as [string, string];
				execFileSync(
					"openssl",
					[
						...["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"],
						...["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=x"],
						...["-addext", `subjectAltName=${subject}`],
						...["-keyout", key, "-out", certificate],
					],
					{ stdio: "ignore" },
				);
				giveToServer(key);
				giveToServer(certificate);
				return { key, certificate };
			};
			const serve = async ({ key, certificate }: ReturnType<typeof make>) => {
				await server.stop();
				await server.start([
					...["ssl=on", `ssl_key_file=${key}`, `ssl_cert_file=${certificate}`],
				]);
			};
			const right = make("right", "IP:127.0.0.1");
			const wrong = make("wrong", "IP:192.0.2.1");
			await serve(right);
			t.equal(await at(`sslrootcert=${right.certificate}`).probe(), undefined);
			t.match(await at("sslmode=verify-full").probe(), /self-signed/);
			t.match(
				await at(`sslrootcert=${wrong.certificate}`).probe(),
				/self-signed/,
			);
			await serve(wrong);
			t.match(
				await at(`sslrootcert=${wrong.certificate}`).probe(),
				/does not match certificate/,
			);
			await t.rejects(
				at("sslrootcert=/no/such").probe(),
				/cannot read \/no\/such/,
			);
			await server.stop();
			await server.start();
		},
	);

	await t.test(
		"a full disk loses nothing, and is said",
		{ skip: process.getuid?.() === 0 ? false : "mounting takes root" },
		async (t) => {
			const disk = await tinyDisk(t, "10m");
			execFileSync("chown", ["postgres:postgres", disk.folder]);
			await server.sql(
				"postgres",
				`CREATE TABLESPACE tiny LOCATION '${disk.folder}'`,
			);
			const base = await server.createDatabase("TABLESPACE tiny");
			const store = openStore(t, base);
			let batch = 0;
			let failure: unknown;
			while (failure === undefined && batch < 500) {
				batch += 1;
				const records = Array.from({ length: 256 }, (_, n) =>
					recordOf({ user: `key:${batch} ${n}` }),
				);
				failure = await store.append("gate", batch, records).then(
					() => undefined,
					(error: unknown) => error,
				);
			}
			t.match(store.explain(failure), /disk is full/);
			disk.makeRoom();
			for (const again of [batch, batch])
				await store.append("gate", again, [recordOf()]);
			t.match(await store.usage({ sinceMs: 0, by: [] }), [
				{ requests: 256 * (batch - 1) + 1 },
			]);
			await store.close();
			await server.sql("postgres", `DROP DATABASE ${base.name}`);
			await server.sql("postgres", "DROP TABLESPACE tiny");
		},
	);
});
