import t, { type Test } from "tap";
import { judgeNetfilter } from "../../src/host/tailscale/checks.ts";
import { judgeServe } from "../../src/host/tailscale/served.ts";
import {
	judgeKeyExpiry,
	judgeState,
	judgeVersion,
} from "../../src/host/tailscale/status.ts";
import { otherControlServer } from "../../src/host/tailscale/step.ts";
import {
	guardedBehind,
	readServeConfig,
} from "../../src/tailscale/serveConfig.ts";
import { type BootedHost, bootHost, booting } from "../support/bootedHost.ts";
import { follow, lookAt, runDoctor, stateOf } from "../support/doctor.ts";
import {
	stateFile,
	type TailscaleState,
} from "../support/hostStandIns/tailscaleState.ts";
import { replayTailscaledRules } from "../support/tailscaledRules.ts";

/** Has the stand-in for tailscaled say something else from now on. */
async function say(
	host: BootedHost,
	says: Pick<TailscaleState, "status" | "self">,
): Promise<void> {
	const state = JSON.parse(await host.read(stateFile)) as TailscaleState;
	const { status: _, self: __, ...rest } = state;
	await host.write(stateFile, JSON.stringify({ ...rest, ...says }));
}

/** Sees a check go from `ok` to a finding of that severity and back. */
async function seesFault(
	t: Test,
	host: BootedHost,
	{
		id,
		severity,
		evidence,
		make,
		mend,
	}: {
		readonly id: string;
		readonly severity: string;
		readonly evidence: RegExp;
		readonly make: () => Promise<unknown>;
		/** By default what doctor says is to be done. */
		readonly mend?: () => Promise<unknown>;
	},
): Promise<void> {
	await make();
	const found = await lookAt(host, id);
	t.equal(found.state, severity, `${id}: ${found.evidence}`);
	t.match(found.evidence, evidence);
	await (mend?.() ?? follow(host, found.fix));
	const mended = await lookAt(host, id);
	t.equal(mended.state, "ok", `${id} mended: ${mended.evidence}`);
}

