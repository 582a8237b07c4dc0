import t, { type Test } from "tap";
import { advisories, advisoriesFor } from "../../src/host/ollama/advisories.ts";
import {
	judgeKnocks,
	otherAddresses,
} from "../../src/host/ollama/listening.ts";
import { parseEnvironment } from "../../src/host/ollama/serverProcesses.ts";
import { bridgedPort } from "../../src/host/ollama/servers.ts";
import {
	keepsToLoopback,
	openOrigins,
	readSettings,
} from "../../src/host/ollama/settings.ts";
import {
	findPlace,
	judgeTunnels,
	parseConnections,
	placeForwarded,
	remoteForwards,
} from "../../src/host/ollama/tunnels.ts";
import { judgeTested, judgeVersion } from "../../src/host/ollama/versions.ts";
import { testedOllama } from "../../src/ollama/testedVersion.ts";
import { bootHost, booting } from "../support/bootedHost.ts";
import { makeAuthority } from "../support/certificates.ts";
import {
	asNobody,
	comesOut,
	commandOf,
	evidenceOf,
	examine,
	statesOf,
} from "../support/doctor.ts";
import {
	stateFile,
	type TailscaleState,
} from "../support/hostStandIns/tailscaleState.ts";
import { addresses, becomes } from "../support/namespaces.ts";
import { runSetup } from "../support/setupHost.ts";

const dropIns = "/etc/systemd/system/ollama.service.d";

