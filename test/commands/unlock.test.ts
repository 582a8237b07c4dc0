import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, request } from "node:http";
import path from "node:path";
import t, { type Test } from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import { generateKey } from "../../src/keys/newKey.ts";
import { visibleLine } from "../../src/visible.ts";
import { runCli, startGate, type TestGate, testKeys } from "../support/gate.ts";
import { attack, head, shows } from "../support/raw.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

const other = "127.0.0.2";

async function statusFrom(gate: TestGate, from: string, key: string) {
	const bytes = head("GET /api/tags HTTP/1.1", "Host: gate", shows(key));
	return (await attack(gate, bytes, from)).status;
}

async function lockOut(gate: TestGate, from: string): Promise<void> {
	while ((await statusFrom(gate, from, generateKey())) !== 429);
}

function unlock(gate: TestGate, ...args: readonly string[]) {
	return runCli(["unlock", "--config", gate.configFile, ...args]);
}

t.test("status names who is locked out, and unlock lets them in", async (t) => {
	const gate = await startGate(t);
	await lockOut(gate, other);
	const status = await runCli(["status", "--config", gate.configFile]);
	t.match(status.stdout, /; 1 device\(s\) or address\(es\) are locked out\n/);
	t.match(
		status.stdout,
		/ locked out: 127\.0\.0\.2 for another (4 min \d+|5 min 0) s, after wrong keys; to let it in: sudo llamagate unlock 127\.0\.0\.2\n/,
	);

	t.strictSame(await unlock(gate, other), {
		code: 0,
		stdout: "Let in again: 127.0.0.2\n",
		stderr: "",
	});
	t.equal(await statusFrom(gate, other, testKeys.reader), 200);
	const line = await gate.logged(({ event }) => event === "unlocked");
	t.match(line, { level: "warn", ip: other, addresses: [other], node: null });
	t.match(
		(await runCli(["status", "--config", gate.configFile])).stdout,
		/; nobody is locked out\n/,
	);
});

t.test("a mistake in the configuration keeps nobody locked out", async (t) => {
	const gate = await startGate(t);
	await lockOut(gate, other);
	await gate.writeConfig({ listne: {} });
	t.match(await unlock(gate, other), {
		code: 0,
		stdout: "Let in again: 127.0.0.2\n",
	});
});

t.test("unlock --all lets everybody in, and --json says who", async (t) => {
	const gate = await startGate(t);
	const none = await unlock(gate, "--all");
	t.match(none, { code: 0, stdout: "Nobody is locked out.\n" });
	await lockOut(gate, other);
	await lockOut(gate, "127.0.0.3");
	const all = await unlock(gate, "--all", "--json");
	t.equal(all.code, 0);
	t.match(JSON.parse(all.stdout), {
		ok: true,
		unlocked: [
			{ addresses: [other], node: null, secondsLeft: Number },
			{ addresses: ["127.0.0.3"] },
		],
		lockouts: [],
	});
	t.equal(await statusFrom(gate, other, testKeys.reader), 200);
});

t.test("who is not locked out cannot be let in", async (t) => {
	const gate = await startGate(t);
	const nobody = await unlock(gate, other);
	t.match(nobody, {
		code: 1,
		stdout: "",
		stderr: /127\.0\.0\.2 is not locked out; nobody is/,
	});
	await lockOut(gate, "127.0.0.22");
	t.match(await unlock(gate, "127.0.0.2"), {
		code: 1,
		stderr: /did you mean 127\.0\.0\.22\?/,
	});
	t.match(await unlock(gate, "100.101.102.103"), {
		code: 1,
		stderr: /these are: 127\.0\.0\.22\n/,
	});
	const json = await unlock(gate, "127.0.0.2", "--json");
	t.equal(json.code, 1);
	t.match(JSON.parse(json.stdout), {
		ok: false,
		unlocked: [],
		lockouts: [{ addresses: ["127.0.0.22"] }],
	});
	// Mapped into IPv6 it is the same address.
	t.equal((await unlock(gate, "::ffff:127.0.0.22")).code, 0);
});

