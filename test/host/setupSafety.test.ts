import { appendFile } from "node:fs/promises";
import t from "tap";
import {
	type BootedHost,
	bootHost,
	booting,
	publicAddresses,
} from "../support/bootedHost.ts";
import { addresses, becomes, type Namespace } from "../support/namespaces.ts";
import {
	fingerprint,
	runSetup,
	type SetupReport,
	statesOf,
} from "../support/setupHost.ts";

/** A person's key, at home on the host so that nothing of this machine is used. */
async function installSshKey(host: BootedHost): Promise<string> {
	await host.sh(`mkdir -p -m 0700 /root/.ssh
		ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
		cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys`);
	return `${host.root}/root/.ssh/id_ed25519`;
}

function ssh(key: string, port: number, ...command: string[]): string[] {
	return [
		...[
			"ssh",
			"-F",
			"none",
			"-i",
			key,
			"-p",
			String(port),
			"-o",
			"BatchMode=yes",
		],
		...["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"],
		...["-o", "ConnectTimeout=5", "-o", "LogLevel=ERROR"],
		...[`root@${publicAddresses.server}`, "--", ...command],
	];
}

/** A login that says something every moment. */
function openSession(from: Namespace, key: string, port: number) {
	const session = from.start(
		...ssh(key, port, "while echo tick; do sleep 0.2; done"),
	);
	let ticks = 0;
	session.stdout.on("data", (text: string) => {
		ticks += text.split("tick").length - 1;
	});
	return {
		ticks: () => ticks,
		isOpen: () => session.exitCode === null,
	};
}

t.test(
	"whoever is logged in by SSH stays so, on whatever port, and can log in again",
	booting(),
	async (t) => {
		const host = await bootHost(t, {
			llamagate: "installed",
			install: (root) =>
				appendFile(`${root}/etc/ssh/sshd_config`, "Port 2222\n"),
		});
		const key = await installSshKey(host);
		const stranger = await host.plugPublic();
		const session = openSession(stranger, key, 2222);
		await becomes(t, () => session.ticks() > 0, true, "logged in");
		// A rule of the person's own that would shut them out once UFW is on.
		await host.must("ufw", "deny", "2222/tcp");

		// As the person would: over that very port.
		const result = await stranger.run(
			...ssh(key, 2222, "llamagate setup --yes --json --only ufw,sshd"),
		);
		t.equal(result.code, 0, result.stdout + result.stderr);
		const report = JSON.parse(result.stdout) as {
			steps: { actions: string[] }[];
		};
		const actions = report.steps.flatMap((step) => step.actions);
		const allowed = actions.findIndex((action) =>
			/^ufw (prepend )?allow .*2222/.test(action),
		);
		t.ok(allowed >= 0, actions.join("\n"));
		t.ok(allowed < actions.indexOf("ufw --force enable"), "before it is on");
		const before = session.ticks();
		await becomes(t, () => session.ticks() > before + 3, true, "still there");
		t.ok(session.isOpen());
		const again = await stranger.run(...ssh(key, 2222, "echo in"));
		t.equal(again.stdout, "in\n", again.stderr);
		const byPassword = await stranger.run(
			"ssh",
			...["-F", "none", "-p", "2222", "-o", "StrictHostKeyChecking=no"],
			...["-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"],
			...["-o", "PubkeyAuthentication=no", `root@${publicAddresses.server}`],
		);
		t.match(byPassword.stderr, /Permission denied \(publickey\)/);
	},
);

t.test(
	"a UFW that would drop all of IPv6 is not turned on",
	booting(),
	async (t) => {
		const host = await bootHost(t, { llamagate: "installed" });
		const key = await installSshKey(host);
		const neighbour = await host.plugLan();
		await host.sh("sed -i 's/^IPV6=.*/IPV6=no/' /etc/default/ufw");
		const login = [
			...["ssh", "-F", "none", "-i", key, "-o", "BatchMode=yes"],
			...["-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"],
			...["-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5"],
			...[`root@${addresses.lanServer.v6}`, "--"],
		];
		const result = await neighbour.run(
			...login,
			"timeout 60 llamagate setup --yes --only ufw",
		);
		t.equal(result.code, 1, result.stdout + result.stderr);
		t.match(result.stdout, /IPV6=no, and UFW would drop all/);
		t.match(await host.must("ufw", "status"), "Status: inactive");
		t.equal((await neighbour.run(...login, "echo in")).stdout, "in\n");
	},
);