t.test("Ollama on a booted host", booting(), async (t) => {
	const host = await bootHost(t, {
		llamagate: "installed",
		ollama: "everywhere",
		docker: "empty",
	});
	await host.plugPublic();
	await host.plugLan();
	await host.plugTailnet();

	const answers = (t: Test) =>
		becomes(
			t,
			async () =>
				(await host.run("curl", "-s", "http://127.0.0.1:11434/api/version"))
					.code,
			0,
			"Ollama answers again",
		);
	/** Ollama with other variables, from now on. */
	const setVariables = async (t: Test, ...variables: string[]) => {
		await host.write(
			`${dropIns}/override.conf`,
			`[Service]\n${variables.map((set) => `Environment="${set}"\n`).join("")}`,
		);
		await host.sh("systemctl daemon-reload; systemctl restart ollama");
		await answers(t);
	};

	await t.test("open to everybody, as people open it", async (t) => {
		const ids = ["listening", "reachable", "host", "restart"].map(
			(name) => `ollama.${name}`,
		);
		const found = await examine(host, ["ollama"]);
		t.match(statesOf(found), {
			"ollama.listening": "critical",
			"ollama.reachable": "critical",
			"ollama.host": "high",
			"ollama.restart": "high",
			"ollama.api-key": "warn",
		});
		t.match(evidenceOf(found, "ollama.listening"), /\*:11434 \(ollama\)/);
		for (const address of [
			"203.0.113.10:11434",
			`[${addresses.lanServer.v6}]:11434`,
			`${addresses.server.v4}:11434`,
		])
			t.ok(
				evidenceOf(found, "ollama.reachable").includes(
					`${address} answers /api/version without a key`,
				),
				`reached at ${address}`,
			);
		t.match(
			statesOf(await examine(host, ids, asNobody)),
			{
				"ollama.listening": "critical",
				"ollama.reachable": "critical",
				"ollama.host": "unknown",
				"ollama.restart": "high",
			},
			"and without root, what any user sees",
		);
		t.notMatch(
			[...found.values()].map(({ evidence }) => evidence).join(),
			"secret-that-protects-nothing",
			"a variable that may be secret is not shown",
		);
		for (const id of ids)
			t.match(commandOf(found, id), /^llamagate setup --only ollama/);
		await host.sh("llamagate setup --only ollama --yes");
		t.strictSame(
			statesOf(await examine(host, ids)),
			Object.fromEntries(ids.map((id) => [id, "ok"])),
			"mended by its fix",
		);
		await setVariables(t);
		t.match(statesOf(await examine(host, ["ollama.api-key"])), {
			"ollama.api-key": "ok",
		});
	});

	await t.test("freshly set up", async (t) => {
		const { code, report } = await runSetup(host, "--yes", "--skip", "sshd");
		t.equal(code, 0, JSON.stringify(report));
		t.strictSame(statesOf(await examine(host, ["ollama"])), {
			"ollama.listening": "ok",
			"ollama.reachable": "ok",
			"ollama.tunnels": "ok",
			"ollama.host": "ok",
			"ollama.restart": "ok",
			"ollama.api-key": "ok",
			"ollama.origins": "ok",
			"ollama.request-log": "ok",
			"ollama.version": "ok",
			// What answers here calls itself newer than any that was tested.
			"ollama.tested": "info",
			"ollama.parallel": "ok",
			"ollama.cloud": "info",
		});
		t.match(
			JSON.parse(await host.read("/etc/llamagate/config.json")),
			{ queue: { parallel: 1 } },
			"setup has written what it found",
		);
		const nobodys = await examine(host, ["ollama"], asNobody);
		t.strictSame(statesOf(nobodys), {
			"ollama.listening": "unknown",
			"ollama.reachable": "unknown",
			"ollama.tunnels": "unknown",
			"ollama.host": "unknown",
			"ollama.restart": "ok",
			"ollama.api-key": "unknown",
			"ollama.origins": "unknown",
			"ollama.request-log": "unknown",
			"ollama.version": "ok",
			// What answers here calls itself newer than any that was tested.
			"ollama.tested": "info",
			"ollama.parallel": "unknown",
			"ollama.cloud": "info",
		});
		for (const { id, state, evidence } of nobodys.values())
			if (state === "unknown") t.match(evidence.join(), /root/, id);
	});

	await t.test("a drop-in that waits for the next start", async (t) => {
		const ids = ["ollama.host", "ollama.restart"];
		const only = (state: string) => ({
			"ollama.host": "ok",
			"ollama.restart": state,
		});
		await host.sh(`mv ${dropIns}/zz-llamagate.conf /root/kept`);
		await host.write(
			`${dropIns}/override.conf`,
			'[Service]\nEnvironment="OLLAMA_HOST=0.0.0.0"\n',
		);
		const found = await examine(host, ids);
		t.strictSame(statesOf(found), only("high"), "not read yet");
		t.match(evidenceOf(found, "ollama.restart"), /after a daemon-reload/);
		await host.sh("systemctl daemon-reload");
		t.strictSame(
			statesOf(await examine(host, ids)),
			only("high"),
			"read, and not in force yet",
		);
		await host.sh("llamagate setup --only ollama --yes");
		t.strictSame(statesOf(await examine(host, ids)), only("ok"));

		await host.write("/etc/default/ollama", "OLLAMA_HOST=0.0.0.0\n");
		await host.write(
			`${dropIns}/override.conf`,
			"[Service]\nEnvironmentFile=-/etc/default/ollama\n",
		);
		t.strictSame(
			statesOf(await examine(host, ids)),
			only("high"),
			"a file that counts more than the drop-ins, not read yet",
		);
		await host.sh("systemctl daemon-reload");
		t.strictSame(statesOf(await examine(host, ids)), only("high"));
		await host.sh(`rm ${dropIns}/override.conf; systemctl daemon-reload`);
		t.strictSame(statesOf(await examine(host, ids)), only("ok"));
	});

	await t.test("variables, and a version with known faults", async (t) => {
		const ids = ["origins", "request-log", "version", "cloud"].map(
			(name) => `ollama.${name}`,
		);
		await setVariables(
			t,
			"OLLAMA_ORIGINS=https://chat.example,*",
			"OLLAMA_DEBUG_LOG_REQUESTS=1",
			"STAND_IN_VERSION=0.17.0",
		);
		const found = await examine(host, ids);
		t.strictSame(statesOf(found), {
			"ollama.origins": "high",
			"ollama.request-log": "warn",
			"ollama.version": "high",
			"ollama.cloud": "info",
		});
		t.match(evidenceOf(found, "ollama.version"), /CVE-2026-7482/);
		t.notMatch(evidenceOf(found, "ollama.version"), /CVE-2025-51471/);
		t.match(
			evidenceOf(found, "ollama.version"),
			/known on \d{4}-\d\d-\d\d/,
			"it says how old its table is",
		);
		await setVariables(t, "OLLAMA_ORIGINS=https://*.example");
		await host.sh(`${commandOf(found, "ollama.cloud")} --yes`);
		await answers(t);
		t.strictSame(
			statesOf(await examine(host, ids)),
			Object.fromEntries(ids.map((id) => [id, "ok"])),
		);
	});

	await t.test("requests at once", async (t) => {
		const ids = ["ollama.parallel"];
		const parallel = async () => {
			const { queue } = JSON.parse(
				await host.read("/etc/llamagate/config.json"),
			) as { queue: { parallel: number } };
			return queue.parallel;
		};
		const pid = "systemctl show -P MainPID ollama";
		const offered = async () => {
			const { report } = await runSetup(host, "--yes", "--only", "ollama");
			t.strictSame(report.steps[0]?.actions, [], "nothing is done unasked");
			return report.steps[0]?.notes.join("\n") ?? "";
		};
		t.notMatch(await offered(), /--parallel/, "one key has it to itself");
		await host.sh("llamagate keys add second");
		t.match(await offered(), /2 keys share.*--parallel 4.*four times/);
		await setVariables(t, "OLLAMA_NUM_PARALLEL=2");
		const found = await examine(host, ids);
		t.strictSame(statesOf(found), { "ollama.parallel": "warn" });
		t.match(
			evidenceOf(found, "ollama.parallel"),
			/queue\.parallel is 1.*process \d+: OLLAMA_NUM_PARALLEL=2, which is 2/s,
		);
		const before = await host.sh(pid);
		await host.sh(`${commandOf(found, "ollama.parallel")} --yes`);
		t.strictSame(statesOf(await examine(host, ids)), {
			"ollama.parallel": "ok",
		});
		t.equal(await parallel(), 2, "mended by its fix");
		t.equal(await host.sh(pid), before, "and Ollama was left alone");

		const only = ["--only", "ollama", "--yes"];
		const { code, report } = await runSetup(host, ...only, "--parallel", "4");
		t.equal(code, 0, JSON.stringify(report));
		t.equal(await parallel(), 4);
		t.match(
			await host.sh(`tr '\\0' '\\n' </proc/$(${pid})/environ`),
			/^OLLAMA_NUM_PARALLEL=4$/m,
			"chosen, it is Ollama's and the gate's",
		);
		t.strictSame(statesOf(await examine(host, ids)), {
			"ollama.parallel": "ok",
		});
		const again = await runSetup(host, ...only);
		t.strictSame(
			again.report.steps.flatMap(({ actions }) => actions),
			[],
			"and stays, without being asked for again",
		);
		await setVariables(t);
	});

	await t.test("a second Ollama, on another port by IPv6", async (t) => {
		const ids = ["listening", "reachable", "host", "version", "cloud"].map(
			(name) => `ollama.${name}`,
		);
		await host.sh(
			`systemd-run --quiet --unit=second --setenv=OLLAMA_HOST=[::]:12345 \
					--setenv=STAND_IN_VERSION=0.17.0 ollama serve`,
		);
		await comesOut(
			t,
			host,
			{
				"ollama.listening": "critical",
				"ollama.reachable": "critical",
				"ollama.host": "high",
				"ollama.version": "high",
				"ollama.cloud": "info",
			},
			"is found, and asked like the first",
		);
		t.match(
			evidenceOf(await examine(host, ids), "ollama.reachable"),
			`${addresses.lanServer.v4}:12345`,
		);
		await host.sh("systemctl stop second");
		t.strictSame(
			statesOf(await examine(host, ids)),
			Object.fromEntries(ids.map((id) => [id, "ok"])),
		);
	});

	await t.test("an Ollama in a network of its own", async (t) => {
		const ids = ["listening", "host", "origins", "version"].map(
			(name) => `ollama.${name}`,
		);
		await host.sh(
			`systemd-run --quiet --unit=boxed --property=PrivateNetwork=yes \
					--setenv=OLLAMA_HOST=0.0.0.0 --setenv=OLLAMA_ORIGINS=* ollama serve`,
		);
		await comesOut(
			t,
			host,
			{
				"ollama.listening": "unknown",
				"ollama.host": "ok",
				"ollama.origins": "high",
				"ollama.version": "unknown",
			},
			"may take all of that network's addresses, and not every web page",
		);
		const found = await examine(host, ids);
		t.match(evidenceOf(found, "ollama.listening"), /network of its own/);
		t.match(evidenceOf(found, "ollama.host"), /0\.0\.0\.0, in a network/);

		// Its processes are a container's.
		const wrap = async (...options: string[]) => {
			await host.must("docker", "rm", "-f", "box");
			await host.must(
				...["docker", "run", "-d", "--name", "box", ...options],
				"ghcr.io/open-webui/open-webui:main",
			);
			await host.sh(`sed -i "s/\\"Pid\\": *4242/\\"Pid\\": $(systemctl show -P MainPID boxed)/" \
					/var/lib/docker-stand-in/state.json`);
			return statesOf(await examine(host, ["ollama.listening"]));
		};
		await host.sh(
			"docker create --name box ghcr.io/open-webui/open-webui:main",
		);
		const local = ["-p", "127.0.0.1:12345:11434"];
		t.match(await wrap(...local), { "ollama.listening": "ok" });
		t.match(
			await wrap(...local, "--network=macvlan0"),
			{ "ollama.listening": "unknown" },
			"the LAN may reach it there",
		);
		t.match(
			await wrap("-p", "12345:11434"),
			{ "ollama.listening": "unknown" },
			"published to others, and answering nobody for now",
		);
		await host.must("docker", "rm", "-f", "box");
		await host.sh("systemctl stop boxed");
		t.strictSame(
			statesOf(await examine(host, ids)),
			Object.fromEntries(ids.map((id) => [id, "ok"])),
		);
	});

	await t.test("ways that lead to it", async (t) => {
		const ids = ["ollama.listening", "ollama.reachable"];
		const forward = (at: string) =>
			host.sh(
				`systemd-run --quiet --unit=forwarder --socket-property=ListenStream=${at} \
						/lib/systemd/systemd-socket-proxyd 127.0.0.1:11434`,
			);
		const stop = () =>
			host.sh("systemctl stop forwarder.socket forwarder.service");
		for (const port of [11434, 12345]) {
			await forward(`${addresses.lanServer.v4}:${port}`);
			const found = await examine(host, ids);
			t.strictSame(
				statesOf(found),
				{ "ollama.listening": "critical", "ollama.reachable": "critical" },
				`a forwarder on the LAN's address, port ${port}`,
			);
			t.match(commandOf(found, "ollama.listening"), /^stop that program/);
			await stop();
		}

		await forward("127.0.0.1:12345");
		await host.sh("tailscale serve --bg 12345");
		const served = await examine(host, ["tailscale.serve"]);
		t.strictSame(statesOf(served), { "tailscale.serve": "critical" });
		await host.sh(commandOf(served, "tailscale.serve"));
		await stop();

		const { key, cert } = await (await makeAuthority(t)).issue();
		await host.write(
			"/opt/proxy.cjs",
			`const pair = ${JSON.stringify({ key, cert })};
			require("https").createServer(pair, (req, res) =>
				require("http").get({ port: 11434, host: "127.0.0.1", path: req.url, headers: req.headers },
					(reply) => reply.pipe(res.writeHead(reply.statusCode)))).listen(8443);
			require("net").createServer((socket) => socket.on("error", () => {}).once("data", (first) =>
				socket.end(first[0] === 0x16 ? "\\x15\\x03\\x03\\x00\\x02\\x02\\x70" : ""))).listen(8444);`,
		);
		await host.sh(`systemd-run --quiet --unit=proxy /opt/stand-ins/node /opt/proxy.cjs
			tailscale serve --bg https+insecure://127.0.0.1:8443
			until ss -Hltn | grep -q :8444; do sleep 0.05; done`);
		const overTls = await examine(host, [...ids, "tailscale.serve"]);
		t.strictSame(
			statesOf(overTls),
			{
				"ollama.listening": "critical",
				"ollama.reachable": "critical",
				"tailscale.serve": "critical",
			},
			"a proxy that speaks TLS",
		);
		await host.sh(`systemctl stop proxy
			sed -i s/8443/9443,\\"127.0.0.1\\"/ /opt/proxy.cjs
			systemd-run --quiet --unit=proxy /opt/stand-ins/node /opt/proxy.cjs
			until ss -Hltn | grep -q :8444; do sleep 0.05; done`);
		const nameless = await examine(host, ids);
		for (const id of ids) {
			t.equal(statesOf(nameless)[id], "unknown", `${id}: who knows its name`);
			t.match(evidenceOf(nameless, id), /:8444 .* know its name/);
		}
		await host.sh(`systemctl stop proxy
			${commandOf(overTls, "tailscale.serve")}`);

		const rule =
			"PREROUTING -p tcp --dport 12345 -j DNAT --to-destination 127.0.0.1:11434";
		await host.sh(`iptables -t nat -A ${rule}`);
		const translated = await examine(host, ids);
		t.strictSame(statesOf(translated), {
			"ollama.listening": "critical",
			"ollama.reachable": "critical",
		});
		for (const id of ids) {
			t.match(evidenceOf(translated, id), /--dport 12345/);
			t.match(commandOf(translated, id), /^iptables -t nat -D PREROUTING/);
		}
		await host.sh(commandOf(translated, "ollama.listening"));
		const isMended = async (message: string) =>
			t.strictSame(
				statesOf(await examine(host, ids)),
				Object.fromEntries(ids.map((id) => [id, "ok"])),
				message,
			);
		await isMended("iptables' rule is out");

		await host.sh(`nft -f - <<'end'
			table ip nat {
				chain own {
					type nat hook prerouting priority dstnat
					tcp dport 12345 dnat to 127.0.0.1:11434
				}
			}
end`);
		const byNft = await examine(host, ids);
		t.strictSame(statesOf(byNft), {
			"ollama.listening": "critical",
			"ollama.reachable": "critical",
		});
		t.match(evidenceOf(byNft, "ollama.listening"), /nft ip nat own: tcp dport/);
		await host.sh(commandOf(byNft, "ollama.listening"));
		await host.sh("nft delete chain ip nat own");
		await isMended("nftables' rule is out");

		await host.sh(`nft -f - <<'end'
			table inet own {
				map ways { type inet_service : verdict; flags timeout; }
				chain pre {
					type nat hook prerouting priority dstnat
					tcp dport vmap @ways
				}
			}
end`);
		const unsure = await examine(host, ids);
		for (const id of ids) {
			t.equal(statesOf(unsure)[id], "unknown", `${id}: who knows the map`);
			t.match(evidenceOf(unsure, id), /nft inet own pre: tcp dport vmap @ways/);
		}
		await host.sh(
			"nft add rule inet own pre meta nfproto ipv4 tcp dport 12345 dnat ip to 127.0.0.1:11434",
		);
		const behind = await examine(host, ids);
		for (const id of ids) {
			t.equal(statesOf(behind)[id], "critical", `${id}: a rule behind it`);
			t.match(evidenceOf(behind, id), /dport 12345 dnat/);
		}
		await host.sh("nft delete table inet own");
		await isMended("both rules are out");
	});

	await t.test("rules that cannot be read are no pass", async (t) => {
		const ids = ["ollama.listening", "ollama.reachable"];
		// Or it may do without nftables meanwhile, and open the gate's sockets anew.
		await host.sh("systemctl stop llamagate-listen.service");
		await host.sh("mv /usr/sbin/nft /usr/sbin/nft.away");
		const found = await examine(host, ids);
		await host.sh("mv /usr/sbin/nft.away /usr/sbin/nft");
		await host.sh("systemctl start llamagate-listen.service");
		for (const id of ids) {
			t.equal(statesOf(found)[id], "unknown");
			t.match(evidenceOf(found, id), /nftables is not installed/);
		}
	});

	await t.test("the gate's own sockets, while they are opened", async (t) => {
		const slow = "/etc/systemd/system/llamagate.socket.d/slow.conf";
		await host.write(
			slow,
			`[Socket]\nExecStartPost=/bin/sh -c "while [ -e ${slow} ]; do sleep 0.1; done"\n`,
		);
		const isOpen = "ss.away -Hltn src 100.64.0.0/10 | grep -q .";
		await host.write(
			"/usr/bin/ss.new",
			`#!/bin/sh
systemctl start --no-block llamagate.socket
until ${isOpen}; do sleep 0.05; done
exec ss.away "$@"
`,
		);
		await host.sh(
			`systemctl stop llamagate-listen.service llamagate.socket; systemctl daemon-reload
				mv /usr/bin/ss /usr/bin/ss.away; ${isOpen} && exit 1
				chmod +x /usr/bin/ss.new; mv /usr/bin/ss.new /usr/bin/ss`,
		);
		const found = await examine(host, ["ollama.listening"]);
		t.match(statesOf(found), { "ollama.listening": "ok" });
		t.match(
			await host.sh("systemctl show --property=ActiveState llamagate.socket"),
			/activating/,
		);
		await host.sh(
			`mv /usr/bin/ss.away /usr/bin/ss; rm ${slow}
				systemctl start llamagate.socket; systemctl daemon-reload
				systemctl start llamagate-listen.service llamagate.service`,
		);
	});

	await t.test("where the gate's upstream is on another port", async (t) => {
		const bridge = "/etc/systemd/system/llamagate-ollama.service.d/port.conf";
		await host.sh(
			`systemd-run --quiet --unit=second --setenv=OLLAMA_HOST=127.0.0.1:12345 ollama serve
				until curl -s http://127.0.0.1:12345/; do sleep 0.05; done`,
		);
		await host.write(
			bridge,
			"[Service]\nExecStart=\nExecStart=/lib/systemd/systemd-socket-proxyd 127.0.0.1:12345\n",
		);
		await host.sh("systemctl daemon-reload");
		// As any user, who sees no program's name, and so goes by the port.
		const version = async () =>
			evidenceOf(
				await examine(host, ["ollama.version"], asNobody),
				"ollama.version",
			);
		t.match(await version(), "answers on 127.0.0.1:12345", "by the bridge");
		await host.sh(`rm ${bridge}; systemctl daemon-reload`);
		t.notMatch(await version(), "12345");

		const config = "/root/other/config.json";
		await host.write(
			config,
			'{ "upstream": { "url": "http://127.0.0.1:12345" }, "admin": {} }',
		);
		await host.sh("chmod 0755 /root /root/other");
		const { stdout } = await host.run(
			...asNobody,
			...["llamagate", "doctor", "--json", "-c", config],
			...["--only", "ollama.version"],
		);
		t.match(stdout, "answers on 127.0.0.1:12345", "by upstream.url");
		await host.sh("systemctl stop second; rm -r /root/other; chmod 0700 /root");
	});

	await t.test("a tailscaled without a tunnel device", async (t) => {
		const ids = ["ollama.listening", "ollama.reachable"];
		const others = ["gate.listening", "gate.refuses", "tailscale.tunnel"];
		const written = JSON.parse(await host.read(stateFile)) as TailscaleState;
		const say = (status: TailscaleState["status"]) =>
			host.write(stateFile, JSON.stringify({ ...written, status }));
		await say({ TUN: false });
		// Without a tunnel device there is no such interface.
		await host.unplugTailnet();
		const found = await examine(host, [...ids, ...others]);
		t.match(statesOf(found), {
			"ollama.listening": "critical",
			"ollama.reachable": "critical",
			"gate.listening": "high",
			"gate.refuses": "unknown",
			"tailscale.tunnel": "high",
		});
		t.match(
			evidenceOf(found, "ollama.reachable"),
			/get Ollama without a key.*to 127\.0\.0\.1:11434/,
		);
		for (const id of [...ids, "tailscale.tunnel"])
			t.match(commandOf(found, id), /--tun=userspace-networking/, id);
		t.match(
			statesOf(await examine(host, ids, asNobody)),
			{ "ollama.listening": "critical", "ollama.reachable": "critical" },
			"which any user sees",
		);

		const only = ["--only", "ollama"];
		for (const options of [["--dry-run"], ["--yes"]]) {
			const { code, report } = await runSetup(host, ...only, ...options);
			t.equal(code, 1, options.join());
			t.match(report.steps[0]?.says, /without a key.*--tun=userspace/);
		}
		await host.sh(`rm ${dropIns}/zz-llamagate.conf; systemctl daemon-reload`);
		const { code, report } = await runSetup(host, ...only, "--yes");
		t.equal(code, 1, "what it can do it does, and calls nothing in order");
		t.match(report.steps[0], { state: "failed", says: /without a key/ });
		t.ok(await host.read(`${dropIns}/zz-llamagate.conf`));

		await say({ TUN: false, BackendState: "NeedsLogin" });
		t.match(
			statesOf(await examine(host, ids)),
			{ "ollama.listening": "high", "ollama.reachable": "high" },
			"nobody gets there while it is logged out",
		);

		await say(undefined);
		await host.plugTailnet();
		await comesOut(
			t,
			host,
			Object.fromEntries(ids.map((id) => [id, "ok"])),
			"with one again, and the gate back on it",
		);
	});

	await t.test("programs that bring loopback to others", async (t) => {
		const tunnel = async (name: string, ...options: string[]) => {
			await host.write(`/usr/local/bin/${name}`, "#!/bin/sh\nsleep infinity\n");
			await host.sh(`chmod 0755 /usr/local/bin/${name}
				systemd-run --quiet --unit=tunnel /usr/local/bin/${name} ${options.join(" ")}
				until pgrep -x ${name}; do sleep 0.05; done`);
			const found = await examine(host, ["ollama.tunnels"]);
			await host.sh("systemctl stop tunnel");
			return found;
		};
		for (const [name, ...options] of [
			["cloudflared", "tunnel", "--url", "http://localhost:11434"],
			["ngrok", "http", "11434", "--authtoken", "a-secret"],
			["autossh", "-N", "-R", "8000:localhost:11434", "there.example"],
			["autossh", "-N", "-R", "1080", "there.example"],
		] as const) {
			const found = await tunnel(name, ...options);
			t.match(statesOf(found), { "ollama.tunnels": "critical" }, name);
			t.match(evidenceOf(found, "ollama.tunnels"), `${name} (process`);
			t.notMatch(evidenceOf(found, "ollama.tunnels"), "a-secret");
		}
		await host.write(
			"/etc/frp/frpc.toml",
			'[[proxies]]\nlocalIP = "127.0.0.1"\nlocalPort = 11434\n',
		);
		t.match(statesOf(await tunnel("frpc", "-c", "/etc/frp/frpc.toml")), {
			"ollama.tunnels": "critical",
		});
		t.match(
			statesOf(await tunnel("cloudflared", "tunnel", "run", "--token", "x")),
			{ "ollama.tunnels": "unknown" },
			"whose settings are elsewhere",
		);
		t.match(
			statesOf(await tunnel("autossh", "-L", "11434:localhost:11434", "there")),
			{ "ollama.tunnels": "ok" },
			"to another host's Ollama",
		);
		await host.write(
			"/root/.ssh/config",
			"Host there\n\tRemoteForward 8000 localhost:11434\n",
		);
		const bySettings = await tunnel("autossh", "-N", "there");
		await host.sh("rm /root/.ssh/config");
		t.match(statesOf(bySettings), { "ollama.tunnels": "unknown" });
		t.match(evidenceOf(bySettings, "ollama.tunnels"), /RemoteForward/);
	});

	await t.test("a user's program in Ollama's place", async (t) => {
		const ids = ["ollama.listening", "ollama.version"];
		await host.sh(
			`systemd-run --quiet --unit=squatter --uid=65534 /opt/stand-ins/node \
					-e 'require("net").createServer((s) => s.destroy()).listen(11434, "::1")'`,
		);
		await comesOut(
			t,
			host,
			{ "ollama.listening": "high", "ollama.version": "unknown" },
			"takes what is sent to localhost",
		);
		t.match(
			evidenceOf(await examine(host, ids), "ollama.listening"),
			/^\[::1\]:11434 .*not ollama\.service/,
		);
		await host.sh("systemctl stop squatter");
		t.strictSame(
			statesOf(await examine(host, ids)),
			Object.fromEntries(ids.map((id) => [id, "ok"])),
		);
	});

	await t.test("without ss nothing passes", async (t) => {
		await host.sh("mv /usr/bin/ss /usr/bin/ss.away");
		const found = await examine(host, [
			"ollama.listening",
			"ollama.reachable",
			"ollama.host",
			"ollama.version",
		]);
		await host.sh("mv /usr/bin/ss.away /usr/bin/ss");
		for (const { id, state, evidence } of found.values()) {
			t.equal(state, "unknown", id);
			t.match(evidence.join(), /iproute2/);
		}
	});

	await t.test("no Ollama", async (t) => {
		await host.sh("systemctl stop ollama");
		t.match(statesOf(await examine(host, ["ollama"])), {
			"ollama.listening": "absent",
			"ollama.reachable": "ok",
			"ollama.host": "absent",
			"ollama.restart": "ok",
			"ollama.origins": "ok",
			"ollama.version": "absent",
			// Nothing says its number, nor the version that would.
			"ollama.parallel": "unknown",
			"ollama.cloud": "absent",
		});
	});
});

