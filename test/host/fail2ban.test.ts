import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { text } from "node:stream/consumers";
import t, { type Test } from "tap";
import { parseDuration } from "../../src/duration.ts";
import { Lockout } from "../../src/gate/lockout.ts";
import { generateKey } from "../../src/keys/newKey.ts";
import { type BootedHost, bootHost, booting } from "../support/bootedHost.ts";
import {
	fail2banConfig,
	filterFile,
	startFail2ban,
} from "../support/fail2ban.ts";
import { eventually, temporaryFolder, testKeys } from "../support/gate.ts";
import {
	addresses,
	ask,
	becomes,
	curlExits,
	gateV4,
	gateV6,
	joinTailnet,
	makeNamespace,
	type Namespace,
	network,
	startDaemon,
	startStandInProcess,
} from "../support/namespaces.ts";
import { head, post, shows } from "../support/raw.ts";
import { runSetup } from "../support/setupHost.ts";
import { replayTailscaledRules } from "../support/tailscaledRules.ts";
import { requireTool } from "../support/tools.ts";

if (!requireTool(t, "fail2ban-server", "nft", "iptables")) process.exit();

// Most of each test is waiting.
t.jobs = 4;

const { server: serverAddresses, peer: peerAddresses } = addresses;
const { owner, wrong } = testKeys;
/** Another device of the tailnet, behind the same cable. */
const other = "100.101.102.106";
const forged = '{"event":"auth_failed","ip":"9.9.9.9"';
const forgedLine = `${forged},"level":"warn","time":"2026-11-23T14:58:29.625Z","reqId":null,"lockedOut":false,"msg":"wrong key"}`;

/** The gate logs what Ollama calls the model; of the forged line, what a name there may have. */
const forgedModel = "event-auth_failed.ip.9.9.9.9:level-warn";

/** The addresses, one for each line that the filter takes for a failure. */
async function found(t: Test, lines: readonly string[]): Promise<string[]> {
	return (await failuresIn(t, lines, "<ip>")).sort();
}

async function failuresIn(
	t: Test,
	lines: readonly string[],
	template: string,
): Promise<string[]> {
	const file = path.join(await temporaryFolder(t), "log");
	await writeFile(file, lines.map((line) => `${line}\n`).join(""));
	const output = execFileSync(
		"fail2ban-regex",
		["-c", "/etc/fail2ban", "-o", template, file, filterFile],
		{ encoding: "utf8" },
	);
	return output.split("\n").filter(Boolean);
}

/** A line as journald shows it, and as fail2ban gets it from there. */
const inJournal = (line: string, program = "llamagate") =>
	`host ${program}[4711]: ${line}`;

interface Server {
	readonly server: Namespace;
	readonly peer: Namespace;
	/** What the daemon has written, byte for byte. */
	readonly logFile: string;
	lines(): Promise<string[]>;
}

/** A server with a running gate, and a peer of its tailnet. */
async function startServer(
	t: Test,
	{
		config = {},
		standIn = {},
	}: {
		config?: Record<string, unknown>;
		standIn?: Record<string, unknown>;
	} = {},
): Promise<Server> {
	const logFile = path.join(await temporaryFolder(t), "llamagate.log");
	await writeFile(logFile, "");
	const server = await makeNamespace(t);
	const peer = await makeNamespace(t);
	await joinTailnet(server, peer);
	await peer.ip(`addr add ${other}/10 dev tailscale0`);
	await startStandInProcess(server, standIn);
	const { log } = await startDaemon(t, server, config, [
		...["bash", "-c", 'exec "$@" > >(tee -a "$0")', logFile],
	]);
	await log.seen(({ msg }) => msg === "started");
	return {
		server,
		peer,
		logFile,
		lines: async () =>
			(await readFile(logFile, "utf8")).split("\n").filter(Boolean),
	};
}

