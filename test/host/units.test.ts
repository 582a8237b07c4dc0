import { once } from "node:events";
import t from "tap";
import { digestOf } from "../../src/keys/newKey.ts";
import { bootHost, booting } from "../support/bootedHost.ts";
import {
	type Authority,
	type IssuedPair,
	makeAuthority,
} from "../support/certificates.ts";
import { type testEntries, testKeys } from "../support/gate.ts";
import {
	ask,
	becomes,
	gateV4,
	type Namespace,
	startStream,
} from "../support/namespaces.ts";
import { runSetup } from "../support/setupHost.ts";

const key = testKeys.user;
const unit = "llamagate.service";
const dropIns = `/etc/systemd/system/${unit}.d`;
const configFile = "/etc/llamagate/config.json";
const keysFile = "/etc/llamagate/keys.json";

t.test("the gate as a unit of a booted host", booting(), async (t) => {
	const host = await bootHost(t);
	const peer = await host.plugTailnet();
	const status = async (key?: string) =>
		(await ask(peer, gateV4, key === undefined ? {} : { key })).status;
	await becomes(t, () => status(key), 200, "the gate serves");

	const property = async (name: string) =>
		(
			await host.must(
				"systemctl",
				"show",
				`--property=${name}`,
				"--value",
				unit,
			)
		).trim();
	const goodConfig = await host.read(configFile);
	const goodKeys = await host.read(keysFile);

	await t.test("systemd finds nothing odd in the units", async (t) => {
		const { code, stdout, stderr } = await host.run(
			"sh",
			"-c",
			"systemd-analyze verify --man=no /lib/systemd/system/llamagate*",
		);
		t.strictSame({ code, stdout, stderr }, { code: 0, stdout: "", stderr: "" });
	});

	await t.test("its sockets hold a burst of connections", async (t) => {
		const sockets = (
			await host.must("ss", "-Hltn", "sport", "=", "11434")
		).split("\n");
		const queues = sockets
			.map((line) => line.split(/\s+/))
			.filter(([, , , address]) => !address?.startsWith("127."))
			.map(([, , length]) => length);
		t.strictSame(queues.filter(Boolean), ["4096", "4096"]);
	});

	await t.test("a reload puts a changed file in force", async (t) => {
		t.equal(await status(testKeys.wrong), 401, "a key that is not there yet");
		const { keys } = JSON.parse(goodKeys) as { keys: typeof testEntries };
		const added = {
			name: "added",
			sha256: digestOf(testKeys.wrong),
			scopes: ["read"],
		};
		await host.write(
			keysFile,
			JSON.stringify({ keys: [...keys, added] }),
			0o640,
		);
		await host.must("systemctl", "reload", unit);
		t.equal(await status(testKeys.wrong), 200, "is good at once");
		await host.write(keysFile, goodKeys, 0o640);
		await host.must("systemctl", "reload", unit);
		t.equal(await status(testKeys.wrong), 401, "and no longer");
	});

	for (const [file, good, broken, mistake] of [
		[configFile, goodConfig, '{ "drainTimeout": "soon" }', /drainTimeout/],
		[keysFile, goodKeys, '{ "keys": [{ "name": "x" }] }', /sha256/],
	] as const)
		await t.test(
			`a reload of a broken ${file} fails and says why, and what was in force stays so`,
			async (t) => {
				const pid = await property("MainPID");
				await host.write(file, broken, 0o640);
				const { code } = await host.run("systemctl", "reload", unit);
				t.not(code, 0, "systemctl says that it failed");
				const said = (await host.journal(unit)).join("\n");
				t.ok(said.includes(`${file} is not usable`), "the file is named");
				t.match(said, mistake, "and the mistake");
				t.equal(await property("ActiveState"), "active");
				t.equal(await property("MainPID"), pid, "it is the same process");
				t.equal(await status(key), 200, "the old keys work");
				await host.write(file, good, 0o640);
				await host.must("systemctl", "reload", unit);
			},
		);

	await t.test(
		"a restart lets a stream end, and keeps who comes meanwhile until the new gate is there",
		async (t) => {
			const stream = startFiniteStream(peer, 60);
			await stream.started;
			const before = await property("MainPID");
			const restarted = host.must("systemctl", "restart", unit);
			await becomes(
				t,
				() => property("ActiveState"),
				"deactivating",
				"the old gate waits for the stream",
			);
			const waiting = ask(peer, gateV4, { key });
			const lines = await stream.ended;
			t.equal(lines.length, 61, "every token came");
			t.match(lines.at(-1), { done: true, done_reason: "length" });
			t.equal((await waiting).status, 200, "who came meanwhile is answered");
			await restarted;
			t.not(await property("MainPID"), before, "by the new gate");
		},
	);

	await t.test(
		"a key that is made by the command works at once, and one that is revoked stops at once",
		async (t) => {
			const said = await host.must("llamagate", "keys", "add", "phone");
			const phone = /lg_\w+/.exec(said)?.[0] ?? "";
			t.equal(await status(phone), 200);
			const stream = startStream(peer, gateV4, phone);
			await stream.seen((_, index) => index === 1);
			await host.must("llamagate", "keys", "revoke", "phone");
			t.equal(await status(phone), 401);
			await stream.seen(({ error }) => error !== undefined);
		},
	);

	await t.test(
		"with the files of listen.tls it speaks HTTPS on systemd's sockets, and a renewed pair is taken over while a stream goes on",
		async (t) => {
			const [first, renewed] = [await makeAuthority(t), await makeAuthority(t)];
			const statusFor = async (authority: Authority) =>
				(await ask(peer, gateV4, { key, authority })).status;
			// As docs/https.md has it.
			const install = async ({ cert, key }: IssuedPair) => {
				await host.write("/root/fullchain.pem", cert);
				await host.write("/root/privkey.pem", key);
				await host.sh(`cd /root
					install -m 0644 -o root -g root fullchain.pem /etc/llamagate/gate.crt
					install -m 0640 -o root -g llamagate privkey.pem /etc/llamagate/gate.key`);
			};
			await install(await first.issue());
			const tls = { certFile: "gate.crt", keyFile: "gate.key" };
			await host.write(
				configFile,
				JSON.stringify({ ...JSON.parse(goodConfig), listen: { tls } }),
				0o640,
			);
			await host.sh("llamagate check && llamagate reload");
			t.equal(await statusFor(first), 200);
			t.match(await ask(peer, gateV4, { key }), {
				status: 400,
				body: "https://",
			});
			const pid = await property("MainPID");
			const stream = startStream(peer, gateV4, key, first);
			await stream.seen((_, index) => index === 1);

			const other = await renewed.issue();
			await install({ ...other, cert: (await renewed.issue()).cert });
			const refused = await host.run("systemctl", "reload", unit);
			t.not(refused.code, 0, "a key of another certificate is refused");
			t.equal(await statusFor(first), 200, "what was in force stays so");

			await install(other);
			await host.must("systemctl", "reload", unit);
			t.equal(await statusFor(renewed), 200);
			t.equal(await statusFor(first), 0, "the one before is gone");
			const told = stream.all.length;
			await stream.seen((_, index) => index > told);
			t.notOk(stream.all.some(({ error }) => error !== undefined));
			t.equal(await property("MainPID"), pid, "in the same process");

			stream.end();
			await host.must("systemctl", "restart", unit);
			await becomes(t, () => statusFor(renewed), 200, "after a restart too");

			await host.write(configFile, goodConfig, 0o640);
			await host.must("systemctl", "reload", unit);
			t.equal(await status(key), 200, "and plain again");
		},
	);

	await t.test("the daemon cannot write the keys that it reads", async (t) => {
		t.equal(
			(await host.must("stat", "-c", "%U:%G %a", keysFile)).trim(),
			"root:llamagate 640",
			"also after the command has written them",
		);
		for (const command of [
			`echo >>${keysFile}`,
			`rm -f ${keysFile}`,
			"echo >/etc/llamagate/new.json",
			`chmod 666 ${keysFile}`,
		]) {
			const { code } = await host.run(
				...["runuser", "-u", "llamagate", "--", "sh", "-c", command],
			);
			t.not(code, 0, command);
		}
		const { code } = await host.run(
			...["runuser", "-u", "llamagate", "--", "cat", keysFile],
		);
		t.equal(code, 0, "and can read them");
	});

	await t.test(
		"a gate whose event loop hangs is killed and comes back",
		async (t) => {
			// An endless loop, in the daemon itself, from when it is sent SIGUSR2.
			await host.write(
				"/etc/llamagate/hang.mjs",
				'process.on("SIGUSR2", () => { for (;;); });\n',
			);
			await host.write(
				`${dropIns}/hang.conf`,
				"[Service]\nWatchdogSec=3s\nEnvironment=NODE_OPTIONS=--import=/etc/llamagate/hang.mjs\n",
			);
			await host.must("systemctl", "daemon-reload");
			await host.must("systemctl", "restart", unit);
			await becomes(t, () => status(key), 200, "it serves");
			const pid = await property("MainPID");
			await host.must(
				...["systemctl", "kill", "--kill-who=main", "--signal=USR2", unit],
			);
			await becomes(
				t,
				async () =>
					(await host.journal(unit)).some((line) =>
						line.includes("Watchdog timeout"),
					),
				true,
				"systemd misses the sign of life",
			);
			await becomes(t, () => status(key), 200, "it serves again");
			t.not(await property("MainPID"), pid, "as another process");
			await host.must("rm", `${dropIns}/hang.conf`);
			await host.must("systemctl", "daemon-reload");
			await host.must("systemctl", "restart", unit);
		},
	);

	await t.test(
		"setup leaves what a person has decided about a unit",
		async (t) => {
			const timer = "llamagate-doctor.timer";
			const own = "/etc/systemd/system/llamagate-ollama.service";
			await host.sh(`systemctl disable --now ${timer}; systemctl mask ${timer}
				cp /lib/systemd/system/llamagate-ollama.service ${own}
				echo '# mine' >>${own}; systemctl daemon-reload`);
			const before = await host.sh("ls -l /etc/systemd/system");
			const { report } = await runSetup(host, "--yes", "--only", "gate");
			const [step] = report.steps;
			t.strictSame(step?.actions, []);
			t.match(step?.notes, [
				/^Masked, and it stays so: llamagate-doctor\.timer\./,
				/left as it is: \/etc\/systemd\/system\/llamagate-ollama\.service\./,
			]);
			t.equal(await host.sh("ls -l /etc/systemd/system"), before);
			await host.sh(`systemctl unmask ${timer}; systemctl enable --now ${timer}
				systemctl mask llamagate-ollama.socket`);
			const masked = await runSetup(host, "--dry-run", "--only", "gate");
			t.equal(masked.report.steps[0]?.state, "unsafe");
			t.match(masked.report.steps[0]?.says, "unmask llamagate-ollama.socket");
			await host.sh(`systemctl unmask llamagate-ollama.socket
				rm ${own}; systemctl daemon-reload`);
		},
	);

	await t.test(
		"with a broken configuration setup takes nothing away",
		async (t) => {
			const folder = "/etc/systemd/system/llamagate-ledger.service.d";
			await host.sh(`mkdir ${folder}
				echo '[Service]' >${folder}/llamagate-database.conf`);
			await host.write(configFile, "{ nonsense", 0o640);
			const { code, report } = await runSetup(host, "--yes", "--only", "gate");
			t.equal(code, 1);
			t.match(report.steps[0], {
				state: "unsafe",
				says: /config\.json does not load; see: llamagate check/,
			});
			await host.must("rm", "-r", `${folder}/llamagate-database.conf`, folder);
			await host.write(configFile, goodConfig, 0o640);
		},
	);

	await t.test(
		"a start with a broken configuration fails and is left at that",
		async (t) => {
			await host.write(configFile, "{ nonsense", 0o640);
			const { code } = await host.run("systemctl", "restart", unit);
			t.not(code, 0, "systemctl says that it failed");
			t.equal(await property("ExecMainStatus"), "78");
			t.equal(
				await property("SubState"),
				"failed",
				"nothing is scheduled: auto-restart would be another state",
			);
			await host.write(configFile, goodConfig, 0o640);
			await host.must("systemctl", "start", unit);
			await becomes(t, () => status(key), 200, "once mended it starts");
		},
	);

	await t.test(
		"a gate that cannot start is not started without end by those who knock, and starts by itself once it can",
		async (t) => {
			await host.write(
				`${dropIns}/limit.conf`,
				"[Unit]\nStartLimitIntervalSec=10s\nStartLimitBurst=3\n",
			);
			await host.must("systemctl", "daemon-reload");
			await host.write(configFile, "{ nonsense", 0o640);
			await host.run("systemctl", "restart", unit);
			// The connection waits in the socket, and the socket wakes the gate.
			const { status: none } = await ask(peer, gateV4, { key });
			t.equal(none, 0, "who knocks gets no answer");
			const result = async () =>
				(
					await host.must(
						...["systemctl", "show", "--property=Result", "--value"],
						"llamagate.socket",
					)
				).trim();
			await becomes(t, result, "service-start-limit-hit", "it is given up");
			await host.write(configFile, goodConfig, 0o640);
			await becomes(t, () => status(key), 200, "it serves once it can");
			await becomes(
				t,
				() => property("ActiveState"),
				"active",
				"who knocks starts it once it can",
			);
		},
	);
});

/** A reply of so many tokens, read to its end. */
function startFiniteStream(from: Namespace, tokens: number) {
	const child = from.start(
		...["curl", "--silent", "--no-buffer"],
		...["--header", `authorization: Bearer ${key}`],
		"--data",
		JSON.stringify({
			model: "qwen3:8b",
			messages: [{ role: "user", content: "a" }],
			options: { num_predict: tokens },
		}),
		`http://${gateV4}/api/chat`,
	);
	let text = "";
	child.stdout.on("data", (piece: string) => {
		text += piece;
	});
	return {
		started: once(child.stdout, "data"),
		ended: once(child, "close").then(() =>
			text
				.split("\n")
				.filter((line) => line !== "")
				.map((line) => JSON.parse(line) as Record<string, unknown>),
		),
	};
}
