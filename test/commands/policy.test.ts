import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { runCli, temporaryFolder } from "../support/gate.ts";

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