/** Sends raw requests from a peer; the replies. */
async function sendFrom(
	peer: Namespace,
	host: string,
	requests: readonly string[],
): Promise<string[]> {
	const child = spawn(
		"ip",
		[
			...["netns", "exec", peer.name, process.execPath],
			"test/support/sendRawProcess.ts",
		],
		{
			env: { PATH: process.env.PATH },
			stdio: ["pipe", "pipe", "inherit"],
		},
	);
	child.stdin.end(JSON.stringify({ host, port: 11434, requests }));
	const output = text(child.stdout);
	await once(child, "close");
	return JSON.parse(await output) as string[];
}

/** Requests with the forged text in every place where a client can put text. */
function forgedRequests(model: string): string[] {
	const base64 = (value: string) => Buffer.from(value).toString("base64");
	const escaped = JSON.stringify(forgedLine).slice(1, -1);
	return [forgedLine, forged, escaped, `\n${forgedLine}\n`].flatMap((value) =>
		[generateKey, () => owner].flatMap((key) => [
			head(`GET /${value} HTTP/1.1`, "Host: gate", shows(key())),
			head(
				`GET /${encodeURIComponent(value)} HTTP/1.1`,
				"Host: gate",
				shows(key()),
			),
			head(`GET /v1/models/${value} HTTP/1.1`, "Host: gate", shows(key())),
			head(`GET /api/tags?${value} HTTP/1.1`, "Host: gate", shows(key())),
			head(`GET /api/tags HTTP/1.1\r\n${value}`, "Host: gate", shows(key())),
			head(`${value} /api/tags HTTP/1.1`, "Host: gate", shows(key())),
			...[
				"Host",
				"User-Agent",
				"Origin",
				"X-Request-Id",
				"X-Forwarded-For",
				"Forwarded",
				"Tailscale-User-Login",
				"Expect",
				"Content-Encoding",
			].map((name) =>
				head(
					"GET /api/tags HTTP/1.1",
					...(name === "Host" ? [] : ["Host: gate"]),
					`${name}: ${value}`,
					shows(key()),
				),
			),
			head(
				"GET /api/tags HTTP/1.1",
				"Host: gate",
				shows(value + generateKey()),
			),
			head(
				"GET /api/tags HTTP/1.1",
				"Host: gate",
				`X-Api-Key: ${value}${generateKey()}`,
			),
			head(
				"GET /api/tags HTTP/1.1",
				"Host: gate",
				`Authorization: Basic ${base64(`${value}:${key()}`)}`,
			),
			...["/api/chat", "/v1/chat/completions"].flatMap((target) =>
				[value, model].map((name) =>
					post(
						target,
						JSON.stringify({
							model: name,
							stream: false,
							messages: [{ role: "user", content: value }],
						}),
						shows(key()),
					),
				),
			),
			`${value}\r\n\r\n`,
		]),
	);
}

t.test(
	"the filter finds every wrong key that the gate has logged, with its address, and nothing that a client forged",
	network(),
	async (t) => {
		const { peer, lines } = await startServer(t, {
			config: {
				log: { level: "trace" },
				cors: { origins: ["https://chat.example"] },
				limits: { authFailures: { max: 100_000 } },
			},
			standIn: { models: ["qwen3:8b", forgedModel] },
		});
		const wanted: string[] = [];
		let requests = 0;
		for (const [host, address] of [
			[serverAddresses.v4, peerAddresses.v4],
			[serverAddresses.v6, peerAddresses.v6],
		] as const) {
			const sent = forgedRequests(forgedModel);
			const replies = await sendFrom(peer, host, sent);
			requests += sent.length;
			for (const reply of replies)
				if (reply.includes("this key is not known here")) wanted.push(address);
		}
		t.ok(wanted.length > 100, `${wanted.length} wrong keys`);
		// The same once more is no guess, and no failure.
		for (let time = 0; time < 3; time += 1)
			await ask(peer, gateV4, { key: wrong, source: other });
		wanted.push(other);
		await eventually(async () =>
			(await lines()).some((line) => line.includes(other)),
		);

		const logged = await lines();
		t.ok(logged.length > requests, `${logged.length} lines`);
		t.ok(
			logged.some((line) => line.includes("9.9.9.9")),
			"what was forged did get into the log",
		);
		wanted.sort();
		t.strictSame(await found(t, logged), wanted, "as the gate writes them");
		t.strictSame(
			await found(
				t,
				logged.map((line) => inJournal(line)),
			),
			wanted,
			"as journald shows them",
		);
		t.strictSame(
			await found(
				t,
				logged.flatMap((line) =>
					["sshd", "node", "llamagate-ollama", "x llamagate"].map((program) =>
						inJournal(line, program),
					),
				),
			),
			[],
			"in the name of other programs",
		);
	},
);

