import { readFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { bootHost, booting } from "../support/bootedHost.ts";
import { testKeys } from "../support/gate.ts";
import { addresses, ask, becomes, gateV4 } from "../support/namespaces.ts";

const key = testKeys.user;
const unit = "llamagate.service";
const unitFile = `/lib/systemd/system/${unit}`;

t.test("the gate in its sandbox", booting(), async (t) => {
	const host = await bootHost(t);
	const peer = await host.plugTailnet();
	const status = async () => (await ask(peer, gateV4, { key })).status;
	await becomes(t, status, 200, "the gate serves");

	await t.test("systemd rates its exposure 0.3 or less", async (t) => {
		for (const command of [
			["systemd-analyze", "security", "--no-pager", unit],
			["systemd-analyze", "security", "--no-pager", "--offline=true", unitFile],
		]) {
			const said = await host.must(...command);
			const [, level] =
				/Overall exposure level for llamagate\.service: ([\d.]+)/.exec(said) ??
				[];
			t.ok(Number(level) <= 0.3, `${level}, by ${command.join(" ")}`);
		}
	});

	const [start = ""] = /^ExecStart=.*$/m.exec(await host.read(unitFile)) ?? [];
	/** What came of what a probe tried, in the daemon itself. */
	const probe = async (name: string, lines: string[]) => {
		const file = `/etc/llamagate/${name}.mjs`;
		await host.write(
			file,
			await readFile(
				path.join(import.meta.dirname, `../support/${name}.mjs`),
				"utf8",
			),
		);
		await host.write(
			`/etc/systemd/system/${unit}.d/probe.conf`,
			["[Service]", `Environment=NODE_OPTIONS=--import=${file}`, ...lines].join(
				"\n",
			),
		);
		await host.must("systemctl", "daemon-reload");
		await host.must("systemctl", "restart", unit);
		await becomes(t, status, 200, "the gate serves with the probe in it, too");
		const find = async () =>
			(await host.journal(unit)).find((line) =>
				line.includes(`"msg":"${name}"`),
			);
		await becomes(t, async () => (await find()) !== undefined, true, name);
		return (
			JSON.parse((await find()) ?? "{}") as { results: Record<string, unknown> }
		).results;
	};

	await t.test(
		"Node lets it read its own folders, and once it has started write and start nothing",
		async (t) => {
			t.match(start, / --permission /);
			const results = await probe("permissionProbe", []);
			t.strictSame(results, {
				"dependencies were seen": true,
				"run a program as a dependency that is loaded": "ERR_ACCESS_DENIED",
				"read /etc/llamagate/keys.json": "ok",
				"read /etc/passwd": "ERR_ACCESS_DENIED",
				"read /proc/self/environ": "ERR_ACCESS_DENIED",
				"read /usr/lib/llamagate/bin/node": "ERR_ACCESS_DENIED",
				"write in /etc/llamagate": "ERR_ACCESS_DENIED",
				"write in /run/llamagate": "ERR_ACCESS_DENIED",
				"write in /tmp": "ERR_ACCESS_DENIED",
				"run systemd-notify": "ERR_ACCESS_DENIED",
				"run /usr/lib/llamagate/bin/node": "ERR_ACCESS_DENIED",
				"become another program": "ERR_ACCESS_DENIED",
				"start a thread": "ERR_ACCESS_DENIED",
				"load an addon": "ERR_DLOPEN_DISABLED",
				"be inspected": "ERR_ACCESS_DENIED",
			});
		},
	);

	// What follows holds without Node's word: somebody may have got past that.
	const results = await probe("sandboxProbe", [
		"ExecStart=",
		start.replaceAll(/ --(permission|allow)\S*/g, ""),
	]);
	const cameOf = (what: RegExp) =>
		Object.fromEntries(
			Object.entries(results).filter(([name]) => what.test(name)),
		);

	await t.test("it has no network at all", async (t) => {
		t.strictSame(cameOf(/^(tcp|udp)/), {
			"tcp to loopback": "EAFNOSUPPORT",
			"tcp over IPv6": "EAFNOSUPPORT",
			"tcp listener": "EAFNOSUPPORT",
			udp: "EAFNOSUPPORT",
		});
	});

	await t.test("of the host's files it sees its own", async (t) => {
		t.strictSame(cameOf(/^read/), {
			"read /etc/llamagate/keys.json": "ok",
			"read /etc/shadow": "ENOENT",
			"read /etc/passwd": "ENOENT",
			"read /etc/ssh/sshd_config": "ENOENT",
			"read /home": "ENOENT",
			"read /root": "EACCES",
			"read /usr/bin": "ok",
			"read /var/log": "ENOENT",
			"read /var/lib": "ENOENT",
			"read /proc/1/environ": "ENOENT",
			"read /dev/mem": "ENOENT",
		});
		t.strictSame(results["programs in /usr/bin"], ["systemd-notify"]);
		t.strictSame(results["other processes"], []);
	});

	await t.test("it writes nothing but what is temporary", async (t) => {
		const came = cameOf(/^write/);
		t.equal(Object.keys(came).length, 5);
		for (const [what, result] of Object.entries(came))
			t.match(result, /^(EROFS|EACCES)$/, what);
	});

	await t.test("it runs no shell, and nothing that it wrote", async (t) => {
		t.strictSame(cameOf(/^run/), {
			"run /bin/sh": "ENOENT",
			"run /usr/bin/sh": "ENOENT",
			"run /usr/bin/curl": "ENOENT",
			"run a file of its own in /tmp": "EACCES",
			"run a file of its own in /var/tmp": "EACCES",
			"run a file of its own in /dev/shm": "EACCES",
			"run a file of its own in /run/llamagate": "EACCES",
			// Its one helper, which shows that programs do run.
			"run systemd-notify": "ok",
		});
	});

	await t.test("it becomes nobody else and signals nobody else", async (t) => {
		t.equal(results["become root"], "EPERM");
		t.equal(results["signal init"], "EPERM");
	});

	await t.test(
		"of the sockets in /run it opens those of Ollama's bridge, tailscaled and its own systemd",
		async (t) => {
			t.strictSame(results["sockets that it can open"], [
				"/run/llamagate-ollama/ollama.sock",
				// These three take whatever any user of the host has to say.
				"/run/systemd/io.system.ManagedOOM",
				"/run/systemd/journal/stdout",
				"/run/systemd/userdb/io.systemd.DynamicUser",
				"/run/tailscale/tailscaled.sock",
			]);
		},
	);

	await t.test(
		"the socket hears nobody with another source than the tailnet's, even over tailscale0",
		async (t) => {
			const foreign = "10.9.9.9";
			await peer.ip(`addr add ${foreign}/32 dev tailscale0`);
			await host.network.ip(`route add ${foreign}/32 dev tailscale0`);
			const askAsForeigner = async () => {
				const { stdout } = await peer.run(
					...["curl", "--silent", "--max-time", "2", "--interface", foreign],
					...["--output", "/dev/null", "--write-out", "%{http_code}"],
					`http://${gateV4}/api/tags`,
				);
				return stdout;
			};
			t.equal(await askAsForeigner(), "000", "systemd's filter drops it");
			// Without the filter the gate itself would have to say no: so it was the filter.
			await host.write(
				"/etc/systemd/system/llamagate.socket.d/open.conf",
				"[Socket]\nIPAddressDeny=\n",
			);
			await host.must("systemctl", "daemon-reload");
			await host.must("systemctl", "restart", "llamagate.socket");
			await becomes(t, askAsForeigner, "403", "the gate refuses it");
		},
	);

	await t.test("the bridge reaches loopback and nothing else", async (t) => {
		const neighbour = await host.plugLan();
		const lan = addresses.lanNeighbour.v4;
		neighbour.start(
			process.execPath,
			"-e",
			`require("node:http").createServer((_, res) => res.end("{}")).listen(11434, "${lan}")`,
		);
		const direct = () => host.run("curl", "--silent", `http://${lan}:11434/`);
		await becomes(
			t,
			async () => (await direct()).stdout,
			"{}",
			"the host reaches it",
		);
		await host.write(
			"/etc/systemd/system/llamagate-ollama.service.d/elsewhere.conf",
			`[Service]\nExecStart=\nExecStart=/lib/systemd/systemd-socket-proxyd ${lan}:11434\n`,
		);
		await host.must("systemctl", "daemon-reload");
		await host.must("systemctl", "restart", "llamagate-ollama.service");
		const { stdout } = await host.run(
			...["curl", "--silent", "--max-time", "2"],
			...["--unix-socket", "/run/llamagate-ollama/ollama.sock"],
			...["--output", "/dev/null", "--write-out", "%{http_code}"],
			"http://localhost/",
		);
		t.equal(stdout, "000", "the bridge does not");
		await host.write(
			"/etc/systemd/system/llamagate-ollama.service.d/open.conf",
			"[Service]\nIPAddressDeny=\n",
		);
		await host.must("systemctl", "daemon-reload");
		await host.must("systemctl", "restart", "llamagate-ollama.service");
		t.equal(
			(await ask(peer, gateV4, { key })).body,
			"{}",
			"without the filter it would",
		);
	});
});
