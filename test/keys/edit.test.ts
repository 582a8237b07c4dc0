import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { isBoundTo } from "../../src/gate/identity.ts";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import {
	bearer,
	eventually,
	runCli,
	spawnGate,
	temporaryFolder,
	testKeys,
} from "../support/gate.ts";
import { startLocalApi } from "../support/localApi.ts";

type Tap = Parameters<typeof temporaryFolder>[0];

/** A configuration without a daemon, with these keys. */
async function configured(
	t: Tap,
	entries: readonly KeyEntry[] = [],
	more: object = {},
) {
	const folder = await temporaryFolder(t);
	const config = path.join(folder, "config.json");
	const file = path.join(folder, "keys.json");
	await writeFile(
		config,
		JSON.stringify({
			admin: { socket: path.join(folder, "none.sock") },
			...more,
		}),
	);
	await writeFile(file, JSON.stringify({ keys: entries }), { mode: 0o600 });
	return {
		keys: (...args: string[]) => runCli(["keys", ...args, "--config", config]),
		read: async () =>
			(JSON.parse(await readFile(file, "utf8")) as { keys: KeyEntry[] }).keys,
	};
}

t.test(
	"edit changes the rules that are named, and neither the secret nor others",
	async (t) => {
		const before: KeyEntry = {
			name: "guest",
			sha256: digestOf("guest"),
			scopes: ["read", "infer", "manage"],
			models: ["qwen3:*"],
			denyOptions: ["num_gpu"],
			limits: { requestsPerMinute: 60, concurrent: 4 },
			created: "2026-01-01T00:00:00Z",
			expires: "2099-01-01T00:00:00.000Z",
			previous: [{ sha256: digestOf("old"), expires: "2099-01-01T00:00:00Z" }],
		};
		const other: KeyEntry = { name: "other", sha256: digestOf("other") };
		const { keys, read } = await configured(t, [before, other]);
		const edited = await keys(
			...["edit", "guest", "--scopes", "read,infer", "--models", "llama3.2"],
			...["--concurrent", "2", "--expires", "2098-12-31"],
		);
		t.equal(edited.code, 0, edited.stderr);
		t.match(edited.stderr, /models llama3\.2; 60 a minute; 2 at once/);
		const after = {
			...before,
			scopes: ["read", "infer"],
			models: ["llama3.2"],
			limits: { requestsPerMinute: 60, concurrent: 2 },
			expires: "2098-12-31T00:00:00.000Z",
		};
		t.strictSame(await read(), [after, other]);

		const widened = await keys(
			...["edit", "guest", "--models", "all", "--expires", "never"],
			...["--concurrent", "default", "--requests-per-minute", "default"],
			"--json",
		);
		t.equal(widened.code, 0, widened.stderr);
		t.strictSame(JSON.parse(widened.stdout), {
			name: "guest",
			daemon: "none",
			kind: "key",
			scopes: ["read", "infer"],
			models: null,
			bind: null,
			people: null,
			limits: { requestsPerMinute: null, concurrent: null },
			share: 1,
			priority: "normal",
			budget: null,
			group: null,
			created: before.created,
			expires: null,
		});
		const { models: _, limits: _limits, expires: _expires, ...rest } = after;
		t.strictSame(await read(), [rest, other]);
	},
);

