import t from "tap";
import {
	type AccessRules,
	type Fields,
	judgeAccess,
} from "../../src/dashboard/access.ts";
import {
	ask,
	idleLive,
	startDashboard,
	startFakeGate,
} from "../support/dashboard.ts";

const rules: AccessRules = {
	port: 9465,
	address: "127.0.0.1",
	hosts: new Set(["gpu.tail1a2b.ts.net"]),
	allow: new Set(["me@example.com"]),
};

/** Header fields as Node has them, each once. */
function fields(lines: Record<string, string>): Fields {
	return Object.fromEntries(
		Object.entries(lines).map(([name, value]) => [name, [value]]),
	);
}

const own = { host: "127.0.0.1:9465" };
/** As `tailscale serve` passes on what a login of the tailnet asks. */
const served = {
	host: "gpu.tail1a2b.ts.net",
	"x-forwarded-host": "gpu.tail1a2b.ts.net",
	"x-forwarded-proto": "https",
	"x-forwarded-for": "100.64.0.7",
	"tailscale-user-login": "me@example.com",
	"tailscale-user-name": "Me",
};
const without = (name: keyof typeof served) =>
	Object.fromEntries(Object.entries(served).filter(([one]) => one !== name));

t.test("this machine's own names are let in, with the port", async (t) => {
	for (const host of ["127.0.0.1:9465", "localhost:9465", "[::1]:9465"])
		t.strictSame(judgeAccess(fields({ host }), rules), {
			kind: "granted",
			login: undefined,
		});
	for (const address of ["127.0.0.9", "[::1]"])
		t.match(
			judgeAccess(fields({ host: `${address}:9465` }), { ...rules, address }),
			{ kind: "granted" },
		);
});

const foreignHosts = [
	...["evil.example", "evil.example:9465", "localhost", "127.0.0.1"],
	...["127.0.0.1:80", "localhost.evil.example:9465", "127.0.0.2:9465"],
	...["gpu.tail1a2b.ts.net.evil.example", "xgpu.tail1a2b.ts.net", "", "*"],
	...["gpu.tail1a2b.ts.net:", "gpu.tail1a2b.ts.net:123456", "[::1]"],
];
for (const host of foreignHosts)
	t.test(`the Host ${JSON.stringify(host)} is not`, async (t) => {
		for (const lines of [{ host }, { ...served, host }])
			t.match(judgeAccess(fields(lines), rules), { kind: "denied" });
	});

t.test("no Host, and two, are refused", async (t) => {
	t.match(judgeAccess({}, rules), { kind: "denied" });
	t.match(judgeAccess({ host: ["127.0.0.1:9465", "127.0.0.1:9465"] }, rules), {
		kind: "denied",
	});
});

t.test("a page of another origin is refused", async (t) => {
	for (const origin of [
		...["http://evil.example", "null", "http://localhost:3000"],
		...["https://127.0.0.1:9465", "http://127.0.0.1:9466"],
		"http://localhost:9465",
	])
		t.match(
			judgeAccess(fields({ ...own, origin }), rules),
			{ kind: "denied", why: /another origin/ },
			origin,
		);
	t.match(
		judgeAccess(fields({ ...own, origin: "http://127.0.0.1:9465" }), rules),
		{ kind: "granted" },
	);
	t.match(
		judgeAccess(
			fields({ ...served, origin: "https://gpu.tail1a2b.ts.net" }),
			rules,
		),
		{ kind: "granted" },
	);
	t.match(
		judgeAccess(fields({ ...served, origin: "https://evil.example" }), rules),
		{ kind: "denied" },
	);
});

t.test(
	"another site may lead here by a link, and load no part of the page",
	async (t) => {
		const from = (site: string, mode: string) =>
			judgeAccess(
				fields({ ...own, "sec-fetch-site": site, "sec-fetch-mode": mode }),
				rules,
			);
		t.match(from("cross-site", "navigate"), { kind: "granted" });
		t.match(from("none", "navigate"), { kind: "granted" });
		t.match(from("same-origin", "cors"), { kind: "granted" });
		for (const site of ["cross-site", "same-site"])
			for (const mode of ["no-cors", "cors", "websocket"])
				t.match(from(site, mode), { kind: "denied" }, `${site} ${mode}`);
	},
);