t.test(
	"a UFW that systemd is kept from starting is not turned on for today alone",
	booting(),
	async (t) => {
		const host = await bootHost(t, { llamagate: "installed" });
		await host.must("systemctl", "mask", "ufw.service");
		const setup = async () => {
			const { code, report } = await runSetup(host, "--yes", "--only", "ufw");
			return { code, step: report.steps[0] };
		};
		t.match(await setup(), {
			code: 1,
			step: { state: "unsafe", says: /sudo systemctl unmask ufw\.service/ },
		});
		t.match(await host.must("ufw", "status"), "Status: inactive");
		await host.must("systemctl", "unmask", "ufw.service");
		t.match(await setup(), { code: 0, step: { state: "changed" } });
		t.match(
			await host.must("systemctl", "is-enabled", "ufw.service"),
			/^enabled$/m,
		);
	},
);

t.test(
	"passwords stay on where the person behind root needs them",
	booting(),
	async (t) => {
		const host = await bootHost(t, { llamagate: "installed" });
		await installSshKey(host);
		await host.sh(`useradd --create-home --shell /bin/sh alice
			install -d -m 0700 -o alice -g alice /home/alice/.ssh`);
		const authorized = "/home/alice/.ssh/authorized_keys";
		const put = (options: string, owner: string) =>
			host.sh(`{ printf '%s' '${options}'; cat /root/.ssh/id_ed25519.pub; } >${authorized}
				chown ${owner} ${authorized}; chmod 0600 ${authorized}`);
		const look = async () => {
			// As after "su -": alice's shell, and no SUDO_USER.
			const { stdout } = await host.run(
				...["systemd-run", "--quiet", "--pipe", "--wait", "sh", "-c"],
				"SUDO_USER=alice llamagate setup --json --dry-run --only sshd",
			);
			return (JSON.parse(stdout) as SetupReport).steps[0];
		};
		await put("", "alice");
		t.equal((await look())?.state, "todo", "a key is there");
		await put("", "daemon");
		t.equal((await look())?.state, "unsafe", "one that sshd refuses");
		await put('command="true",restrict ', "alice");
		t.equal((await look())?.state, "unsafe", "one for a command alone");
		// One that sshd knows, and takes from nobody.
		await host.sh(`ssh-keygen -q -t dsa -N '' -f /root/dsa
			install -o alice -m 0600 /root/dsa.pub ${authorized}`);
		const old = await look();
		t.equal(old?.state, "unsafe");
		t.match(old?.says, `sshd refuses DSA of 1024 bits in ${authorized}`);
		await put("", "alice");
		await host.write(
			"/etc/ssh/sshd_config.d/20-two.conf",
			"KbdInteractiveAuthentication yes\nMatch User alice\n\tAuthenticationMethods publickey,keyboard-interactive\n",
		);
		t.equal((await look())?.state, "done", "two factors are more than one");
		await host.must("rm", "/etc/ssh/sshd_config.d/20-two.conf");

		await host.must("rm", authorized);
		// "su -" leaves nothing of alice in the environment.
		await host.sh("echo root:secret | chpasswd");
		const { stdout } = await host.run(
			...["setpriv", "--reuid=alice", "--regid=alice", "--clear-groups"],
			...["env", "-i", "PATH=/usr/bin", "sh", "-c"],
			"echo secret | su - root -c 'llamagate setup --dry-run --only sshd'; :",
		);
		t.match(stdout, /would lock alice out/);
	},
);

