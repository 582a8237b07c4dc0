import t from "tap";
import type { FindingKind } from "../../src/tailscale/policy/finding.ts";
import { judgePolicy } from "../../src/tailscale/policy/judge.ts";
import { parseTailnetPolicy } from "../../src/tailscale/policy/policyFile.ts";

const [v4, v6] = ["100.101.102.104", "fd7a:115c:a1e0::6501:6668"];

const sound = {
	tagOwners: {
		"tag:ai-server": ["autogroup:admin"],
		"tag:gpu": ["autogroup:admin"],
		"tag:client": ["autogroup:admin"],
	},
	hosts: { gpu: v4, nas: "100.70.1.2" },
	groups: { "group:empty": [], "group:ops": ["me@example.com"] },
	tests: [{ src: "tag:client", deny: ["tag:ai-server:9"] }],
};

function judge(
	policy: object,
	server: { tags?: string[]; addresses?: string[] } = {},
) {
	return judgePolicy(
		parseTailnetPolicy(JSON.stringify(policy), "policy.hujson"),
		{ tags: ["tag:ai-server"], addresses: [], ...server },
	);
}

function kindsOf(...given: Parameters<typeof judge>): FindingKind[] {
	return judge(...given).findings.map(({ kind }) => kind);
}

function openersOf(port: number, ...given: Parameters<typeof judge>) {
	return judge(...given)
		.reach.find((row) => row.port === port)
		?.who.map(({ source, certain }) => (certain ? source : `${source}?`));
}

t.test(
	"a server may carry several tags, and each of them means it",
	async (t) => {
		const tags = ["tag:ai-server", "tag:gpu"];
		const policy = {
			...sound,
			grants: [{ src: ["me@example.com"], dst: ["tag:gpu"], ip: ["tcp:3000"] }],
		};
		t.same(kindsOf(policy), [], "another machine, as far as is known");
		t.same(kindsOf(policy, { tags }), ["extra-port", "untagged"]);
		t.same(openersOf(3000, policy, { tags }), ["me@example.com"]);
		t.same(
			kindsOf(
				{
					...sound,
					grants: [{ src: ["tag:gpu"], dst: ["tag:client"], ip: ["22"] }],
				},
				{ tags },
			),
			["server-opens"],
		);
		t.same(
			kindsOf(
				{
					...sound,
					grants: [],
					tagOwners: { ...sound.tagOwners, "tag:gpu": ["autogroup:member"] },
				},
				{ tags },
			),
			["wide-tag-owner"],
		);
		t.match(
			judge(
				{ ...sound, grants: [], tagOwners: {} },
				{ tags: ["tag:a", "tag:b"] },
			)
				.findings.filter(({ at }) => at === undefined)
				.map(({ says }) => says),
			[/^tag:a is nowhere/, /^tag:b is nowhere/],
		);
	},
);

t.test(
	"a rule between machines with the server's own tag lets the server open others",
	async (t) => {
		const policy = {
			...sound,
			grants: [
				{ src: ["tag:ai-server"], dst: ["tag:ai-server"], ip: ["tcp:22"] },
			],
		};
		t.same(kindsOf(policy), ["server-opens"]);
		t.match(judge(policy).findings[0], {
			severity: "high",
			says: /other machines with tag:ai-server/,
		});
		t.same(
			kindsOf(
				{
					...sound,
					grants: [{ src: ["tag:ai-server"], dst: [v4], ip: ["tcp:9"] }],
				},
				{ addresses: [v4, v6] },
			),
			[],
			"to its own address it opens nothing further",
		);
	},
);

t.test(
	"machines with the server's tag that may open all are one finding",
	async (t) => {
		t.same(
			kindsOf({
				...sound,
				grants: [{ src: ["tag:ai-server"], dst: ["*"], ip: ["*"] }],
				tests: [{ src: "tag:ai-server", accept: ["tag:ai-server:9"] }],
			}),
			["server-opens"],
		);
	},
);

t.test(
	"blanks around a name do not count, as Tailscale takes them off",
	async (t) => {
		for (const [src, dst] of [
			["tag:client", "tag:ai-server "],
			[" tag:client\t", "\n tag:ai-server"],
			["tag:client\u00a0", "tag:ai-server\u0085"],
		]) {
			t.same(
				openersOf(443, {
					...sound,
					grants: [{ src: [src], dst: [dst], ip: [" 443 "] }],
				}),
				["tag:client"],
				JSON.stringify([src, dst]),
			);
			t.same(
				openersOf(443, {
					...sound,
					acls: [{ action: "accept", users: [src], ports: [`${dst} : 443`] }],
				}),
				["tag:client"],
			);
		}
		t.same(
			kindsOf({
				...sound,
				grants: [{ src: [" tag:client"], dst: ["tag:ai-server"], ip: ["443"] }],
				tagOwners: {
					...sound.tagOwners,
					"tag:client": ["\tautogroup:member "],
				},
			}),
			["wide-tag-owner"],
		);
	},
);

