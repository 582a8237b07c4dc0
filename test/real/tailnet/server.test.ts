import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { isDeepStrictEqual } from "node:util";
import t, { type Test } from "tap";
import type { BootedHost } from "../../support/bootedHost.ts";
import {
	comesOut,
	evidenceOf,
	examine,
	statesOf,
} from "../../support/doctor.ts";
import type { LogLine } from "../../support/gate.ts";
import {
	ask,
	becomes,
	linesOf,
	type Namespace,
} from "../../support/namespaces.ts";
import {
	installSshKey,
	probePort,
	runSetup,
	statesOf as stepsOf,
} from "../../support/setupHost.ts";
import { bootServer } from "./server.ts";
import { recordTailnet, startTailnet } from "./tailnet.ts";

// One server, as people have it: Debian, systemd, udev, a real tailscaled, and
// llamagate set up by its own command. The stand-in plays Ollama.

const main = path.join(import.meta.dirname, "../../../src/main.ts");
/** Its name in the tailnet. */
const name = "server.tailnet.example";

t.test("a Debian that is joined to a tailnet and set up", async (t) => {
	const tailnet = await startTailnet(t);
	const [server, laptop, phone, tablet, box] = await Promise.all([
		bootServer(t, tailnet),
		tailnet.device("laptop", { owner: "alice" }),
		tailnet.device("phone", { owner: "bob" }),
		tailnet.device("tablet", { owner: "carol" }),
		tailnet.device("box", { owner: "tag:client" }),
	]);
	const devices = [laptop, phone, tablet, box];
	const { host } = server;
	const [v4, v6] = await server.addresses();
	const gate = `${v4}:11434`;
	await installSshKey(host);
	/** Adds a key, with options, and gives it back. */
	const addKey = async (...args: string[]) =>
		(
			JSON.parse(
				await host.must("llamagate", "keys", "add", ...args, "--json"),
			) as { key: string }
		).key;

	let key = "";
	await t.test(
		"setup locks it in one go, and has nothing to do then",
		async (t) => {
			const { code, report } = await runSetup(host, "--yes");
			t.equal(code, 0, JSON.stringify(report));
			key = report.key ?? "";
			t.match(stepsOf(report), { gate: "changed", tailscale: "done" });
			const again = await runSetup(host, "--dry-run");
			t.strictSame(
				stepsOf(again.report),
				{
					...{ account: "done", ollama: "done", bridges: "absent" },
					...{ gate: "done", ufw: "done" },
					...{ tailscale: "done", "open-webui": "absent" },
					...{ sshd: "done", fail2ban: "done" },
				},
				"a second run changes nothing",
			);
		},
	);

	await t.test(
		"each peer is asked for a key, over both families",
		async (t) => {
			for (const { name, network } of devices)
				for (const at of [gate, `[${v6}]:11434`]) {
					t.equal((await ask(network, at)).status, 401, `${name}: ${at}`);
					t.equal((await ask(network, at, { key })).status, 200, name);
				}
		},
	);

	await t.test("doctor finds nothing to mend", async (t) => {
		const found = await examine(host, []);
		const states = Object.entries(statesOf(found));
		t.strictSame(
			states.filter(([, state]) =>
				["critical", "high", "warn"].includes(state),
			),
			[],
		);
		t.strictSame(
			Object.fromEntries(
				states.filter(
					([id, state]) => /^(tailscale|gate)\./.test(id) && state !== "ok",
				),
			),
			{
				// It has no key to try.
				"gate.key": "unknown",
				"gate.canary": "absent",
				// Nobody has asked for one.
				"gate.ledger": "absent",
				"gate.alarms": "absent",
				"gate.hosts": "absent",
				"gate.hosts-bare": "absent",
				"gate.hosts-limits": "absent",
				"gate.state": "absent",
				"gate.valkey": "absent",
				"gate.bridges": "absent",
				"gate.certificate": "absent",
				// A tagged device's does not expire with this control server.
				"tailscale.key-expiry": "info",
			},
		);
	});

	await t.test("probe finds nothing from a peer", async (t) => {
		const { code, stdout, stderr } = await laptop.network.run(
			...[
				"env",
				`LLAMAGATE_KEY=${key}`,
				process.execPath,
				main,
				"probe",
				v4,
				"--json",
			],
		);
		t.equal(code, 0, stdout + stderr);
		t.match(stdout, /"by Tailscale"/, "and knows the way as Tailscale's");
	});

	await t.test(
		"a key that is bound is let in from its device alone",
		async (t) => {
			await setIdentity(host, "require");
			const bound = {
				"the node laptop": [await addKey("node", "--bind", "laptop"), laptop],
				"alice by her e-mail": [
					await addKey("alice", "--bind", "alice@example.com"),
					laptop,
				],
				"bob by his e-mail": [
					await addKey("bob", "--bind", "bob@example.com"),
					phone,
				],
				"carol, who has no e-mail": [
					await addKey("carol", "--bind", "carol@"),
					tablet,
				],
				"the tag": [await addKey("tag", "--bind", "tag:client"), box],
				"the whole name": [
					await addKey("fqdn", "--bind", "phone.tailnet.example"),
					phone,
				],
			} as const;
			for (const [bind, [bindKey, owner]] of Object.entries(bound))
				for (const device of devices)
					t.equal(
						(await ask(device.network, gate, { key: bindKey })).status,
						device === owner ? 200 : 403,
						`${bind}: ${device.name}`,
					);
			await hasLogged(t, host, {
				...{ key: "fqdn", node: "box", user: null, tags: ["tag:client"] },
				reason: "identity",
			});
			await ask(tablet.network, gate, { key });
			await hasLogged(t, host, {
				node: "tablet",
				user: "carol",
				tags: [],
			});
			await ask(laptop.network, `[${v6}]:11434`, { key });
			await hasLogged(t, host, {
				...{ node: "laptop", user: "alice@example.com", tags: [] },
				ip: laptop.v6,
			});
		},
	);

	await t.test("whose device a rule names needs no key", async (t) => {
		await setIdentity(host, "login", [
			{ users: ["alice@example.com"] },
			{ users: ["carol@"], scopes: ["read"] },
		]);
		for (const at of [gate, `[${v6}]:11434`])
			for (const device of devices)
				t.equal(
					(await ask(device.network, at)).status,
					device === laptop || device === tablet ? 200 : 401,
					`${device.name}: ${at}`,
				);
		for (const [host, status] of [
			[name, 200],
			["server", 200],
			["evil.example", 401],
		] as const) {
			const { stderr } = await laptop.network.run(
				...["curl", "-s", "-w", "%{stderr}%{http_code}"],
				...["-H", `Host: ${host}:11434`, `http://${gate}/api/tags`],
			);
			t.equal(stderr, String(status), host);
		}
		t.equal((await ask(phone.network, gate, { key })).status, 200, "by key");
		const guess = { key: "0".repeat(64) };
		t.equal((await ask(laptop.network, gate, guess)).status, 401);
		const own = await host.run("curl", "-sS", `http://${gate}/api/tags`);
		t.match(own.stdout, /a key is needed/, "the server itself");
		await hasLogged(t, host, {
			...{ key: "(login)", node: "laptop", userBy: "login", ip: laptop.v6 },
		});
		const found = await examine(host, ["gate.logins"]);
		t.match(statesOf(found), { "gate.logins": "ok" });
		t.match(
			evidenceOf(found, "gate.logins"),
			/alice@example\.com needs no key on laptop/,
		);
		await setIdentity(host, "require");
		t.equal((await ask(laptop.network, gate)).status, 401);
	});

	await t.test("behind Serve, as docs/https.md has it", async (t) => {
		await host.must(
			"tailscale",
			"serve",
			"--bg",
			"--http=80",
			`http://${gate}`,
		);
		const overServe = (from: Namespace, ...more: readonly string[]) =>
			overName(from, v4, ...more);
		await becomes(
			t,
			async () => (await overServe(laptop.network)).status,
			401,
			"a key is asked for",
		);

		await t.test("every client is the server itself to the gate", async (t) => {
			const { status } = await overServe(laptop.network, ...bearer(key));
			t.equal(
				status,
				200,
				"an unbound key is let in, where a device is required",
			);
			await hasLogged(t, host, {
				...{ key: "first", node: "server", user: null, tags: ["tag:gpu"] },
				ip: v4,
			});
		});

		await t.test(
			"what Serve and clients write in headers is not believed",
			async (t) => {
				const alice = await addKey("alice2", "--bind", "alice@example.com");
				for (const more of [
					[],
					["--header", "Tailscale-User-Login: alice@example.com"],
					["--header", `X-Forwarded-For: ${laptop.v4}`],
				]) {
					const { status } = await overServe(
						...([laptop.network, ...bearer(alice), ...more] as const),
					);
					t.equal(status, 403, `her key is refused over Serve: ${more}`);
				}
				const forged = await phone.network.run(
					...["curl", "--silent", "--write-out", "%{stderr}%{http_code}"],
					...bearer(alice),
					...["--header", "Tailscale-User-Login: alice@example.com"],
					...["--header", `X-Forwarded-For: ${laptop.v4}`],
					`http://${gate}/api/tags`,
				);
				t.equal(forged.stderr, "403", "and from bob's phone without Serve");
			},
		);

		await t.test(
			"a key that is bound to the server is let in from anywhere",
			async (t) => {
				const own = await addKey("own", "--bind", "server");
				t.equal((await ask(phone.network, gate, { key: own })).status, 403);
				const { status } = await overServe(phone.network, ...bearer(own));
				t.equal(status, 200);
			},
		);

		await t.test(
			"a stream comes line by line, and ends when its client leaves",
			async (t) => {
				const child = laptop.network.start(
					...[
						"curl",
						"--silent",
						"--no-buffer",
						...resolved(v4),
						...bearer(key),
					],
					...[
						"--data",
						'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}],"options":{"num_predict":100000}}',
					],
					`http://${name}/api/chat`,
				);
				await linesOf(child, String).seen((_, index) => index === 3);
				child.kill();
				await becomes(
					t,
					async () =>
						(await host.journal("ollama")).some((line) =>
							line.includes('"abort":"POST /api/chat"'),
						),
					true,
					"Ollama is told",
				);
			},
		);

		await t.test(
			"one client's wrong keys lock all out that come this way, and no others",
			async (t) => {
				for (let number = 10; number < 20; number++)
					await overServe(
						laptop.network,
						...bearer(`lg_${String(number).repeat(32)}`),
					);
				const locked = await overServe(phone.network, ...bearer(key));
				t.equal(locked.status, 429);
				t.equal((await ask(phone.network, gate, { key })).status, 200);
				await host.must("llamagate", "unlock", v4);
				const { status } = await overServe(phone.network, ...bearer(key));
				t.equal(status, 200, "until that is lifted");
			},
		);

		await t.test("by its address Serve does not answer", async (t) => {
			const { status } = await ask(laptop.network, `${v4}:80`, { key });
			t.equal(status, 404);
		});

		await t.test(
			"doctor tells the gate behind Serve from Ollama behind it",
			async (t) => {
				await comesOut(t, host, { "tailscale.serve": "ok" }, "the gate");
				await host.must(
					...[
						"tailscale",
						"serve",
						"--bg",
						"--http=81",
						"http://127.0.0.1:11434",
					],
				);
				const found = await examine(host, ["tailscale.serve"]);
				t.match(statesOf(found), { "tailscale.serve": "critical" });
				t.match(evidenceOf(found, "tailscale.serve"), /Ollama, without a key/);
				await host.must("tailscale", "serve", "--http=81", "off");
				await host.must(
					...[
						"tailscale",
						"serve",
						"--bg",
						"--http=11434",
						`http://127.0.0.1:1`,
					],
				);
				await comesOut(
					t,
					host,
					{ "tailscale.serve": "critical" },
					"in its place",
				);
				await host.must("tailscale", "serve", "reset");
				await comesOut(t, host, { "tailscale.serve": "ok" }, "nothing served");
			},
		);
		await t.test("there is no certificate to be had", async (t) => {
			const { code } = await host.run(
				...["timeout", "20", "tailscale", "cert", name],
			);
			t.not(code, 0);
		});
	});

	await t.test(
		"with its shields up no peer gets in, and doctor says so",
		async (t) => {
			await host.must("tailscale", "set", "--shields-up=true");
			await becomes(
				t,
				() => probePort(laptop.network, v4, 11434),
				"filtered",
				"it is not heard",
			);
			await comesOut(t, host, { "tailscale.shields-up": "high" }, "doctor");
			const { stdout } = await laptop.tailscale(
				...["ping", "--c=1", "--timeout=5s", v4],
			);
			t.match(stdout, /^pong/, "and yet it answers tailscale ping");
			await host.must("tailscale", "set", "--shields-up=false");
			await becomes(
				t,
				async () => (await ask(laptop.network, gate, { key })).status,
				200,
				"and then it is",
			);
		},
	);

	if (t.passing())
		recordTailnet("a server that is set up", {
			ran: [
				"setup, doctor and probe on a booted Debian",
				"identity by node, person and tag",
				"a device's login in place of a key",
				"Serve over HTTP, with forged headers, a stream and a lockout",
				"shields up",
			],
			differs: [
				"A person without an e-mail address is written with an @ behind the name in a key's bind.",
				"Behind Serve every client is the server itself to the gate.",
			],
		});
});