t.test(
	"a login that tailscale serve proves and --allow has is let in",
	async (t) => {
		t.strictSame(judgeAccess(fields(served), rules), {
			kind: "granted",
			login: "me@example.com",
		});
		for (const lines of [
			{ ...served, host: "GPU.tail1a2b.ts.net:8443" },
			{ ...served, "tailscale-user-login": "Me@Example.com" },
		])
			t.match(judgeAccess(fields(lines), rules), { kind: "granted" });
		t.match(
			judgeAccess(
				fields({ ...served, "tailscale-user-login": "x@y.example" }),
				{
					...rules,
					allow: "any",
				},
			),
			{ kind: "granted", login: "x@y.example" },
		);
	},
);

t.test("nobody else is", async (t) => {
	const cases: [string, Fields, Partial<AccessRules>][] = [
		[
			"another login",
			fields({ ...served, "tailscale-user-login": "you@example.com" }),
			{},
		],
		[
			"no login, as of a tagged device",
			fields(without("tailscale-user-login")),
			{},
		],
		[
			"no login, where any is allowed",
			fields(without("tailscale-user-login")),
			{ allow: "any" },
		],
		[
			"an empty login",
			fields({ ...served, "tailscale-user-login": "" }),
			{ allow: "any" },
		],
		[
			"two logins",
			{
				...fields(served),
				"tailscale-user-login": ["me@example.com", "me@example.com"],
			},
			{},
		],
		[
			"the internet, by Funnel",
			fields({ ...served, "tailscale-funnel-request": "?1" }),
			{ allow: "any" },
		],
		["a name that was not given", fields(served), { hosts: new Set() }],
		["nobody is allowed", fields(served), { allow: new Set() }],
		[
			"a local request under the served name",
			fields({ host: "gpu.tail1a2b.ts.net" }),
			{ allow: "any" },
		],
	];
	for (const [name, lines, over] of cases)
		t.match(
			judgeAccess(lines, { ...rules, ...over }),
			{ kind: "denied" },
			name,
		);
});

t.test(
	"who comes through a proxy and says that he is local is not believed",
	async (t) => {
		// tailscale serve passes on the Host that its client names.
		t.match(judgeAccess(fields({ ...served, ...own }), rules), {
			kind: "denied",
		});
		for (const name of [
			...["x-forwarded-for", "x-forwarded-host", "forwarded", "via"],
			...["x-real-ip", "tailscale-user-login", "tailscale-headers-info"],
		])
			t.match(
				judgeAccess(fields({ ...own, [name]: "a" }), {
					...rules,
					allow: "any",
				}),
				{ kind: "denied" },
				name,
			);
	},
);

t.test(
	"on the wire it is 403, for every path, and nothing is shown",
	async (t) => {
		const { port } = await startDashboard(t, await startFakeGate(t, idleLive), {
			hosts: rules.hosts,
			allow: rules.allow,
		});
		const good = { host: `127.0.0.1:${port}` };
		for (const path of [
			"/",
			"/events",
			"/page.js",
			"/curves.js",
			"/page.css",
		]) {
			for (const headers of [
				{ host: "evil.example" },
				{ ...good, origin: "http://evil.example" },
				{ ...good, "x-forwarded-for": "100.64.0.7" },
				{ ...served, "tailscale-user-login": "you@example.com" },
			]) {
				const { status, body, headers: sent } = await ask(port, path, headers);
				t.equal(status, 403);
				t.equal(sent["content-type"], "text/plain; charset=utf-8");
				t.notMatch(body.toString(), /<|at work/i);
			}
		}
		t.equal((await ask(port, "/", good)).status, 200);
		const mine = await ask(port, "/", served);
		t.match(mine.body.toString(), /Signed in as<\/dt><dd><bdi>me@example\.com/);
	},
);