t.test(
	"a tag comes to anyone through tags that own tags, however many",
	async (t) => {
		const chain = (...links: [string, string[]][]) =>
			judge({
				...sound,
				grants: [{ src: ["tag:client"], dst: ["tag:ai-server"], ip: ["443"] }],
				tagOwners: { ...sound.tagOwners, ...Object.fromEntries(links) },
			}).findings;
		const found = chain(
			["tag:client", ["tag:a"]],
			["tag:a", ["tag:b"]],
			["tag:b", ["autogroup:member"]],
		);
		t.match(found, [
			{
				kind: "wide-tag-owner",
				at: "tagOwners.tag:client",
				says: /autogroup:member may put tag:b .*give out tag:a; .*give out tag:client/,
			},
		]);
		t.match(
			chain(["tag:ai-server", ["tag:a"]], ["tag:a", ["autogroup:tagged"]]),
			[{ kind: "wide-tag-owner" }],
		);
		t.same(
			chain(
				["tag:client", ["tag:a"]],
				["tag:a", ["tag:b"]],
				["tag:b", ["tag:a", "tag:client"]],
			),
			[],
			"a circle that nobody stands outside of",
		);
		t.match(
			chain(
				["tag:client", ["tag:a"]],
				["tag:a", ["tag:client", "autogroup:member"]],
			),
			[{ kind: "wide-tag-owner" }],
			"a circle that anyone can step into",
		);
	},
);

t.test(
	"ranges that are together most of the tailnet are everyone",
	async (t) => {
		const halves = {
			...sound,
			hosts: { low: "100.64.0.0/11", most: "100.96.0.0/11" },
			ipsets: {
				"ipset:both": ["add host:low", "add 100.96.0.0-100.127.255.255"],
				"ipset:less": ["add 100.64.0.0/10", "remove 100.64.0.0/10"],
				"ipset:one": ["add 100.64.0.0/10", "remove 100.65.0.0/16"],
			},
		};
		for (const src of [
			["100.64.0.0/11", "100.96.0.0/11"],
			["low", "most"],
			["ipset:both"],
			["ipset:one"],
			["fd7a:115c:a1e0::/64"],
			["fd7a:115c:a1e0::/48"],
			["100.64.0.0-100.127.255.255"],
			[64, 72, 80, 88, 96].map((octet) => `100.${octet}.0.0/13`),
		]) {
			const grants = [{ src, dst: ["tag:ai-server"], ip: ["tcp:443"] }];
			const kinds = kindsOf({ ...halves, grants });
			t.ok(kinds.includes("wide-source"), src.join());
			t.notOk(kinds.includes("address-source"), src.join());
		}
		t.same(
			kindsOf({
				...halves,
				grants: [{ src: ["ipset:less"], dst: ["tag:ai-server"], ip: ["443"] }],
			}),
			[],
			"a set that is empty in the end",
		);
		t.same(
			kindsOf({
				...halves,
				grants: [
					{
						src: ["100.64.0.0/12", "100.80.0.0/13"],
						dst: ["tag:ai-server"],
						ip: ["443"],
					},
				],
			}),
			["address-source"],
		);
	},
);

t.test("halves in two rules are everyone too", async (t) => {
	const half = (src: string) => ({
		src: [src],
		dst: ["tag:ai-server"],
		ip: ["443"],
	});
	const quarters = [0, 16, 32].map((n) => half(`100.${64 + n}.0.0/12`));
	const { findings } = judge(
		{ ...sound, grants: quarters },
		{ addresses: [v4, v6] },
	);
	t.match(
		findings.filter(({ kind }) => kind === "wide-source"),
		[{ says: /100\.64\.0\.0\/12, .* may open 443/ }],
	);
});

t.test(
	"ranges that hold the server only together are a way to it",
	async (t) => {
		const to = (...dst: string[]) => ({
			...sound,
			grants: [{ src: ["tag:client"], dst, ip: ["tcp:22"] }],
		});
		const both = to("100.64.0.0/11", "100.96.0.0/11");
		t.same(kindsOf(both), ["wide-destination"]);
		t.same(openersOf(22, both), ["tag:client"]);
		t.same(openersOf(22, to("100.64.0.0/11")), ["tag:client?"]);
		t.same(openersOf(22, to("fd7a:115c:a1e0::/64")), ["tag:client"]);
		t.same(
			openersOf(22, to("100.64.0.0/11"), { addresses: [v4, v6] }),
			[],
			"the server's address is in the other half",
		);
		t.same(
			openersOf(22, {
				...sound,
				acls: [
					{
						action: "accept",
						src: ["tag:client"],
						dst: ["100.64.0.0/11:22", "100.96.0.0/11:23"],
					},
				],
			}),
			["tag:client?"],
			"the other half is for another port",
		);
	},
);

