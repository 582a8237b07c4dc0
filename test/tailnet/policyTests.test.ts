import t from "tap";
import { judgePolicy } from "../../src/tailscale/policy/judge.ts";
import { parseTailnetPolicy } from "../../src/tailscale/policy/policyFile.ts";

const rules = {
	tagOwners: { "tag:server": [], "tag:client": [], "tag:other": [] },
	groups: {
		"group:dev": ["ann@example.com", "bob@example.org"],
		"group:empty": [],
	},
	hosts: { nas: "100.70.1.2", lan: "192.168.1.0/24", printer: "192.168.1.9" },
	postures: {
		"posture:mac": ["node:os == 'macos'", "node:tsVersion >= '1.40'"],
		"posture:odd": ["node:os ~ 'macos'"],
	},
	grants: [
		{ src: ["tag:client"], dst: ["tag:server"], ip: ["tcp:443", "udp:53"] },
		{ src: ["group:dev"], dst: ["nas", "192.168.1.0/24"], ip: ["22"] },
		{ src: ["autogroup:member"], dst: ["autogroup:self"], ip: ["*"] },
		{ src: ["ann@example.com"], dst: ["tag:server"], ip: ["80-90"] },
		{ src: ["user:*@example.org"], dst: ["tag:other"], ip: ["25"] },
		{ src: ["autogroup:admin"], dst: ["tag:other"], ip: ["26"] },
		{
			src: ["cid@example.com"],
			dst: ["tag:other"],
			ip: ["27"],
			srcPosture: ["posture:mac"],
		},
		{
			src: ["cid@example.com"],
			dst: ["tag:other"],
			ip: ["28"],
			srcPosture: ["posture:odd"],
		},
		{
			src: ["tag:client"],
			dst: ["10.0.0.0/8"],
			ip: ["22"],
			via: ["tag:other"],
		},
	],
};

function run(
	sections: object,
	server: { tags: string[]; addresses: string[] } = {
		tags: ["tag:server"],
		addresses: [],
	},
) {
	const text = JSON.stringify({ ...rules, ...sections }, undefined, 1);
	const { tests, findings } = judgePolicy(
		parseTailnetPolicy(text, "policy.hujson"),
		server,
	);
	const failed = findings.filter(({ kind }) => kind === "failed-test");
	t.equal(failed.length, tests.failed);
	return { tests, failed, lines: text.split("\n").map((line) => line.trim()) };
}

/** `held`, `failed` or `unclear`, for one destination under accept. */
function outcome(
	src: string,
	dst: string,
	more: object = {},
	server?: Parameters<typeof run>[1],
	sections: object = {},
): string {
	const [accept, deny] = ["accept", "deny"].map((list) => {
		const { tests } = run(
			{ ...sections, tests: [{ src, [list]: [dst], ...more }] },
			server,
		);
		t.equal(tests.held + tests.failed + tests.unclear.length, 1);
		return tests.held === 1
			? "held"
			: tests.failed === 1
				? "failed"
				: "unclear";
	});
	if (accept === "held" && deny === "failed") return "open";
	if (accept === "failed" && deny === "held") return "shut";
	if (accept === "failed" && deny === "failed") return "wrong";
	return accept === "unclear" && deny === "unclear"
		? "unclear"
		: `${accept}/${deny}`;
}

t.test("a test is open or shut as the rules have it", async (t) => {
	for (const [src, dst, wanted] of [
		["tag:client", "tag:server:443", "open"],
		["tag:client", "tag:server:53", "open"],
		["tag:client", "tag:server:80", "shut"],
		["tag:server", "tag:client:443", "shut"],
		["ann@example.com", "tag:server:80", "open"],
		["ann@example.com", "tag:server:91", "shut"],
		["bob@example.org", "tag:server:80", "shut"],
		["ann@example.com", "nas:22", "open"],
		["group:dev", "nas:22", "open"],
		["group:dev", "100.70.1.2:22", "open"],
		["group:dev", "printer:22", "open"],
		["group:dev", "192.168.2.9:22", "shut"],
		["bob@example.org", "tag:other:25", "open"],
		["ann@example.com", "tag:other:25", "shut"],
		["ann@example.com", "ann@example.com:9", "open"],
		["ann@example.com", "bob@example.org:9", "shut"],
		["cid@example.com", "printer:22", "shut"],
		[" tag:client ", "tag:server : 443", "open"],
	] as const)
		t.equal(outcome(src, dst), wanted, `${src} to ${dst}`);
});

