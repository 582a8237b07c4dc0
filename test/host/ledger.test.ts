import { writeFile } from "node:fs/promises";
import t from "tap";
import { bootHost, booting } from "../support/bootedHost.ts";
import { makeAuthority } from "../support/certificates.ts";
import { eventually, testKeys } from "../support/gate.ts";
import {
	addresses,
	ask,
	becomes,
	gateV4,
	linesOf,
} from "../support/namespaces.ts";
import { startPostgres } from "../support/postgres.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

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

	await t.test(
		"several hosts' ledgers may have one database, and its way there leads nowhere else",
		async (t) => {
			const server = await startPostgres(t, {
				address: addresses.peer.v4,
				launcher: ["ip", "netns", "exec", peer.name],
			});
			const { url } = await server.createDatabase();
			const ledger = { url, passwordFile: "ledger-password", gate: "server" };
			const changed = JSON.stringify({ ...config, ledger });
			await host.sh(`printf '%s' '${changed}' >/etc/llamagate/config.json`);
			const refused = await host.run(
				...["llamagate", "setup", "--only", "gate", "--yes"],
			);
			t.match(refused.stdout, /ledger-password/, "without a password");
			await host.write(
				"/etc/llamagate/ledger-password",
				`${server.password}\n`,
				0o600,
			);
			await host.must("llamagate", "setup", "--only", "gate", "--yes");
			await host.must("systemctl", "restart", unit, "llamagate");
			await becomes(t, status, 200, "the gate serves with it");
			await infer();
			await becomes(t, () => used().catch(() => undefined), 1, "told by it");
			const rows = await server.sql(
				"ledger1",
				"SELECT gate, key FROM llamagate.parties",
			);
			t.strictSame(rows, [{ gate: "server", key: "user" }]);
			const pid = (await host.sh(`systemctl show -P MainPID ${unit}`)).trim();
			t.match(
				await host.sh(
					`systemctl show -P IPAddressAllow -P IPAddressDeny ${unit}`,
				),
				new RegExp(addresses.peer.v4.replaceAll(".", "\\.")),
			);
			t.notMatch(
				await host.sh(
					`cat /proc/${pid}/environ /proc/${pid}/cmdline | tr '\\0' ' '`,
				),
				server.password,
			);
			await host.must(...["llamagate", "doctor", "--only", "gate.ledger"]);
			const back = JSON.stringify({ ...config, ledger: {} });
			await host.sh(`printf '%s' '${back}' >/etc/llamagate/config.json`);
			const stale = await host.run(
				...["llamagate", "doctor", "--only", "gate.ledger"],
			);
			t.match(stale.stdout, /does not lead to the database/);
			await host.must("llamagate", "setup", "--only", "gate", "--yes");
			t.equal(
				await host.sh(`systemctl show -P PrivateNetwork ${unit}`),
				"yes\n",
			);
		},
	);

	await t.test(
		"alarms give it a way out, which leads to nothing of this host",
		async (t) => {
			const { v4 } = addresses.peer;
			const receiver = linesOf(
				peer.start(
					process.execPath,
					"test/support/receiverProcess.ts",
					v4,
					"8080",
				),
				(line) => JSON.parse(line) as { topic?: string; message?: string },
			);
			await receiver.seen(() => true);
			const network = async () => {
				const pid = (await host.sh(`systemctl show -P MainPID ${unit}`)).trim();
				return host.sh(`readlink /proc/${pid}/ns/net`);
			};
			const own = await host.sh("readlink /proc/1/ns/net");
			const doctor = async () => {
				const { stdout } = await host.run(
					...["llamagate", "doctor", "--only", "gate.alarms", "--json"],
				);
				return /"state":\s*"(\w+)"/.exec(stdout)?.[1];
			};
			const use = async (alarms: readonly object[]) => {
				const text = JSON.stringify({ ...config, ledger: {}, alarms });
				await host.sh(`printf '%s' '${text}' >/etc/llamagate/config.json`);
			};
			t.equal(await doctor(), "absent");
			await host.sh(
				`install -d -m 0750 -g llamagate /etc/llamagate/alarms
				echo http://${v4}:8080/gpu >/etc/llamagate/alarms/ntfy
				chgrp llamagate /etc/llamagate/alarms/ntfy
				chmod 0640 /etc/llamagate/alarms/ntfy`,
			);
			// One leads to Ollama, which asks for no key.
			await use([
				{ urlFile: "alarms/ntfy" },
				{ url: "http://127.0.0.1:11434/gpu" },
				// So does a name; there it would say that it speaks no TLS.
				{ url: "https://localhost:11434/gpu" },
			]);
			t.equal(await doctor(), "finding");
			await host.must("llamagate", "setup", "--only", "gate", "--yes");
			await becomes(t, network, own, "it has the host's network");
			await becomes(t, doctor, "ok", "doctor likes it");
			// A service that was restarted a moment ago has no socket yet.
			const trial = async () => {
				let said = "";
				await eventually(async () => {
					said = (await host.run("llamagate", "ledger", "--test-alarm")).stdout;
					return said !== "";
				});
				return said;
			};
			t.match(
				await trial(),
				// What the kernel drops has no answer.
				/^ok {4}ntfy at 100\.101\.102\.105:8080\nlook {2}ntfy at 127\.0\.0\.1:11434: (EPERM|it did not answer in 10 s)\nlook {2}ntfy at localhost:11434: (EPERM|ETIMEDOUT|it did not answer in 10 s)\n$/,
			);
			await receiver.seen(({ topic }) => topic === "gpu");

			// Over HTTPS, from an authority that the unit is told of.
			const authority = await makeAuthority(t);
			const { cert, key } = await authority.issue({ names: [v4] });
			const folder = await temporaryFolder(t);
			const [certFile, keyFile] = [`${folder}/cert.pem`, `${folder}/key.pem`];
			await writeFile(certFile, cert);
			await writeFile(keyFile, key);
			const secure = linesOf(
				peer.start(
					...[process.execPath, "test/support/receiverProcess.ts"],
					...[v4, "8443", certFile, keyFile],
				),
				(line) => JSON.parse(line) as { topic?: string },
			);
			await secure.seen(() => true);
			await use([{ url: `https://${v4}:8443/private` }]);
			const anew = async () => {
				await host.must("systemctl", "restart", unit);
				return trial();
			};
			t.equal(
				await anew(),
				`look  ntfy at ${v4}:8443: UNABLE_TO_VERIFY_LEAF_SIGNATURE\n`,
			);
			await host.write("/etc/llamagate/alarms/ca.pem", authority.ca, 0o644);
			const dropIn = `/etc/systemd/system/${unit}.d/ca.conf`;
			await host.write(
				dropIn,
				"[Service]\nEnvironment=NODE_EXTRA_CA_CERTS=/etc/llamagate/alarms/ca.pem\n",
			);
			await host.must("systemctl", "daemon-reload");
			t.equal(await anew(), `ok    ntfy at ${v4}:8443\n`);
			await secure.seen(({ topic }) => topic === "private");
			await host.sh(`rm ${dropIn}; systemctl daemon-reload`);
			await use([{ urlFile: "alarms/ntfy" }]);

			await host.must("systemctl", "restart", "llamagate.service");
			await becomes(t, status, 200, "the gate serves");
			t.notMatch(
				JSON.stringify([
					await host.journal(unit),
					await host.journal("llamagate.service"),
				]),
				/8080\/gpu/,
				"no journal has the address",
			);

			await use([]);
			t.equal(await doctor(), "finding", "a way out that nothing needs");
			await host.must("llamagate", "setup", "--only", "gate", "--yes");
			t.equal(await doctor(), "absent");
			await becomes(
				t,
				async () => (await network()) === own,
				false,
				"its way out is gone",
			);
		},
	);

	await t.test("taken out of the configuration, it runs no more", async (t) => {
		const without = JSON.stringify(config);
		await host.sh(`printf '%s' '${without}' >/etc/llamagate/config.json`);
		const doctor = async () =>
			(await host.run("llamagate", "doctor", "--only", "gate.ledger")).stdout;
		t.match(await doctor(), `${unit} is enabled, and the configuration has`);
		await host.must("llamagate", "setup", "--only", "gate", "--yes");
		const state = () =>
			host.sh(
				`systemctl is-enabled ${unit} || systemctl is-active ${unit} || true`,
			);
		t.equal(await state(), "disabled\ninactive\n");
		await becomes(t, status, 200, "the gate serves without it");
		t.match(await doctor(), "the configuration has no ledger");
		const again = await host.must(
			...["llamagate", "setup", "--only", "gate", "--yes", "--json"],
		);
		t.match(JSON.parse(again), { steps: [{ state: "done" }] });
	});

	await t.test(
		"undo says that what it has written stays, and where",
		async (t) => {
			const folder = "/var/lib/private/llamagate-ledger";
			const advice = `What the ledger has written stays, in ${folder}. To delete it:\n  sudo rm -r ${folder} /var/lib/llamagate-ledger\n`;
			const dry = await host.must(
				...["llamagate", "setup", "--undo", "--dry-run"],
			);
			t.match(dry, advice);
			t.match(await host.must("llamagate", "setup", "--undo", "--yes"), advice);
			t.match(await host.sh(`ls ${folder}`), /^ledger\.sqlite$/m);
			const again = await host.must(
				...["llamagate", "setup", "--undo", "--yes", "--json"],
			);
			t.match(JSON.parse(again), { left: [], kept: [folder] });
			await host.sh(advice.split("sudo ")[1] ?? "");
			t.match(
				JSON.parse(
					await host.must(
						...["llamagate", "setup", "--undo", "--yes", "--json"],
					),
				),
				{ kept: [] },
				"deleted as it says, nothing is left",
			);
		},
	);
});
