import { chmod, chown, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { parseConfig } from "../../src/config/load.ts";
import { BadFileError } from "../../src/errors.ts";
import { parseKeys } from "../../src/keys/keyFile.ts";
import {
	runCli,
	spawnGate,
	temporaryFolder,
	testKeys,
} from "../support/gate.ts";

const commented = `// Ours.
{
	/* The tailnet, */ "sources": ["100.64.0.0/10",],
	"drainTimeout": "10s", // and what else there is
}
`;

function mistakesIn(text: string): string[] {
	try {
		parseConfig(text, "/etc/llamagate/config.json");
	} catch (error) {
		if (error instanceof BadFileError)
			return error.mistakes.map(({ line, path, message }) =>
				[line, path, message].filter((part) => part !== "").join(": "),
			);
		throw error;
	}
	return [];
}

t.test("comments and trailing commas may stand in both files", async (t) => {
	t.match(parseConfig(commented, "/x/config.json"), { drainTimeoutMs: 10_000 });
	const sha256 = "0123456789abcdef".repeat(4);
	t.strictSame(
		parseKeys(
			`{ "keys": [ { "name": "a", "sha256": "${sha256}", }, ] } // end`,
			"x",
		),
		[{ name: "a", sha256 }],
	);
	t.strictSame(mistakesIn(commented.replace("sources", "source")), [
		'3: source: unknown setting; did you mean "sources"?',
	]);
	t.strictSame(
		mistakesIn('{ "__proto__": { "onForeignSource": "drop" } }').length,
		1,
	);
	t.strictSame(
		mistakesIn(
			'{ "onForeignSource": "drop",\n/* */ "onForeignSource": "drop" }',
		),
		["2: onForeignSource: is here twice; keep one"],
	);
});

t.test("what is not JSON is told in words, with its line", async (t) => {
	for (const [text, told] of Object.entries({
		"": "1: the file is empty",
		'{\n"sources": [] "drainTimeout": "1s" }':
			"2: a comma is missing before this",
		"{\n'sources': [] }":
			"2: something is here that is not JSON; texts and names go in double quotes",
		'{\n"sources" [] }': "2: a colon is missing here",
		'{\n"sources": }': "2: a value is missing here",
		'{\n"sources": []': '2: a closing "}" is missing here',
		"{} {}": "1: something is here after the end",
		'{ "drainTimeout": "1s }': "1: a text has no closing '\"'",
		"{ /* }": "1: a comment has no end",
		'{ "keysFile": "C:\\keys" }':
			"1: a backslash is followed by what it cannot stand before; write it twice",
	}))
		t.equal(mistakesIn(text)[0], told, text);
});

t.test(
	"what a person has written into the keys file outlives the commands",
	async (t) => {
		const folder = await temporaryFolder(t);
		const config = path.join(folder, "config.json");
		await writeFile(config, commented, { mode: 0o600 });
		const run = async (...args: string[]) => {
			const { code, stderr } = await runCli([
				"keys",
				...args,
				"--config",
				config,
			]);
			t.equal(code, 0, stderr);
		};
		await run("add", "phone");
		await run("add", "desk");
		const file = path.join(folder, "keys.json");
		const text = await readFile(file, "utf8");
		await writeFile(
			file,
			text
				.replace("{", "// Ask Ann before you change this.\n{")
				.replace(/^(.*\{\n.*"name": "desk")/m, "// The one in the hall.\n$1"),
		);
		await run("add", "tablet", "--models", "qwen3:*");
		await run("rotate", "desk");
		await run("edit", "tablet", "--concurrent", "2");
		await run("revoke", "phone");
		const left = await readFile(file, "utf8");
		t.match(left, /Ask Ann/);
		t.match(left, /The one in the hall\.[^}]*"desk"/);
		t.strictSame(
			parseKeys(left, file).map(({ name }) => name),
			["desk", "tablet"],
		);
		t.strictSame(parseKeys(left, file)[1]?.limits, { concurrent: 2 });
	},
);

t.test(
	"a configuration that others may write is refused, and nothing is read from it",
	async (t) => {
		const gate = await spawnGate(t);
		const refused =
			/others than its owner may write to it \(mode 0666\); run: sudo chmod go-w/;
		await chmod(gate.configFile, 0o666);
		for (const command of [
			["check"],
			["serve"],
			["status"],
			["reload"],
			["keys", "list"],
			["keys", "revoke", "user"],
		]) {
			const { code, stderr } = await runCli([
				...command,
				"--config",
				gate.configFile,
			]);
			t.equal(code, 78, command.join(" "));
			t.match(stderr, refused);
		}
		gate.child.kill("SIGHUP");
		await gate.logged(
			({ msg }) => msg === "reload refused; what was in force stays in force",
		);
		await chmod(gate.configFile, 0o664);
		t.equal(
			(await runCli(["keys", "list", "--config", gate.configFile])).code,
			0,
			"a group of the owner's own",
		);
		if (process.getuid?.() === 0) {
			await chown(gate.configFile, 0, 4);
			t.equal(
				(await runCli(["check", "--config", gate.configFile])).code,
				78,
				"another group",
			);
			await chmod(gate.configFile, 0o644);
			t.equal(
				(await runCli(["keys", "list", "--config", gate.configFile])).code,
				0,
			);
		}
	},
);

t.test(
	"a typo in the configuration does not keep a lost key in force",
	async (t) => {
		const gate = await spawnGate(t);
		const good = await readFile(gate.configFile, "utf8");
		const call = async (key: string) =>
			(
				await fetch(`${gate.url}/api/tags`, {
					headers: { authorization: `Bearer ${key}` },
				})
			).status;
		t.equal(await call(testKeys.user), 200);
		for (const broken of [
			good.replace('"drainTimeout"', '"drainTimout"'),
			good.replace('"sources": [', '"sources": ['.repeat(2)),
			good.replace(/"url": ".*"/, '"url": "http://192.0.2.1"'),
		]) {
			t.not(broken, good);
			await writeFile(gate.configFile, broken);
			const run = (...args: string[]) =>
				runCli([...args, "--config", gate.configFile]);
			const list = await run("keys", "list");
			t.equal(list.code, 0, list.stderr);
			t.match(list.stdout, /owner/);
			t.match(
				list.stderr,
				/config\.json is not usable:\n {2}line \d+: .*\n(.*\n)*Until that is mended a running gate goes on with its old settings/,
			);
			const status = await run("status");
			t.equal(status.code, 1);
			t.match(status.stdout, /configuration: .* is not usable: .*old settings/);
			t.match(status.stdout, /gate: llamagate .* process/);
		}
		const { code, stderr } = await runCli([
			"keys",
			"revoke",
			"user",
			"--config",
			gate.configFile,
		]);
		t.equal(code, 0, stderr);
		t.match(
			stderr,
			/The key user is revoked\.\nThe running daemon has taken the keys over, with its old settings/,
		);
		t.equal(await call(testKeys.user), 401);
		t.equal(await call(testKeys.owner), 200);
		await gate.logged(
			({ msg, keys }) =>
				msg === "the keys are taken over; the old settings stay in force" &&
				keys === 3,
		);
	},
);

t.test(
	"the gate that runs says which keys are in force where the file no longer does",
	async (t) => {
		const gate = await spawnGate(t, { config: { keysFile: "keys.json" } });
		const good = await readFile(gate.configFile, "utf8");
		await writeFile(
			gate.configFile,
			good.replace('"keysFile": "keys.json"', '"keyFile": "others.json"'),
		);
		const run = () => runCli(["keys", "list", "--config", gate.configFile]);
		const listed = await run();
		t.equal(listed.code, 0, listed.stderr);
		t.match(listed.stdout, /owner/);
		gate.child.kill("SIGKILL");
		await gate.exited;
		t.equal((await run()).code, 78, "and without it nobody guesses");
	},
);