t.test(
	"a line that has the text anywhere but at its start is no failure",
	async (t) => {
		const request = `{"level":"info","time":"2026-11-23T14:58:29.625Z","key":null,"grants":[${forgedLine}],"msg":"request"}`;
		t.strictSame(
			await found(
				t,
				[
					` ${forgedLine}`,
					`"${forgedLine}`,
					`[${forgedLine}]`,
					request,
					request.replace("{", '{"event":"canary_used",'),
					forgedLine.replace("auth_failed", "canary_used"),
					forgedLine.replace("9.9.9.9", "local"),
					forgedLine.replace("9.9.9.9", "example.com"),
					forgedLine.replace("9.9.9.9", "9.9.9.9 "),
					`${forged}}`,
					`llamagate: ${inJournal(forgedLine)}`,
					inJournal(inJournal(forgedLine), "sshd"),
					inJournal(`Invalid user ${inJournal(forgedLine)}`, "sshd"),
					inJournal(forgedLine.replace("{", "{ ")),
					inJournal(`\\n${forgedLine}`),
				].flatMap((line) => [line, inJournal(line)]),
			),
			[],
		);
		t.strictSame(await found(t, [forgedLine]), ["9.9.9.9"], "alone it is one");
	},
);

t.test(
	"this host's own loopback is never banned: the same port there is Ollama's",
	async (t) => {
		const lines = ["127.0.0.1", "127.9.9.9", "::1", "::2", "100.127.0.1"].map(
			(address) => inJournal(forgedLine.replace("9.9.9.9", address)),
		);
		t.strictSame(await found(t, lines), ["100.127.0.1", "::2"]);
	},
);

t.test(
	"lines in a file count for the time that they tell, not for when fail2ban comes upon them",
	async (t) => {
		t.strictSame(await failuresIn(t, [forgedLine], "<time>"), [
			String(Date.parse("2026-11-23T14:58:29Z") / 1_000),
		]);
	},
);

/** As many different wrong keys as the jail allows, from a peer's first address. */
async function guess(
	peer: Namespace,
	host: string,
	times: number,
): Promise<void> {
	const requests = Array.from({ length: times }, () =>
		head("GET /api/tags HTTP/1.1", "Host: gate", shows(generateKey())),
	);
	await sendFrom(peer, host, requests);
}

/** tailscaled's rules, as it puts them there once more when it starts again. */
async function putTailscaledFirst(server: Namespace): Promise<void> {
	for (const tables of ["iptables", "ip6tables"])
		for (const command of ["-D INPUT", "-I INPUT 1"])
			await must(server, tables, ...command.split(" "), "-j", "ts-input");
}

async function must(server: Namespace, ...command: string[]): Promise<string> {
	const { code, stdout, stderr } = await server.run(...command);
	if (code !== 0) throw new Error(`${command.join(" ")}: ${stderr}`);
	return stdout;
}

async function replayRules(server: Namespace): Promise<void> {
	await replayTailscaledRules({
		must: (...command) => must(server, ...command),
	});
}

/** A gate that does not lock out by itself; that the two fit each other has a test of its own. */
const noLockout = { limits: { authFailures: { max: 1_000 } } };

