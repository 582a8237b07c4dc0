import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import t from "tap";
import { findPlaces } from "../../src/admin/places.ts";
import { isSystemdAlone } from "../../src/commands/whoListens.ts";
import { parseConfig } from "../../src/config/load.ts";
import { startStandIn } from "../../src/ollama/standIn.ts";
import {
	bearer,
	runCli,
	startGate,
	temporaryFolder,
	testKeys,
} from "../support/gate.ts";

type Tap = Parameters<typeof temporaryFolder>[0];

/** A gate that could not open its admin socket, or has none, with a configuration that names its port. */
async function deafGate(t: Tap, socket = "no/such/folder/admin.sock") {
	const admin = { socket };
	const gate = await startGate(t, { config: { admin } });
	const [where = ""] = gate.daemon.bound();
	const port = Number(where.split(":").at(-1));
	const write = (more: object = {}) =>
		gate.writeConfig({ listen: { port }, admin, ...more });
	await write();
	return {
		...gate,
		where,
		write,
		keys: (...args: string[]) =>
			runCli(["keys", ...args, "--config", gate.configFile]),
		statusOf: async (key: string) =>
			(await fetch(`${gate.url}/api/version`, { headers: bearer(key) })).status,
	};
}

/** A configuration of a gate that would listen on that port. */
async function configFor(t: Tap, port: number, socket?: "off") {
	const folder = await temporaryFolder(t);
	const config = path.join(folder, "config.json");
	await writeFile(
		config,
		JSON.stringify({
			listen: { address: "127.0.0.1", port },
			admin: { socket: socket ?? path.join(folder, "none.sock") },
		}),
	);
	return (...args: string[]) => runCli(["keys", ...args, "--config", config]);
}

t.test(
	"a running gate that cannot be told of a revoked key is exit 1, and how to tell it",
	async (t) => {
		const gate = await deafGate(t);
		const { code, stdout, stderr } = await gate.keys(
			"revoke",
			"user",
			"--json",
		);
		t.equal(code, 1, stderr);
		t.match(
			stderr,
			`A gate seems to run on ${gate.where} and could NOT be told`,
		);
		t.match(stderr, "goes on with its old keys");
		t.match(stderr, "systemctl kill -s HUP");
		t.match(stderr, "no/such/folder/admin.sock");
		t.strictSame(JSON.parse(stdout), { revoked: "user", daemon: "untold" });
		t.equal(await gate.statusOf(testKeys.user), 200, "it is right");
		await gate.daemon.reload();
		t.equal(await gate.statusOf(testKeys.user), 401);
	},
);

t.test(
	"so it is for the other changes, and with a broken configuration",
	async (t) => {
		const gate = await deafGate(t);
		for (const args of [
			["add", "phone"],
			["edit", "user", "--scopes", "read"],
			["rotate", "user"],
		]) {
			const { code, stdout, stderr } = await gate.keys(...args, "--json");
			t.equal(code, 1, stderr);
			t.match(stderr, "could NOT be told", args.join(" "));
			t.match(JSON.parse(stdout), { name: String, daemon: "untold" });
		}
		const ended = await gate.keys("rotate", "owner", "--overlap", "0");
		t.equal(ended.code, 1);
		t.notMatch(ended.stderr, "stopped working");
		t.equal(await gate.statusOf(testKeys.owner), 200, "it has not");
		await gate.write({ drainTime: "2s" });
		const revoked = await gate.keys("revoke", "reader");
		t.equal(revoked.code, 1);
		t.match(revoked.stderr, /did you mean "drainTimeout"/);
		t.match(revoked.stderr, `A gate seems to run on ${gate.where}`);
		await gate.write({ listen: { address: "192.0.2.1" } });
		const blind = await gate.keys("revoke", "worker");
		t.equal(blind.code, 1);
		t.match(blind.stderr, "where a gate would listen is not known");
		// With the names of settings in no quotes nothing of them is read.
		await writeFile(gate.configFile, '{ listen: { address: "127.0.0.1" } }', {
			mode: 0o600,
		});
		const { listen, broken } = await findPlaces(gate.configFile);
		t.ok(broken);
		t.equal(listen, undefined, "it may be somewhere else than by default");
	},
);

