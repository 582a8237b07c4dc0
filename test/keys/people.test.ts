import { spawn } from "node:child_process";
import { once } from "node:events";
import {
	chmod,
	readdir,
	readFile,
	stat,
	unlink,
	writeFile,
} from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { loadRules } from "../../src/gate/rules.ts";
import { changeKeys } from "../../src/keys/changeKeys.ts";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import {
	makePeopleSecret,
	secretWeaknessOf,
} from "../../src/keys/peopleSecret.ts";
import { takeLock } from "../../src/lock.ts";
import { bearer, runCli, startGate, temporaryFolder } from "../support/gate.ts";
import { claims, sign, tokenHeader } from "../support/peopleTokens.ts";
import { program } from "../support/program.ts";

type Tap = Parameters<typeof temporaryFolder>[0];

async function freshConfig(t: Tap) {
	const folder = await temporaryFolder(t);
	const config = path.join(folder, "config.json");
	await writeFile(config, '{"admin":{"socket":"off"}}');
	return {
		folder,
		config,
		secret: path.join(folder, "webui.secret"),
		keys: (...args: string[]) => runCli(["keys", ...args, "--config", config]),
		read: async () =>
			(
				JSON.parse(await readFile(path.join(folder, "keys.json"), "utf8")) as {
					keys: KeyEntry[];
				}
			).keys,
	};
}

t.test(
	"keys add --people makes the rule and the secret, list shows it, and connect prints it",
	async (t) => {
		const { keys, read, secret } = await freshConfig(t);
		const added = await keys("add", "webui", "--people", "open-webui");
		t.equal(added.code, 0, added.stderr);
		t.match(added.stdout, /^lg_[0-9a-f]{64}\n$/);
		t.match(added.stderr, /connect open-webui --secret-file .*webui\.secret/);
		t.match(await read(), [
			{
				name: "webui",
				people: { jwt: { secretFile: "webui.secret" }, unknown: "refuse" },
			},
		]);
		t.equal((await stat(secret)).mode & 0o777, 0o600);
		const text = (await readFile(secret, "utf8")).trim();
		t.match(text, /^[0-9a-f]{64}$/);
		t.notOk((added.stdout + added.stderr).includes(text));

		const listed = await keys("list");
		t.match(
			listed.stdout.replace(/\s+/g, " "),
			/people whom its app signs \(no rules, others refused\)/,
		);
		t.match(JSON.parse((await keys("list", "--json")).stdout), {
			keys: [{ people: { by: "jwt", rules: null, unknown: "refuse" } }],
		});
		t.notOk(listed.stdout.includes(text));

		const { code, stdout } = await runCli([
			...["connect", "open-webui", "--secret-file", secret],
		]);
		t.equal(code, 0);
		t.match(stdout, "ENABLE_FORWARD_USER_INFO_HEADERS=true\n");
		t.ok(stdout.includes(`FORWARD_USER_INFO_HEADER_JWT_SECRET=${text}\n`));
	},
);

t.test("what is made so is taken by the gate", async (t) => {
	const gate = await startGate(t);
	const run = (...args: string[]) =>
		runCli([...args, "--config", gate.configFile]);
	const added = await run("keys", "add", "webui", "--people", "open-webui");
	t.match(added.stderr, /has taken it over/);
	const secret = (
		await readFile(path.join(gate.folder, "webui.secret"), "utf8")
	).trim();
	const call = async (headers: Record<string, string>) =>
		(
			await fetch(`${gate.url}/api/tags`, {
				headers: { ...bearer(added.stdout.trim()), ...headers },
			})
		).status;
	t.equal(await call({ [tokenHeader]: sign(claims(), { secret }) }), 200);
	t.equal(await call({}), 403);
});

t.test("a secret that is there is kept, or refused", async (t) => {
	const { keys, read, secret } = await freshConfig(t);
	const mine = "0123456789abcdef".repeat(4);
	await writeFile(secret, mine, { mode: 0o600 });
	t.equal((await keys("add", "webui", "--people", "open-webui")).code, 0);
	t.equal(await readFile(secret, "utf8"), mine);
	await keys("revoke", "webui");
	await chmod(secret, 0o644);
	const open = await keys("add", "webui", "--people", "open-webui");
	t.equal(open.code, 78);
	t.match(open.stderr, /others than its owner may read or write it/);
	t.strictSame(await read(), []);
});

t.test(
	"add says whether the secret is made or kept, and revoke which file stays",
	async (t) => {
		const { keys, secret } = await freshConfig(t);
		const add = () => keys("add", "webui", "--people", "open-webui");
		const stays = (stderr: string) =>
			stderr.includes(`The secret of its app stays in ${secret}`);
		t.match((await add()).stderr, /which is made\./);
		const text = await readFile(secret, "utf8");
		t.ok(stays((await keys("revoke", "webui")).stderr));
		const again = await add();
		t.match(again.stderr, /was there before and is kept/);
		t.equal(await readFile(secret, "utf8"), text);
		await unlink(secret);
		t.notOk(stays((await keys("revoke", "webui")).stderr), "it does not");
		t.match((await add()).stderr, /which is made\./);
		t.not(await readFile(secret, "utf8"), text);
	},
);