t.test("what an OLLAMA_HOST means", async (t) => {
	for (const value of [
		undefined,
		"",
		"127.0.0.1",
		"127.0.0.1:11434",
		"http://127.0.0.1:11434",
		'"localhost"',
		"localhost:8080",
		"[::1]:11434",
		"::1",
		"127.1.2.3/path",
	])
		t.ok(keepsToLoopback(value), `${value} stays on loopback`);
	for (const value of [
		"0.0.0.0",
		":11434",
		"http://:11434",
		"http://",
		"[::]:11434",
		"::",
		"192.168.1.2:11434",
		"100.101.102.104",
		"server",
		"localhost.example",
		"127.0.0.1.example",
	])
		t.notOk(keepsToLoopback(value), `${value} does not`);
});

t.test("a variable that is made to keep doctor busy", async (t) => {
	const long = `x${'"'.repeat(1_000_000)}x`;
	t.notOk(keepsToLoopback(long));
	t.notOk(keepsToLoopback(`127.0.0.1/${"x".repeat(2_000)}`), "nor is it read");
	const environment = parseEnvironment(`OLLAMA_HOST=${long}\0OLLAMA_ORIGINS=*`);
	t.equal(environment.get("OLLAMA_HOST")?.length, 1_025);
	t.equal(environment.get("OLLAMA_ORIGINS"), "*");
});