t.test(
	"Tailscale Serve that leads past the gate is told of",
	booting(),
	async (t) => {
		const host = await bootHost(t, { llamagate: "installed" });
		for (const how of [
			["serve", "--bg", "11434"],
			["funnel", "--bg", "--https=8443", "http://localhost:11434"],
			["serve", "--bg", "--tcp=2000", "tcp://localhost:11434"],
			["serve", "--bg", "--tcp=11434", "tcp://localhost:9"],
		]) {
			await host.must("tailscale", ...how);
			const { code, report } = await runSetup(
				host,
				...["--dry-run", "--only", "tailscale"],
			);
			t.equal(code, 1, how.join(" "));
			t.equal(report.steps[0]?.state, "unsafe");
			t.match(report.steps[0]?.says, "past the gate");
			await host.must("tailscale", "serve", "reset");
		}
		await host.must("tailscale", "serve", "--bg", "8080");
		t.equal(
			(await runSetup(host, "--dry-run", "--only", "tailscale")).code,
			0,
			"what leads elsewhere is no matter",
		);
	},
);

t.test(
	"an Ollama that is open, or will be, is told of",
	booting(),
	async (t) => {
		const host = await bootHost(t, { llamagate: "installed" });
		const only = ["--yes", "--only", "ollama"];
		const unit = await host.read("/etc/systemd/system/ollama.service");
		await host.write(
			"/etc/systemd/system/second.service",
			`${unit}\n[Service]\nEnvironment=OLLAMA_HOST=0.0.0.0:11500\n`,
		);
		await host.sh("systemctl daemon-reload; systemctl start second");
		await host.sh("until ss -Hltn 'sport = :11500' | grep -q .; do :; done");
		const second = await runSetup(host, ...only);
		t.equal(second.code, 1);
		t.match(second.report.steps[0]?.says, /11500/);
		await host.must("systemctl", "stop", "second");

		await host.write(
			"/etc/systemd/system/ollama.service.d/zzz-mine.conf",
			"[Service]\nEnvironment=OLLAMA_HOST=0.0.0.0\n",
		);
		await host.sh("systemctl daemon-reload; systemctl stop ollama");
		const stopped = await runSetup(host, ...only);
		t.equal(stopped.code, 1);
		t.match(stopped.report.steps[0]?.says, /OLLAMA_HOST=0\.0\.0\.0/);
	},
);

t.test(
	"undo leaves a container and a Serve that are no longer setup's",
	booting(),
	async (t) => {
		const host = await bootHost(t, {
			llamagate: "installed",
			docker: "open-webui",
		});
		const only = ["--yes", "--only", "open-webui"];
		const image = "ghcr.io/open-webui/open-webui:main";
		const undo = () => host.run("llamagate", "setup", "--undo", "--yes");
		const names = () =>
			host.must("docker", "ps", "-a", "--format", "{{.Names}}");

		// As "docker container prune" does.
		t.equal((await runSetup(host, ...only)).code, 0);
		await host.must("docker", "rm", "open-webui-before-llamagate");
		t.equal((await undo()).code, 1);
		t.equal(await names(), "open-webui\n", "the only one there is stays");

		// As an update by hand does.
		await host.must("docker", "rm", "-f", "open-webui");
		await host.sh(`docker run -d -p 3000:8080 -v open-webui:/app/backend/data \
			--restart always --name open-webui ${image}`);
		t.equal((await runSetup(host, ...only)).code, 0);
		await host.sh(`docker rm -f open-webui
			docker run -d -p 127.0.0.1:8080:8080 -v open-webui:/app/backend/data \
				-e MINE=1 --name open-webui ${image}
			tailscale serve --bg 9000`);
		t.equal((await undo()).code, 1);
		t.match(await host.must("docker", "inspect", "open-webui"), "MINE=1");
		t.match(
			await host.must("tailscale", "serve", "status", "--json"),
			"127.0.0.1:9000",
		);
		await host.reboot();
		t.equal(
			await host.must("ss", "-Hltn", "sport = :3000"),
			"",
			"the old one, which is open, does not start by itself",
		);
	},
);

