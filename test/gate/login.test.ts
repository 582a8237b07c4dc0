import t from "tap";
import { parseConfig } from "../../src/config/load.ts";
import type { LoginRule } from "../../src/config/logins.ts";
import { currentCredential, loginCredential } from "../../src/gate/login.ts";
import type { GateState } from "../../src/gate/state.ts";
import { topOf } from "../../src/gate/top.ts";
import { judgeLogins } from "../../src/host/gate/logins.ts";
import { Keyring } from "../../src/keys/keyring.ts";
import { createWhois } from "../../src/tailscale/whois.ts";
import { bearer, runCli, startGate, testKeys } from "../support/gate.ts";
import {
	type LocalApi,
	runningStatus,
	startLocalApi,
	whoIsNode,
} from "../support/localApi.ts";

// What needs devices with addresses of their own is in test/net/login.test.ts.

const me = "me@example.com";
const settingsOf = (identity: Record<string, unknown>) =>
	parseConfig(JSON.stringify({ identity }), "config.json");
const identityOf = (rules: readonly LoginRule[], mode = "login") =>
	settingsOf({ mode, rules }).identity;

t.test("login needs rules, and says what is wrong with them", async (t) => {
	const mistakesOf = (identity: Record<string, unknown>) => {
		try {
			settingsOf(identity);
			return "";
		} catch (error) {
			return String(error);
		}
	};
	const rule = (changes: object) =>
		mistakesOf({ mode: "login", rules: [{ users: [me], ...changes }] });
	t.equal(rule({}), "");
	t.equal(rule({ users: ["*@example.com", "carol@", "carol"] }), "");
	t.match(mistakesOf({ mode: "login" }), /identity\.rules, .* are missing/);
	t.equal(settingsOf({}).identity.mode, "off", "off is the default");
	for (const users of [[], ["*"], ["*@"], ["m*@example.com"], ["*@*"], [""]])
		t.match(rule({ users }), /identity\.rules\[0\]\.users/, String(users));
	t.match(rule({ scopes: ["all"] }), /expected a scope/);
	t.match(rule({ scopes: [] }), /list of scopes/);
	t.match(rule({ models: ["x y"] }), /expected a pattern/);
	t.match(rule({ share: 0 }), /0\.001 to 1000/);
	t.match(rule({ tags: ["tag:a"] }), /unknown setting/);
	t.match(mistakesOf({ mode: "login", rules: [{}] }), /users/);
});

t.test("a login has what the rules for it have together", async (t) => {
	const identity = identityOf([
		{ users: [me] },
		{ users: ["*@example.com"], scopes: ["manage"], share: 3 },
		{ users: ["carol@"], scopes: ["read"] },
	]);
	const key = loginCredential(identity, me)?.key;
	t.strictSame([...(key?.scopes ?? [])], ["read", "infer", "manage"]);
	t.equal(key?.share, 3);
	t.equal(key?.label, "(login)");
	t.strictSame(
		[...(loginCredential(identity, "carol")?.key.scopes ?? [])],
		["read"],
		"as headscale has it",
	);
	for (const user of ["", "eve", "me@example.com.evil.org", "example.com"])
		t.equal(loginCredential(identity, user), undefined, user);
	for (const mode of ["off", "log", "require"])
		t.equal(
			loginCredential(identityOf([{ users: [me] }], mode), me),
			undefined,
		);
});

t.test("who is at work shows no more of a login than the log", async (t) => {
	const person = { id: me, name: me, by: "login" };
	const exchange = {
		...{ id: "a-1", person, startedAtMs: 0 },
		knownCredential: loginCredential(identityOf([{ users: [me] }]), me),
		routeMatch: { route: { id: "POST /api/chat", scope: "infer" } },
	};
	const rowUnder = (logPeople: string) =>
		topOf({
			relays: [{ exchange, errand: { isWaiting: false } }],
			settings: { logPeople },
			queues: [],
			queueStats: () => undefined,
		} as unknown as GateState).requests[0];
	const hidden = rowUnder("off");
	t.match(hidden, { key: "(login)", user: "login" });
	t.notMatch(JSON.stringify(hidden), me);
	t.match(rowUnder("on"), { key: "(login)", user: `login:${me}`, person: me });
});

t.test("a reload takes a login away, or changes it", async (t) => {
	const keyring = new Keyring([]);
	const current = (identity: Record<string, unknown>) => {
		const before = loginCredential(identityOf([{ users: [me] }]), me);
		if (before === undefined) throw new Error("no credential");
		const now = currentCredential(
			{ settings: settingsOf(identity), keyring },
			before,
		);
		return now && now.key.entry === before.key.entry;
	};
	const rules = [{ users: [me] }];
	t.equal(current({ mode: "login", rules }), true);
	t.equal(current({ mode: "off", rules }), undefined);
	t.equal(current({ mode: "login", rules: [{ users: ["x"] }] }), undefined);
	t.equal(
		current({ mode: "login", rules: [{ users: [me], scopes: ["read"] }] }),
		false,
	);
});