t.test("which origins are every page's", async (t) => {
	for (const entry of ["*", " * ", "http://*", "https://*", "http://*:*"])
		t.strictSame(openOrigins(`${entry},app://*`), [entry.trimStart()]);
	for (const quoted of ['"*"', "'*'", ' "*" ', '"app://*,*"', '"*,app://*"'])
		t.strictSame(openOrigins(quoted), ["*"], `as Ollama reads ${quoted}`);
	for (const entry of [
		"https://*.example",
		"app://*",
		"",
		"http://localhost:*",
	])
		t.strictSame(openOrigins(entry), [], entry);
});

t.test("a unit's files as they are on disk", async (t) => {
	const { environment, environmentFiles } = readSettings(`# /etc/a.conf
[Service]
Environment="A=1" B=2
Environment='C=with space' \\
	D=4
EnvironmentFile=-/etc/default/a
# Environment=E=5
Environment=B=3
`);
	t.strictSame(
		[...environment],
		[
			["A", "1"],
			["B", "3"],
			["C", "with space"],
			["D", "4"],
		],
	);
	t.strictSame(environmentFiles, ["/etc/default/a"]);
	const emptied = readSettings("Environment=A=1\nEnvironment=\n");
	t.equal(emptied.environment.size, 0, "an empty one takes back the others");
});