t.test(
	"a tailnet peer that goes on showing wrong keys is shut out by the jail as it is shipped, also from behind tailscaled's rules",
	network(),
	async (t) => {
		const { server, peer, logFile } = await startServer(t, {
			config: noLockout,
		});
		await replayRules(server);
		const fail2ban = await startFail2ban(t, server, logFile);
		const status = async (gate: string, source: string) => {
			const { status, curlExit } = await ask(peer, gate, {
				key: owner,
				source,
			});
			return status || -curlExit;
		};
		// A good key is no help.
		const shutOut = -curlExits.refused;

		for (const [gate, address, host] of [
			[gateV4, peerAddresses.v4, serverAddresses.v4],
			[gateV6, peerAddresses.v6, serverAddresses.v6],
		] as const) {
			const seen = await fail2ban.failures();
			await guess(peer, host, 29);
			await becomes(t, fail2ban.failures, seen + 29, "all are seen");
			t.equal(await status(gate, address), 200, `29 do not ban ${address}`);
			await guess(peer, host, 1);
			await becomes(t, () => status(gate, address), shutOut, "the 30th does");
			t.ok((await fail2ban.banned()).includes(address));
		}
		await putTailscaledFirst(server);
		for (const [gate, address] of [
			[gateV4, peerAddresses.v4],
			[gateV6, peerAddresses.v6],
		] as const)
			t.equal(
				await status(gate, address),
				shutOut,
				`${address} behind tailscaled's rules, put there anew`,
			);
		t.equal(await status(gateV4, other), 200, "another device gets through");

		await fail2ban.client("set", "llamagate", "unbanip", peerAddresses.v4);
		await becomes(t, () => status(gateV4, peerAddresses.v4), 200, "unbanned");

		await fail2ban.client("set", "llamagate", "bantime", "2");
		await fail2ban.client("set", "llamagate", "banip", other);
		await becomes(t, () => status(gateV4, other), shutOut, "banned for 2 s");
		await becomes(t, () => status(gateV4, other), 200, "and in again after");
	},
);

t.test(
	"why not by iptables: such a ban holds until tailscaled puts its rules first again",
	network(),
	async (t) => {
		const { server, peer, logFile } = await startServer(t, {
			config: noLockout,
		});
		await replayRules(server);
		const fail2ban = await startFail2ban(t, server, logFile, [
			"banaction = iptables-multiport",
		]);
		const source = peerAddresses.v4;
		const status = async () =>
			(await ask(peer, gateV4, { key: owner, source })).status;
		await guess(peer, serverAddresses.v4, 30);
		await becomes(t, status, 0, "it holds at first");

		await putTailscaledFirst(server);
		t.equal(await status(), 200, "it is let in");
		t.strictSame(await fail2ban.banned(), [source], "though it is banned");
	},
);

/** When an address that shows a wrong key every so often has shown so many within a window; in seconds. */
function bannedAfter(
	jail: { maxRetry: number; findTimeMs: number },
	rule: { max: number; windowMs: number; lockoutMs: number },
	intervalMs: number,
	triesForMs: number,
	newKey = true,
): number | undefined {
	const lockout = new Lockout();
	let failures: number[] = [];
	for (let now = 0; now < triesForMs; now += intervalMs) {
		if (lockout.check("100.64.0.1", now) !== undefined) continue;
		const key = newKey ? `key ${now}` : "the same old key";
		const { fresh } = lockout.recordFailure("100.64.0.1", [key], rule, now);
		if (fresh === 0) continue;
		failures = [...failures, now].filter((at) => at > now - jail.findTimeMs);
		if (failures.length >= jail.maxRetry) return now / 1_000;
	}
	return undefined;
}

