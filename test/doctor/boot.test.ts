import t, { type Test } from "tap";
import {
	judgeClock,
	judgeRestart,
	judgeRoom,
} from "../../src/host/boot/checks.ts";
import {
	judgeFailed,
	judgeOthers,
	judgeVerified,
	type UnitState,
} from "../../src/host/boot/units.ts";
import { type BootedHost, bootHost, booting } from "../support/bootedHost.ts";
import {
	asNobody,
	examine,
	follow,
	lookAt,
	runDoctor,
	stateOf,
} from "../support/doctor.ts";
import { runSetup } from "../support/setupHost.ts";
import { replayTailscaledRules } from "../support/tailscaledRules.ts";

const groups = ["tailscale", "sshd", "fail2ban", "boot"];

/** Sees a check go to a finding of that severity, and back once it is mended. */
async function seesFault(
	t: Test,
	host: BootedHost,
	id: string,
	severity: string,
	evidence: RegExp,
	make: string,
	mend?: string,
): Promise<void> {
	await host.sh(make);
	const found = await lookAt(host, id);
	t.equal(found.state, severity, `${id}: ${found.evidence}`);
	t.match(found.evidence, evidence);
	await (mend === undefined ? follow(host, found.fix) : host.sh(mend));
	const mended = await lookAt(host, id);
	t.equal(mended.state, "ok", `${id} mended: ${mended.evidence}`);
}

t.test("a host that setup has locked", booting(), async (t) => {
	const host = await bootHost(t, { llamagate: "installed" });
	await host.plugPublic();
	await host.plugLan();
	await host.plugTailnet();
	await replayTailscaledRules(host);
	await host.sh(`mkdir -p -m 0700 /root/.ssh
		ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
		cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys`);
	const { code, report } = await runSetup(host, "--yes");
	t.equal(code, 0, JSON.stringify(report, undefined, 2));

	await t.test("has nothing to be found", async (t) => {
		for (const result of await runDoctor(host, ...groups))
			t.equal(
				stateOf(result),
				// A container's clock is the machine's below it.
				result.id === "boot.clock" ? "unknown" : "ok",
				`${result.id}: ${result.evidence}`,
			);
	});

	await t.test("shows less to others than root, and says so", async (t) => {
		const seen = await examine(host, groups, asNobody);
		for (const { id, group, state, evidence } of seen.values()) {
			const needsRoot =
				["sshd", "fail2ban"].includes(group) || id === "tailscale.netfilter";
			if (id === "boot.clock") continue;
			t.equal(state, needsRoot ? "unknown" : "ok", `${id}: ${evidence}`);
			if (needsRoot) t.match(evidence[0], /only root can see/);
		}
	});

	await t.test("units that would not be there after a restart", async (t) => {
		await seesFault(
			t,
			host,
			"boot.others",
			"high",
			/ollama\.service runs now, and.*\nufw\.service runs.*\ntailscaled/,
			"systemctl --quiet disable ollama ufw tailscaled",
		);
		await seesFault(
			t,
			host,
			"boot.others",
			"warn",
			/^fail2ban\.service runs now, and is not enabled/,
			"systemctl --quiet disable fail2ban",
		);
	});

	await t.test("units that systemd does not read as they stand", async (t) => {
		const folder = "/etc/systemd/system/llamagate-listen.service.d";
		await seesFault(
			t,
			host,
			"boot.daemon-reload",
			"warn",
			/llamagate-listen\.service was changed on disk/,
			`mkdir -p ${folder}; printf '[Service]\\nProtectHomee=yes\\n' >${folder}/x.conf`,
		);
		await seesFault(
			t,
			host,
			"boot.daemon-reload",
			"warn",
			/llamagate\.socket was changed on disk/,
			"sleep 0.01; echo '# more' >>/lib/systemd/system/llamagate.socket",
			"systemctl daemon-reload",
		);
		await seesFault(
			t,
			host,
			"boot.units",
			"warn",
			/x\.conf:2: Unknown key.* 'ProtectHomee'/,
			"true",
			`rm -r ${folder}; systemctl daemon-reload`,
		);
	});

	await t.test("a service that has failed", async (t) => {
		const folder = "/etc/systemd/system/ollama.service.d";
		await host.sh(`mkdir -p ${folder}
			printf '[Service]\\nExecStartPre=/bin/false\\nRestart=no\\n' >${folder}/x.conf
			systemctl daemon-reload
			systemctl restart ollama || :`);
		const found = await lookAt(host, "boot.failed");
		t.match(found, {
			state: "high",
			evidence: /^ollama\.service has failed \(exit-code\)$/,
		});
		await host.sh(`rm ${folder}/x.conf; systemctl daemon-reload`);
		await follow(host, found.fix);
		t.equal((await lookAt(host, "boot.failed")).state, "ok");
	});

	await t.test("an update that waits, and a full disk", async (t) => {
		await seesFault(
			t,
			host,
			"boot.restart",
			"info",
			/reboot-required is there, for linux-image-amd64, libc6\nkernel 99\./,
			`touch /run/reboot-required
			printf 'linux-image-amd64\\nlibc6\\nlibc6\\n' >/run/reboot-required.pkgs
			mkdir -p /boot; touch /boot/vmlinuz-$(uname -r | sed 's/^[0-9]*/99/')`,
			"rm /run/reboot-required* /boot/vmlinuz-99*",
		);
		await seesFault(
			t,
			host,
			"boot.disk",
			"warn",
			/^\/var\/lib\/llamagate: \d+ MiB of 64 MiB are free$/,
			"mount -t tmpfs -o size=64m tmpfs /var/lib/llamagate",
			"umount /var/lib/llamagate",
		);
		await seesFault(
			t,
			host,
			"boot.disk",
			"warn",
			/^\/etc\/llamagate: 20 MiB of 512 MiB are free$/,
			`cp -a /etc/llamagate /root/kept
			mount -t tmpfs -o size=512m tmpfs /etc/llamagate
			cp -a /root/kept/. /etc/llamagate/
			head -c $((491 * 1048576)) /dev/zero >/etc/llamagate/full`,
			"umount /etc/llamagate",
		);
	});
});