t.test("the table of advisories", async (t) => {
	for (const { id, since, fixed } of advisories) {
		const ids = (version: string) =>
			advisoriesFor(version)?.map((advisory) => advisory.id) ?? [];
		t.notOk(ids(fixed).includes(id), `${id} is mended in ${fixed}`);
		t.ok(ids(`${fixed}-rc0`).includes(id), "and not in what comes before it");
		if (since !== undefined) t.ok(ids(since).includes(id), `nor in ${since}`);
	}
	t.equal(
		advisoriesFor("0.13.0")?.some(({ since }) => since),
		false,
	);
	for (const version of ["0.0.0", "main", "", "1.2"]) {
		t.equal(advisoriesFor(version), undefined, version);
		t.equal(judgeVersion(version, "here").state, "unknown");
	}
});

t.test("which versions of Ollama llamagate was tested with", async (t) => {
	for (const [version, state] of [
		[testedOllama, "ok"],
		["0.17.1", "ok"],
		[`${testedOllama}-rc1`, "ok"],
		[`v${testedOllama}`, "ok"],
		[
			testedOllama.replace(/\d+$/, (patch) => String(Number(patch) + 1)),
			"finding",
		],
		["99.0.0", "finding"],
		["99.0.0-rc1", "finding"],
		["0.0.0", "unknown"],
		["nonsense", "unknown"],
		[undefined, "unknown"],
	] as const)
		t.equal(judgeTested(version, "here").state, state, String(version));
	t.match(judgeTested("99.0.0", "here").evidence, [
		`Ollama 99.0.0 answers on here; llamagate was tested with Ollama ${testedOllama} at the newest`,
	]);
});