t.test("doctor looks at Tailscale", booting(), async (t) => {
	const host = await bootHost(t);
	await host.plugTailnet();
	await replayTailscaledRules(host);
	const run = (script: string) => () => host.sh(script);

	await t.test("and finds nothing where it is as it should be", async (t) => {
		for (const result of await runDoctor(host, "tailscale"))
			t.equal(stateOf(result), "ok", `${result.id}: ${result.evidence}`);
	});

	await t.test("stopped, logged out, not running, not there", async (t) => {
		await seesFault(t, host, {
			id: "tailscale.running",
			severity: "high",
			evidence: /was stopped/,
			make: run("tailscale down"),
		});
		await seesFault(t, host, {
			id: "tailscale.running",
			severity: "high",
			evidence: /does not run/,
			make: run("systemctl stop tailscaled"),
		});
		await host.sh("tailscale down");
		const others = await runDoctor(host, "tailscale");
		for (const { id, state, evidence } of others) {
			// What is written down is to be seen at any time.
			if (/running|funnel|serve|version|key-expiry/.test(id)) continue;
			t.equal(state, "unknown", `${id}: ${evidence}`);
			t.match(evidence[0], /state Stopped/);
		}
		await host.sh(
			"tailscale up; mv /usr/bin/tailscale /usr/sbin/tailscaled /root/",
		);
		for (const result of await runDoctor(host, "tailscale"))
			t.equal(result.state, "absent", result.id);
		await host.sh(
			"mv /root/tailscale /usr/bin/; mv /root/tailscaled /usr/sbin/",
		);
	});

	await t.test("what it says of itself", async (t) => {
		const inDays = (days: number) =>
			new Date(Date.now() + days * 86_400_000).toISOString();
		await say(host, {
			status: {
				TUN: false,
				CurrentTailnet: { MagicDNSEnabled: false },
				Health: ["Tailscale can't reach the configured DNS servers."],
				Version: "1.58.2-t0123",
			},
			self: { KeyExpiry: inDays(-1) },
		});
		const found = await runDoctor(host, "tailscale");
		for (const [id, severity, evidence] of [
			["tunnel", "high", /no tunnel device/],
			["address", "absent", /no tunnel/],
			["magicdns", "info", /MagicDNS is off/],
			["key-expiry", "high", /expired on/],
			["health", "warn", /says: Tailscale can't reach the configured DNS/],
			["version", "warn", /1\.58\.2/],
		] as const) {
			const result = found.find((one) => one.id === `tailscale.${id}`);
			t.equal(result && stateOf(result), severity, id);
			t.match(result?.evidence[0], evidence);
		}
		await say(host, {});
		for (const [severity, evidence, KeyExpiry] of [
			["warn", /expires/, inDays(13)],
			["info", /not expire/, null],
		] as const)
			await seesFault(t, host, {
				id: "tailscale.key-expiry",
				severity,
				evidence,
				make: () => say(host, { self: { KeyExpiry } }),
				mend: () => say(host, {}),
			});
		for (const result of await runDoctor(host, "tailscale"))
			t.equal(stateOf(result), "ok", `${result.id}: ${result.evidence}`);
	});

	await t.test("its interface and its firewall rules", async (t) => {
		await seesFault(t, host, {
			id: "tailscale.address",
			severity: "high",
			evidence: /tailscale0 does not have 100\.101\.102\.104, fd7a/,
			make: () => host.unplugTailnet(),
			mend: () => host.plugTailnet(),
		});
		for (const mode of ["off", "nodivert"])
			await seesFault(t, host, {
				id: "tailscale.netfilter",
				severity: "warn",
				evidence: new RegExp(`--netfilter-mode=${mode}`),
				make: run(`tailscale set --netfilter-mode=${mode}`),
			});
		await seesFault(t, host, {
			id: "tailscale.netfilter",
			severity: "warn",
			evidence: /leads no packet/,
			make: run(
				"iptables -D INPUT -j ts-input; ip6tables -D INPUT -j ts-input",
			),
			mend: run(
				"iptables -I INPUT -j ts-input; ip6tables -I INPUT -j ts-input",
			),
		});
		const rule = "ts-input ! -i tailscale0 -s 100.64.0.0/10 -j DROP";
		await seesFault(t, host, {
			id: "tailscale.netfilter",
			severity: "warn",
			evidence: /drops no forged/,
			make: run(`iptables -D ${rule}`),
			mend: run(`iptables -A ${rule}`),
		});
		await seesFault(t, host, {
			id: "tailscale.ssh",
			severity: "info",
			evidence: /SSH is on/,
			make: run("tailscale set --ssh"),
		});
		await seesFault(t, host, {
			id: "tailscale.shields-up",
			severity: "high",
			evidence: /shields are up.*no device/,
			make: run("tailscale set --shields-up"),
		});
	});

	await t.test("ways around the gate", async (t) => {
		const funnel = "tailscale.funnel";
		const serve = "tailscale.serve";
		await seesFault(t, host, {
			id: funnel,
			severity: "critical",
			evidence:
				/:443\/, which leads to .*:11434 \(Ollama\)\n.*:8443\/.* \(the gate\)\n.*10000\/.* \(Open WebUI\)/,
			make: run(`tailscale funnel --bg 11434
				tailscale funnel --bg --https=8443 http://100.101.102.104:11434
				tailscale funnel --bg --https=10000 8080`),
		});
		await seesFault(t, host, {
			id: funnel,
			severity: "critical",
			evidence: /TCP port 10000, which leads to 127\.0\.0\.1:11434 \(Ollama\)/,
			make: run("tailscale funnel --bg --tcp=10000 tcp://127.0.0.1:11434"),
		});
		await seesFault(t, host, {
			id: funnel,
			severity: "high",
			evidence: /leads to http:\/\/127\.0\.0\.1:9000$/,
			make: run("tailscale funnel --bg --https=8443 9000"),
		});
		await seesFault(t, host, {
			id: serve,
			severity: "critical",
			evidence:
				/TCP port 9999 leads to localhost:11434, which is Ollama.*\n.*\/sub leads to .*which is Ollama.*\n.*11434\/ takes the gate's place/,
			make: run(`tailscale serve --bg --tcp=9999 tcp://localhost:11434
				tailscale serve --bg --set-path=/sub 11434
				tailscale serve --bg --https=11434 9000`),
		});

		// As setup serves Open WebUI.
		await host.sh("tailscale serve --bg --yes --https=443 8080");
		for (const id of [funnel, serve])
			t.equal((await lookAt(host, id)).state, "ok", id);
		const session = host.run("tailscale", "serve", "--https=8443", "11434");
		for (;;) {
			const { state, fix } = await lookAt(host, serve);
			if (state === "ok") continue;
			t.equal(state, "critical", "one that ends with its terminal counts, too");
			t.match(fix, /Ctrl-C/);
			break;
		}
		await host.sh("pkill -INT -f '[s]erve --https=8443'");
		await session;
		t.equal((await lookAt(host, serve)).state, "ok");
	});
});

t.test("a state on the way to another is unknown", async (t) => {
	for (const [state, wanted] of [
		["Running", "ok"],
		["NeedsLogin", "finding"],
		["NeedsMachineAuth", "finding"],
		["Starting", "unknown"],
		["NoState", "unknown"],
		["", "unknown"],
	] as const)
		t.equal(judgeState(state).state, wanted, state);
	const loggedOut = {
		backendState: "NeedsLogin",
		keyExpiresAtMs: undefined,
		isTagged: false,
	};
	t.equal(judgeKeyExpiry(loggedOut, 0).state, "unknown");
});

t.test("another control server than Tailscale's is named", async (t) => {
	for (const url of [
		undefined,
		"",
		"https://controlplane.tailscale.com",
		"https://login.tailscale.com",
	])
		t.equal(otherControlServer({ ControlURL: url }), undefined, `${url}`);
	const control = otherControlServer({
		ControlURL: "https://hs.example:8443/",
	});
	t.equal(control, "https://hs.example:8443");
	t.equal(
		otherControlServer({ ControlURL: "https://tailscale.com.example" }),
		"https://tailscale.com.example",
	);
	t.match(
		judgeState("NeedsMachineAuth", control).fix,
		/hs\.example/,
		"a device is approved there",
	);
	const expired = { backendState: "NeedsLogin", keyExpiresAtMs: 0 };
	const fixOf = (isTagged: boolean, control?: string) =>
		judgeKeyExpiry({ ...expired, isTagged }, 1, control).fix;
	t.equal(fixOf(true), "sudo tailscale up --force-reauth");
	t.equal(
		fixOf(false, control),
		"sudo tailscale up --force-reauth --login-server=https://hs.example:8443",
	);
	t.match(
		fixOf(true, control),
		/delete this node.*\nsudo tailscale up .*--auth-key/,
		"a tagged one does not come back by itself",
	);
	for (const keyExpiresAtMs of [undefined, 86_400_000]) {
		const { fix } = judgeKeyExpiry(
			{ backendState: "Running", keyExpiresAtMs, isTagged: false },
			1,
			control,
		);
		t.match(fix, /hs\.example/);
		t.notMatch(fix, /login\.tailscale\.com/);
	}
});

t.test("versions are compared by their numbers", async (t) => {
	for (const [version, wanted] of [
		["1.66.0", "ok"],
		["1.103.0-dev20260822-tde9ec7ee2", "ok"],
		["2.0.1", "ok"],
		["1.65.9-t1", "finding"],
		["1.9.1", "finding"],
		["0.100.0", "finding"],
		["unstable", "unknown"],
		["", "unknown"],
	] as const)
		t.equal(judgeVersion(version).state, wanted, version);
});

t.test("tailscaled's rules are known in each form", async (t) => {
	const nft = `table ip filter {
	chain ts-input {
		iifname "lo" ip saddr 100.101.102.104 counter packets 0 bytes 0 accept
		iifname != "tailscale0*" ip saddr 100.64.0.0/10 counter packets 4 bytes 240 drop
	}
	chain INPUT {
		type filter hook input priority filter; policy accept;
		counter packets 12 bytes 800 jump ts-input
	}
}`;
	const tun = "tailscale0";
	t.equal(judgeNetfilter(2, nft, tun).state, "ok");
	t.equal(
		judgeNetfilter(2, nft.replace(/ counter packets \d+ bytes \d+/g, ""), tun)
			.state,
		"ok",
	);
	const legacy = `-A INPUT -j ts-input
-A ts-input -s 100.64.0.0/10 ! -i tailscale0 -j DROP`;
	t.equal(judgeNetfilter(2, legacy, tun).state, "ok");
	t.equal(judgeNetfilter(2, "", tun).state, "finding");
	// CGNATModeReturn
	t.equal(
		judgeNetfilter(2, legacy.replace("DROP", "RETURN"), tun).state,
		"finding",
	);
	// --tun=ts0: tailscaled's rules name the interface that it has.
	for (const rules of [nft, legacy]) {
		const named = rules.replaceAll(tun, "ts0");
		t.equal(judgeNetfilter(2, named, "ts0").state, "ok");
		t.equal(judgeNetfilter(2, named, tun).state, "finding");
	}
	t.equal(judgeNetfilter(undefined, legacy, tun).state, "unknown");
});

t.test("a target is followed to what is behind it", async (t) => {
	const places = {
		ollamaPorts: [11434, 11999],
		webUiPorts: [3000],
		gatePort: 11434,
		tailnetAddresses: ["100.101.102.104", "fd7a:115c:a1e0::104"],
	};
	for (const [target, behind] of [
		["http://127.0.0.1:11434", "Ollama"],
		["https+insecure://localhost:11434/api", "Ollama"],
		["127.0.0.53:11999", "Ollama"],
		["[::1]:11434", "Ollama"],
		["11434", "Ollama"],
		["http://0.0.0.0:11434", "Ollama"],
		["unix:/run/llamagate-ollama/ollama.sock", "Ollama"],
		["unix:/run/llamagate-local/gate.sock", "the gate"],
		["http://100.101.102.104:11434", "the gate"],
		["http://[fd7a:115c:a1e0::104]:11434/", "the gate"],
		["http://127.0.0.1:3000", "Open WebUI"],
		["http://127.0.0.1:9000", undefined],
		["http://192.168.1.2:11434", undefined],
		["the files in /srv/11434", undefined],
	] as const)
		t.equal(guardedBehind(target, places), behind, target);
});

t.test("what Serve has is read in all its parts", async (t) => {
	t.strictSame(readServeConfig("null"), []);
	t.strictSame(readServeConfig("{}"), []);
	t.throws(() => readServeConfig("No serve config"));
	t.throws(() => readServeConfig("[]"));
	const served = readServeConfig(
		JSON.stringify({
			TCP: {
				"443": { HTTPS: true },
				"5432": { TCPForward: "127.0.0.1:5432", TerminateTLS: "x" },
			},
			Web: { "a.ts.net:443": { Handlers: { "/": { Text: "hi" } } } },
			AllowFunnel: { "a.ts.net:8443": true, "a.ts.net:443": false },
			Foreground: {
				s: {
					Web: {
						"a.ts.net:80": {
							Handlers: { "/": { Proxy: "http://127.0.0.1:1" } },
						},
					},
					TCP: { "80": { HTTP: true } },
				},
			},
			Services: {
				"svc:llm": { TCP: { "11434": { TCPForward: "127.0.0.1:11434" } } },
			},
		}),
	);
	t.strictSame(
		served.map(({ option, where, target, funnel, foreground, service }) =>
			[
				option,
				where,
				target,
				funnel && "funnel",
				foreground && "foreground",
				service,
			]
				.filter(Boolean)
				.join(" "),
		),
		[
			"tls-terminated-tcp TCP port 5432 127.0.0.1:5432",
			"https https://a.ts.net:443/ a fixed text",
			"https a.ts.net:8443 nothing yet funnel",
			"http http://a.ts.net:80/ http://127.0.0.1:1 foreground",
			"tcp TCP port 11434 127.0.0.1:11434 svc:llm",
		],
	);
	const { state, fix } = judgeServe(served, {
		ollamaPorts: [11434],
		webUiPorts: [],
		gatePort: 11434,
		tailnetAddresses: [],
	});
	t.equal(state, "finding", "a service of the tailnet leads around the gate");
	t.equal(fix, "sudo tailscale serve --service=svc:llm --tcp=11434 off");
});
