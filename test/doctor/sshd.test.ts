import t, { type Test } from "tap";
import {
	isPasswordEnough,
	judgeLoaded,
	parseLastRead,
} from "../../src/host/sshd/checks.ts";
import {
	loginUsers,
	passwordUsers,
	readMatches,
} from "../../src/host/sshd/settings.ts";
import { parseSettings } from "../../src/host/sshd/step.ts";
import { judgeWayIn, mayLogIn } from "../../src/host/sshd/waysIn.ts";
import { type BootedHost, bootHost, booting } from "../support/bootedHost.ts";
import { follow, lookAt, runDoctor, stateOf } from "../support/doctor.ts";

const folder = "/etc/ssh/sshd_config.d";

/** Has sshd read a file ahead of or behind setup's, and says what doctor finds then. */
async function withFile(
	t: Test,
	host: BootedHost,
	{ name, text }: { readonly name: string; readonly text: string },
	wanted: Readonly<Record<string, readonly [string, RegExp]>>,
): Promise<void> {
	await host.write(`${folder}/${name}.conf`, text);
	await host.sh("systemctl reload ssh");
	const results = await runDoctor(host, "sshd");
	for (const [id, [severity, evidence]] of Object.entries(wanted)) {
		const found = results.find((one) => one.id === `sshd.${id}`);
		t.equal(found && stateOf(found), severity, `${id}: ${found?.evidence}`);
		t.match(found?.evidence.join("\n"), evidence, id);
	}
	for (const result of results)
		if (wanted[result.id.slice("sshd.".length)] === undefined)
			t.equal(stateOf(result), "ok", `${result.id}: ${result.evidence}`);
	await host.sh(`rm ${folder}/${name}.conf; systemctl reload ssh`);
}