t.test("edit refuses what it cannot do, and changes nothing", async (t) => {
	const entry: KeyEntry = { name: "guest", sha256: digestOf("guest") };
	const { keys, read } = await configured(t, [entry]);
	for (const [args, code, says] of [
		[["guest"], 2, /say what to change: --scopes/],
		[["guest", "--concurrent", "0"], 2, /--concurrent 0 is not a limit/],
		[["guest", "--concurrent", "two"], 2, /whole number of at least 1/],
		[["guest", "--scopes", "all"], 2, /"all" is not a scope/],
		[["guest", "--models", "x:*cloud"], 2, /not a pattern of models/],
		[["guest", "--expires", "2001-01-01"], 2, /in the past/],
		[["guest", "--expires", "2030-13-01"], 2, /neither a duration such as/],
		[["guest", "--budget", "gpu=2h,per=moon"], 2, /per: .*"day" or "week"/],
		[["guest", "--budget", "per=day"], 2, /limits nothing/],
		[["guest", "--budget", "euros=5"], 2, /"euros=5" is none of gpu=, /],
		[["guest", "--budget", "gpu=2h,gpu=3h"], 2, /gpu is there twice/],
		[["guest", "--budget", "tokens=1M"], 2, /tokens: .*whole .*got "1M"/],
		[["guest", "--budget", "tokens=1M"], 2, /See: llamagate keys edit --help/],
		[["guest", "--budget", "tokens=1e999"], 2, /--budget .* is not a budget/],
		[["guest", "--share", "0"], 2, /--share 0 is not a share.* 0\.001 to 1000/],
		[["guest", "--share", "1e3"], 2, /--share 1e3 is not a share/],
		[["guest", "--share", "1000.5"], 2, /is not a share/],
		[
			["guest", "--priority", "high"],
			2,
			/--priority high is not a class; known: interactive, normal, batch/,
		],
		[["guest", "--bind", "laptop"], 1, /set identity\.mode/],
		[["gest", "--expires", "never"], 1, /no key named gest; known: guest/],
	] as const) {
		const refused = await keys("edit", ...args);
		t.equal(refused.code, code, args.join(" "));
		t.match(refused.stderr, says);
	}
	t.strictSame(await read(), [entry]);
});

t.test("a running daemon goes by edited rules at once", async (t) => {
	const gate = await spawnGate(t);
	const statusOf = async () =>
		(await fetch(`${gate.url}/api/tags`, { headers: bearer(testKeys.user) }))
			.status;
	t.equal(await statusOf(), 200);
	const edited = await runCli(
		["keys", "edit", "user", "--scopes", "infer"].concat([
			"--config",
			gate.configFile,
		]),
	);
	t.match(edited.stderr, /daemon has taken it over/);
	await eventually(async () => (await statusOf()) === 403);
});

t.test("add takes limits and a day to end on", async (t) => {
	const { keys, read } = await configured(t);
	const added = await keys(
		...["add", "ci", "--requests-per-minute", "30", "--concurrent", "1"],
		...["--expires", "2090-01-01"],
	);
	t.equal(added.code, 0, added.stderr);
	t.match(added.stderr, /30 a minute; 1 at once; until 2090-01-01 00:00Z/);
	t.match(await read(), [
		{
			limits: { requestsPerMinute: 30, concurrent: 1 },
			expires: "2090-01-01T00:00:00.000Z",
		},
	]);
});

t.test("a share and a class are given, listed, and taken away", async (t) => {
	const { keys, read } = await configured(t);
	const added = await keys(
		...["add", "chat", "--share", "2.5", "--priority", "interactive"],
	);
	t.equal(added.code, 0, added.stderr);
	t.match(added.stderr, /\(read, infer; share 2\.5; class interactive\)/);
	t.match(await read(), [{ share: 2.5, priority: "interactive" }]);
	t.match((await keys("list")).stdout, /share 2\.5; class interactive/);
	const listed = await keys("list", "--json");
	t.match(JSON.parse(listed.stdout), {
		keys: [{ name: "chat", share: 2.5, priority: "interactive" }],
	});
	const lowered = await keys("edit", "chat", "--priority", "batch");
	t.match(lowered.stderr, /share 2\.5; class batch/);
	const [before] = await read();
	const reset = await keys(
		...["edit", "chat", "--share", "default", "--priority", "default"],
		"--json",
	);
	t.match(JSON.parse(reset.stdout), { share: 1, priority: "normal" });
	const { share: _, priority: _class, ...rest } = before ?? {};
	t.strictSame(await read(), [rest], "the entry has neither");
});

