import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { parseConfig } from "../../src/config/load.ts";
import { firstConfig, isFirstConfig } from "../../src/host/gate/firstConfig.ts";
import {
	judgeParallel,
	type SeenParallel,
} from "../../src/host/ollama/checks.ts";
import { nextValue } from "../../src/host/ollama/environment.ts";
import {
	countKeys,
	followParallel,
	offerParallel,
	readParallel,
	withParallel,
} from "../../src/host/ollama/parallel.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import { runCli, temporaryFolder } from "../support/gate.ts";

t.test("what Ollama makes of OLLAMA_NUM_PARALLEL", async (t) => {
	for (const [value, version, parallel] of [
		["4", "0.34.0", 4],
		['"4"', "0.34.0", 4],
		[" 4 ", undefined, 4],
		["04", "0.34.0", 4],
		["5000", "0.34.0", 1024],
		[undefined, "0.34.0", 1],
		["", "0.10.0", 1],
		["0", "0.34.0", 1],
		["four", "0.34.0", 1],
		["+4", "0.34.0", 1],
		["-1", "0.34.0", 1],
		["4.5", "0.34.0", 1],
		// It went by the memory that was free.
		[undefined, "0.9.6", undefined],
		["0", "0.9.6", undefined],
		["4", "0.9.6", 4],
		[undefined, undefined, undefined],
		[undefined, "nonsense", undefined],
	] as const)
		t.equal(readParallel(value, version), parallel, `${value} ${version}`);
});

t.test("a file of the unit's counts more than the unit", async (t) => {
	const folder = await temporaryFolder(t);
	const file = path.join(folder, "ollama");
	await writeFile(file, "# OLLAMA_NUM_PARALLEL=9\nOLLAMA_NUM_PARALLEL=2\n");
	const environment = new Map([["OLLAMA_NUM_PARALLEL", "4"]]);
	const next = (environmentFiles: string[]) =>
		nextValue({ environment, environmentFiles }, "OLLAMA_NUM_PARALLEL");
	t.strictSame(await next([]), { value: "4" });
	t.strictSame(await next([file]), { value: "2", file });
	t.strictSame(await next([path.join(folder, "none")]), { value: "4" });
	t.strictSame(await next([folder]), { unreadable: folder });
});

t.test("queue.parallel follows Ollama", async (t) => {
	const parallelIn = (text: string) => parseConfig(text, "").queue.parallel;
	t.equal(parallelIn(withParallel(firstConfig, 4)), 4);
	t.ok(isFirstConfig(await readFile("packaging/config.json", "utf8")));
	t.notOk(isFirstConfig(withParallel(firstConfig, 4)));
	t.notOk(isFirstConfig(`// mine\n${firstConfig}`));

	const commented = `{
  // as it was
  "queue": { "mode": "fair", "parallel": 2 }, /* mine */
  "drainTimeout": "1m"
}
`;
	const changed = followParallel(commented, 4, false) ?? "";
	t.equal(parallelIn(changed), 4, "where it is another number");
	t.match(changed, /\/\/ as it was[\s\S]*\/\* mine \*\//);
	t.equal(
		commented.split("\n").length,
		changed.split("\n").length,
		"and nothing else is moved",
	);
	t.equal(followParallel(commented, 2, true), undefined, "as it is already");
	t.equal(followParallel("{}", 4, false), undefined, "auto finds it out");
	t.equal(parallelIn(followParallel("{}", 4, true) ?? ""), 4, "but is chosen");
	t.equal(
		followParallel('{ "queue": { "mode": "odd" } }', 4, true),
		undefined,
		"a broken file is left alone",
	);
});

t.test("doctor holds queue.parallel beside what Ollama goes by", async (t) => {
	const seen = (
		where: string,
		value: string | undefined,
		parallel: number | undefined,
	): SeenParallel => ({
		...{ where, value, parallel },
		isRunning: where.startsWith("process"),
	});
	const now = seen("process 7", "4", 4);
	const next = seen("the next start", "4", 4);
	t.match(judgeParallel(4, [now, next]), { state: "ok" });
	t.match(judgeParallel(1, [now, next]), {
		state: "finding",
		evidence: [
			"queue.parallel is 1",
			"process 7: OLLAMA_NUM_PARALLEL=4, which is 4",
			"the next start: OLLAMA_NUM_PARALLEL=4, which is 4",
		],
	});
	t.equal(judgeParallel(1, [now, next]).fix, undefined, "the check's own");
	t.match(
		judgeParallel(4, [seen("process 7", undefined, 1), next]),
		{ state: "finding", fix: "sudo systemctl restart ollama" },
		"a unit that is changed already has only to be started anew",
	);
	t.match(
		judgeParallel(4, [now, seen("the next start", undefined, 1)]),
		{ state: "finding", fix: undefined },
		"right now, and wrong at the next boot",
	);
	t.match(judgeParallel(4, [seen("process 7", undefined, undefined)]), {
		state: "unknown",
		evidence: [/no OLLAMA_NUM_PARALLEL/, /its version/],
	});
	t.match(judgeParallel(4, []), { state: "unknown" });
});

t.test(
	"what is offered names its price, and is never for one key",
	async (t) => {
		const folder = await temporaryFolder(t);
		const config = path.join(folder, "config.json");
		t.equal(await countKeys(config), 0, "no configuration");
		await writeFile(config, "{}");
		t.equal(await countKeys(config), 0, "no keys file");
		const entry = (name: string, more = {}) => ({
			...{ name, sha256: digestOf(name) },
			...more,
		});
		await writeFile(
			path.join(folder, "keys.json"),
			JSON.stringify({
				keys: [entry("a"), entry("b"), entry("trap", { canary: true })],
			}),
			{ mode: 0o600 },
		);
		t.equal(await countKeys(config), 2, "a canary serves nobody");
		t.match(
			offerParallel(2),
			/^2 keys share.* --parallel 4".* four times the memory/,
		);
	},
);

t.test("--parallel is a number, and for the step ollama", async (t) => {
	for (const [args, says] of [
		[["--parallel", "0"], /--parallel 0: write a whole number from 1 to 1024/],
		[["--parallel", "auto"], /whole number/],
		[["--parallel", "1025"], /whole number/],
		[["--parallel", "4", "--skip", "ollama"], /for the step ollama/],
		[["--parallel", "4", "--only", "gate"], /for the step ollama/],
	] as const) {
		const refused = await runCli(["setup", "--dry-run", ...args]);
		t.equal(refused.code, 2, args.join(" "));
		t.match(refused.stderr, says);
	}
});