t.test("doctor looks at sshd", booting(), async (t) => {
	const host = await bootHost(t, { llamagate: "installed", ollama: "none" });
	await host.plugLan();
	await host.plugTailnet();
	// With nologin sshd gives no shell, and forwards ports all the same.
	await host.sh(`useradd --create-home --shell /bin/bash bob
		useradd --shell /usr/sbin/nologin tunnel
		echo tunnel:guessed | chpasswd
		mkdir -p -m 0700 /root/.ssh
		ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
		cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys`);

	await t.test("as Debian brings it, and as setup leaves it", async (t) => {
		const before = await lookAt(host, "sshd.passwords");
		t.equal(before.state, "high");
		t.match(
			before.evidence,
			/PasswordAuthentication is yes for root, bob, tunnel, from everywhere/,
		);
		await follow(host, before.fix);
		for (const result of await runDoctor(host, "sshd"))
			t.equal(stateOf(result), "ok", `${result.id}: ${result.evidence}`);
	});

	await t.test("a Match block that brings passwords back", async (t) => {
		const off = {
			passwords: [
				"high",
				/^PasswordAuthentication is yes for root from 10\.20\.0\.0 \(a Match block names it\)\n(Pass.*\n)*Pass.* for bob from/,
			],
		} as const;
		await withFile(
			t,
			host,
			{
				name: "50-lan",
				text: 'Match Address="10.20.0.0/16"\n  PasswordAuthentication yes\n',
			},
			off,
		);
		await withFile(
			t,
			host,
			{
				name: "50-port",
				text: "Port 22\nPort 2222\nMatch LocalPort=2222 User tunnel\n  PasswordAuthentication yes\n",
			},
			{
				passwords: [
					"high",
					/^PasswordAuthentication is yes for tunnel from 203\.0\.113\.77 \(the internet\) to \S+:2222\n/,
				],
			},
		);
		await withFile(
			t,
			host,
			{
				name: "50-bob",
				text: "Match User bob\n  KbdInteractiveAuthentication yes\n  PubkeyAuthentication no\n",
			},
			{
				"keyboard-interactive": ["high", /is yes for bob from 203\.0\.113\.77/],
				keys: ["high", /is no for bob from .*\(the tailnet\)/],
			},
		);
	});

	await t.test("settings ahead of setup's", async (t) => {
		await withFile(
			t,
			host,
			{
				name: "00-a",
				text: "PermitEmptyPasswords yes\nPermitRootLogin yes\n",
			},
			{
				"empty-passwords": [
					"warn",
					/PermitEmptyPasswords is yes for root, bob, tunnel/,
				],
				root: ["warn", /PermitRootLogin is yes/],
			},
		);
		await withFile(
			t,
			host,
			{
				name: "00-a",
				text: "PermitEmptyPasswords yes\nPermitRootLogin yes\nPasswordAuthentication yes\nPubkeyAuthentication no\n",
			},
			{
				"empty-passwords": ["critical", /yes/],
				root: ["high", /yes/],
				passwords: ["high", /yes/],
				keys: ["high", /is no/],
				"way-in": ["unknown", /root by a password, bob by a password/],
			},
		);
		await withFile(
			t,
			host,
			{
				name: "00-a",
				text: "PasswordAuthentication yes\nAuthenticationMethods publickey,password\n",
			},
			{},
		);
	});

	await t.test("a file that sshd has not read", async (t) => {
		const second = (await host.sh("date +%s")).trim();
		await host.sh(`until [ $(date +%s) -gt $((${second} + 1)) ]; do sleep 0.1; done
			echo '# nothing new' >>/etc/ssh/sshd_config`);
		const found = await lookAt(host, "sshd.loaded");
		t.equal(found.state, "warn", found.evidence);
		t.match(found.evidence, /^\/etc\/ssh\/sshd_config was changed at/);
		await follow(host, found.fix);
		t.equal((await lookAt(host, "sshd.loaded")).state, "ok");

		// systemd hears nothing of a signal.
		await host.sh(`until [ $(date +%s) -gt $((${second} + 3)) ]; do sleep 0.1; done
			rm -f ${folder}/none.conf; touch ${folder}/none.conf
			pkill -HUP --oldest sshd
			until [ $(journalctl -u ssh -b -g 'Server listening' -o cat | wc -l) -ge 4 ]; do sleep 0.1; done`);
		const told = await lookAt(host, "sshd.loaded");
		t.equal(told.state, "ok", told.evidence);
		await host.sh("systemctl stop ssh");
		t.equal((await lookAt(host, "sshd.loaded")).state, "unknown");
		t.match(
			(await lookAt(host, "sshd.passwords")).evidence,
			/nothing of its settings without the folder \/run\/sshd.*: sudo mkdir/,
			"which systemd has taken away, and which is no mistake in a file",
		);
		await host.sh("systemctl start ssh");
	});

	await t.test("nobody has a key", async (t) => {
		await host.sh(`mv /root/.ssh/authorized_keys /root/.ssh/kept
			install -d -o bob -m 0700 /home/bob/.ssh
			mkfifo /home/bob/.ssh/authorized_keys`);
		// What one user puts there says nothing of the others.
		const found = await lookAt(host, "sshd.way-in");
		t.equal(found.state, "high", found.evidence);
		t.match(found.fix, /ssh-copy-id/);
		await host.sh("tailscale set --ssh");
		t.match(await lookAt(host, "sshd.way-in"), {
			state: "ok",
			evidence: /Tailscale SSH is on/,
		});
		await host.sh(`tailscale set --ssh=false
			install -o bob -m 0600 /root/.ssh/kept /home/bob/keys
			ln -sf /home/bob/keys /home/bob/.ssh/authorized_keys
			chmod g+w /home/bob`);
		const loose = await lookAt(host, "sshd.way-in");
		t.equal(loose.state, "high", "sshd takes no key that others may change");
		await host.sh("chmod g-w /home/bob");
		t.match(await lookAt(host, "sshd.way-in"), {
			state: "ok",
			evidence: /^bob has a key in \/home\/bob/,
		});
		await host.write(
			`${folder}/01-kinds.conf`,
			"PubkeyAcceptedAlgorithms rsa-sha2-512\n",
		);
		t.match(await lookAt(host, "sshd.way-in"), {
			state: "high",
			evidence:
				/bob has one that it refuses: ED25519 of 256 bits in \/home\/bob/,
		});
		// One place where sshd takes it is a way in.
		await host.write(
			`${folder}/01-kinds.conf`,
			"Match Address 100.64.0.0/10\n\tPubkeyAcceptedAlgorithms ssh-ed25519\nMatch all\n\tPubkeyAcceptedAlgorithms rsa-sha2-512\n",
		);
		t.equal((await lookAt(host, "sshd.way-in")).state, "ok");
		await host.sh(`rm ${folder}/01-kinds.conf`);
		await host.write(`${folder}/01-who.conf`, "AllowUsers root\n");
		t.equal((await lookAt(host, "sshd.way-in")).state, "high");
		await host.sh(`rm ${folder}/01-who.conf`);
	});

	await t.test("what it cannot see", async (t) => {
		await host.write(
			`${folder}/01-wrong.conf`,
			"PasswordAuthentication maybe\n",
		);
		const wrong = await lookAt(host, "sshd.passwords");
		t.equal(wrong.state, "unknown");
		t.match(wrong.evidence, /does not accept its own configuration/);
		await host.sh(`rm ${folder}/01-wrong.conf; mv /usr/sbin/sshd /root/`);
		for (const { id, state } of await runDoctor(host, "sshd"))
			t.equal(state, "absent", id);
		await host.sh("mv /root/sshd /usr/sbin/");
	});
});