t.test(
	"so it is where the admin socket is off, for revoke, rotate, edit and add",
	async (t) => {
		const gate = await deafGate(t, "off");
		for (const args of [
			["revoke", "user"],
			["rotate", "owner", "--overlap", "0"],
			["edit", "reader", "--scopes", "infer"],
			["add", "phone"],
		]) {
			const { code, stdout, stderr } = await gate.keys(...args, "--json");
			t.equal(code, 1, args.join(" "));
			t.match(
				stderr,
				`A gate seems to run on ${gate.where} and could NOT be told, for the admin socket is off`,
			);
			t.match(stderr, /goes on with its old keys; send it a SIGHUP: sudo/);
			t.match(JSON.parse(stdout), { daemon: "untold" });
		}
		t.equal(await gate.statusOf(testKeys.user), 200, "it is right");
		await gate.daemon.reload();
		t.equal(await gate.statusOf(testKeys.user), 401);
		await gate.write({ listen: { address: "192.0.2.1" } });
		const blind = await gate.keys("revoke", "worker");
		t.equal(blind.code, 1);
		t.match(
			blind.stderr,
			/is off .*, and where a gate would listen is not known/,
		);
	},
);

t.test(
	"with the admin socket off and nothing where a gate would listen, none runs",
	async (t) => {
		const standIn = await startStandIn();
		const port = Number(new URL(standIn.url).port);
		await standIn.close();
		const keys = await configFor(t, port, "off");
		const { code, stdout, stderr } = await keys("add", "phone", "--json");
		t.equal(code, 0, stderr);
		t.match(
			stderr,
			"The admin socket is off (admin.socket), and none is seen to listen, so there is none to tell",
		);
		t.match(JSON.parse(stdout), { name: "phone", daemon: "none" });
	},
);

t.test("a gate that can be told is, and --json says so", async (t) => {
	const gate = await startGate(t);
	const args = ["revoke", "user", "--json", "--config", gate.configFile];
	const { code, stdout } = await runCli(["keys", ...args]);
	t.equal(code, 0);
	t.strictSame(JSON.parse(stdout), { revoked: "user", daemon: "told" });
});

t.test(
	"where nothing listens, or Ollama itself, there is no gate to tell",
	async (t) => {
		const standIn = await startStandIn();
		const port = Number(new URL(standIn.url).port);
		const keys = await configFor(t, port);
		const beside = await keys("add", "laptop");
		t.equal(beside.code, 0, beside.stderr);
		await standIn.close();
		const { code, stdout, stderr } = await keys("add", "phone", "--json");
		t.equal(code, 0, stderr);
		t.match(
			stderr,
			/No gate answers on .*none\.sock \(ENOENT\), .*so there is none to tell/,
		);
		t.match(JSON.parse(stdout), { name: "phone", daemon: "none" });
	},
);

t.test("what else listens there may be a gate, and is named", async (t) => {
	const other = createServer((socket) => socket.destroy()).listen(
		0,
		"127.0.0.1",
	);
	await once(other, "listening");
	t.teardown(() => other.close());
	const { port } = other.address() as { port: number };
	const keys = await configFor(t, port);
	const { code, stderr } = await keys("add", "laptop");
	t.equal(code, 1);
	t.match(
		stderr,
		new RegExp(
			`127\\.0\\.0\\.1:${port} is taken by another program.*If that is a gate, it could NOT be told`,
		),
	);
});

t.test(
	"systemd that holds the address for a gate that does not run is no gate",
	async (t) => {
		const socket = (address: string, port: number, ...programs: string[]) => ({
			...{ protocol: "tcp" as const, address, port, device: "tailscale0" },
			...{ uid: 0, inode: 7, pids: programs.map(() => 1), programs },
		});
		const at = "100.64.0.1";
		const ollama = socket("127.0.0.1", 11434, "ollama");
		for (const [sockets, alone] of [
			[[socket(at, 11434, "systemd"), ollama], true],
			[[socket(at, 11434, "systemd", "llamagate"), ollama], false],
			[[socket(at, 11434), ollama], false],
			[[socket(at, 11435, "systemd"), ollama], false],
			[[socket(at, 11434, "systemd"), socket("*", 11434, "node")], false],
			[[], false],
		] as const)
			t.equal(isSystemdAlone(sockets, at, 11434), alone);
	},
);

t.test(
	"sockets are looked for from the configuration's folder, as other files are",
	async (t) => {
		const folder = await temporaryFolder(t);
		const file = path.join(folder, "config.json");
		const text = JSON.stringify({
			...{ admin: { socket: "admin.sock" }, identity: { socket: "ts.sock" } },
			ledger: { socket: "run/ledger.sock" },
		});
		const settings = parseConfig(text, file);
		t.equal(settings.admin.socket, path.join(folder, "admin.sock"));
		t.equal(settings.identity.socket, path.join(folder, "ts.sock"));
		t.equal(settings.ledger?.socket, path.join(folder, "run/ledger.sock"));
		const broken = '{"admin":{"socket":"admin.sock"},"lisen":{}}';
		await writeFile(file, broken, { mode: 0o600 });
		const places = await findPlaces(file);
		t.equal(places.adminSocket, path.join(folder, "admin.sock"));
		t.equal(
			parseConfig('{"admin":{"socket":"off"}}', file).admin.socket,
			undefined,
		);
	},
);
