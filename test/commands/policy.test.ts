import { spawnSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { runCli, temporaryFolder } from "../support/gate.ts";
import { program } from "../support/program.ts";

t.test(
	"print writes the shipped policy, and check has nothing to say against it",
	async (t) => {
		const { code, stdout } = await runCli(["policy", "print"]);
		t.equal(code, 0);
		t.equal(stdout, await readFile("tailscale/policy.hujson", "utf8"));
		const checked = await runCli([
			"policy",
			"check",
			"tailscale/policy.hujson",
		]);
		t.equal(checked.code, 0, checked.stdout);
		t.match(checked.stdout, /^11434 +the gate +tag:client$/m);
		t.match(checked.stdout, /^8080 .*nobody$/m);
		t.match(checked.stdout, /No finding\./);
	},
);

t.test("print takes other names, and check is told of them", async (t) => {
	const file = path.join(await temporaryFolder(t), "policy.hujson");
	const { stdout } = await runCli([
		"policy",
		"print",
		"--server-tag",
		"tag:gpu",
		"--client-tag=tag:laptop",
		"--admin",
		"me@example.com",
		"--ssh",
	]);
	t.notMatch(stdout, /ai-server|tag:client|autogroup:admin/);
	await writeFile(file, stdout);
	const checked = await runCli([
		"policy",
		"check",
		file,
		"--server-tag",
		"tag:gpu",
	]);
	t.equal(checked.code, 0, checked.stdout);
	t.match(checked.stdout, /^22 +SSH +me@example\.com$/m);
	t.equal(
		(await runCli(["policy", "check", file])).code,
		1,
		"the default tag is not in it",
	);
});

t.test(
	"findings are exit 1, worst first, each with a line and what to change",
	async (t) => {
		const file = path.join(await temporaryFolder(t), "policy.hujson");
		await writeFile(
			file,
			'{\n  // the default\n  "acls": [\n    {"action": "accept", "src": ["*"], "dst": ["*:*"]},\n  ],\n}\n',
		);
		const { code, stdout } = await runCli(["policy", "check", file]);
		t.equal(code, 1);
		t.match(stdout, /^22 +SSH +\*$/m);
		t.match(stdout, /critical {2}line 4, acls\[0\]: .*\n +change: delete it/);
		t.ok(stdout.indexOf("critical") < stdout.indexOf("low "));
		const json = await runCli(["policy", "check", file, "--json"]);
		t.equal(json.code, 1);
		t.match(JSON.parse(json.stdout), {
			ok: false,
			serverTag: "tag:ai-server",
			reach: [{ port: 11434, who: [{ source: "*", certain: true }] }],
			findings: [
				{ kind: "allow-all", severity: "critical", line: 4, at: "acls[0]" },
			],
		});
	},
);

t.test("a file that cannot be read or parsed is exit 78", async (t) => {
	const file = path.join(await temporaryFolder(t), "policy.hujson");
	await writeFile(file, '{\n  "grants": [\n');
	const broken = await runCli(["policy", "check", file]);
	t.equal(broken.code, 78);
	t.match(broken.stderr, /line 3: not valid HuJSON/);
	const missing = await runCli(["policy", "check", `${file}.none`]);
	t.equal(missing.code, 78);
	t.match(missing.stderr, /cannot be read \(ENOENT\)/);
});

t.test("names from the file cannot steer the terminal", async (t) => {
	const file = path.join(await temporaryFolder(t), "policy.hujson");
	await writeFile(
		file,
		'{"grants": [{"src": ["x\\u001b[2J@b"], "dst": ["*"], "ip": ["443"]}]}',
	);
	const { stdout } = await runCli(["policy", "check", file]);
	t.match(stdout, /x<U\+001B>\[2J@b/);
	t.notOk(stdout.includes("x\u001b"));
});

t.test("a command line that makes no sense is exit 2", async (t) => {
	for (const args of [
		[],
		["show"],
		["check"],
		["check", "a", "b"],
		["check", "a", "--server-address", "x"],
		["print", "--server-tag", "ai-server"],
		["print", "--client-tag", "tag:ai-server"],
		["print", "--admin", "autogroup:member"],
		["print", "--json"],
	]) {
		const { code, stderr } = await runCli(["policy", ...args]);
		t.equal(code, 2, args.join(" "));
		t.match(stderr, /See: llamagate policy --help/);
	}
	const help = await runCli(["policy", "--help"]);
	t.equal(help.code, 0);
	t.match(help.stdout, /Example: llamagate policy print/);
});

t.test(
	"check says whom it took the server for, in text and JSON",
	async (t) => {
		const file = path.join(await temporaryFolder(t), "policy.hujson");
		await writeFile(
			file,
			'{"tagOwners": {"tag:a": [], "tag:b": []}, "grants": [{"src": ["tag:c"], "dst": ["tag:b"], "ip": ["22"]}]}',
		);
		const args = ["policy", "check", file, "--server-tag", "tag:a"];
		const one = await runCli(args);
		t.match(
			one.stdout,
			/tags +tag:a and no other.*\n +user +none.*\n +addresses +not known/,
		);
		t.match(one.stdout, /^22 .* nobody$/m);
		const more = ["--server-tag=tag:b", "--server-address", "100.64.0.9"];
		const two = await runCli([...args, ...more]);
		t.match(two.stdout, /tags +tag:a, tag:b and no other/);
		t.match(two.stdout, /addresses +100\.64\.0\.9 /);
		t.match(two.stdout, /^22 .* tag:c$/m);
		const json = await runCli([...args, ...more, "--json"]);
		t.match(JSON.parse(json.stdout), {
			serverTag: "tag:a",
			server: {
				tags: ["tag:a", "tag:b"],
				addresses: ["100.64.0.9"],
				user: null,
			},
			tests: { held: 0, failed: 0, unclear: [] },
		});
	},
);

t.test(
	"check runs the policy's tests, and says which fail and which it cannot tell",
	async (t) => {
		const file = path.join(await temporaryFolder(t), "policy.hujson");
		const { stdout: printed } = await runCli(["policy", "print"]);
		await writeFile(file, printed);
		t.match(
			(await runCli(["policy", "check", file])).stdout,
			/^tests +8 hold, 0 fail$/m,
		);
		await writeFile(
			file,
			printed
				.replace('"tcp:443"],', '"tcp:22"],')
				.replace(
					'"tests": [',
					'"tests": [{"src": "me@example.com", "deny": ["100.70.1.2:22"]},',
				),
		);
		const { code, stdout } = await runCli(["policy", "check", file]);
		t.equal(code, 1);
		t.match(
			stdout,
			/tests\[1\]\.accept\[1\]: this test fails.*: no rule allows it/,
		);
		t.match(
			stdout,
			/tests\[1\]\.deny\[2\]: this test fails.*grants\[0\] in line \d+ allows it/,
		);
		t.match(stdout, /^tests +7 hold, 2 fail/m);
	},
);

t.test(
	"print writes what headscale takes, with its own spelling of users",
	async (t) => {
		const { code, stdout } = await runCli([
			"policy",
			"print",
			"--for",
			"headscale",
		]);
		t.equal(code, 0);
		t.notMatch(stdout, /autogroup:admin|admin console/);
		t.match(stdout, /"tag:ai-server": \[\],/);
		t.match(stdout, /headscale policy set --file/);
		t.match(
			stdout,
			/^\t\/\/ "tests": \[$/m,
			"its tests fail while no node has the tags",
		);
		const named = await runCli([
			..."policy print --for headscale --ssh --admin alice@".split(" "),
		]);
		t.match(named.stdout, /"tag:client": \["alice@"\],/);
		t.match(
			named.stdout,
			/"src": \["alice@"\],\n\t+"dst": \["tag:ai-server"\],\n\t+"ip": \["tcp:22"\]/,
		);
		const file = path.join(await temporaryFolder(t), "policy.hujson");
		for (const text of [stdout, named.stdout]) {
			await writeFile(file, text);
			const checked = await runCli(["policy", "check", file, "--json"]);
			t.match(JSON.parse(checked.stdout).findings, [{ kind: "no-tests" }]);
			// With the marks taken off there is nothing left to say.
			await writeFile(file, text.replaceAll(/^\t\/\/ (?=[\t"\]])/gm, "\t"));
			const whole = await runCli(["policy", "check", file]);
			t.equal(whole.code, 0, whole.stdout);
		}
		for (const [line, hint] of [
			["--for headscale --admin autogroup:admin", /such as alice@/],
			["--for headscale --ssh", /--admin alice@/],
			["--admin alice@", /add --for headscale/],
			["--for tailcontrol", /known: tailscale, headscale/],
		] as const) {
			const refused = await runCli(["policy", "print", ...line.split(" ")]);
			t.equal(refused.code, 2, line);
			t.match(refused.stderr, hint);
		}
	},
);

t.test(
	"a report that is longer than a pipe holds comes out whole",
	async (t) => {
		const file = path.join(await temporaryFolder(t), "policy.hujson");
		const names = Array.from({ length: 3000 }, (_, n) => `u${n}@example.com`);
		await writeFile(
			file,
			JSON.stringify({
				grants: names.map((src) => ({
					src: [src],
					dst: ["tag:ai-server"],
					ip: ["443"],
				})),
			}),
		);
		const { code, stdout } = await runCli(["policy", "check", file, "--json"]);
		t.equal(code, 1);
		t.ok(stdout.length > 1_000_000);
		t.equal(
			JSON.parse(stdout).findings.filter(
				({ kind }: { kind: string }) => kind === "untagged",
			).length,
			names.length,
		);
		// A reader that leaves early is no error either.
		const shell = spawnSync(
			"sh",
			[
				"-c",
				'"$0" "$@" | head -n 1',
				process.execPath,
				program,
				"policy",
				"check",
				file,
			],
			{ encoding: "utf8" },
		);
		t.match(shell.stdout, /^Taken for granted/);
		t.equal(shell.stderr, "");
	},
);