t.test("who has a shell", async (t) => {
	t.strictSame(
		loginUsers(`root:x:0:0:root:/root:/bin/bash
sync:x:4:65534:sync:/bin:/bin/sync
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
ollama:x:999:999::/usr/share/ollama:/bin/false
bare:x:1001:1001::/home/bare:
me:x:1000:1000:,,,:/home/me:/usr/bin/zsh
`),
		["root", "bare", "me"],
		"no shell at all means /bin/sh",
	);
});

t.test("who has a password, with a shell or without", async (t) => {
	t.strictSame(
		passwordUsers(
			`root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
tunnel:x:998:998::/:/usr/sbin/nologin
open:x:997:997::/:/bin/false
old:$1$a$b:996:996::/:/bin/false
locked:x:995:995::/:/bin/bash
elsewhere:*:994:994::/:/bin/bash
`,
			`root:*:19000:0:99999:7:::
daemon:!*:19000:0:99999:7:::
tunnel:$y$j9T$x$y:19000:0:99999:7:::
open::19000:0:99999:7:::
locked:!$y$j9T$x$y:19000:0:99999:7:::
`,
		),
		["tunnel", "open", "old"],
	);
});

t.test("what Match blocks look at, however they are written", async (t) => {
	t.strictSame(
		readMatches(`# Match Address 1.2.3.4
Match Address 192.168.0.0/16,!192.168.9.9,10.*.0.?
	match user bob address "fd00::/120"
Match Address="172.16.0.0/30,10.9.*" Group=admin
Match=Host 10.8.0.1,*.example
Match User bob
`),
		{
			isThere: true,
			isByEntrance: false,
			addresses: [
				...["192.168.0.0", "192.168.255.255", "10.7.0.7"],
				...["fd00::", "fd00::ff", "172.16.0.0", "172.16.0.3"],
				...["10.9.7.7", "10.8.0.1"],
			],
		},
	);
	for (const line of ["Match LocalPort 2222", 'match "localaddress"=10.0.0.1'])
		t.ok(readMatches(line).isByEntrance, line);
	t.notOk(readMatches("# Match all\nPort 22").isThere);
});

t.test("names that sshd lets in", async (t) => {
	const settings = (text: string) => parseSettings(text);
	for (const [user, text, wanted] of [
		["bob", "", true],
		["bob", "allowusers root", false],
		["bob", "allowusers root b*@10.0.0.0/8", true],
		["bob", "denyusers b?b", false],
		["root", "permitrootlogin no", false],
		["root", "permitrootlogin prohibit-password", true],
	] as const)
		t.equal(mayLogIn(user, settings(text)), wanted, `${user}: ${text}`);
	for (const [methods, wanted] of [
		["any", true],
		["publickey,password", false],
		["publickey,password publickey", false],
		["publickey password", true],
		["keyboard-interactive", true],
	] as const)
		t.equal(
			isPasswordEnough({
				user: "bob",
				from: "",
				settings: settings(`authenticationmethods ${methods}`),
			}),
			wanted,
			methods,
		);
});

t.test("when sshd read its files", async (t) => {
	const shown = `ExecMainStartTimestamp=@1795460881
ExecReload={ path=/usr/sbin/sshd ; argv[]=/usr/sbin/sshd -t ; ignore_errors=no ; start_time=[@1795460923] ; stop_time=[@1795460923] ; pid=554 ; code=exited ; status=0 }
`;
	t.strictSame(parseLastRead(shown, ""), { kind: "at", atMs: 1795460923999 });
	t.strictSame(
		parseLastRead(
			shown,
			"1795460999.336448 server sshd[47]: Server listening on :: port 22.\n",
		),
		{ kind: "at", atMs: 1795460999336.448 },
	);
	t.strictSame(
		parseLastRead(
			`${shown.replaceAll(/@1795460923/g, "n/a")}StateChangeTimestamp=@1795460930\n`,
			"",
		),
		{ kind: "at", atMs: 1795460930999 },
		"after a daemon-reload",
	);
	t.equal(parseLastRead("ExecMainStartTimestamp=\n", "").kind, "unknown");
	const newest = { file: "/etc/ssh/sshd_config", atMs: 5 };
	t.equal(judgeLoaded({ kind: "later" }, newest, 1).state, "ok");
	t.equal(judgeLoaded({ kind: "at", atMs: 4 }, newest, 1).state, "finding");
	t.equal(judgeLoaded({ kind: "at", atMs: 5 }, newest, 1).state, "ok");
});

t.test("keys that come from elsewhere are not called missing", async (t) => {
	const way = { user: "ec2-user", keyFile: undefined };
	t.equal(
		judgeWayIn([{ ...way, other: "authorizedkeyscommand /opt/x" }], false)
			.state,
		"unknown",
	);
	t.equal(judgeWayIn([{ ...way, other: undefined }], false).state, "finding");
	t.equal(judgeWayIn([], true).state, "ok");
});