t.test("where the bridge leads", async (t) => {
	for (const [words, port] of [
		["127.0.0.1:12345", 12345],
		["--connections-max=1024 127.0.0.1:11434", 11434],
		["--connections-max=1024 [::1]:8080", 8080],
		["/run/ollama.sock", undefined],
	] as const)
		t.equal(
			bridgedPort(
				`{ path=/lib/systemd/systemd-socket-proxyd ; argv[]=/lib/systemd/systemd-socket-proxyd ${words} ; ignore_errors=no ; start_time=[n/a] ; code=(null) ; status=0/0 }`,
			),
			port,
			words,
		);
	t.equal(bridgedPort(""), undefined);
});

t.test("what a text leads to", async (t) => {
	for (const text of [
		"http://localhost:11434",
		"http://127.0.0.1:11434/",
		"tcp://[::1]:11434",
		"11434",
		"localhost:11434",
		"TCP:127.0.0.1:11434,reuseaddr",
		"localPort = 11434",
		"  service: http://0.0.0.0:11434\n",
	])
		t.ok(findPlace(text, [11434]), text);
	for (const text of [
		"http://100.101.102.104:11434",
		"http://gpu.example:11434",
		"114340",
		"1.11434",
		"a11434",
		"11434:localhost:22",
		"http://localhost:8080",
	])
		t.notOk(findPlace(text, [11434]), text);
});