t.test(
	"the name of a stranger's program does not steer root's terminal",
	booting(),
	async (t) => {
		const host = await bootHost(t, { llamagate: "installed" });
		await host.sh("systemctl stop ollama");
		await host.write(
			"/opt/odd.py",
			`import ctypes, socket, time
ctypes.CDLL(None).prctl(15, b"\\x1b]0;odd\\x07\\x1b[8m", 0, 0, 0)
held = socket.create_server(("0.0.0.0", 11434))
time.sleep(100)
`,
		);
		await host.sh(`systemd-run --quiet --uid=65534 python3 /opt/odd.py
			until ss -Hltn 'sport = :11434' | grep -q .; do :; done`);
		const { stdout } = await host.run(
			...["llamagate", "setup", "--yes", "--only", "ollama"],
		);
		t.match(stdout, "]0;odd", "it is named");
		t.notMatch(stdout, "\x1b]0;odd");
	},
);

t.test(
	"whoever is logged in is not shut out from within tmux either",
	booting(),
	async (t) => {
		const host = await bootHost(t, { llamagate: "installed" });
		const key = await installSshKey(host);
		const stranger = await host.plugPublic();
		const session = openSession(stranger, key, 22);
		await becomes(t, () => session.ticks() > 0, true, "logged in");
		await host.must(
			...["ufw", "allow", "from", "10.9.8.0/24"],
			...["to", "any", "port", "22", "proto", "tcp"],
		);
		// The server of tmux is nobody's child, and has what it was started with.
		const look = () => runSetup(host, "--yes", "--only", "ufw");
		const refused = await look();
		t.equal(refused.code, 1);
		t.match(
			refused.report.steps[0]?.says,
			`the one from ${publicAddresses.stranger} would be shut out`,
		);
		t.match(await host.must("ufw", "status"), "Status: inactive");
		await host.must(
			...["ufw", "allow", "from", publicAddresses.stranger],
			...["to", "any", "port", "22", "proto", "tcp"],
		);
		t.equal((await look()).code, 0);
		const again = await stranger.run(...ssh(key, 22, "echo in"));
		t.equal(again.stdout, "in\n", again.stderr);
	},
);

t.test(
	"an Open WebUI is moved and served, or left to the person",
	booting(),
	async (t) => {
		const host = await bootHost(t, {
			llamagate: "installed",
			docker: "empty",
		});
		const run = async (...options: string[]) => {
			await host.run("docker", "rm", "-f", "open-webui");
			await host.must(
				...["docker", "run", "-d", ...options],
				...["--name", "open-webui", "ghcr.io/open-webui/open-webui:main"],
			);
		};
		const plan = async () => {
			const { report } = await runSetup(
				host,
				...["--dry-run", "--only", "open-webui"],
			);
			return report.steps[0];
		};
		const look = async (...options: string[]) => {
			await run("-p", "3000:8080", ...options);
			return (await plan())?.state;
		};
		const data = ["-v", "open-webui:/app/backend/data"];
		t.equal(await look(), "unsafe");
		t.equal(await look("-v", "other:/data"), "unsafe");
		t.equal(await look("-v", "/srv/webui:/app/backend/data:rw"), "todo");
		t.equal(
			await look("--mount", "type=volume,source=x,target=/app/backend/data"),
			"todo",
		);

		await t.test(
			"one that is served keeps its port, and is served on",
			async (t) => {
				await host.must("tailscale", "serve", "--bg", "3000");
				await run("-p", "3000:8080", ...data);
				const { code, report } = await runSetup(
					host,
					...["--yes", "--only", "ollama,open-webui"],
				);
				t.equal(code, 0, JSON.stringify(report.steps));
				t.match(
					report.steps[1]?.proofs?.find(({ says }) => /Serve/.test(says)),
					{ ok: true, says: /leads https:\S+ to 127\.0\.0\.1:3000$/ },
				);
				await host.must("llamagate", "setup", "--undo", "--yes");
				t.match(
					await host.must("tailscale", "serve", "status", "--json"),
					"http://127.0.0.1:3000",
					"by whoever set it up",
				);
				await host.must("tailscale", "serve", "--https=443", "off");
			},
		);

		await t.test(
			"one that is on loopback and loses Ollama moves",
			async (t) => {
				await run("-p", "127.0.0.1:3000:8080", ...data);
				const { code, report } = await runSetup(
					host,
					...["--yes", "--only", "ollama,open-webui"],
				);
				t.equal(code, 0, JSON.stringify(report.steps));
				const [made] = JSON.parse(
					await host.must("docker", "container", "inspect", "open-webui"),
				) as { HostConfig: { NetworkMode: string } }[];
				t.equal(made?.HostConfig.NetworkMode, "host");
				t.match(
					await host.must("tailscale", "serve", "status", "--json"),
					"http://127.0.0.1:3000",
				);
				const again = await runSetup(host, "--yes", "--only", "open-webui");
				t.match(again.report.steps, [{ state: "done", actions: [] }]);
				await host.must("llamagate", "setup", "--undo", "--yes");
			},
		);

		await t.test("nothing else is served in its name", async (t) => {
			await host.sh(`systemd-run --quiet python3 -m http.server --bind 127.0.0.1 8080
				until ss -Hltn 'sport = :8080' | grep -q .; do :; done`);
			const elsewhere = ["-e", "OLLAMA_BASE_URL=http://100.101.102.103:11434"];
			await run(...data, ...elsewhere);
			t.match(await plan(), { state: "absent", actions: [] });
			await run("-p", "127.0.0.1:3000:8080", ...data, ...elsewhere);
			t.match(await plan(), {
				state: "todo",
				actions: ["tailscale serve --bg 3000"],
			});
			await host.must("docker", "stop", "open-webui");
			t.match(await plan(), { state: "absent", actions: [] });
			await host.must("docker", "start", "open-webui");
			// As one whose program has ended, or is not through with its start.
			await host.sh("systemctl stop 'docker-stand-in-*'");
			t.match(await plan(), {
				state: "unsafe",
				says: /does not answer on 127\.0\.0\.1:3000, so it is not served/,
			});
		});
	},
);