t.test("without a key no secret stays", async (t) => {
	const { keys, folder } = await freshConfig(t);
	t.equal((await keys("add", "webui")).code, 0);
	const twice = await keys("add", "webui", "--people", "open-webui");
	t.equal(twice.code, 1);
	t.match(twice.stderr, /there is a key named webui already/);
	t.strictSame((await readdir(folder)).sort(), ["config.json", "keys.json"]);
	const unknown = await keys("add", "other", "--people", "librechat");
	t.equal(unknown.code, 2);
	t.match(unknown.stderr, /known: open-webui/);
	const other = await runCli(["connect", "curl", "--secret-file", "x"]);
	t.equal(other.code, 2);
});

/** Loaded before a command: it says so on standard error when it has to wait for its turn. */
const sayWaiting = `data:text/javascript,${encodeURIComponent(`
import { writeSync } from "node:fs";
import { Server } from "node:net";
const { listen } = Server.prototype;
Server.prototype.listen = function (...args) {
	this.once("error", () => writeSync(2, "it waits\\n"));
	return listen.apply(this, args);
};`)}`;

t.test(
	"of two commands that add one app at once, the one that is refused leaves the other's secret",
	async (t) => {
		const { config, folder, secret, read } = await freshConfig(t);
		const keysFile = path.join(folder, "keys.json");
		let refused = "";
		let ended: Promise<unknown[]> | undefined;
		await changeKeys(keysFile, true, async (keys) => {
			const child = spawn(
				process.execPath,
				[
					...["--import", sayWaiting, program, "keys", "add"],
					...["webui", "--people", "open-webui", "--config", config],
				],
				{ stdio: ["ignore", "ignore", "pipe"] },
			);
			ended = once(child, "close");
			const waits = new Promise<void>((resolve) => {
				child.stderr.setEncoding("utf8").on("data", (text: string) => {
					refused += text;
					if (refused.includes("it waits")) resolve();
				});
			});
			await Promise.race([waits, ended]);
			await makePeopleSecret(secret, keysFile);
			const people = {
				jwt: { secretFile: "webui.secret" },
				unknown: "refuse",
			} as const;
			return [...keys, { name: "webui", sha256: digestOf("webui"), people }];
		});
		t.strictSame(await ended, [1, null]);
		t.match(refused, /there is a key named webui already/);
		t.equal((await read()).length, 1);
		t.match(await readFile(secret, "utf8"), /^[0-9a-f]{64}\n$/);
		t.equal((await loadRules(config)).tokenJudges.size, 1, "a gate starts");
	},
);

t.test(
	"what was made for a key that is not written goes before the next command's turn",
	async (t) => {
		const file = path.join(await temporaryFolder(t), "keys.json");
		let inTurn: unknown;
		await t.rejects(
			changeKeys(
				file,
				true,
				() => {
					throw new Error("no");
				},
				async () => {
					inTurn = await takeLock("keys", file);
				},
			),
			{ message: "no" },
		);
		t.equal(inTurn, "EADDRINUSE");
	},
);

t.test("connect makes the secret where there is none", async (t) => {
	const file = path.join(await temporaryFolder(t), "webui.secret");
	const { stdout, stderr } = await runCli([
		...["connect", "open-webui", "--secret-file", file],
	]);
	t.match(stderr, /is made, with a new secret/);
	const text = (await readFile(file, "utf8")).trim();
	t.ok(stdout.includes(`JWT_SECRET=${text}\n`));
	t.equal((await stat(file)).mode & 0o777, 0o600);
	const without = await runCli(["connect", "open-webui"]);
	t.match(without.stdout, "FORWARD_USER_INFO_HEADER_JWT_SECRET=SECRET\n");
});

t.test("a secret holds 256 bits", async (t) => {
	t.equal(secretWeaknessOf("0123456789abcdef".repeat(4)), undefined);
	t.equal(secretWeaknessOf("AbCd1234+/".repeat(5)), undefined);
	t.match(secretWeaknessOf("0123456789abcdef".repeat(3)), /fewer than 256/);
	t.match(secretWeaknessOf("a".repeat(64)), /fewer than 256/);
	t.match(secretWeaknessOf("12345678".repeat(9)), /fewer than 256/);
	t.match(secretWeaknessOf(`${"0123456789abcdef".repeat(4)}\nx`), /one line/);
	t.match(secretWeaknessOf(""), /no secret/);
});