t.test(
	"a rule for the LAN is not one for a machine's address in the tailnet",
	async (t) => {
		const { tests } = run({
			grants: [{ src: ["tag:client"], dst: ["192.168.0.0/16"], ip: ["*"] }],
			tests: [{ src: "tag:client", deny: ["tag:server:22"] }],
		});
		t.same(tests, { held: 1, failed: 0, unclear: [] });
	},
);

t.test(
	"a test's protocol counts; without one TCP or UDP will do",
	async (t) => {
		for (const [proto, dst, wanted] of [
			["tcp", "tag:server:443", "open"],
			["6", "tag:server:443", "open"],
			["udp", "tag:server:443", "shut"],
			["udp", "tag:server:53", "open"],
			["tcp", "tag:server:53", "shut"],
			["", "tag:server:53", "open"],
			["sctp", "tag:server:443", "shut"],
			["icmp", "tag:server:443", "unclear"],
			["nonsense", "tag:server:443", "wrong"],
		] as const)
			t.equal(outcome("tag:client", dst, { proto }), wanted, `${proto} ${dst}`);
	},
);

t.test(
	"what Tailscale's tests do not take fails, under accept and deny",
	async (t) => {
		for (const [src, dst] of [
			["tag:client", "tag:server:443,80"],
			["tag:client", "tag:server:1-443"],
			["tag:client", "tag:server:*"],
			["tag:client", "tag:server:https"],
			["tag:client", "tag:server:0"],
			["tag:client", "tag:server:99999"],
			["tag:client", "tag:server"],
			["tag:client", "*:443"],
			["tag:client", "10.0.0.0/8:22"],
			["tag:client", "100.70.1.2/32:22"],
			["tag:client", "lan:22"],
			["tag:client", "autogroup:self:22"],
			["tag:client", "autogroup:internet:443"],
			["tag:client", "tag:phantom:22"],
			["tag:client", "group:phantom:22"],
			["tag:client", "phantom:22"],
			["tag:phantom", "tag:server:443"],
			["group:phantom", "tag:server:443"],
			["autogroup:phantom", "tag:server:443"],
			["phantom", "tag:server:443"],
			["*", "tag:server:443"],
			["", "tag:server:443"],
		] as const)
			t.equal(outcome(src, dst), "wrong", `${src} to ${dst}`);
		t.equal(run({ tests: [{ src: "tag:client" }] }).tests.failed, 1);
		t.equal(run({ tests: [{ accept: ["nas:22"] }] }).tests.failed, 1);
		t.equal(
			run({ tests: [{ src: "tag:client", allow: ["tag:server:443"] }] }).tests
				.held,
			1,
		);
		t.equal(
			run({ tests: [{ user: "tag:client", allow: ["tag:server:443"] }] }).tests
				.held,
			1,
			"as old policies call it",
		);
	},
);

t.test(
	"what the file does not say is told, and neither passed nor failed",
	async (t) => {
		for (const [src, dst] of [
			["ann@example.com", "tag:other:26"],
			["tag:client", "10.1.2.3:22"],
			["cid@example.com", "tag:other:27"],
			["group:synced@example.com", "nas:22"],
			["group:empty", "nas:22"],
			["100.70.1.9", "tag:server:443"],
			["group:dev", "tag:server:80"],
		] as const)
			t.equal(outcome(src, dst), "unclear", `${src} to ${dst}`);
		const { tests } = run({
			tests: [{ src: "ann@example.com", accept: ["tag:other:26"] }],
		});
		t.match(tests.unclear, [
			{
				at: "tests[0].accept[0]",
				says: /ann@example\.com may open tag:other:26 .*grants\[5\] in line \d+ may/,
			},
		]);
		t.equal(
			outcome(
				"tag:client",
				"100.70.1.9:443",
				{},
				{
					tags: ["tag:server"],
					addresses: ["100.70.1.9"],
				},
			),
			"open",
			"the address is the server's",
		);
	},
);

