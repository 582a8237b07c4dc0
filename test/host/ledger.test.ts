import t from "tap";
import { bootHost, booting } from "../support/bootedHost.ts";
import { testKeys } from "../support/gate.ts";
import { ask, becomes, gateV4 } from "../support/namespaces.ts";

const key = testKeys.user;
const unit = "llamagate-ledger.service";

t.test("the ledger as a service of its own", booting(), async (t) => {
	const host = await bootHost(t);
	const peer = await host.plugTailnet();
	const status = async () => (await ask(peer, gateV4, { key })).status;
	await becomes(t, status, 200, "the gate serves");
	t.equal(
		await host.sh(`systemctl is-enabled ${unit} || true`),
		"disabled\n",
		"nobody has it unasked",
	);
	const config = JSON.parse(await host.read("/etc/llamagate/config.json"));
	const text = JSON.stringify({ ...config, ledger: {} });
	// As it is: its owner and group stay.
	await host.sh(`printf '%s' '${text}' >/etc/llamagate/config.json`);
	await host.must("llamagate", "setup", "--only", "gate", "--yes");
	t.equal(await host.sh(`systemctl is-enabled ${unit}`), "enabled\n");
	await becomes(t, status, 200, "the gate serves with it");

	const infer = () =>
		host.sh(
			`curl --silent --unix-socket /run/llamagate-local/gate.sock -H 'Authorization: Bearer ${key}' -d '{"model":"qwen3:8b","prompt":"a"}' http://gate/api/generate`,
		);
	const used = async () => {
		const { rows } = JSON.parse(
			await host.sh("llamagate usage --json --by key"),
		) as { rows: { key: string; requests: number }[] };
		return rows.find((row) => row.key === "user")?.requests ?? 0;
	};
	await t.test("the gate's records get there, and are told", async (t) => {
		await infer();
		await becomes(t, used, 1, "one request");
	});

	await t.test("killed, it comes back with all", async (t) => {
		await host.must("systemctl", "kill", "-s", "KILL", unit);
		await infer();
		await becomes(t, () => used().catch(() => undefined), 2, "both requests");
	});

	await t.test("systemd rates its exposure 0.5 or less", async (t) => {
		const said = await host.must(
			...["systemd-analyze", "security", "--no-pager", unit],
		);
		const [, level] =
			/Overall exposure level for \S+: ([\d.]+)/.exec(said) ?? [];
		t.ok(Number(level) <= 0.5, `${level}`);
	});

	await t.test("the file is its own, the socket the gate's too", async (t) => {
		const stat = (file: string) =>
			host.sh(`stat --dereference --format='%a %u %G' ${file}`);
		const [, mode, uid] =
			/^(\d+) (\d+) /.exec(
				await stat("/var/lib/llamagate-ledger/ledger.sqlite"),
			) ?? [];
		t.equal(mode, "600");
		t.notMatch(uid, /^0$/);
		t.not(`${uid}\n`, await host.sh("id -u llamagate"), "not the gate's user");
		t.equal(
			await stat("/run/llamagate-ledger/ledger.sock"),
			`660 ${uid} llamagate\n`,
		);
		const others = await host.run(
			...["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"],
			...["llamagate", "usage"],
		);
		t.not(others.code, 0, "others may not ask");
	});

	await t.test("it sees neither keys nor a network", async (t) => {
		const pid = (await host.sh(`systemctl show -P MainPID ${unit}`)).trim();
		t.match(
			await host.sh(`ls /proc/${pid}/root/etc/llamagate`),
			/^config\.json\n$/,
		);
		t.not(
			await host.sh(`readlink /proc/${pid}/ns/net`),
			await host.sh("readlink /proc/1/ns/net"),
		);
		const proc = await host.sh(`cat /proc/${pid}/status`);
		t.match(proc, /^CapEff:\s+0+$/m);
		t.match(proc, /^NoNewPrivs:\s+1$/m);
		t.match(proc, /^Seccomp:\s+2$/m);
	});

	await t.test(
		"doctor looks whether it takes what the gate sends",
		async (t) => {
			const doctor = async () => {
				const { stdout } = await host.run(
					...["llamagate", "doctor", "--only", "gate.ledger", "--json"],
				);
				return /"state":\s*"(\w+)"/.exec(stdout)?.[1];
			};
			t.equal(await doctor(), "ok");
			await host.must("systemctl", "stop", unit);
			await becomes(
				t,
				doctor,
				"finding",
				"a ledger that is stopped is told of",
			);
		},
	);
});
