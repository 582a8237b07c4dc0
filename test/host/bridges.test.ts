import t from "tap";
import { type BootedHost, bootHost, booting } from "../support/bootedHost.ts";
import {
	comesOut,
	commandOf,
	evidenceOf,
	examine,
	follow,
	lookAt,
} from "../support/doctor.ts";
import { testKeys } from "../support/gate.ts";
import {
	addresses,
	ask,
	becomes,
	gateV4,
	startDaemon,
	startStandInProcess,
} from "../support/namespaces.ts";
import { fingerprint, runSetup } from "../support/setupHost.ts";
import { requireValkey, valkeyProgram } from "../support/valkey.ts";

const { v4: minipc } = addresses.peer;
const key = testKeys.owner;
const keyFile = "/etc/llamagate/minipc.key";
const unit = "llamagate-bridge@minipc-11434";
const socket = "/run/llamagate-bridges/minipc-11434.sock";

/** Writes settings as an administrator does: the file stays root's and the gate's. */
async function configure(host: BootedHost, config: object): Promise<void> {
	const text = JSON.stringify({ admin: { metrics: "off" }, ...config });
	await host.sh(`cat >/etc/llamagate/config.json <<'END'\n${text}\nEND`);
}

async function hostStates(host: BootedHost): Promise<Record<string, string>> {
	const text = await host.sh(
		"curl --silent --unix-socket /run/llamagate/admin.sock http://gate/status",
	);
	const { hosts = [] } = JSON.parse(text) as {
		hosts?: { name: string; state: string }[];
	};
	return Object.fromEntries(hosts.map(({ name, state }) => [name, state]));
}

const nameIs = (host: BootedHost, address: string) =>
	host.sh(
		`grep -v ' minipc$' /etc/hosts >/tmp/hosts || :; echo '${address} minipc' >>/tmp/hosts; cat /tmp/hosts >/etc/hosts`,
	);