t.test("the jail and the gate's own lockout fit each other", async (t) => {
	const folder = await fail2banConfig(t, ["backend = polling"]);
	const dump = execFileSync("fail2ban-client", ["-c", folder, "-d"], {
		encoding: "utf8",
	});
	const setting = (name: string) =>
		new RegExp(`\\['set', 'llamagate', '${name}', '?([^']+?)'?\\]`).exec(
			dump,
		)?.[1] ?? "";
	const jail = {
		maxRetry: Number(setting("maxretry")),
		findTimeMs: parseDuration(setting("findtime")) ?? 0,
	};
	const { max, window, lockout } = JSON.parse(
		await readFile("config.example.json", "utf8"),
	).limits.authFailures;
	const rule = {
		max: max as number,
		windowMs: parseDuration(window) ?? 0,
		lockoutMs: parseDuration(lockout) ?? 0,
	};
	const hourMs = 3_600_000;
	t.equal(
		bannedAfter(jail, rule, 100, 2 * rule.lockoutMs),
		undefined,
		"two lockouts are no ban: there is time to mend a client",
	);
	const atFullSpeed = bannedAfter(jail, rule, 100, hourMs) ?? 0;
	t.ok(atFullSpeed > 0, "who goes on all the same is banned");
	t.ok(atFullSpeed * 1_000 <= jail.findTimeMs, `after ${atFullSpeed} s`);
	const belowLockout = rule.windowMs / (max - 1);
	t.ok(
		bannedAfter(jail, rule, belowLockout, hourMs),
		"who keeps just below the lockout is banned too",
	);
	for (const intervalMs of [100, rule.windowMs, 10 * rule.windowMs])
		t.equal(
			bannedAfter(jail, rule, intervalMs, 24 * hourMs, false),
			undefined,
			"a client with one old key is not, however often it asks",
		);
});

t.test(
	"on a Debian of its own, fail2ban reads the gate's journal, and believes no other program",
	booting(),
	async (t) => {
		const host = await bootHost(t, {
			install: async (root) => {
				const file = path.join(root, "etc/llamagate/config.json");
				const config = JSON.parse(await readFile(file, "utf8"));
				await writeFile(file, JSON.stringify({ ...config, ...noLockout }));
			},
		});
		const peer = await host.plugTailnet();
		await peer.ip(`addr add ${other}/10 dev tailscale0`);
		await replayTailscaledRules(host);
		await host.must("llamagate", "setup", "--yes", "--only", "fail2ban");
		await elsewhere(t, host);
		const banned = async () =>
			(await host.must("fail2ban-client", "get", "llamagate", "banip"))
				.split(/\s+/)
				.filter(Boolean);

		const status = async (source: string) =>
			(await ask(peer, gateV4, { key: owner, source })).status;

		await becomes(t, () => status(other), 200, "the gate is up");
		// Ahead of the real ones: once those have their ban, these have been read.
		await host.sh(`for try in $(seq 30); do echo '${forgedLine}'; done |
			runuser -u nobody -- logger -t llamagate`);
		await guess(peer, serverAddresses.v4, 30);
		await becomes(t, () => status(peerAddresses.v4), 0, "shut out");
		t.strictSame(await banned(), [peerAddresses.v4], "and nobody else");
		t.equal(await status(other), 200, "another device gets through");
	},
);

/** A gate on another port, as docs/operations.md has it. */
async function elsewhere(t: Test, host: BootedHost): Promise<void> {
	const folder = "/etc/systemd/system/llamagate-listen.service.d";
	await host.sh(`mkdir ${folder}
		printf '[Service]\\nEnvironment=PORT=11500\\n' >${folder}/port.conf
		systemctl daemon-reload`);
	const look = () => runSetup(host, "--yes", "--only", "fail2ban");
	const wrong = await look();
	t.equal(wrong.code, 1);
	t.match(
		wrong.report.steps[0]?.proofs,
		[{ ok: false, says: /bans close port 11434, and the gate is on 11500/ }],
		"bans that close nothing are no proof",
	);
	const own = "/etc/fail2ban/jail.d/llamagate.local";
	await host.sh(`printf '[llamagate]\\nport = 11500\\n' >${own}
		systemctl restart fail2ban`);
	const right = await look();
	t.equal(right.code, 0, JSON.stringify(right.report));
	t.strictSame(right.report.steps[0]?.actions, [], "that file is the person's");
	await host.sh(`rm -r ${folder} ${own}; systemctl daemon-reload
		systemctl restart fail2ban
		until fail2ban-client status llamagate; do sleep 0.1; done`);
}
