import { readFile } from "node:fs/promises";
import t from "tap";
import type {
	Finding,
	FindingKind,
} from "../../src/tailscale/policy/finding.ts";
import { judgePolicy } from "../../src/tailscale/policy/judge.ts";
import { parseTailnetPolicy } from "../../src/tailscale/policy/policyFile.ts";
import {
	defaultChoices,
	isAdmin,
	recommendPolicy,
} from "../../src/tailscale/policy/recommended.ts";

const address = "100.101.102.104";

/** A policy with nothing to say against it, to put one fault into. */
const sound = {
	tagOwners: {
		"tag:ai-server": ["autogroup:admin"],
		"tag:client": ["autogroup:admin"],
	},
	grants: [
		{
			src: ["tag:client"],
			dst: ["tag:ai-server"],
			ip: ["tcp:11434", "tcp:443"],
		},
	],
	tests: [{ src: "tag:client", deny: ["tag:ai-server:22"] }],
};

function judge(policy: object | string, addresses: string[] = []) {
	const text = typeof policy === "string" ? policy : JSON.stringify(policy);
	return judgePolicy(parseTailnetPolicy(text, "policy.hujson"), {
		tags: ["tag:ai-server"],
		addresses,
	});
}

function withRules(...grants: object[]) {
	return { ...sound, grants: [...sound.grants, ...grants] };
}

/** What a fault adds to the sound policy, but for the sound policy's own test, which fails with it where it opens 22. */
function kindsOf(policy: object | string, addresses?: string[]): FindingKind[] {
	return judge(policy, addresses)
		.findings.map(({ kind }) => kind)
		.filter((kind) => kind !== "failed-test");
}

/** The sources that may open each port, with `?` where it is not certain. */
function tableOf(policy: object | string, addresses?: string[]) {
	return Object.fromEntries(
		judge(policy, addresses).reach.map(({ port, who }) => [
			port,
			who.map(({ source, certain }) => (certain ? source : `${source}?`)),
		]),
	);
}

t.test("the sound policy has no finding, and its table says who", async (t) => {
	t.same(judge(sound).findings, []);
	t.same(tableOf(sound), {
		11434: ["tag:client"],
		443: ["tag:client"],
		22: [],
		3000: [],
		8080: [],
	});
});

t.test(
	"the printed policy is without findings, with and without SSH",
	async (t) => {
		t.same(judge(recommendPolicy(defaultChoices)).findings, []);
		t.same(tableOf(recommendPolicy(defaultChoices)), tableOf(sound));
		const ssh = recommendPolicy({ ...defaultChoices, ssh: true });
		t.same(judge(ssh).findings, []);
		t.same(tableOf(ssh), { ...tableOf(sound), 22: ["autogroup:admin"] });
	},
);

t.test("the shipped policy is the printed one", async (t) => {
	t.equal(
		await readFile("tailscale/policy.hujson", "utf8"),
		recommendPolicy(defaultChoices),
	);
});

t.test(
	"each test of the printed policy holds under its own rules",
	async (t) => {
		const text = recommendPolicy({ ...defaultChoices, ssh: true });
		const policy = parseTailnetPolicy(text, "policy.hujson");
		const opens = (source: string, destination: string) => {
			const at = destination.lastIndexOf(":");
			const port = Number(destination.slice(at + 1));
			return policy.rules.some(
				({ sources, targets }) =>
					sources.includes(source) &&
					targets.some(
						({ host, ports }) =>
							host === destination.slice(0, at) &&
							ports.some(({ first, last }) => first <= port && port <= last),
					),
			);
		};
		const { parse } = await import("jsonc-parser");
		const { tests } = parse(text, [], { allowTrailingComma: true }) as {
			tests: { src: string; accept?: string[]; deny?: string[] }[];
		};
		t.equal(tests.length, 2);
		for (const { src, accept = [], deny = [] } of tests) {
			t.type(src, "string", "one source an entry");
			for (const one of accept) t.ok(opens(src, one), `${src} to ${one}`);
			for (const one of deny) t.notOk(opens(src, one), `${src} not to ${one}`);
			for (const one of [...accept, ...deny])
				t.match(one, /^tag:[a-z-]+:\d+$/, "one port a destination");
		}
	},
);

