import { execFile } from "node:child_process";
import { readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import t from "tap";
import { withoutFacades } from "../../scripts/build/bundle.ts";
import { LedgerClient } from "../../src/ledger/client.ts";
import { builtProgram } from "../support/builtProgram.ts";
import {
	bearer,
	spawnGate,
	temporaryFolder,
	testKeys,
} from "../support/gate.ts";
import {
	collectedLog,
	ledgerPlace,
	recordOf,
	requestsIn,
	spawnLedger,
} from "../support/ledger.ts";
import { postgres, startPostgres } from "../support/postgres.ts";
import { requireValkey, startValkey } from "../support/valkey.ts";

const folder = await builtProgram();
const program = path.join(folder, "bin/llamagate.js");

t.test(
	"the built daemon relays and refuses under its unit's options, and loads little of Node",
	async (t) => {
		const probe = path.join(await temporaryFolder(t), "probe.cjs");
		await writeFile(
			probe,
			'process.on("exit", () => require("node:fs").writeFileSync(process.env.HOLD_LOADED, JSON.stringify(process.moduleLoadList)));',
		);
		const loadedFile = `${probe}.loaded`;
		const gate = await spawnGate(t, {
			program,
			launcher: ["env", `HOLD_LOADED=${loadedFile}`],
			nodeArgs: ["--require", probe],
		});
		const status = async (headers: Record<string, string>) =>
			(await fetch(`${gate.url}/api/tags`, { headers })).status;
		t.equal(await status({}), 401);
		t.equal(await status(bearer(testKeys.reader)), 200);
		gate.child.kill("SIGTERM");
		t.equal(await gate.exited, 0);
		const loaded = JSON.parse(await readFile(loadedFile, "utf8")) as string[];
		for (const name of [
			"tls",
			"http2",
			"worker_threads",
			"internal/deps/undici/undici",
		])
			t.notOk(loaded.includes(`NativeModule ${name}`), name);
		t.ok(loaded.includes("NativeModule http"));
	},
);

t.test("the daemon's file has nothing in it that it never uses", async (t) => {
	const map = await readFile(path.join(folder, "dist/serve.js.map"), "utf8");
	const { sources } = JSON.parse(map) as { sources: string[] };
	const found = (part: string) =>
		sources.some((source) => source.includes(`node_modules/${part}`));
	for (const part of [
		...["undici/", "ws/", "@fastify/reply-from/", "light-my-request/"],
		...["ajv/dist/ajv.js", "ajv/dist/compile/", "diff/", "semver/index.js"],
		...["pg/", "pg-protocol/"],
		"iovalkey/",
	])
		t.notOk(found(part), part);
	t.ok(found("fastify/fastify.js"));
	t.ok(found("@fastify/http-proxy/index.js"));
});

t.test(
	"the built daemon loads the library for Valkey where it is to share its limits",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const gate = await spawnGate(t, {
			program,
			config: { state: { url: `unix:${valkey.socketPath}` } },
		});
		const reply = await fetch(`${gate.url}/api/tags`, {
			headers: bearer(testKeys.reader),
		});
		t.equal(reply.status, 200);
		t.match(
			await valkey.command("KEYS", "*:rate:*"),
			/^\*2/,
			"the key's and the address's",
		);
		gate.child.kill("SIGTERM");
		t.equal(await gate.exited, 0);
		t.match(await valkey.command("ZCARD", "{llamagate}:gates"), /^:0/);
	},
);

t.test(
	"what is built is readable: each piece stands below its file's name, and the map has the sources",
	async (t) => {
		const names = await readdir(path.join(folder, "dist"));
		t.ok(names.includes("notifier.js"));
		const code = await readFile(path.join(folder, "dist/serve.js"), "utf8");
		for (const name of ["src/gate/relay.ts", "node_modules/fastify/fastify.js"])
			t.ok(code.includes(`// ${name}\n`), name);
		const map = await readFile(path.join(folder, "dist/serve.js.map"), "utf8");
		const { sources, sourcesContent } = JSON.parse(map) as {
			sources: string[];
			sourcesContent: (string | null)[];
		};
		const own = sources.flatMap((source, index) =>
			source.startsWith("../src/") ? [sourcesContent[index]] : [],
		);
		t.ok(own.length > 50, "seen from the checkout, wherever it was built");
		t.notOk(own.includes(null));
	},
);

t.test(
	"the built program says of mistakes in settings and keys what the sources say",
	async (t) => {
		const place = await temporaryFolder(t);
		const configFile = path.join(place, "config.json");
		const keysFile = path.join(place, "keys.json");
		const goodKeys = `{"keys":[{"name":"a","sha256":"${"0".repeat(64)}"}]}`;
		const say = async (script: string) => {
			const { stdout, stderr } = await promisify(execFile)(process.execPath, [
				...[script, "check", "--config", configFile],
			]).catch((error: { stdout: string; stderr: string }) => error);
			return stdout + stderr;
		};
		for (const [config, keys] of [
			['{"lissten":1,"listen":{"port":"x"},"sources":[]}', goodKeys],
			['{"drainTimeout":3,"log":{"level":"loud"}}', goodKeys],
			["{}", '{"keys":[{"name":"","sha256":"x","scopes":["all"]}]}'],
			["{}", '{"keys":[{"sha256":1,"bind":{"nodes":[]}},{}],"more":1}'],
		] as const) {
			await writeFile(configFile, config);
			await writeFile(keysFile, keys, { mode: 0o600 });
			const said = await say("src/main.ts");
			t.match(said, /is not usable:\n {2}line 1: /);
			t.equal(await say(program), said);
		}
	},
);

t.test("each command of the built program tells of itself", async (t) => {
	const say = async (...args: string[]) => {
		const { stdout } = await promisify(execFile)(process.execPath, [
			...[program, ...args, "--help"],
		]);
		return stdout;
	};
	const commands = [...(await say()).matchAll(/^ {2}(\S+) +\S/gm)];
	t.ok(commands.length > 10);
	for (const [, name = ""] of commands)
		t.match(await say(name), new RegExp(`^Usage: (sudo )?llamagate ${name}`));
});

t.test(
	"the built ledger writes to PostgreSQL, and to a file",
	postgres(),
	async (t) => {
		const server = await startPostgres(t);
		const { url } = await server.createDatabase();
		const { passwordFile } = server;
		for (const settings of [{ url, passwordFile, gate: "built" }, {}]) {
			const place = await ledgerPlace(t, settings);
			await spawnLedger(t, place, program);
			const client = new LedgerClient(place.socket, collectedLog().log);
			client.record(recordOf());
			await client.close(60_000);
			t.equal(await requestsIn(place), 1);
		}
	},
);

t.test("imports of Node's own modules are asked for by name", async (t) => {
	for (const [code, wanted] of [
		[
			'import http from "node:http";',
			'const http = process.getBuiltinModule("node:http");',
		],
		[
			'import * as fs from "node:fs";',
			'const fs = process.getBuiltinModule("node:fs");',
		],
		[
			'import { connect, type Socket, isIP as is } from "node:net";',
			'const { connect,  isIP: is } = process.getBuiltinModule("node:net");',
		],
		['import type { Socket } from "node:net";', undefined],
		['import { a } from "./a.ts";', undefined],
	] as const)
		t.equal(withoutFacades(code), wanted ?? code);
	t.throws(() => withoutFacades('import a, { b } from "node:net";'));
	const lines = withoutFacades('import {\n\ta,\n\tb,\n} from "node:net";\n');
	t.equal(lines.split("\n").length, 5);
});