t.test(
	"postures are met by srcPostureAttrs, as far as they are understood",
	async (t) => {
		const attrs = (more: object) => ({ srcPostureAttrs: more });
		for (const [attributes, wanted] of [
			[{ "node:os": "macos", "node:tsVersion": "1.40.1" }, "open"],
			[{ "node:os": "macos", "node:tsVersion": "1.9.1" }, "shut"],
			[{ "node:os": "linux", "node:tsVersion": "1.40.1" }, "shut"],
			[{ "node:os": "macos" }, "shut"],
			[{ "node:os": "macos", "node:tsVersion": "new" }, "unclear"],
		] as const)
			t.equal(
				outcome("cid@example.com", "tag:other:27", attrs(attributes)),
				wanted,
				JSON.stringify(attributes),
			);
		t.equal(
			outcome("cid@example.com", "tag:other:28", attrs({ "node:os": "macos" })),
			"unclear",
		);
		for (const [assertion, value, wanted] of [
			["custom:tier IN ['a', 'b']", "a", "open"],
			["custom:tier IN ['a', 'b']", "c", "shut"],
			["custom:tier NOT IN ['a', 'b']", "c", "open"],
			["custom:tier != 'a'", "b", "open"],
			["custom:tier != 'a'", undefined, "shut"],
			["custom:tier < 3", 2, "open"],
			["custom:tier > 3", 2, "shut"],
			["custom:tier <= '1.10'", "1.9", "open"],
			["custom:tier IS SET", "x", "open"],
			["custom:tier NOT SET", undefined, "open"],
			["custom:tier == true", true, "open"],
			["custom:tier", true, "open"],
			["custom:tier", false, "shut"],
			["custom:tier IN 'a'", "a", "unclear"],
			["whatever this is", "a", "unclear"],
		] as const) {
			const { tests } = run({
				postures: { "posture:p": [assertion] },
				defaultSrcPosture: ["posture:p"],
				grants: [{ src: ["cid@example.com"], dst: ["tag:other"], ip: ["27"] }],
				tests: [
					{
						src: "cid@example.com",
						accept: ["tag:other:27"],
						srcPostureAttrs:
							value === undefined ? {} : { "custom:tier": value },
					},
				],
			});
			const { held, failed, unclear } = tests;
			t.same(
				[held, failed, unclear.length],
				[
					Number(wanted === "open"),
					Number(wanted === "shut"),
					Number(wanted === "unclear"),
				],
				`${assertion} of ${value}`,
			);
		}
	},
);

t.test(
	"a test that fails says its line, and the rule that is in its way",
	async (t) => {
		const { failed, lines } = run({
			tests: [
				{
					src: "tag:client",
					accept: ["tag:server:443", "tag:server:80"],
					deny: ["tag:server:22", "tag:server:53"],
				},
			],
		});
		t.match(failed, [
			{
				severity: "high",
				at: "tests[0].accept[1]",
				says: /tag:client may not open tag:server:80: no rule allows it/,
			},
			{ at: "tests[0].deny[1]", says: /grants\[0\] in line \d+ allows it/ },
		]);
		t.same(
			failed.map(({ line = 0 }) => lines[line - 1]),
			['"tag:server:80"', '"tag:server:53"'],
		);
		const rule = /in line (\d+)/.exec(failed[1]?.says ?? "")?.[1];
		t.equal(lines[Number(rule) - 1], "{");
		t.equal(lines[Number(rule)], '"src": [');
	},
);

t.test(
	"without grants and acls all is open, to tests as to everybody",
	async (t) => {
		const { tests, failed } = run({
			grants: undefined,
			tests: [
				{ src: "tag:client", accept: ["tag:other:80"] },
				{ src: "tag:client", deny: ["tag:other:80"] },
			],
		});
		t.equal(tests.held, 1);
		t.match(failed, [
			{ at: "tests[1].deny[0]", says: /without grants and acls/ },
		]);
		t.equal(
			outcome("tag:client", "tag:other:80", {}, undefined, { grants: [] }),
			"shut",
		);
	},
);

t.test(
	"whether headscale's ann@ is ann@example.com the file does not say",
	async (t) => {
		const grants = [
			{ src: ["ann@"], dst: ["tag:server"], ip: ["443"] },
			{ src: ["group:named"], dst: ["tag:server"], ip: ["22"] },
			{ src: ["ann@example.com"], dst: ["autogroup:self"], ip: ["80"] },
			{ src: ["bob@example.com"], dst: ["tag:server"], ip: ["25"] },
		];
		const groups = { "group:named": ["bob@", "cid@example.com"] };
		for (const [src, dst, wanted] of [
			["ann@", "tag:server:443", "open"],
			["bob@", "tag:server:443", "shut"],
			["ann@example.com", "tag:server:443", "unclear"],
			["bob@", "tag:server:22", "open"],
			["dan@", "tag:server:22", "unclear"],
			["bob@example.com", "tag:server:22", "unclear"],
			["ann@example.com", "ann@:80", "unclear"],
			["bob@", "tag:server:25", "unclear"],
			["bob@", "tag:server:26", "shut"],
		] as const)
			t.equal(
				outcome(src, dst, {}, undefined, { grants, groups }),
				wanted,
				`${src} to ${dst}`,
			);
		const { tests } = run({
			groups,
			ssh: [
				{
					action: "accept",
					src: ["ann@"],
					dst: ["tag:server"],
					users: ["localpart:*@example.com"],
				},
			],
			sshTests: [{ src: "ann@", dst: ["tag:server"], deny: ["ann"] }],
		});
		t.equal(tests.unclear.length, 1, "localpart is of an e-mail");
	},
);