t.test(
	"grants and acls that say the same give the same table and findings",
	async (t) => {
		const pairs: [object[], object[]][] = [
			[
				sound.grants,
				[
					{
						src: ["tag:client"],
						proto: "tcp",
						dst: ["tag:ai-server:11434,443"],
					},
				],
			],
			[[{ src: ["*"], dst: ["*"], ip: ["*"] }], [{ src: ["*"], dst: ["*:*"] }]],
			[
				[
					{
						src: ["a@example.com", "nas"],
						dst: ["tag:ai-server", "nas"],
						ip: ["22", "3000-3010"],
					},
				],
				[
					{
						src: ["a@example.com", "nas"],
						dst: ["tag:ai-server:22,3000-3010", "nas:22,3000-3010"],
					},
				],
			],
			[
				[{ src: ["tag:client"], dst: ["tag:ai-server"], ip: ["udp:443"] }],
				[{ src: ["tag:client"], proto: "17", dst: ["tag:ai-server:443"] }],
			],
		];
		for (const [grants, acls] of pairs) {
			const rest = {
				tagOwners: sound.tagOwners,
				tests: sound.tests,
				hosts: { nas: "100.70.1.2" },
			};
			const asGrants = { ...rest, grants };
			const asAcls = {
				...rest,
				acls: acls.map((acl) => ({ action: "accept", ...acl })),
			};
			t.same(tableOf(asGrants), tableOf(asAcls));
			t.same(kindsOf(asGrants), kindsOf(asAcls));
		}
	},
);

t.test("a rule that lets all to all is critical, in either form", async (t) => {
	const all = withRules({ src: ["*"], dst: ["*"], ip: ["*"] });
	t.same(kindsOf(all), ["allow-all"]);
	t.equal(judge(all).findings[0]?.severity, "critical");
	t.same(tableOf(all)[8080], ["*"]);
	t.same(
		kindsOf({
			...sound,
			acls: [{ action: "accept", src: ["*"], dst: ["*:1-65535"] }],
		}),
		["allow-all"],
	);
});

t.test(
	"a policy without grants and acls lets everything through; an empty list nothing",
	async (t) => {
		const { grants: _, ...none } = sound;
		t.same(kindsOf(none), ["no-rules"]);
		t.same(tableOf(none)[22], ["*"]);
		t.same(kindsOf({ ...none, grants: [] }), []);
		t.same(tableOf({ ...none, grants: [] })[11434], []);
	},
);

t.test("a source that nobody has listed is too wide", async (t) => {
	for (const src of [
		"*",
		"autogroup:member",
		"autogroup:members",
		"autogroup:shared",
		"autogroup:danger-all",
		"autogroup:tagged",
		"user:*@example.com",
		"100.64.0.0/10",
		"0.0.0.0/0",
	]) {
		const policy = withRules({
			src: [src],
			dst: ["tag:ai-server"],
			ip: ["443"],
		});
		t.ok(kindsOf(policy).includes("wide-source"), src);
		t.ok(tableOf(policy)[443]?.includes(src), src);
	}
});

t.test(
	"a destination that takes in more than the server is too wide",
	async (t) => {
		for (const dst of [
			"*",
			"autogroup:tagged",
			"100.64.0.0/10",
			"fd7a:115c:a1e0::/48",
		]) {
			const policy = withRules({
				src: ["tag:client"],
				dst: [dst],
				ip: ["tcp:22"],
			});
			t.same(kindsOf(policy), ["wide-destination"], dst);
			t.same(tableOf(policy)[22], ["tag:client"], dst);
		}
		t.same(
			kindsOf(
				withRules({
					src: ["tag:client"],
					dst: ["autogroup:internet"],
					ip: ["*"],
				}),
			),
			["internet"],
		);
	},
);

t.test("all ports, or a range that comes near it, are too wide", async (t) => {
	for (const ip of ["*", "tcp:*", "1-65535", "tcp:1024-65535"]) {
		const policy = withRules({
			src: ["tag:client"],
			dst: ["tag:ai-server"],
			ip: [ip],
		});
		t.same(kindsOf(policy), ["wide-ports"], ip);
	}
});