t.test("with login, keys go on as under log", async (t) => {
	const api = await startLocalApi(t);
	api.nodes.get = () => whoIsNode();
	const identity = {
		mode: "login",
		socket: api.socket,
		rules: [{ users: [me] }],
	};
	const gate = await startGate(t, { config: { identity } });
	const call = async (headers: Record<string, string> = {}) => {
		const response = await fetch(`${gate.url}/api/tags`, { headers });
		return { status: response.status, text: await response.text() };
	};
	t.equal((await call(bearer(testKeys.reader))).status, 200);
	t.match(await gate.logged(({ key }) => key === "reader"), {
		node: "laptop",
		userBy: "login",
	});
	const { status, text } = await call();
	t.equal(status, 401, "from loopback nobody is let in by login");
	t.match(text, /a tailscaled without a tunnel device brings every peer/);
	t.notOk(JSON.stringify(gate.log).includes("example.com"));
});

t.test(
	"a tailscaled with which login lets nobody in is told of in the log and by check",
	async (t) => {
		const api = await startLocalApi(t);
		api.status = { ...runningStatus(), TUN: false };
		const identity = {
			mode: "login",
			socket: api.socket,
			rules: [{ users: [me] }],
		};
		const gate = await startGate(t, { config: { identity } });
		t.match(await gate.logged(({ event }) => event === "login_useless"), {
			level: "warn",
			why: /no tunnel device/,
		});
		const check = async () =>
			(await runCli(["check", "--config", gate.configFile])).stdout;
		t.match(await check(), /look {2}login: tailscaled has no tunnel device/);
		api.status = runningStatus();
		t.match(
			await check(),
			/ok {4}login: no key is needed on the devices of me@example\.com \(read, infer\)/,
		);
	},
);

t.test("doctor says what login opens", async (t) => {
	const api: LocalApi = await startLocalApi(t);
	const peer = (name: string, userId: number, tags?: string[]) => ({
		...(runningStatus().Self as object),
		DNSName: `${name}.tail1234.ts.net.`,
		UserID: userId,
		...(tags && { Tags: tags }),
	});
	const whole = {
		...runningStatus(),
		Peer: {
			a: peer("laptop", 1),
			b: peer("phone", 1),
			c: peer("ci", 1, ["tag:ci"]),
			d: peer("eves", 2),
			e: { ...peer("x", 1), DNSName: "theirs.tail9.ts.net." },
			f: { ...peer("y", 1), DNSName: "", ShareeNode: true },
			g: { ...peer("guest", 1), ShareeNode: true },
			h: { ...peer("lent", 1), AltSharerUserID: 2 },
		},
		User: {
			1867405394827163: { LoginName: me },
			1: { LoginName: me },
			2: { LoginName: "eve@example.com" },
		},
	};
	const judged = async (
		rules: readonly LoginRule[],
		status: object = whole,
		...origins: string[]
	) => {
		api.status = { ...status };
		const whois = createWhois({ socket: api.socket });
		return judgeLogins(
			identityOf(rules),
			await whois.status(),
			await whois.nodes(),
			new Set(origins),
		);
	};
	t.match(await judged([{ users: [me] }], whole, "https://chat.example"), {
		state: "ok",
		evidence: [
			/needs no key on laptop, phone/,
			"nor do pages of https://chat.example in a browser there (cors.origins)",
		],
	});
	t.match(await judged([{ users: [me] }]), {
		state: "ok",
		evidence: [
			`${me} needs no key on laptop, phone, nor does any program there: read, infer`,
		],
	});
	t.match(await judged([{ users: [me], scopes: ["read", "manage"] }]), {
		state: "finding",
		evidence: [/read, manage without a key/, /needs no key/],
	});
	t.match(await judged([{ users: ["*@example.com"] }]), {
		state: "finding",
		evidence: [/everybody of that domain/, /^me@/, /^eve@.* on eves/],
	});
	t.match(await judged([{ users: ["nobody@example.com"] }]), {
		state: "ok",
		evidence: [/no device of the tailnet fits/],
	});
	t.match(await judged([{ users: [me] }], { ...whole, TUN: false }), {
		state: "finding",
		evidence: [/no tunnel device/],
	});
	api.misbehave = () => "denied";
	t.match(await judged([{ users: [me] }]), { state: "unknown" });
});