t.test("a command line that says no address is a mistake", async (t) => {
	const gate = await startGate(t);
	for (const [args, says] of [
		[[], /ADDRESS is missing/],
		[["laptop"], /"laptop" is not an address/],
		[["127.0.0.1:80"], /is not an address/],
		[["127.0.0.1", "127.0.0.2"], /unexpected argument "127.0.0.2"/],
		[["--all", "127.0.0.1"], /unexpected argument/],
		[["--al"], /did you mean --all\?/],
	] as const)
		t.match(await unlock(gate, ...args), { code: 2, stderr: says });
	t.match(await runCli(["unlok"]), { code: 2, stderr: /mean "unlock"\?/ });
	const help = await runCli(["unlock", "--help"]);
	t.match(help, { code: 0, stdout: /Example: sudo llamagate unlock/ });
});

/** What `unlock` makes of a daemon that answers so; `undefined` for none. */
async function answered(t: Test, status: number, body: string | undefined) {
	const folder = await temporaryFolder(t);
	const socket = path.join(folder, "admin.sock");
	const config = path.join(folder, "config.json");
	await writeFile(config, JSON.stringify({ admin: { socket } }));
	if (body !== undefined) {
		const server = createServer((_, res) => {
			res.statusCode = status;
			res.end(body);
		});
		t.teardown(() => server.close());
		await once(server.listen(socket), "listening");
	}
	return runCli(["unlock", "--config", config, other]);
}

t.test("a daemon that is not there, or is another, is told of", async (t) => {
	t.match(await answered(t, 200, undefined), {
		code: 1,
		stderr: /no gate answers on .*ENOENT/,
	});
	for (const [status, body] of [
		[404, "{}"],
		[200, "nothing"],
		[200, "[]"],
		[200, "null"],
		[200, '{"unlocked":[]}'],
		[200, '{"unlocked":[{"addresses":"x"}],"lockouts":[]}'],
	] as const)
		t.match(await answered(t, status, body), {
			code: 1,
			stderr: /is not a gate of this version/,
		});
	const steering = JSON.stringify({
		unlocked: [{ addresses: ["\u001b[2J"], node: "\u202e\n", secondsLeft: 1 }],
		lockouts: [],
	});
	const { stdout } = await answered(t, 200, steering);
	t.match(stdout, "<U+001B>");
	t.equal(stdout.trimEnd(), visibleLine(stdout.trimEnd()));
	const missing = path.join(await temporaryFolder(t), "config.json");
	t.equal((await runCli(["unlock", "-c", missing, other])).code, 78);
});

t.test(
	"only the admin socket unlocks, and no page through a bridge to it",
	async (t) => {
		const gate = await startGate(t);
		await lockOut(gate, other);
		const socketPath = path.join(gate.folder, "admin.sock");
		const ask = (line: string) => askDaemon(socketPath, line);
		const page = request({
			socketPath,
			method: "POST",
			path: "/unlock",
			headers: { origin: "http://127.0.0.1:9464" },
		}).end();
		const [refused] = (await once(page, "response")) as [IncomingMessage];
		t.equal(refused.statusCode, 403);
		refused.resume();
		t.equal((await ask("POST /unlock?address=nonsense")).status, 400);
		t.equal((await ask("GET /unlock")).status, 404);
		const fromTailnet = await attack(
			gate,
			head("POST /unlock HTTP/1.1", "Host: gate", shows(testKeys.owner)),
		);
		t.equal(fromTailnet.status, 404);
		t.equal(await statusFrom(gate, other, testKeys.reader), 429);
		t.equal((await ask(`POST /unlock?address=${other}`)).status, 200);
		t.equal(await statusFrom(gate, other, testKeys.reader), 200);
	},
);