t.test("Open WebUI's own ports are one too many", async (t) => {
	const policy = withRules({
		src: ["tag:client"],
		dst: ["tag:ai-server"],
		ip: ["tcp:3000", "8000-8100"],
	});
	t.same(kindsOf(policy), ["extra-port"]);
	t.same(tableOf(policy)[8080], ["tag:client"]);
	t.same(
		kindsOf(
			withRules({
				src: ["tag:client"],
				dst: ["tag:ai-server"],
				ip: ["udp:8080", "icmp:*"],
			}),
		),
		[],
		"UDP and ping are not it",
	);
});

t.test("people reach the server from untagged devices", async (t) => {
	for (const src of [
		"me@example.com",
		"me@github",
		"autogroup:admin",
		"autogroup:owner",
		"group:ops",
	]) {
		const policy = {
			...withRules({ src: [src], dst: ["tag:ai-server"], ip: ["tcp:443"] }),
			groups: { "group:ops": ["me@example.com"] },
		};
		t.same(kindsOf(policy), ["untagged"], src);
	}
});

t.test(
	"port 22 for people is expected where an ssh rule names them, and only then",
	async (t) => {
		const grant = {
			src: ["autogroup:admin"],
			dst: ["tag:ai-server"],
			ip: ["tcp:22"],
		};
		const ssh = (src: string, dst: string) => [
			{
				action: "accept",
				src: [src],
				dst: [dst],
				users: ["autogroup:nonroot"],
			},
		];
		t.same(kindsOf(withRules(grant)), ["untagged"]);
		t.same(
			kindsOf({
				...withRules(grant),
				ssh: ssh("autogroup:admin", "tag:ai-server"),
			}),
			[],
		);
		t.same(
			kindsOf({
				...withRules(grant),
				ssh: ssh("autogroup:admin", "tag:client"),
			}),
			["untagged"],
		);
		t.same(
			kindsOf({
				...withRules(grant),
				ssh: ssh("me@example.com", "tag:ai-server"),
			}),
			["untagged"],
		);
		t.same(
			kindsOf({
				...withRules({ ...grant, ip: ["tcp:22-23"] }),
				ssh: ssh("autogroup:admin", "tag:ai-server"),
			}),
			["untagged"],
		);
	},
);

t.test("a source by address is named, and said to prove little", async (t) => {
	const policy = {
		...withRules({ src: ["laptop"], dst: ["tag:ai-server"], ip: ["tcp:443"] }),
		hosts: { laptop: "100.70.1.2" },
	};
	t.same(kindsOf(policy), ["address-source"]);
	t.match(judge(policy).reach[1]?.who[0], {
		source: "laptop",
		detail: "100.70.1.2",
		certain: true,
	});
});

t.test(
	"a server that may open connections is a finding, ping is none",
	async (t) => {
		for (const src of ["tag:ai-server", "autogroup:tagged", "*"])
			t.same(
				kindsOf(withRules({ src: [src], dst: ["tag:client"], ip: ["443"] })),
				["server-opens"],
				src,
			);
		t.same(
			kindsOf(withRules({ src: [address], dst: ["tag:client"], ip: ["443"] }), [
				address,
			]),
			["server-opens"],
		);
		t.same(
			kindsOf(
				withRules({
					src: ["tag:ai-server"],
					dst: ["tag:client"],
					ip: ["icmp:*"],
				}),
			),
			[],
		);
	},
);

t.test(
	"funnel for the server is critical, for members' own devices it is none",
	async (t) => {
		const funnel = (...target: string[]) => ({
			...sound,
			nodeAttrs: [{ target, attr: ["randomize-client-port", "funnel"] }],
		});
		for (const target of ["tag:ai-server", "*", "autogroup:tagged"]) {
			t.same(kindsOf(funnel(target)), ["funnel"], target);
			t.equal(judge(funnel(target)).findings[0]?.severity, "critical");
		}
		t.same(kindsOf(funnel("autogroup:member", "me@example.com")), []);
		t.same(kindsOf(funnel("100.70.1.2")), ["unknown"]);
		t.same(
			kindsOf({ ...sound, nodeAttrs: [{ target: ["*"], attr: ["mullvad"] }] }),
			[],
		);
	},
);