t.test(
	"an undo that was killed behind any of its commands is ended by the next",
	booting(),
	async (t) => {
		const host = await bootHost(t, {
			llamagate: "installed",
			docker: "open-webui",
		});
		const before = await host.must("docker", "inspect", "open-webui");
		const undo = () =>
			host.run("sh", "-c", "llamagate setup --undo --yes; exit $?");
		for (const program of ["docker", "tailscale"])
			await host.sh(`mv /usr/bin/${program} /usr/bin/${program}.real
				cat >/usr/bin/${program} <<'END'
#!/bin/sh
${program}.real "$@"
code=$?
case "${program} $*" in
"$(cat /run/fatal 2>/dev/null || echo none)"*) pkill -KILL -f 'llamagate.js setup' ;;
esac
exit $code
END
				chmod +x /usr/bin/${program}`);
		for (const fatal of [
			"tailscale serve --https=443 off",
			"docker rm -f open-webui",
			"docker update --restart=always",
			"docker rename open-webui-before-llamagate",
			"docker start",
		]) {
			const { code } = await runSetup(host, "--yes", "--only", "open-webui");
			t.equal(code, 0);
			await host.sh(`echo '${fatal}' >/run/fatal`);
			t.equal((await undo()).code, 137, fatal);
			await host.must("rm", "/run/fatal");
			const ended = await undo();
			t.equal(ended.code, 0, ended.stdout);
			const [now, then] = [
				await host.must("docker", "inspect", "open-webui"),
				before,
			].map((text) => {
				const [{ State: _, ...container }] = JSON.parse(text) as [
					Record<string, unknown>,
				];
				return container;
			});
			t.strictSame(now, then, "the container is the one that it was");
		}
	},
);

t.test("an undo that failed can be run again", booting(), async (t) => {
	const host = await bootHost(t, {
		llamagate: "installed",
		docker: "open-webui",
	});
	const { code } = await runSetup(host, "--yes", "--only", "open-webui");
	t.equal(code, 0);
	// As with an engine that does not run.
	await host.sh(`mv /usr/bin/docker /usr/bin/docker.away
			printf '#!/bin/sh\nexit 1\n' >/usr/bin/docker
			chmod +x /usr/bin/docker`);
	const first = await host.run("llamagate", "setup", "--undo", "--yes");
	t.equal(first.code, 1);
	await host.must("mv", "/usr/bin/docker.away", "/usr/bin/docker");
	const second = await host.run("llamagate", "setup", "--undo", "--yes");
	t.equal(second.code, 0, second.stdout);
	t.equal(
		await host.must("docker", "ps", "-a", "--format", "{{.Names}}"),
		"open-webui\n",
	);
	t.match(await host.must("docker", "inspect", "open-webui"), "3000");
});