t.test("a budget is given, listed, and taken away", async (t) => {
	const { keys, read } = await configured(t);
	const text = "gpu=2h,requests=500,per=week,timezone=Europe/Berlin,then=batch";
	const added = await keys("add", "lab", "--budget", text);
	t.equal(added.code, 0, added.stderr);
	const budget = {
		...{ per: "week", gpu: "2h", requests: 500, timezone: "Europe/Berlin" },
		// biome-ignore lint/suspicious/noThenProperty: the word of the keys file
		then: "batch",
	};
	t.match(
		added.stderr,
		/at most 2h of the GPU and 500 requests a week \(Europe\/Berlin\), then as batch/,
	);
	t.match(await read(), [{ budget }]);
	const listed = await keys("list", "--json");
	t.match(JSON.parse(listed.stdout), { keys: [{ budget }] });
	const edited = await keys("edit", "lab", "--budget", "tokens=1000");
	t.match(edited.stderr, /at most 1000 tokens a day/);
	await keys("edit", "lab", "--budget", "none");
	t.notOk("budget" in ((await read())[0] ?? {}));
});

t.test("without a ledger who gives a budget is told what it is", async (t) => {
	const groups = { family: { gpu: "4h", per: "month" } };
	const bare = await configured(t, [], { budgets: { groups } });
	const added = await bare.keys(
		"add",
		"lab",
		"--budget",
		"requests=5,per=week",
	);
	t.match(
		added.stderr,
		/no ledger in the configuration: this budget is whole again after each restart of the gate, and until its next week begins the key's requests are served in the class batch\. .*docs\/usage\.md/,
	);
	const grouped = await bare.keys(
		"add",
		"phone",
		"--group",
		"family",
		"--json",
	);
	t.match(grouped.stderr, /until its next month begins/);
	t.type(JSON.parse(grouped.stdout), "object", "and JSON alone is printed");
	const edited = await bare.keys("edit", "lab", "--share", "2");
	t.notMatch(edited.stderr, /ledger/, "no budget was given");
	t.notMatch(
		(await bare.keys("edit", "lab", "--budget", "none")).stderr,
		/ledger/,
	);
	const strict = await configured(t, [{ name: "lab", sha256: digestOf("a") }], {
		budgets: { withoutLedger: "refuse" },
	});
	t.match(
		(await strict.keys("edit", "lab", "--budget", "requests=5")).stderr,
		/until its next day begins the key's requests are answered 503/,
	);
	const kept = await configured(t, [], { ledger: {} });
	t.notMatch(
		(await kept.keys("add", "lab", "--budget", "requests=5")).stderr,
		/ledger/,
	);
});