t.test("what an ssh leads to this side", async (t) => {
	t.strictSame(remoteForwards(["-N", "-R", "80:localhost:1", "-L", "x"]), [
		"80:localhost:1",
	]);
	t.strictSame(remoteForwards(["-NR80:localhost:1"]), ["80:localhost:1"]);
	t.strictSame(remoteForwards(["-o", "RemoteForward=80 localhost:1"]), [
		"80 localhost:1",
	]);
	t.strictSame(remoteForwards(["-oRemoteForward=80 localhost:1"]), [
		"80 localhost:1",
	]);
	t.strictSame(remoteForwards(["-L", "80:localhost:1", "host"]), []);
	for (const [line, forwards] of [
		["-p 2222 -tR 1080 host", ["1080"]],
		["host -N -R 1080 -R 80:localhost:1", ["1080", "80:localhost:1"]],
		["-o BatchMode=yes -l me host -R 1080", ["1080"]],
		// What the other side is to run.
		["host chmod -R 755 /srv", []],
		["-p 22 host -t ls -R 1080", []],
		["-- host -R 1080", []],
		["-E -R host", []],
		// Its port for watching, which ssh has no value for.
		["-M 0 host -N -R 1080", ["1080"]],
	] as const)
		t.strictSame(
			remoteForwards(line.split(" "), line.startsWith("-M") ? "M" : ""),
			forwards,
			line,
		);
	for (const [forward, place] of [
		["8000:localhost:11434", "localhost:11434"],
		["8000 localhost:11434", "localhost:11434"],
		['[::]:8000 "127.0.0.1:11434"', "127.0.0.1:11434"],
		// Without a destination the other side has a SOCKS proxy.
		["1080", "every port of this host"],
		["localhost:1080", "every port of this host"],
		["*:1080", "every port of this host"],
		["[::1]:1080", "every port of this host"],
		// What stands first is the other side's port.
		["11434:localhost:22", undefined],
		["11434 localhost:22", undefined],
		["localhost:11434 localhost:22", undefined],
		["1080:/run/some.sock", undefined],
		["/run/some.sock:localhost:22", undefined],
	] as const)
		t.equal(placeForwarded([forward], [11434]), place, forward);
});