t.test("on a host", booting(), async (t) => {
	const host = await bootHost(t, {
		llamagate: "installed",
		ollama: "none",
		tailscale: false,
	});
	const untouched = await fingerprint(host);

	t.test("what is absent is said and passed over", async (t) => {
		const { code, report } = await runSetup(host, "--dry-run");
		t.strictSame(statesOf(report), {
			account: "todo",
			ollama: "absent",
			gate: "todo",
			bridges: "absent",
			ufw: "todo",
			tailscale: "absent",
			"open-webui": "absent",
			sshd: "unsafe",
			fail2ban: "todo",
		});
		t.equal(code, 1, "something is left to the person");
	});

	t.test("without a key to log in with, passwords stay on", async (t) => {
		const { code, report } = await runSetup(host, "--yes", "--only", "sshd");
		t.equal(code, 1);
		t.match(report.steps[0]?.says, /would lock root out.*ssh-copy-id/);
		t.equal(await fingerprint(host), untouched);
		// Nor does one that sshd would not take.
		await host.sh(`mkdir -p -m 0700 /root/.ssh
			echo 'no key at all' >/root/.ssh/authorized_keys`);
		t.equal((await runSetup(host, "--yes", "--only", "sshd")).code, 1);
		await host.must("rm", "/root/.ssh/authorized_keys");
	});

	t.test("an sshd that is stopped waits with its settings", async (t) => {
		await installSshKey(host);
		await host.must("systemctl", "stop", "ssh.service");
		const silent = await runSetup(host, "--dry-run", "--only", "sshd");
		t.equal(silent.report.steps[0]?.state, "unsafe");
		t.match(
			silent.report.steps[0]?.says,
			/without the folder \/run\/sshd.*sudo mkdir -m 0755 \/run\/sshd/,
			"which went with the service",
		);
		await host.sh("mkdir -m 0755 /run/sshd; rmdir /etc/ssh/sshd_config.d");
		const { code, report } = await runSetup(host, "--yes", "--only", "sshd");
		t.equal(code, 0, JSON.stringify(report, undefined, 2));
		t.equal(report.steps[0]?.state, "changed");
		t.not((await host.run("systemctl", "is-active", "ssh.service")).code, 0);
		const undone = await host.run("llamagate", "setup", "--undo", "--yes");
		t.equal(undone.code, 0, undone.stdout);
		// Where nothing can be written, that is said, and the step is taken back.
		await host.must("ln", "-s", "/nowhere", "/etc/ssh/sshd_config.d");
		const refused = await runSetup(host, "--yes", "--only", "sshd");
		t.equal(refused.code, 1);
		t.match(refused.report.steps[0]?.says, /^ENOENT: .*\/etc\/ssh\/sshd_conf/);
		t.match(refused.report.steps[0]?.says, "The step was taken back.");
		await host.sh(`rm /etc/ssh/sshd_config.d; mkdir /etc/ssh/sshd_config.d
			rm /root/.ssh/*; systemctl start ssh.service`);
		await host.must("llamagate", "setup", "--undo", "--yes");
		t.equal(await fingerprint(host), untouched);
	});

	t.test("nothing is done that nobody agreed to", async (t) => {
		for (const [answer, terminal] of [
			["", false],
			["y", false],
			["n", true],
			["", true],
			["yesss", true],
		] as const) {
			const command = "llamagate setup --only ufw";
			const { code, stdout } = await host.run(
				...["sh", "-c"],
				terminal
					? `printf '${answer}\\n' | script -qec '${command}' /dev/null`
					: `printf '${answer}\\n' | ${command}`,
			);
			t.equal(code, 1, `${JSON.stringify(answer)} ${terminal}: ${stdout}`);
		}
		t.equal(await fingerprint(host), untouched);
	});

	t.test("a yes at the terminal is one", async (t) => {
		const { code, stdout } = await host.run(
			...["sh", "-c"],
			"printf 'y\\n' | script -qec 'llamagate setup --only ufw' /dev/null",
		);
		t.equal(code, 0, stdout);
		t.match(await host.must("ufw", "status"), "Status: active");
		await host.must("llamagate", "setup", "--undo", "--yes");
		t.equal(await fingerprint(host), untouched);
	});

	t.test(
		"a step that fails is taken back, and the run ends there",
		async (t) => {
			await host.write("/etc/fail2ban/jail.d/broken.conf", "[sshd\n");
			const { code, report } = await runSetup(host, "--yes", "--skip", "sshd");
			t.equal(code, 1);
			const states = statesOf(report);
			t.equal(states.fail2ban, "failed");
			t.equal(states.ufw, "changed", "what came before stays");
			t.match(report.steps.at(-1)?.says, /fail2ban-client --test ended with/);
			t.not(
				(await host.run("test", "-e", "/etc/fail2ban/jail.d/llamagate.conf"))
					.code,
				0,
			);
			await host.must("rm", "/etc/fail2ban/jail.d/broken.conf");
			const mended = await runSetup(host, "--yes", "--skip", "sshd");
			t.equal(mended.code, 0, JSON.stringify(mended.report, undefined, 2));
			t.equal(statesOf(mended.report).fail2ban, "changed");
			await host.must("llamagate", "setup", "--undo", "--yes");
			t.equal(await fingerprint(host), untouched);
		},
	);

	t.test("undo leaves what somebody else has changed since", async (t) => {
		await runSetup(host, "--yes", "--only", "account,ufw,fail2ban");
		await host.must("ufw", "allow", "5432/tcp");
		await host.must("llamagate", "keys", "add", "another");
		const jail = "/etc/fail2ban/jail.d/llamagate.conf";
		await host.sh(`echo '# mine' >>${jail}`);
		const { code, stdout } = await host.run(
			...["llamagate", "setup", "--undo", "--yes", "--json"],
		);
		t.equal(code, 1);
		const { left } = JSON.parse(stdout) as { left: string[] };
		t.match(left.join("\n"), `${jail} has been changed since`);
		t.match(left.join("\n"), "keys.json has been changed since");
		t.match(await host.read(jail), "# mine");
		const rules = await host.must("ufw", "show", "added");
		t.match(rules, "ufw allow 5432/tcp");
		t.notMatch(rules, "11434", "ours are gone");
		t.match(await host.must("llamagate", "keys", "list"), "another");
		await host.sh(`rm ${jail} /etc/llamagate/keys.json
			ufw delete allow 5432/tcp`);
	});

	t.test("two at once do not get in each other's way", async (t) => {
		const first = host.run("llamagate", "setup", "--yes", "--only", "ufw");
		await host.sh(
			"until ss -Hlx | grep -q @llamagate-setup-; do sleep 0.02; done",
		);
		const second = await host.run(
			"llamagate",
			"setup",
			"--yes",
			"--only",
			"ufw",
		);
		t.equal(second.code, 1);
		t.match(second.stderr, "another llamagate setup runs");
		t.equal((await first).code, 0);
		await host.must("llamagate", "setup", "--undo", "--yes");
	});

	t.test("a command line that makes no sense is a usage error", async (t) => {
		for (const options of [
			["--only", "firewall"],
			["--json"],
			["--undo", "--yes", "--only", "ufw"],
			["--undo", "--yes", "--skip", "ufw"],
			["--skip", "ufw,nothing"],
			["--undoo"],
		])
			t.equal(
				(await host.run("llamagate", "setup", ...options)).code,
				2,
				options.join(" "),
			);
	});

	t.test("only root may", async (t) => {
		const { code, stderr } = await host.run(
			...["setpriv", "--reuid=65534", "--clear-groups"],
			...["llamagate", "setup", "--dry-run"],
		);
		t.equal(code, 1);
		t.match(stderr, "sudo llamagate setup");
	});
});