t.test("add says that a canary is one", async (t) => {
	const { keys } = await configured(t);
	const added = await keys("add", "backup", "--canary");
	t.match(added.stderr, /backup is made \(a canary: it lets nobody in/);
	t.match((await keys("list")).stdout, /a canary: it lets nobody in/);
});

t.test("list fits 80 columns, and its times name their zone", async (t) => {
	const { keys } = await configured(
		t,
		[
			{
				name: "a-client-with-a-name",
				sha256: digestOf("a"),
				scopes: ["read", "infer", "manage", "account"],
				models: [
					"qwen3:*",
					"nomic-embed-text",
					"gpt-oss:*-cloud",
					"llama3.2:*",
				],
				bind: { nodes: ["laptop", "phone"], users: ["me@example.com"] },
				limits: { requestsPerMinute: 60, concurrent: 4 },
				created: "2026-11-23T16:22:34.842Z",
				expires: "2098-02-21T17:22:34.842+01:00",
				previous: [
					{ sha256: digestOf("b"), expires: "2098-01-01T00:00:00.000Z" },
				],
			},
			{ name: "b", sha256: digestOf("c") },
		],
		{ identity: { mode: "log" } },
	);
	const { stdout } = await keys("list");
	for (const line of stdout.split("\n"))
		t.ok(line.length <= 80, `${line.length}: ${line}`);
	t.match(stdout, /a-client-with-a-name {2}active {2}2098-02-21 16:22Z {2}\?/);
	t.match(stdout.replaceAll("\n  ", " "), /old key until 2098-01-01 00:00Z/);
});

t.test("with --json an error is JSON, too", async (t) => {
	const { keys } = await configured(t, [{ name: "a", sha256: digestOf("a") }]);
	for (const [args, code, says] of [
		[["revoke", "b"], 1, /no key named b/],
		[["add", "a"], 1, /there is a key named a already/],
		[["list", "--frobnicate"], 2, /unknown option --frobnicate/],
	] as const) {
		const refused = await keys(...args, "--json");
		t.equal(refused.code, code);
		const { error, ...rest } = JSON.parse(refused.stdout);
		t.match(error, says);
		t.strictSame(rest, { code });
	}
});

t.test("each action has its own help, and a typo a suggestion", async (t) => {
	for (const action of ["add", "edit", "list", "rotate", "revoke"]) {
		const { stdout, code } = await runCli(["keys", action, "--help"]);
		t.equal(code, 0);
		t.match(stdout, new RegExp(`^Usage: llamagate keys ${action}\\b`));
		t.match(stdout, /\nExample: /);
		for (const line of stdout.split("\n")) t.ok(line.length <= 80, line);
	}
	const typo = await runCli(["keys", "revok", "x"]);
	t.equal(typo.code, 2);
	t.match(typo.stderr, /did you mean revoke\?/);
});

t.test("a person without an e-mail is written with an @ at the end", (t) => {
	const carol = {
		name: "phone",
		fqdn: "phone.lab",
		user: "carol",
		tags: [],
		isShared: false,
	};
	t.ok(isBoundTo({ users: ["carol@"] }, carol));
	t.ok(isBoundTo({ users: ["Carol"] }, carol));
	for (const user of ["carol@example.com", "carol@@", "@", "car"])
		t.notOk(isBoundTo({ users: [user] }, carol), user);
	t.notOk(
		isBoundTo({ users: ["me@"] }, { ...carol, user: "me@example.com" }),
		"an e-mail is not cut short",
	);
	t.notOk(isBoundTo({ users: ["@"] }, { ...carol, user: undefined }));
	t.end();
});

t.test(
	"add --bind says which devices are meant, and warns of names that fit none",
	async (t) => {
		const api = await startLocalApi(t);
		api.status = {
			...api.status,
			CurrentTailnet: { MagicDNSSuffix: "tail1234.ts.net" },
			User: {
				"1": { ID: 1, LoginName: "me@example.com" },
				"2": { ID: 2, LoginName: "carol" },
			},
			Peer: {
				"nodekey:a": {
					HostName: "x",
					DNSName: "laptop.tail1234.ts.net.",
					UserID: 1,
				},
				"nodekey:b": {
					HostName: "y",
					DNSName: "phone.tail1234.ts.net.",
					UserID: 2,
				},
				"nodekey:c": {
					HostName: "z",
					DNSName: "build.tail1234.ts.net.",
					UserID: 3,
					Tags: ["tag:ci"],
				},
			},
		};
		const { keys, read } = await configured(t, [], {
			identity: { mode: "require", socket: api.socket },
		});
		const bind = async (name: string, list: string) => {
			const added = await keys("add", name, "--bind", list);
			t.equal(added.code, 0, added.stderr);
			return added.stderr;
		};
		const fits = await bind("one", "laptop,carol@,tag:ci");
		t.match(fits, /may be used from laptop, phone, build\./);
		t.notMatch(fits, /Warning/);
		t.strictSame((await read())[0]?.bind, {
			nodes: ["laptop"],
			users: ["carol@"],
			tags: ["tag:ci"],
		});
		t.match(
			await bind("two", "carol"),
			/Warning: no device is called carol, but a person is: write carol@/,
		);
		t.match(
			await bind("three", "carol@example.com,tag:gpu"),
			/Warning: no device .* belongs to carol@example\.com; people with devices are .*me@example\.com, carol\n(.*\n)*Warning: no device .* has tag:gpu; tags in use are tag:ci/,
		);
		api.misbehave = () => "denied";
		t.match(await bind("four", "laptop"), /could not be looked up: /);
	},
);