t.test("the ways out that setup makes", booting(), async (t) => {
	const host = await bootHost(t);
	const peer = await host.plugTailnet();
	await startStandInProcess(peer);
	const there = await startDaemon(t, peer);
	await there.log.seen(({ msg }) => msg === "listening");
	await nameIs(host, minipc);
	const workstation = { name: "workstation", url: "http://127.0.0.1:11434" };
	const upstreams = [
		workstation,
		{ name: "minipc", url: "http://minipc:11434", keyFile: "minipc.key" },
	];
	const setup = (...options: string[]) =>
		runSetup(host, "--only", "bridges", ...options);
	const setupWith = async (state: object) => {
		await configure(host, { upstreams, state });
		return setup("--yes");
	};
	const status = async () =>
		(await ask(peer, gateV4, { key: testKeys.user })).status;
	await becomes(t, status, 200, "the gate serves");

	await t.test("nothing takes one where all is a Unix socket", async (t) => {
		const { report } = await setup("--yes");
		t.match(report.steps, [{ id: "bridges", state: "absent" }]);
		t.equal((await lookAt(host, "gate.bridges")).state, "absent");
	});

	await configure(host, { upstreams });
	const before = await fingerprint(host);

	await t.test("without the host's key nothing is made", async (t) => {
		const { report, code } = await setup("--yes");
		t.equal(code, 1);
		t.match(report.steps, [
			{
				state: "unsafe",
				says: "/etc/llamagate/minipc.key is not there, and is to hold the key that minipc has given this gate; paste it, then Ctrl-D: sudo install -o root -g llamagate -m 640 /dev/stdin /etc/llamagate/minipc.key",
			},
		]);
		t.equal(await fingerprint(host), before);
	});

	await t.test("a key that lies where others may read it", async (t) => {
		await host.write(keyFile, `${key}\n`, 0o644);
		const plan = await setup("--dry-run");
		t.match(plan.report.steps[0]?.actions, [
			"chown root:llamagate /etc/llamagate/minipc.key",
			"chmod 640 /etc/llamagate/minipc.key",
		]);
		const files = await lookAt(host, "gate.files");
		t.match(files.evidence, /others than the gate may read it: .*minipc\.key/);
		const { code, report, stdout } = await setup("--yes");
		t.equal(code, 0, stdout);
		t.match(report.steps, [
			{
				state: "changed",
				proofs: [
					{
						ok: true,
						says: /workstation .* leads to 127\.0\.0\.1:11434/,
					},
					{
						ok: true,
						says: `the bridge for minipc (http://minipc:11434) leads to ${minipc}:11434, and the gate alone may open it`,
					},
					{ ok: true, says: /^workstation .* answers, and has \d+ model/ },
					{
						ok: true,
						says: /^minipc \(http:\/\/minipc:11434\) answers, and has \d+ model/,
					},
				],
			},
		]);
		t.notMatch(stdout, key, "the key is not shown");
		t.equal(
			await host.sh(`stat --format='%a %U %G' ${keyFile}`),
			"640 root llamagate\n",
		);
		t.notMatch(
			await host.sh(
				"cat /var/lib/llamagate/setup/journal.jsonl /var/lib/llamagate/setup/kept/* 2>/dev/null || :",
			),
			key,
			"nor does the journal keep it",
		);
	});

	await t.test("the gate reaches both, without a network", async (t) => {
		await becomes(
			t,
			() => hostStates(host),
			{ workstation: "up", minipc: "up" },
			"both are up",
		);
		const pid = (
			await host.sh("systemctl show -P MainPID llamagate.service")
		).trim();
		t.not(
			await host.sh(`readlink /proc/${pid}/ns/net`),
			await host.sh("readlink /proc/1/ns/net"),
		);
	});

	await t.test("the second run changes nothing", async (t) => {
		const { report, code } = await setup("--yes");
		t.equal(code, 0);
		t.match(report.steps, [{ state: "done", actions: [] }]);
	});

	await t.test(
		"nobody else may open it, and it leads to one address",
		async (t) => {
			const others = await host.run(
				...["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"],
				...["curl", "--silent", "--unix-socket", socket, "http://gate/"],
			);
			t.equal(others.code, 7);
			t.match(
				await host.sh(
					`systemctl show -P IPAddressAllow -P IPAddressDeny '${unit}.service'`,
				),
				new RegExp(`^${minipc.replaceAll(".", "\\.")}`, "m"),
			);
			const said = await host.must(
				...["systemd-analyze", "security", "--no-pager", `${unit}.service`],
			);
			const [, level] =
				/Overall exposure level for \S+: ([\d.]+)/.exec(said) ?? [];
			t.ok(Number(level) <= 1.2, `systemd rates its exposure ${level}`);
		},
	);

	await t.test("doctor likes it", async (t) => {
		await comesOut(
			t,
			host,
			{
				"gate.bridges": "ok",
				"gate.hosts": "ok",
				"gate.hosts-bare": "ok",
				"gate.files": "ok",
			},
			"all that looks at other hosts",
		);
	});

	await t.test("doctor sees what was done to it", async (t) => {
		const mended = async (what: RegExp) => {
			const found = await examine(host, ["gate.bridges"]);
			t.match(evidenceOf(found, "gate.bridges"), what);
			await host.sh(`${commandOf(found, "gate.bridges")} --yes`);
			t.equal((await lookAt(host, "gate.bridges")).state, "ok", String(what));
		};
		await host.sh(`systemctl disable --now '${unit}.socket'`);
		await mended(/does not run and does not start at boot/);
		await host.sh(`chmod 666 ${socket}`);
		t.match(
			(await lookAt(host, "gate.bridges")).evidence,
			/others than the gate may open/,
		);
		await host.sh(`systemctl restart '${unit}.socket'`);
		const foreign = `/etc/systemd/system/${unit}.service.d/zz.conf`;
		await host.write(
			foreign,
			"[Service]\nEnvironment=ADDRESS=100.101.102.99:11434\nIPAddressAllow=any\n",
		);
		await host.sh("systemctl daemon-reload");
		const led = await lookAt(host, "gate.bridges");
		t.equal(led.state, "high");
		for (const what of [
			/leads to 100\.101\.102\.99:11434, and the configuration to/,
			/may reach .*0\.0\.0\.0\/0/,
			/zz\.conf changes its bridge/,
		])
			t.match(led.evidence, what);
		await follow(host, led.fix);
		t.equal((await lookAt(host, "gate.bridges")).state, "ok");
	});

	await t.test(
		"a name that moves is followed when it is told so",
		async (t) => {
			await nameIs(host, "100.101.102.99");
			t.match(
				(await lookAt(host, "gate.bridges")).evidence,
				/leads to 100\.101\.102\.105:11434, and the configuration to 100\.101\.102\.99/,
			);
			const away = await setup("--yes");
			t.equal(away.code, 0, "a host that is off is no fault of this one");
			t.match(away.report.steps[0]?.proofs[3], {
				isPending: true,
				says: /minipc .* is of no use yet/,
			});
			await becomes(
				t,
				async () => (await hostStates(host)).minipc,
				"down",
				"the gate learns it",
			);
			await nameIs(host, "192.168.77.2");
			const outside = await setup("--yes");
			t.equal(outside.code, 1);
			t.match(outside.report.steps, [
				{ state: "unsafe", says: /leads to 192\.168\.77\.2, which is neither/ },
			]);
			await nameIs(host, minipc);
			await setup("--yes");
			await becomes(
				t,
				() => hostStates(host),
				{ workstation: "up", minipc: "up" },
				"both are up again",
			);
		},
	);

	await t.test(
		"a place that has no bridge is down, and not another's",
		async (t) => {
			await configure(host, {
				upstreams: [
					workstation,
					{ ...upstreams[1], url: `http://${minipc}:11434` },
				],
			});
			t.match(
				await host.must("llamagate", "reload"),
				/^No bridge leads to minipc \(http:\/\/100\.101\.102\.105:11434\) yet; run: sudo llamagate setup --only bridges\nNothing needs the bridge minipc-11434 any more/m,
			);
			await becomes(
				t,
				async () => (await hostStates(host)).minipc,
				"down",
				"there is no way to it",
			);
			const found = await lookAt(host, "gate.hosts");
			t.match(
				found.evidence,
				/no bridge leads there; run: sudo llamagate setup/,
			);
		},
	);

	await t.test("a host that is taken out takes its bridge along", async (t) => {
		await configure(host, { upstreams: [workstation] });
		await host.must("llamagate", "reload");
		const left = await lookAt(host, "gate.bridges");
		t.equal(left.state, "warn");
		t.match(left.evidence, /minipc-11434\.socket leads to a place/);
		const { code, stdout } = await setup("--yes");
		t.equal(code, 0, stdout);
		t.notMatch(await fingerprint(host), "minipc-11434");
		t.equal(
			await host.sh(`ls /run/llamagate-bridges`),
			"127.0.0.1-11434.sock\n",
		);
		t.equal((await lookAt(host, "gate.bridges")).state, "ok");
	});

	await t.test("they are there after a reboot", async (t) => {
		await configure(host, { upstreams });
		await setup("--yes");
		await host.reboot();
		await becomes(
			t,
			() => hostStates(host).catch(() => ({})),
			{ workstation: "up", minipc: "up" },
			"both are up",
		);
	});

	await t.test("Valkey is reached in the same way", async (t) => {
		if (!requireValkey(t)) return;
		const password = key.slice(3);
		const valkey = peer.start(
			...[valkeyProgram, "--bind", minipc, "--requirepass", password],
			...["--save", "", "--appendonly", "no", "--maxmemory", "64mb"],
		);
		await new Promise((resolve) =>
			valkey.stdout.on("data", (text: string) => {
				if (/ready to accept/i.test(text)) resolve(undefined);
			}),
		);
		await host.write("/etc/llamagate/valkey.password", password, 0o644);
		const state = {
			url: `valkey://${minipc}`,
			passwordFile: "valkey.password",
		};
		await configure(host, { upstreams, state });
		const { code, report, stdout } = await setup("--yes");
		t.equal(code, 0, stdout);
		t.match(
			report.steps[0]?.notes.join(),
			/takes a restart: sudo systemctl restart llamagate/,
		);
		await host.must("systemctl", "restart", "llamagate");
		await comesOut(
			t,
			host,
			{ "gate.bridges": "ok", "gate.state": "ok", "gate.valkey": "ok" },
			"limits are shared",
		);
		const openly = await setupWith({
			...state,
			url: "valkey://192.168.77.2:6379",
		});
		t.match(openly.report.steps, [
			{ state: "failed", says: /neither on this machine nor .*valkeys:\/\// },
		]);
	});

	await t.test("undo leaves nothing of it", async (t) => {
		await configure(host, { upstreams });
		const again = await setup("--yes");
		t.equal(again.code, 0, again.stdout);
		const undone = await host.run("llamagate", "setup", "--undo", "--yes");
		t.equal(undone.code, 0, undone.stdout + undone.stderr);
		t.notMatch(await fingerprint(host), "llamagate-bridge@127");
		t.notMatch(await fingerprint(host), "llamagate-bridge@minipc");
		t.equal(await host.sh("ls /run/llamagate-bridges"), "");
		t.equal(
			await host.sh(`stat --format='%a %U %G' ${keyFile}`),
			"644 root root\n",
			"the key file is as it was",
		);
	});
});

t.test(
	"a first setup takes hosts that the configuration has already",
	booting(),
	async (t) => {
		const host = await bootHost(t, { llamagate: "installed" });
		await host.write(keyFile, `${key}\n`, 0o644);
		const gone = {
			...{ name: "minipc", url: `http://${minipc}:11434` },
			keyFile: "minipc.key",
		};
		await configure(host, {
			upstreams: [{ name: "here", url: "http://127.0.0.1:11434" }, gone],
		});
		const { code, report, stdout } = await runSetup(
			host,
			...["--yes", "--only", "account,ollama,bridges,gate"],
		);
		t.equal(code, 0, stdout);
		const made = report.steps.find(({ id }) => id === "bridges");
		t.match(made?.proofs.at(-1), { isPending: true, says: /of no use yet/ });
		const found = await examine(host, ["gate.bridges", "gate.files"]);
		for (const { id, state } of found.values()) t.equal(state, "ok", id);
		t.match(
			await host.sh(
				`curl --silent --unix-socket /run/llamagate-local/gate.sock -H 'Authorization: Bearer ${report.key}' http://gate/api/tags`,
			),
			/"models":\[\{/,
			"the one that is there answers",
		);
	},
);