t.test(
	"a tag without an owner is a finding, and so is a policy without the server",
	async (t) => {
		t.same(kindsOf({ ...sound, tagOwners: { "tag:ai-server": [] } }), [
			"missing-tag-owner",
		]);
		t.same(
			kindsOf({
				grants: [],
				tests: sound.tests.map(() => ({
					src: "tag:x",
					deny: ["tag:ai-server:1"],
				})),
				tagOwners: { "tag:x": [], "tag:ai-server": [] },
			}),
			[],
		);
		t.ok(kindsOf({ grants: [] }).includes("missing-tag-owner"));
	},
);

t.test("a tag that anyone may give themselves is a finding", async (t) => {
	for (const tag of ["tag:ai-server", "tag:client"])
		t.same(
			kindsOf({
				...sound,
				tagOwners: { ...sound.tagOwners, [tag]: ["autogroup:member"] },
			}),
			["wide-tag-owner"],
			tag,
		);
	t.same(
		kindsOf({
			...sound,
			tagOwners: { ...sound.tagOwners, "tag:printer": ["autogroup:member"] },
		}),
		[],
	);
});

t.test("no tests, or none about the server, is a finding", async (t) => {
	const { tests: _, ...none } = sound;
	t.same(kindsOf(none), ["no-tests"]);
	t.same(kindsOf({ ...sound, tests: [] }), ["no-tests"]);
	t.same(
		kindsOf({
			...sound,
			tests: [{ src: "tag:client", deny: ["tag:client:22"] }],
		}),
		["no-tests"],
	);
});

t.test(
	"a name that stands twice is a finding, and both are judged",
	async (t) => {
		const text = JSON.stringify(sound);
		const twice = `${text.slice(0, -1)},\n"Grants": [{"src": ["*"], "dst": ["tag:ai-server"], "ip": ["22"]}] }`;
		t.same(kindsOf(twice), ["duplicate", "wide-source"]);
		t.match(
			judge(twice).findings.find(({ kind }) => kind === "duplicate"),
			{ at: "Grants", line: 2 },
		);
		t.same(tableOf(twice)[443], ["tag:client"]);
		const inRule = text.replace('"dst":', '"dst":["*"],"dst":');
		t.same(kindsOf(inRule), ["duplicate", "wide-destination"]);
		const inTagOwners = text.replace(
			'"tag:client":[',
			'"tag:client":["autogroup:admin"],"tag:client":[',
		);
		t.same(kindsOf(inTagOwners), ["duplicate"]);
		t.same(
			kindsOf({ ...sound, hosts: { nas: "192.0.2.1", NAS: "192.0.2.2" } }),
			[],
			"hosts that differ in case are two",
		);
	},
);

t.test("what the file does not say is unknown, never fine", async (t) => {
	const definitions = {
		hosts: { nas: "100.70.1.2", lan: "192.168.1.0/24", bad: "nowhere" },
		ipsets: {
			"ipset:set": ["add host:nas", "remove 100.70.1.3"],
			"ipset:loop": ["ipset:loop"],
			"ipset:all": ["100.64.0.0/10"],
			"ipset:net": ["add autogroup:internet"],
		},
	};
	const to = (dst: string) => ({
		...withRules({ src: ["tag:client"], dst: [dst], ip: ["22"] }),
		...definitions,
	});
	for (const dst of [
		"nas",
		"lan",
		"bad",
		"nosuchhost",
		"100.70.1.2",
		"ipset:set",
		"ipset:loop",
		"ipset:nosuch",
		"svc:web",
		"autogroup:new",
	]) {
		t.same(kindsOf(to(dst)), ["unknown"], dst);
		t.same(tableOf(to(dst))[22], ["tag:client?"], dst);
	}
	t.same(kindsOf(to("ipset:all")), ["wide-destination"]);
	t.same(kindsOf(to("ipset:net")), ["internet"]);
	for (const src of [
		"group:synced@example.com",
		"nosuchhost",
		"autogroup:new",
		"ipset:nosuch",
	]) {
		const policy = {
			...withRules({ src: [src], dst: ["tag:ai-server"], ip: ["443"] }),
			...definitions,
		};
		t.ok(kindsOf(policy).includes("unknown"), src);
		t.ok(tableOf(policy)[443]?.includes(`${src}?`), src);
	}
	const fromAddress = withRules({
		src: ["100.70.1.2"],
		dst: ["tag:client"],
		ip: ["443"],
	});
	t.same(kindsOf(fromAddress), ["unknown"], "it may be the server that opens");
});

