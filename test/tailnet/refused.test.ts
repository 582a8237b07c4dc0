import t from "tap";
import { judgePolicy } from "../../src/tailscale/policy/judge.ts";
import { parseTailnetPolicy } from "../../src/tailscale/policy/policyFile.ts";

/** The refusals that are found in a policy with these sections, each on a line of its own. */
function refusals(sections: object): string[] {
	const text = JSON.stringify(
		{
			tagOwners: { "tag:a": [], "tag:b": [] },
			hosts: { nas: "100.70.1.2" },
			grants: [],
			tests: [{ src: "tag:a", deny: ["nas:1"] }],
			...sections,
		},
		undefined,
		1,
	);
	const lines = text.split("\n");
	return judgePolicy(parseTailnetPolicy(text, "policy.hujson"), {
		tags: ["tag:a"],
		addresses: [],
	})
		.findings.filter(({ kind }) => kind === "refused")
		.map(({ says, change, line = 0, severity }) => {
			t.equal(severity, "medium");
			t.ok(change);
			return `${says.replace(/^Tailscale refuses .*? in force: /, "")} @ ${lines[line - 1]?.trim()}`;
		});
}

const grant = { src: ["tag:a"], dst: ["tag:b"], ip: ["443"] };
const acl = { action: "accept", src: ["tag:a"], dst: ["tag:b:443"] };
const ssh = {
	action: "accept",
	src: ["me@example.com"],
	dst: ["tag:a"],
	users: ["root"],
};

t.test("what Tailscale refuses is one finding, on its line", async (t) => {
	for (const [sections, ...wanted] of [
		[
			{ grants: [{ ...grant, src: ["*"], dst: ["autogroup:self"] }] },
			/own user, and src has "\*", .* @ "autogroup:self"$/,
		],
		[
			{ acls: [{ ...acl, dst: ["autogroup:self:443"] }] },
			/own user, and src has "tag:a"/,
		],
		[{ grants: [{ ...grant, src: ["autogroup:self"] }] }, /cannot be a src/],
		[
			{ groups: { "group:g": ["group:h"] } },
			/groups hold users alone @ "group:h"/,
		],
		[
			{ groups: { ops: ["me@example.com"] } },
			/"ops" is not a name for a group/,
		],
		[
			{ grants: [{ ...grant, app: { cap: [{}] } }] },
			/"cap" is not of the form/,
		],
		[
			{ grants: [{ ...grant, app: { "https://example.com/cap": [{}] } }] },
			/is not of the form domain\/path/,
		],
		[
			{ grants: [{ ...grant, app: { "tailscale.com/cap/funnel": [{}] } }] },
			/Tailscale's own domain/,
		],
		[
			{
				grants: [
					{
						...grant,
						dst: ["autogroup:internet"],
						app: { "example.com/cap/x": [{}] },
					},
				],
			},
			/no use with autogroup:internet/,
		],
		[{ grants: [{ src: ["tag:a"], dst: ["tag:b"] }] }, /gives nothing @ \{/],
		[{ grants: [{ ...grant, ip: [], app: {} }] }, /gives nothing/],
		[
			{ grants: [{ ...grant, dst: ["autogroup:danger-all"] }] },
			/cannot be a dst/,
		],
		[{ grants: [{ ...grant, dst: ["0.0.0.0/0"] }] }, /cannot stand for all/],
		[{ grants: [{ ...grant, dst: ["::/0"] }] }, /cannot stand for all/],
		[{ grants: [{ ...grant, via: ["autogroup:tagged"] }] }, /only tags/],
		[{ grants: [{ ...grant, ip: ["tcp:0-80"] }] }, /port 0 .* @ "tcp:0-80"/],
		[{ acls: [{ ...acl, dst: ["tag:b:0"] }] }, /port 0/],
		[
			{ tagOwners: { "tag:a": [], "tag:b": [], "tag:сервер": [] } },
			/"tag:сервер" is not a name for a tag @ "tag:сервер": \[\]/,
		],
		[{ tagOwners: { "tag:a": [], "tag:b": [], "tag:1": [] } }, /not a name/],
		[{ ssh: [{ ...ssh, action: "Accept" }] }, /"accept" or "check"/],
		[{ ssh: [{ ...ssh, action: undefined }] }, /this one has nothing/],
		[{ ssh: [{ ...ssh, users: [] }] }, /must say with users/],
		[
			{ ssh: [{ ...ssh, users: ["root", "*"] }] },
			/"\*", which is not a user @ "\*"/,
		],
		[{ ssh: [{ ...ssh, users: [""] }] }, /"", which is not a user/],
		[{ ssh: [{ ...ssh, acceptEnv: [""] }] }, /empty name/],
		[{ ssh: [{ ...ssh, checkPeriod: "168h0m1s" }] }, /up to 168 hours/],
		[{ ssh: [{ ...ssh, checkPeriod: "-1m" }] }, /up to 168 hours/],
		[{ ssh: [{ ...ssh, checkPeriod: "abc" }] }, /up to 168 hours/],
		[{ ssh: [{ ...ssh, dst: ["nas"] }] }, /dst has "nas"/],
		[
			{ nodeAttrs: [{ target: ["%x%"], attr: ["a"] }] },
			/"%x%" names no devices/,
		],
		[
			{ nodeAttrs: [{ target: ["autogroup:self"], attr: ["a"] }] },
			/names no devices/,
		],
		[
			{ nodeAttrs: [{ target: ["*"], ipPool: ["100.100.100.0/24"] }] },
			/keeps for itself/,
		],
		// Two mistakes are two findings.
		[
			{ groups: { "group:g": ["group:h", "me@example.com", "group:i"] } },
			/"group:h"/,
			/"group:i"/,
		],
	] as const)
		t.match(refusals(sections), wanted, JSON.stringify(sections));
});

t.test("what Tailscale takes is not called refused", async (t) => {
	for (const sections of [
		{ acls: [{ ...acl, src: ["*"], dst: ["autogroup:self:*"] }] },
		...[
			"autogroup:member",
			"me@example.com",
			"group:g",
			"autogroup:admin",
			"user:*@example.com",
		].map((src) => ({
			grants: [{ ...grant, src: [src], dst: ["autogroup:self"] }],
			groups: { "group:g": [] },
		})),
		...[
			"tailscale.com/cap/drive",
			"example.com/a/b/c",
			"my-company.internal/cap/access",
		].map((name) => ({
			grants: [{ ...grant, ip: [], app: { [name]: [{}] } }],
		})),
		{ grants: [{ ...grant, ip: ["*", "tcp:*", "1-65535"] }] },
		{ grants: [{ ...grant, src: ["autogroup:danger-all"] }] },
		{ grants: [{ ...grant, via: ["tag:b"] }] },
		...["12h", "168h", "1h30m", "always"].map((checkPeriod) => ({
			ssh: [{ ...ssh, action: "check", checkPeriod }],
		})),
		{ ssh: [{ ...ssh, dst: ["autogroup:self", "tag:a "] }] },
		{
			nodeAttrs: [
				{
					target: ["*", "tag:a", "me@example.com", "nas", "100.70.1.2"],
					attr: [],
				},
			],
		},
	])
		t.same(refusals(sections), [], JSON.stringify(sections));
});