t.test("ssh tests are run under the ssh rules", async (t) => {
	const ssh = [
		{
			action: "accept",
			src: ["ann@example.com"],
			dst: ["tag:server"],
			users: ["root"],
		},
		{
			action: "check",
			src: ["group:dev"],
			dst: ["tag:other"],
			users: ["autogroup:nonroot"],
		},
		{
			action: "accept",
			src: ["autogroup:member"],
			dst: ["autogroup:self"],
			users: ["root"],
		},
		{
			action: "accept",
			src: ["autogroup:member"],
			dst: ["tag:client"],
			users: ["localpart:*@example.com"],
		},
		{
			action: "accept",
			src: ["tag:client"],
			dst: ["tag:server"],
			users: ["ubuntu"],
		},
	];
	const of = (src: string, dst: string, list: string, user: string) => {
		const { tests } = run({
			ssh,
			sshTests: [{ src, dst: [dst], [list]: [user] }],
		});
		return tests.held === 1
			? "held"
			: tests.failed === 1
				? "failed"
				: `unclear ${tests.unclear.length}`;
	};
	for (const [src, dst, list, user, wanted] of [
		["ann@example.com", "tag:server", "accept", "root", "held"],
		["ann@example.com", "tag:server", "accept", "ubuntu", "failed"],
		["ann@example.com", "tag:server", "deny", "root", "failed"],
		["ann@example.com", "tag:server", "deny", "ubuntu", "held"],
		["ann@example.com", "tag:server", "check", "root", "failed"],
		["ann@example.com", "tag:other", "check", "ubuntu", "held"],
		["ann@example.com", "tag:other", "check", "root", "failed"],
		["ann@example.com", "tag:other", "deny", "ubuntu", "failed"],
		["ann@example.com", "tag:other", "accept", "ubuntu", "unclear 1"],
		["ann@example.com", "ann@example.com", "accept", "root", "held"],
		["ann@example.com", "bob@example.org", "accept", "root", "failed"],
		["ann@example.com", "tag:client", "accept", "ann", "held"],
		["ann@example.com", "tag:client", "accept", "bob", "failed"],
		["bob@example.org", "tag:client", "accept", "bob", "failed"],
		["tag:client", "tag:server", "accept", "ubuntu", "held"],
		["tag:client", "tag:client", "deny", "client", "held"],
		["ann@example.com", "nas", "accept", "root", "unclear 1"],
		["ann@example.com", "autogroup:internet", "accept", "root", "failed"],
		["ann@example.com", "100.64.0.0/24", "deny", "root", "failed"],
		["ann@example.com", "tag:server:22", "accept", "root", "failed"],
		["ann@example.com", "tag:server", "accept", "", "failed"],
		["tag:phantom", "tag:server", "deny", "root", "failed"],
	] as const)
		t.equal(
			of(src, dst, list, user),
			wanted,
			`${src} to ${dst} ${list} ${user}`,
		);
	t.equal(
		run({ ssh, sshTests: [{ src: "tag:client", dst: ["tag:server"] }] }).tests
			.failed,
		1,
		"it asserts nothing",
	);
});

t.test("tests past a bound of work are told, not run", async (t) => {
	// Whether an address is a user's is not known, so each rule is looked at for each test.
	const users = Array.from({ length: 1700 }, (_, n) => `u${n}@example.com`);
	const { tests } = run({
		grants: [
			{ src: ["100.64.0.0/16"], dst: ["tag:server"], ip: ["443"] },
			...users.map((src) => ({ src: [src], dst: ["nas"], ip: ["443"] })),
		],
		tests: users.map((_, n) => ({
			src: `100.64.${n >> 8}.${n & 255}`,
			accept: ["tag:server:443"],
		})),
	});
	t.ok(tests.held > 500);
	t.equal(tests.failed, 0);
	t.match(tests.unclear.at(-1), { says: /too many tests and rules/ });
	t.equal(tests.held + tests.unclear.length, users.length);
});

t.test(
	"many tests of users and tags under many rules are all run",
	async (t) => {
		const users = Array.from({ length: 3000 }, (_, n) => `u${n}@example.com`);
		const { tests } = run({
			grants: users.map((src) => ({
				src: [src],
				dst: ["tag:server"],
				ip: ["443"],
			})),
			tests: users.map((src) => ({ src, accept: ["tag:server:443"] })),
		});
		t.same(tests, { held: users.length, failed: 0, unclear: [] });
	},
);
