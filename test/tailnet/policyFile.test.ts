import t from "tap";
import { BadFileError } from "../../src/errors.ts";
import { parseTailnetPolicy } from "../../src/tailscale/policy/policyFile.ts";
import {
	parseAclDestination,
	parseGrantPorts,
} from "../../src/tailscale/policy/ports.ts";

t.test(
	"HuJSON is read: comments, trailing commas, a byte order mark",
	async (t) => {
		const { rules } = parseTailnetPolicy(
			'\uFEFF// why\n{ "grants": [ /* who */ {"src": ["tag:a"], "dst": ["tag:b"], "ip": ["443"],}, ], }',
			"policy.hujson",
		);
		t.same(rules, [
			{
				at: "grants[0]",
				line: 2,
				sources: ["tag:a"],
				targets: [
					{
						host: "tag:b",
						ports: [{ text: "443", protocol: "any", first: 443, last: 443 }],
					},
				],
				postures: [],
				isRouted: false,
			},
		]);
	},
);

t.test("what is no HuJSON is refused, and says the lines", async (t) => {
	const mistakesOf = (text: string) => {
		try {
			parseTailnetPolicy(text, "policy.hujson");
		} catch (error) {
			if (error instanceof BadFileError) return error.message;
			throw error;
		}
		return t.fail(`${text} was taken`);
	};
	t.match(mistakesOf('{\n "grants": [\n'), /line 3: not valid HuJSON/);
	t.match(mistakesOf('{\n "a": 1\n "b": 2 }'), /line 3: .*CommaExpected/);
	t.match(mistakesOf("{} {}"), /line 1: .*EndOfFileExpected/);
	for (const empty of ["", " \n", "\uFEFF"])
		t.match(mistakesOf(empty), /it is empty; .* everything through/);
	t.match(mistakesOf("// nothing"), /not valid HuJSON/);
	t.match(
		mistakesOf(`{"a": ${"[".repeat(600)}${"]".repeat(600)}}`),
		/too deeply/,
	);
	t.equal(
		String(mistakesOf(`{"a": [${"x ".repeat(999)}]}`)).split("\n").length,
		21,
	);
	t.match(mistakesOf("[]"), /expected a policy/);
	t.match(mistakesOf("[".repeat(100_000)), /not usable/);
});

t.test(
	"the ip of a grant is read in every form that is documented",
	async (t) => {
		const read = (text: string) =>
			parseGrantPorts(text)?.map(({ protocol, first, last }) => [
				protocol,
				first,
				last,
			]);
		t.same(read("*"), [["any", 0, 65535]]);
		t.same(read("443"), [["any", 443, 443]]);
		t.same(read("80-443"), [["any", 80, 443]]);
		t.same(read("tcp:443"), [["tcp", 443, 443]]);
		t.same(read("6:443"), [["tcp", 443, 443]]);
		t.same(read("tcp:*"), [["tcp", 0, 65535]]);
		t.same(read("tcp:80,443"), [
			["tcp", 80, 80],
			["tcp", 443, 443],
		]);
		t.same(read("udp:53"), [["udp", 53, 53]]);
		t.same(read("47:*"), [[47, 0, 65535]]);
		t.same(read("icmp:*"), [["icmp", 0, 65535]]);
		for (const wrong of [
			"icmp",
			"tcp",
			"http:80",
			"*:80",
			"tcp:",
			":80",
			"443-80",
			"tcp:65536",
			"0:80",
			"a:b:80",
		])
			t.equal(read(wrong), undefined, wrong);
	},
);

t.test("the dst of an acl is split at its last colon", async (t) => {
	const read = (text: string) => {
		const target = parseAclDestination(text, "any");
		return target && [target.host, ...target.ports.map(({ first }) => first)];
	};
	t.same(read("tag:ai-server:11434,443"), ["tag:ai-server", 11434, 443]);
	t.same(read("*:*"), ["*", 0]);
	t.same(read("[fd7a:115c:a1e0::1]:443"), ["fd7a:115c:a1e0::1", 443]);
	t.same(read("[fd7a:115c:a1e0::]/64:443"), ["fd7a:115c:a1e0::/64", 443]);
	t.same(read("ipset:prod:22"), ["ipset:prod", 22]);
	t.equal(read("tag:ai-server:ssh"), undefined);
	t.equal(read("host"), undefined);
});

t.test("the names of old policies are read whatever their case", async (t) => {
	const { rules, hasRuleSection } = parseTailnetPolicy(
		'{"ACLs": [{"Action": "accept", "Users": ["tag:a"], "Ports": ["tag:b:22"]}]}',
		"policy.hujson",
	);
	t.ok(hasRuleSection);
	t.match(rules, [{ sources: ["tag:a"], targets: [{ host: "tag:b" }] }]);
});

t.test("a tag is noticed wherever it is used", async (t) => {
	const { usedTags } = parseTailnetPolicy(
		`{
			"acls": [{"action": "accept", "src": ["tag:a"], "dst": ["tag:b:22,80"]}],
			"ssh": [{"action": "accept", "src": ["tag:c"], "dst": ["tag:d"], "users": ["x"]}],
			"nodeAttrs": [{"target": ["tag:e"], "attr": ["funnel"]}],
			"autoApprovers": {"exitNode": ["tag:f"]},
			"tests": [{"src": "tag:g", "deny": ["tag:h:22"]}],
			"tagOwners": {"tag:x": ["tag:i"]},
			"grants": [{"src": ["a@b"], "dst": ["c@d"], "ip": ["1"], "via": ["tag:j"], "app": {"e.com/x": [{"y": "tag:z"}]}}],
		}`,
		"policy.hujson",
	);
	t.same(
		[...usedTags.keys()].toSorted(),
		[..."abcdefghij"].map((name) => `tag:${name}`),
	);
});

t.test("each of thousands of rules is found on its own line", async (t) => {
	const count = 20_000;
	const { rules } = parseTailnetPolicy(
		`{"grants": [\n${Array.from({ length: count }, (_, n) => `{"src": ["tag:c${n}"], "dst": ["tag:s"], "ip": ["443"]}`).join(",\n")}\n]}`,
		"policy.hujson",
	);
	t.equal(rules.length, count);
	t.ok(
		rules.every(({ at, line }, n) => at === `grants[${n}]` && line === n + 2),
	);
});
