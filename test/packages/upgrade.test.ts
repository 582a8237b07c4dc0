import { once } from "node:events";
import { cp } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { bootHost, booting } from "../support/bootedHost.ts";
import {
	debianPackage,
	laterPackage,
	packageTools,
} from "../support/builtPackages.ts";
import { testEntries, testKeys } from "../support/gate.ts";
import { ask, becomes, gateV4 } from "../support/namespaces.ts";
import { requireTool } from "../support/tools.ts";

// The first of these tests to run makes a Debian and the packages.
const units = [
	...["llamagate.service", "llamagate.socket"],
	...["llamagate-listen.service", "llamagate-ollama.socket"],
];

t.test("the package on a booted host", booting(), async (t) => {
	if (!requireTool(t, ...packageTools)) return;
	const file = await debianPackage();
	const later = await laterPackage(t, file);
	const host = await bootHost(t, {
		llamagate: "none",
		async install(root) {
			await cp(file, path.join(root, "root/llamagate.deb"));
			await cp(later, path.join(root, "root/later.deb"));
		},
	});
	const peer = await host.plugTailnet();
	const status = async () =>
		(await ask(peer, gateV4, { key: testKeys.user })).status;
	const states = async () =>
		(await host.run("systemctl", "is-active", ...units)).stdout
			.trim()
			.split("\n");
	const mainPid = () =>
		host.must(
			...["systemctl", "show", "--property=MainPID", "--value"],
			"llamagate.service",
		);
	const dpkg = (...options: string[]) =>
		host.must(...["env", "DEBIAN_FRONTEND=noninteractive", "dpkg"], ...options);

	await t.test("nothing of it runs after its installation", async (t) => {
		await dpkg("--install", "/root/llamagate.deb");
		t.strictSame(
			await states(),
			units.map(() => "inactive"),
		);
	});

	await t.test("an upgrade leaves a stopped gate stopped", async (t) => {
		await dpkg("--force-confold", "--install", "/root/later.deb");
		t.strictSame(
			await states(),
			units.map(() => "inactive"),
		);
	});

	await t.test(
		"an upgrade restarts a gate that runs, and lets its streams finish",
		async (t) => {
			await host.write(
				"/etc/llamagate/keys.json",
				JSON.stringify({ keys: testEntries }),
			);
			await host.sh(
				`chown root:llamagate /etc/llamagate/keys.json
				chmod 0640 /etc/llamagate/keys.json`,
			);
			// One by one: the follower restarts the socket, which would end a start that goes on.
			for (const unit of units.toSorted(
				(a, b) => Number(a.includes("listen")) - Number(b.includes("listen")),
			))
				await host.must("systemctl", "enable", "--now", unit);
			await becomes(t, status, 200, "it serves");
			const before = await mainPid();

			// At twenty tokens a second: longer than dpkg needs until the restart.
			const stream = peer.start(
				...["curl", "--silent", "--no-buffer", "--data"],
				JSON.stringify({
					model: "qwen3:8b",
					messages: [{ role: "user", content: "a" }],
					options: { num_predict: 300 },
				}),
				...["--header", `authorization: Bearer ${testKeys.user}`],
				`http://${gateV4}/api/chat`,
			);
			let reply = "";
			stream.stdout.on("data", (text: string) => {
				reply += text;
			});
			const ended = once(stream, "close");
			await once(stream.stdout, "data");
			await dpkg("--force-confold", "--install", "/root/later.deb");
			await ended;
			const lines = reply.trim().split("\n");
			t.match(JSON.parse(lines.at(-1) ?? ""), { done: true });

			t.not(await mainPid(), before, "it is another process");
			await becomes(t, status, 200, "it serves again");
			t.strictSame(
				await states(),
				units.map(() => "active"),
			);
		},
	);

	await t.test("removing it stops and disables everything", async (t) => {
		await dpkg("--remove", "llamagate");
		t.strictSame(
			await states(),
			units.map(() => "inactive"),
		);
		t.not(await status(), 200);
		t.equal(
			await host.sh("find / -xdev -name '*llamagate*' -path '/usr/*'"),
			"",
		);
		t.equal(
			await host.sh(
				"find /etc/systemd /usr/lib/llamagate* 2>/dev/null | grep llamagate || :",
			),
			"",
		);
	});
});