t.test("the far ends of connections", async (t) => {
	t.strictSame(
		parseConnections(`0 0 127.0.0.1:5000 127.0.0.1:11434 timer:(keepalive,9sec,0) uid:33 ino:77 sk:1 cgroup:/ino:9 <->
0 0 [::1]:5001 [::1]:11434 ino:78 sk:2
0 0 [::ffff:127.0.0.1]:5002 [::ffff:127.0.0.1]:11434 ino:79 sk:3
`),
		[
			{ host: "127.0.0.1", port: 11434, inode: 77 },
			{ host: "::1", port: 11434, inode: 78 },
			{ host: "127.0.0.1", port: 11434, inode: 79 },
		],
	);
});

t.test("somebody who forwards by a login of theirs", async (t) => {
	const sshd = { program: "sshd", pid: 5, told: undefined };
	const connected = { ...sshd, connected: "127.0.0.1:11434" };
	t.match(judgeTunnels([connected]), { state: "finding", severity: "warn" });
	t.equal(judgeTunnels([{ ...sshd, connected: undefined }]).state, "ok");
	const ngrok = { ...connected, program: "ngrok" };
	t.equal(judgeTunnels([connected, ngrok]).severity, undefined, "critical");
});

t.test("an address that does not answer is no pass", async (t) => {
	const knock = (kind: "refused" | "silent") => ({
		where: kind,
		came: { kind },
	});
	t.equal(judgeKnocks([knock("refused")]).state, "ok");
	t.equal(judgeKnocks([knock("refused"), knock("silent")]).state, "unknown");
	const open = { where: "x", came: { kind: "answer", status: 200, body: "" } };
	t.equal(
		judgeKnocks([knock("silent"), open as Parameters<typeof judgeKnocks>[0][0]])
			.state,
		"finding",
	);
	const at = (address: string, family: "IPv4" | "IPv6") =>
		({ address, family }) as NonNullable<
			Parameters<typeof otherAddresses>[0][string]
		>[0];
	t.strictSame(
		otherAddresses({
			lo: [at("127.0.0.1", "IPv4"), at("::1", "IPv6")],
			eth0: [at("192.0.2.1", "IPv4"), at("fe80::1", "IPv6")],
		}),
		["192.0.2.1", "fe80::1%eth0"],
	);
});