const unit = (name: string, state: Partial<UnitState> = {}): UnitState => ({
	name,
	exists: true,
	isMasked: false,
	isActive: true,
	isFailed: false,
	isEnabled: true,
	needsReload: false,
	result: "success",
	...state,
});
const gone = { exists: false, isActive: false, isEnabled: false };

t.test("units that are not there are no fault of theirs", async (t) => {
	t.equal(judgeOthers([unit("ufw.service", gone)], true).state, "absent");
	t.equal(
		judgeOthers([unit("ufw.service", { isEnabled: false })], false).state,
		"ok",
		"a UFW that is off",
	);
	t.equal(
		judgeOthers(
			[
				unit("ssh.service", { isEnabled: false }),
				unit("ssh.socket", { isActive: false }),
			],
			false,
		).state,
		"ok",
		"its socket starts it",
	);
	t.equal(
		judgeOthers([unit("ssh.service", { isEnabled: false })], false).state,
		"finding",
	);
	t.equal(judgeFailed([unit("ollama.service", gone)]).state, "absent");
});

t.test("a masked unit that runs is gone after a restart", async (t) => {
	const masked = { exists: false, isMasked: true, isEnabled: false };
	const judge = (ufwIsOn: boolean) =>
		judgeOthers(
			[
				unit("ufw.service", masked),
				unit("ssh.service", { isEnabled: false }),
				unit("ssh.socket", { ...masked, isActive: false }),
			],
			ufwIsOn,
		);
	t.match(judge(true), {
		state: "finding",
		evidence: [
			"ufw.service runs now, and is masked: not after a restart",
			"ssh.service runs now, and is not enabled: not after a restart",
		],
		fix: "sudo systemctl unmask ufw.service && sudo systemctl enable ufw.service ssh.service",
		severity: "high",
	});
	t.notMatch(
		judge(false).evidence.join("\n"),
		"ufw",
		"one that is off is no fault of its mask",
	);
	t.equal(
		judgeOthers(
			[unit("ssh.service"), unit("ssh.socket", { ...masked, isActive: false })],
			false,
		).state,
		"ok",
	);
});

