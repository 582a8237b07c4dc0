import { execFile } from "node:child_process";
import { chmod, readFile, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import {
	absent,
	type Examination,
	examineAll,
	finding,
	type Outcome,
	ok,
	unknown,
} from "../../src/doctor/check.ts";
import { examinations } from "../../src/host/checks.ts";
import type { Result } from "../../src/report/result.ts";
import { runCli, temporaryFolder } from "../support/gate.ts";
import { program } from "../support/program.ts";

t.test("the checks are listed, and nothing is looked at", async (t) => {
	const all = await runCli(["doctor", "--list"]);
	t.equal(all.code, 0);
	for (const { id, title } of examinations)
		t.ok(all.stdout.includes(`${id} `) && all.stdout.includes(title), id);
	const some = await runCli(["doctor", "--list", "--only", "sshd", "--json"]);
	const { checks } = JSON.parse(some.stdout) as { checks: { id: string }[] };
	t.strictSame(
		checks.map(({ id }) => id),
		examinations.filter(({ group }) => group === "sshd").map(({ id }) => id),
	);
	t.equal((await runCli(["doctor", "--list", "--watch"])).code, 2);
});

t.test("a check that is misspelt is told from the nearest", async (t) => {
	for (const [given, meant] of [
		["ollama.listenin", "did you mean ollama.listening?"],
		["listening", "did you mean ollama.listening or gate.listening?"],
		["tailscle", "did you mean tailscale?"],
		["nothing-like-it", "--list"],
	] as const)
		for (const option of ["--only", "--explain", "--fix"]) {
			const { code, stderr } = await runCli(["doctor", option, given]);
			t.equal(code, 2);
			t.match(stderr, meant);
		}
});

t.test("a fix holds in any folder, whatever --config says", async (t) => {
	const folder = await temporaryFolder(t);
	await writeFile(path.join(folder, "config.json"), "{}");
	await writeFile(path.join(folder, "keys.json"), '{"keys":[]}');
	for (const file of ["config.json", "keys.json"])
		await chmod(path.join(folder, file), 0o666);
	const main = path.resolve(program);
	const stdout = await new Promise<string>((resolve) => {
		execFile(
			process.execPath,
			[main, "doctor", "--json", "--only", "gate.files", "-c", "config.json"],
			{ cwd: folder },
			(_error, text) => resolve(text),
		);
	});
	const { results } = JSON.parse(stdout) as { results: Result[] };
	t.match(results[0], { state: "finding" });
	t.match(results[0]?.fix, ` ${folder}/keys.json`);
	t.notMatch(results[0]?.fix, / (?:config\.json|keys\.json|\.)(?: |$)/);
});

t.test("a page is kept for its owner alone, in an old file too", async (t) => {
	const page = path.join(await temporaryFolder(t), "page.html");
	await writeFile(page, "old", { mode: 0o644 });
	await runCli(["doctor", "--only", "gate.files", "--html", page]);
	t.match(await readFile(page, "utf8"), /^<!doctype html>.*gate\.files/is);
	t.equal((await stat(page)).mode & 0o777, 0o600);
});

t.test("only a finding comes with its repair", async (t) => {
	const check = (outcome: Outcome | Error, more = {}): Examination => ({
		...{ id: "a.b", group: "a", layer: "gate", title: "It holds" },
		...{ severity: "high", why: "So.", fix: "sudo systemctl stop it" },
		examine: async () => {
			if (outcome instanceof Error) throw outcome;
			return outcome;
		},
		...more,
	});
	const fixOf = async (examination: Examination) => {
		const [result] = await examineAll([examination], {
			configFile: "/nowhere",
			installation: {} as never,
			isRoot: false,
			nowMs: 0,
		});
		return result?.fix;
	};
	t.equal(await fixOf(check(finding(["x"]))), "sudo systemctl stop it");
	t.equal(await fixOf(check(ok("x"))), undefined);
	t.equal(await fixOf(check(absent("x"))), undefined);
	t.equal(await fixOf(check(unknown("it does not say"))), undefined);
	for (const [outcome, wanted] of [
		[
			new Error("nftables is not installed: sudo apt install nftables"),
			"sudo apt install nftables",
		],
		[
			unknown("Tailscale is in state Stopped; see tailscale.running"),
			"sudo llamagate doctor --explain tailscale.running",
		],
		[unknown("whose it is only root can see"), "sudo llamagate doctor"],
		[
			unknown("docker does not answer; see: systemctl status docker"),
			"systemctl status docker",
		],
	] as const)
		t.equal(await fixOf(check(outcome)), wanted);
	t.equal(
		await fixOf(check(ok("x"), { needsRoot: true })),
		"sudo llamagate doctor",
	);
});