t.test("the server's addresses settle what is an address", async (t) => {
	const to = (dst: string) =>
		withRules({ src: ["tag:client"], dst: [dst], ip: ["tcp:22"] });
	t.same(kindsOf(to("100.70.1.2"), [address]), []);
	t.same(kindsOf(to(address), [address]), ["wide-destination"]);
	t.same(kindsOf(to("100.101.0.0/16"), [address]), ["wide-destination"]);
	t.same(
		kindsOf(to("192.168.1.0/24"), [address]),
		["unknown"],
		"its address on the LAN is not known",
	);
	t.same(kindsOf(to("192.168.1.0/24"), [address, "10.0.0.4"]), []);
	t.same(
		kindsOf(to("fd7a:115c:a1e0::1"), [address]),
		["unknown"],
		"nor its IPv6 address",
	);
});

t.test("what is not understood is a finding with its line", async (t) => {
	for (const rule of [
		{ src: "tag:client", dst: ["tag:ai-server"], ip: ["443"] },
		{ src: ["tag:client"], dst: ["tag:ai-server"], ip: ["https"] },
		{ src: ["tag:client"], dst: ["tag:ai-server"], ip: [443] },
		{ src: ["tag:client"], ip: ["443"] },
		{ dst: ["tag:ai-server"], ip: ["443"] },
	])
		t.same(kindsOf(withRules(rule)), ["not-understood"], JSON.stringify(rule));
	for (const acl of [
		{ action: "deny", src: ["tag:client"], dst: ["tag:ai-server:443"] },
		{ action: "accept", src: ["tag:client"], dst: ["tag:ai-server:ssh"] },
		{
			action: "accept",
			src: ["tag:client"],
			dst: ["tag:ai-server:443"],
			proto: "ssh2",
		},
	])
		t.same(
			kindsOf({ ...sound, acls: [acl] }),
			["not-understood"],
			JSON.stringify(acl),
		);
	t.same(kindsOf({ ...sound, groups: ["x"] }), ["not-understood"]);
	t.match(
		judge('{\n"grants": [\n{"src": [1]}]}').findings.find(
			({ kind }: Finding) => kind === "not-understood",
		),
		{ line: 3 },
	);
});

t.test("a grant of capabilities alone opens no port", async (t) => {
	const policy = withRules({
		src: ["*"],
		dst: ["tag:ai-server"],
		app: { "example.com/cap/x": [{}] },
	});
	t.same(kindsOf(policy), []);
	t.same(tableOf(policy), tableOf(sound));
});

t.test("findings come worst first", async (t) => {
	const { findings } = judge({
		grants: [
			{ src: ["me@example.com"], dst: ["tag:ai-server"], ip: ["443"] },
			{ src: ["*"], dst: ["*"], ip: ["*"] },
		],
	});
	t.same(
		findings.map(({ severity }) => severity),
		["critical", "medium", "medium", "low"],
	);
	for (const { says, change } of findings) t.ok(says !== "" && change !== "");
});

t.test(
	"only those who manage the tailnet may own the printed tags",
	async (t) => {
		for (const who of [
			"autogroup:admin",
			"autogroup:owner",
			"me@example.com",
			"me@github",
		])
			t.ok(isAdmin(who), who);
		for (const who of [
			"*",
			"autogroup:member",
			"tag:client",
			'a@b"',
			"a@b\n",
			"me",
		])
			t.notOk(isAdmin(who), JSON.stringify(who));
	},
);