t.test("what an IP set adds and removes counts, in its order", async (t) => {
	const to = (...operations: string[]) => ({
		...sound,
		ipsets: { "ipset:x": operations },
		grants: [{ src: ["tag:client"], dst: ["ipset:x"], ip: ["tcp:22"] }],
	});
	const server = { addresses: [v4, v6] };
	t.same(openersOf(22, to("add 100.101.0.0/16"), server), ["tag:client"]);
	t.same(openersOf(22, to("100.101.0.0/16", `remove ${v4}`), server), []);
	t.same(openersOf(22, to(`remove ${v4}`, "add 100.101.0.0/16"), server), [
		"tag:client",
	]);
	t.same(openersOf(22, to("add host:nosuch"), server), ["tag:client?"]);
	t.same(openersOf(22, to("add ipset:x"), server), ["tag:client?"]);
});

t.test(
	"sets in sets that double at each step are worked out once each",
	async (t) => {
		const ipsets = Object.fromEntries(
			Array.from({ length: 40 }, (_, index) => [
				`ipset:s${index}`,
				[`ipset:s${index + 1}`, `ipset:s${index + 1}`],
			]),
		);
		t.same(
			openersOf(
				22,
				{
					...sound,
					ipsets: { ...ipsets, "ipset:s40": [v4] },
					grants: [{ src: ["tag:client"], dst: ["ipset:s0"], ip: ["22"] }],
				},
				{ addresses: [v4] },
			),
			["tag:client"],
		);
	},
);

t.test("a group without members gets nothing and is no finding", async (t) => {
	const policy = {
		...sound,
		grants: [
			{ src: ["group:empty"], dst: ["tag:ai-server"], ip: ["*"] },
			{ src: ["group:empty"], dst: ["*"], ip: ["22"] },
		],
	};
	t.same(kindsOf(policy), []);
	t.same(openersOf(22, policy), []);
});

t.test(
	"tests that name the server by host or address are about it",
	async (t) => {
		const { tests: _, ...rest } = sound;
		const withTest = (dst: string) => ({
			...rest,
			grants: [],
			tests: [{ src: "tag:client", deny: [dst] }],
		});
		for (const dst of ["tag:ai-server:9", "gpu:9", `${v4}:9`, `[${v6}]:9`])
			t.same(kindsOf(withTest(dst), { addresses: [v4, v6] }), [], dst);
		t.same(kindsOf(withTest("gpu:9")), [], "it may be the server");
		for (const dst of ["nas:9", "tag:client:9"])
			t.same(
				kindsOf(withTest(dst), { addresses: [v4, v6] }),
				["no-tests"],
				dst,
			);
	},
);

t.test(
	"a policy that reaches the server by other names is about it, whatever the tag",
	async (t) => {
		const { findings } = judge({
			grants: [{ src: ["me@example.com"], dst: ["*"], ip: ["22"] }],
		});
		const missing = findings.find(({ kind }) => kind === "missing-tag-owner");
		t.match(missing, {
			severity: "medium",
			says: /reach the server all the same/,
		});
		t.match(
			judge({ grants: [] }).findings.find(
				({ kind }) => kind === "missing-tag-owner",
			),
			{ severity: "high", says: /nothing here is about the server/ },
		);
	},
);

t.test(
	"an ssh entry without src or dst says nothing, and is no mistake",
	async (t) => {
		const ssh = { action: "accept", users: ["root"] };
		for (const entry of [
			{ ...ssh, src: ["tag:client"] },
			{ ...ssh, dst: ["tag:ai-server"] },
			{ ...ssh, src: [], dst: [] },
		])
			t.same(kindsOf({ ...sound, grants: [], ssh: [entry] }), []);
	},
);

t.test(
	"a rule for UDP alone does not open a port where the gate listens",
	async (t) => {
		for (const [rules, shown] of [
			[
				{ grants: [{ src: ["*"], dst: ["tag:ai-server"], ip: ["udp:11434"] }] },
				/send udp:11434/,
			],
			[
				{
					acls: [
						{
							action: "accept",
							proto: "udp",
							src: ["me@example.com"],
							dst: ["tag:ai-server:11434"],
						},
					],
				},
				/send udp:11434/,
			],
			[
				{
					grants: [
						{ src: ["me@example.com"], dst: ["tag:ai-server"], ip: ["47:*"] },
					],
				},
				/send 47:\*/,
			],
		] as const) {
			const { findings, reach } = judge({ ...sound, ...rules });
			t.match(findings, [
				{ kind: "other-protocol", severity: "low", says: shown },
			]);
			t.notMatch(findings[0]?.says, /may open/);
			t.ok(reach.every(({ who }) => who.length === 0));
		}
		const both = judge({
			...sound,
			grants: [
				{
					src: ["me@example.com"],
					dst: ["tag:ai-server"],
					ip: ["udp:53", "tcp:443"],
				},
			],
		});
		t.match(both.findings, [
			{ kind: "untagged", says: /me@example\.com may open tcp:443 of/ },
		]);
	},
);