/** Sets `identity.mode`, and has it in force. */
async function setIdentity(
	host: BootedHost,
	mode: string,
	rules: readonly object[] = [],
): Promise<void> {
	const file = path.join(host.root, "etc/llamagate/config.json");
	const config = JSON.parse(await readFile(file, "utf8")) as object;
	const identity = { mode, rules };
	await writeFile(file, JSON.stringify({ ...config, identity }));
	await host.must("llamagate", "reload");
}

/** Waits until the gate has logged such a request: it does so once the reply is on its way. */
function hasLogged(t: Test, host: BootedHost, wanted: LogLine): Promise<void> {
	return becomes(
		t,
		async () =>
			(await host.journal("llamagate.service"))
				.filter((line) => line.includes('"msg":"request"'))
				.map((line) => JSON.parse(line) as LogLine)
				.some((line) =>
					Object.entries(wanted).every(([name, value]) =>
						isDeepStrictEqual(line[name], value),
					),
				),
		true,
		`logged: ${JSON.stringify(wanted)}`,
	);
}

function bearer(key: string): string[] {
	return ["--header", `Authorization: Bearer ${key}`];
}

function resolved(address: string): string[] {
	return ["--resolve", `${name}:80:${address}`];
}

/** Asks for the list of models by the server's name. */
async function overName(
	from: Namespace,
	address: string,
	...more: readonly string[]
): Promise<{ status: number; body: string }> {
	const { stdout, stderr } = await from.run(
		...["curl", "--silent", "--max-time", "30", ...resolved(address), ...more],
		...["--write-out", "%{stderr}%{http_code}", `http://${name}/api/tags`],
	);
	return { status: Number(stderr), body: stdout };
}
