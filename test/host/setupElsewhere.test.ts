import { cp, mkdir, symlink } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { type BootedHost, bootHost, booting } from "../support/bootedHost.ts";
import { copyDependencies } from "../support/installTree.ts";
import { addresses, ask, gateV4 } from "../support/namespaces.ts";
import { fingerprint, runSetup } from "../support/setupHost.ts";

const project = path.join(import.meta.dirname, "../..");

/** A checkout and a Node, as one has them who does without the package. */
function installCheckout(folder: string) {
	return async (root: string) => {
		const target = path.join(root, folder);
		await mkdir(target, { recursive: true });
		for (const part of [
			...["bin", "src", "systemd", "ufw", "fail2ban", "tailscale"],
			...["package.json", "README.md"],
		])
			await cp(path.join(project, part), path.join(target, part), {
				recursive: true,
			});
		await copyDependencies(target);
		await cp(process.execPath, path.join(root, "usr/local/bin/node"));
		await symlink(
			`${folder}/bin/llamagate.js`,
			path.join(root, "usr/local/bin/llamagate"),
		);
	};
}

/** Without the copies that useradd and userdel keep of the files before their last change. */
async function withoutBackups(host: BootedHost): Promise<string> {
	return (await fingerprint(host))
		.split("\n")
		.filter((line) => !/\/etc\/(passwd|group|g?shadow)-( |$)/.test(line))
		.join("\n");
}

t.test(
	"without the package, setup writes units of its own and takes them back",
	booting(),
	async (t) => {
		const host = await bootHost(t, {
			llamagate: "none",
			ollama: "everywhere",
			install: installCheckout("/opt/llamagate"),
		});
		const peer = await host.plugTailnet();
		const before = await withoutBackups(host);
		const only = ["--only", "account,ollama,gate"];
		const { code, report } = await runSetup(host, "--yes", ...only);
		t.equal(code, 0, JSON.stringify(report, undefined, 2));

		t.equal((await ask(peer, gateV4)).status, 401);
		t.equal((await ask(peer, gateV4, { key: report.key ?? "" })).status, 200);
		const said = await host.must(
			"systemd-analyze",
			"security",
			"llamagate.service",
		);
		const [, score] = /Overall exposure level.*: ([\d.]+)/.exec(said) ?? [];
		t.ok(Number(score) <= 0.3, `systemd-analyze says ${score}`);
		await host.must("systemctl", "reload", "llamagate.service");
		t.notMatch(
			await host.must("systemctl", "cat", "llamagate.service"),
			/^ExecStart=.* --permission /m,
			"a Node that others update may want other options",
		);
		t.strictSame(
			(await runSetup(host, "--yes", ...only)).report.steps.flatMap(
				({ actions }) => actions,
			),
			[],
			"a second run has nothing to do",
		);

		await host.sh(
			"cp -a /etc/llamagate/config.json /etc/llamagate/config.json.mine",
		);
		const upstreams = [{ name: "here", url: "http://127.0.0.1:11434" }];
		await host.sh(
			`echo '${JSON.stringify({ upstreams, admin: { metrics: "off" } })}' >/etc/llamagate/config.json`,
		);
		const bridged = await runSetup(host, "--yes", "--only", "bridges");
		t.match(bridged.report.steps[0]?.proofs, [
			{ ok: true, says: /leads to 127\.0\.0\.1:11434/ },
			{ ok: true, says: /^here .* answers/ },
		]);
		t.equal(
			(await ask(peer, gateV4, { key: report.key ?? "" })).status,
			200,
			"by a bridge of units that setup has written",
		);
		await host.sh(
			"mv /etc/llamagate/config.json.mine /etc/llamagate/config.json",
		);
		const gone = await runSetup(host, "--yes", "--only", "bridges");
		t.match(
			gone.report.steps[0]?.actions.join("\n"),
			/rm .*llamagate-bridge@.*llamagate\.conf/,
		);

		const undone = await host.run("llamagate", "setup", "--undo", "--yes");
		t.equal(undone.code, 0, undone.stdout + undone.stderr);
		t.equal(await withoutBackups(host), before, "byte for byte as before");
		t.not((await host.run("getent", "passwd", "llamagate")).code, 0);
		t.strictSame(
			(await host.network.listeners()).filter((one) =>
				one.includes(addresses.server.v4),
			),
			[],
		);
	},
);

t.test(
	"below a home folder, which services do not see, setup says so and starts nothing",
	booting(),
	async (t) => {
		const host = await bootHost(t, {
			llamagate: "none",
			install: installCheckout("/home/me/llamagate"),
		});
		const { code, report } = await runSetup(host, "--yes", "--only", "gate");
		t.equal(code, 1);
		t.equal(report.steps[0]?.state, "unsafe");
		t.match(report.steps[0]?.says, /\/home\/me\/llamagate.*install llamagate/);
	},
);