t.test("what verify says of other units is not told", async (t) => {
	t.equal(judgeVerified(0, "").state, "ok");
	t.equal(judgeVerified(1, "foo.service:3: Unknown key 'x'").state, "ok");
	t.equal(judgeVerified(1, "").state, "unknown");
	t.match(
		judgeVerified(1, "Found ordering cycle on llamagate.service/start\n"),
		{ state: "finding" },
	);
});

t.test("a newer kernel of the same flavour waits", async (t) => {
	const judge = (boot: readonly string[], running: string) =>
		judgeRestart(false, "", boot, running).state;
	t.equal(
		judge(
			["vmlinuz-6.1.0-18-amd64", "vmlinuz-6.1.0-9-amd64"],
			"6.1.0-18-amd64",
		),
		"ok",
	);
	t.equal(judge(["vmlinuz-6.1.0-21-amd64"], "6.1.0-18-amd64"), "finding");
	t.equal(judge(["vmlinuz-6.1.0-21-cloud-amd64"], "6.1.0-18-amd64"), "ok");
	for (const backport of [
		"6.12.9+bpo-amd64",
		"6.12.12-1~bpo12+1-amd64",
		"6.12.38+deb13-amd64",
		"6.12.48+deb13u1-amd64",
		"6.6.13-0.deb12.1-amd64",
	])
		t.equal(
			judge(
				["vmlinuz-6.1.0-30-amd64", `vmlinuz-${backport}`],
				"6.1.0-30-amd64",
			),
			"finding",
			backport,
		);
	t.equal(judge(["vmlinuz-6.12.9+bpo-rt-amd64"], "6.1.0-30-amd64"), "ok");
	t.equal(judge(["vmlinuz-6.8.0-1012-aws"], "6.8.0-1009-aws"), "finding");
	t.equal(
		judge(["vmlinuz-6.12.9+bpo-amd64"], "6.12.22+bpo-amd64"),
		"ok",
		"by their numbers",
	);
	t.equal(
		judge(["initrd.img-9.9.9-amd64", "config-9"], "6.1.0-18-amd64"),
		"ok",
	);
});

t.test("a clock that nobody keeps", async (t) => {
	const judge = (shown: string | undefined, container?: string) =>
		judgeClock(shown, container);
	t.equal(judge("NTP=yes\nNTPSynchronized=yes\n").state, "ok");
	t.match(judge("CanNTP=yes\nNTP=no\nNTPSynchronized=no\n"), {
		state: "finding",
		evidence: [/no service for that is on/],
	});
	t.match(judge("CanNTP=no\nNTP=no\nNTPSynchronized=no\n"), {
		fix: "sudo apt install systemd-timesyncd",
	});
	t.equal(judge("NTPSynchronized=no\n", "docker").state, "unknown");
	t.equal(judge(undefined).state, "unknown");
	t.equal(judge("Timezone=Etc/UTC\n").state, "unknown");
});

t.test("a disk is full by its share or by its bytes", async (t) => {
	const mib = 2 ** 20;
	const judge = (folder: string, free: number, size: number) =>
		judgeRoom([{ folder, freeBytes: free * mib, sizeBytes: size * mib }]).state;
	t.equal(judge("/etc/llamagate", 201, 1_000), "ok");
	t.equal(judge("/etc/llamagate", 199, 1_000), "finding");
	t.equal(judge("/etc/llamagate", 400, 10_000), "finding");
	t.equal(judge("/run/log/journal", 90, 97), "ok", "a small machine's memory");
	t.equal(judge("/run/log/journal", 4, 97), "finding");
	t.equal(judgeRoom([]).state, "absent");
});
