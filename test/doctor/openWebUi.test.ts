import type { NetworkInterfaceInfo } from "node:os";
import t from "tap";
import { formatHostPort } from "../../src/net/ranges.ts";
import { callAddress } from "../../src/system/httpProbe.ts";
import type { ListeningSocket } from "../../src/system/sockets.ts";
import { bootHost, booting } from "../support/bootedHost.ts";
import {
	asNobody,
	commandOf,
	evidenceOf,
	examine,
	statesOf,
} from "../support/doctor.ts";
import { addresses, becomes } from "../support/namespaces.ts";
import { probePort, runSetup } from "../support/setupHost.ts";

const image = "ghcr.io/open-webui/open-webui:main";
const group = "open-webui";

t.test("Open WebUI on a booted host", booting(), async (t) => {
	const host = await bootHost(t, {
		llamagate: "installed",
		docker: "open-webui",
	});
	const neighbour = await host.plugLan();
	await host.plugTailnet();
	const all = () => examine(host, [group]);
	const stateOf = async (id: string) => statesOf(await examine(host, [id]))[id];
	/** Open WebUI anew, as somebody starts it. */
	const runAnew = async (...options: string[]) => {
		await host.must("docker", "rm", "-f", "open-webui");
		await host.must(
			...["docker", "run", "-d", "--name", "open-webui", "--restart"],
			...["always", "-v", "open-webui:/app/backend/data", ...options, image],
		);
		await becomes(t, () => stateOf("open-webui.answers"), "ok", "it answers");
	};

	/** A program on port 8080 that does no more than this with a connection. */
	const start = async (unit: string, at: string, answer: string) => {
		await host.must(
			...["systemd-run", "--quiet", `--unit=${unit}`, "/opt/stand-ins/node"],
			...["-e", `require("net").createServer(${answer}).listen(8080, "${at}")`],
		);
		const place = formatHostPort(at, 8080);
		await becomes(
			t,
			async () => (await host.must("ss", "-Hltn")).includes(` ${place} `),
			true,
			`${unit} listens`,
		);
	};

	await t.test("as its README has it started", async (t) => {
		const found = await all();
		t.match(statesOf(found), {
			"open-webui.loopback": "high",
			"open-webui.answers": "ok",
			"open-webui.auth": "ok",
			"open-webui.signup": "warn",
			"open-webui.https": "warn",
			"open-webui.funnel": "ok",
			"open-webui.predecessor": "absent",
			"open-webui.others": "ok",
		});
		t.match(
			evidenceOf(found, "open-webui.loopback"),
			/:3000 .*listens\nDocker publishes open-webui on 0\.0\.0\.0:3000/,
		);
		t.equal(
			await probePort(neighbour, addresses.lanServer.v4, 3000),
			"open",
			"for real",
		);
		t.match(evidenceOf(found, "open-webui.answers"), /version 0\.9\.2/);
	});

	await t.test("as setup leaves it", async (t) => {
		const { report } = await runSetup(host, "--yes");
		const step = report.steps.find(({ id }) => id === "open-webui");
		t.equal(step?.state, "changed");
		// A person makes the first account, and turns sign-up off.
		t.equal(await stateOf("open-webui.signup"), "warn");
		const setTo = (value: string) =>
			host.sh(`f=/var/lib/docker-stand-in/state.json
					sed -i 's/"OLLAMA_BASE_URL=http/"ENABLE_SIGNUP=${value}",&/' $f
					docker restart open-webui`);
		await setTo("False");
		await becomes(t, () => stateOf("open-webui.answers"), "ok", "it answers");
		const found = await all();
		t.strictSame(statesOf(found), {
			"open-webui.loopback": "ok",
			"open-webui.answers": "ok",
			"open-webui.auth": "ok",
			"open-webui.signup": "ok",
			"open-webui.https": "ok",
			"open-webui.funnel": "ok",
			"open-webui.predecessor": "ok",
			"open-webui.others": "ok",
		});
		t.match(evidenceOf(found, "open-webui.https"), /leads to http:\/\/127/);
		const asUser = await examine(host, [group], asNobody);
		t.equal(statesOf(asUser)["open-webui.predecessor"], "unknown");
		t.match(evidenceOf(asUser, "open-webui.predecessor"), /only root/);
		t.equal(statesOf(asUser)["open-webui.auth"], "ok", "it tells anybody");
	});

	await t.test("the container from before setup comes back", async (t) => {
		const id = "open-webui.predecessor";
		const old = "open-webui-before-llamagate";
		await host.must("docker", "update", "--restart=always", old);
		const found = await examine(host, [id]);
		t.equal(statesOf(found)[id], "high");
		t.match(evidenceOf(found, id), /policy is always.*0\.0\.0\.0:3000/);
		await host.sh(commandOf(found, id));
		t.equal(await stateOf(id), "ok");
		await host.must("docker", "start", old);
		const running = await examine(host, [id]);
		t.match(evidenceOf(running, id), /runs/);
		await host.sh(commandOf(running, id));
		t.equal(await stateOf(id), "ok");
	});

	await t.test("Serve and Funnel", async (t) => {
		const name = "server.tail1234.ts.net";
		await host.must("tailscale", "funnel", "--bg", "8080");
		const open = await examine(host, ["open-webui.funnel"]);
		t.equal(statesOf(open)["open-webui.funnel"], "critical");
		t.ok(evidenceOf(open, "open-webui.funnel").includes(`https://${name}:443`));
		await host.sh(commandOf(open, "open-webui.funnel"));
		t.match(statesOf(await all()), {
			"open-webui.funnel": "ok",
			"open-webui.https": "ok",
		});
		await host.must("tailscale", "serve", "--https=443", "off");
		const unserved = await examine(host, ["open-webui.https"]);
		t.equal(statesOf(unserved)["open-webui.https"], "warn");
		await host.sh(commandOf(unserved, "open-webui.https"));
		t.equal(await stateOf("open-webui.https"), "ok");
		await host.must("systemctl", "stop", "tailscaled");
		t.equal(await stateOf("open-webui.https"), "unknown");
		await host.must("systemctl", "start", "tailscaled");
		await becomes(t, () => stateOf("open-webui.https"), "ok", "seen again");
	});

	await t.test("without accounts, and open to the LAN", async (t) => {
		await runAnew("-p", "8080:8080", "-e", "WEBUI_AUTH=False");
		t.match(statesOf(await all()), {
			"open-webui.loopback": "critical",
			"open-webui.auth": "high",
			"open-webui.signup": "absent",
		});
		await runAnew("-p", "127.0.0.1:8080:8080");
		t.match(statesOf(await all()), {
			"open-webui.loopback": "ok",
			"open-webui.auth": "ok",
			"open-webui.signup": "warn",
		});
	});

	await t.test("a second one, a silent one, and none", async (t) => {
		await host.must(
			...["docker", "run", "-d", "--name", "webui2"],
			...["-p", "127.0.0.1:3000:8080", image],
		);
		await becomes(
			t,
			() => stateOf("open-webui.others"),
			"info",
			"both are seen",
		);
		await host.must("docker", "rm", "-f", "webui2");
		t.equal(await stateOf("open-webui.others"), "ok");

		await host.sh("systemctl stop 'docker-stand-in-*.service'");
		t.match(statesOf(await all()), {
			"open-webui.answers": "warn",
			"open-webui.auth": "unknown",
			"open-webui.signup": "unknown",
		});
		await host.must("docker", "restart", "open-webui");
		await host.must("docker", "stop", "open-webui");
		const stopped = await all();
		t.equal(statesOf(stopped)["open-webui.auth"], "absent");
		t.match(evidenceOf(stopped, "open-webui.auth"), /does not run/);
		const asUser = await examine(host, ["open-webui.loopback"], asNobody);
		t.equal(statesOf(asUser)["open-webui.loopback"], "unknown");

		// A program that is no container.
		const places = JSON.stringify([{ host: "0.0.0.0", port: 8080 }]);
		await host.must(
			...["systemd-run", "--quiet", "--unit=webui", "/opt/stand-ins/node"],
			...["/opt/stand-ins/openWebUi.mjs", places],
		);
		await becomes(
			t,
			() => stateOf("open-webui.loopback"),
			"high",
			"a program is seen, too",
		);
		// Its holder may be any user.
		await start("beside", "::1", "(socket) => socket.destroy()");
		t.equal(await stateOf("open-webui.loopback"), "high");
		await host.must("systemctl", "stop", "webui", "beside");
		t.equal(await stateOf("open-webui.loopback"), "absent");

		await start("mute", "0.0.0.0", "(socket) => socket.destroy()");
		t.match(statesOf(await all()), {
			"open-webui.loopback": "unknown",
			"open-webui.auth": "unknown",
			"open-webui.https": "unknown",
		});
		await host.must("systemctl", "stop", "mute");
		await start(
			...["another", "0.0.0.0"],
			'(socket) => socket.end("HTTP/1.1 404 Not Found\\r\\n\\r\\n")',
		);
		t.equal(
			await stateOf("open-webui.loopback"),
			"absent",
			"what has no /api/config is another program",
		);
		await host.must("systemctl", "stop", "another");
	});
});

t.test("a socket is asked where no other of its port answers", async (t) => {
	const at = (address: string, device?: string): ListeningSocket => ({
		...{ protocol: "tcp", address, device, port: 8080 },
		...{ uid: 0, inode: 7, pids: [], programs: [] },
	});
	const one = (address: string, family: "IPv4" | "IPv6", internal = false) =>
		({ address, family, internal }) as NetworkInterfaceInfo;
	const interfaces = {
		eth0: [one("192.0.2.1", "IPv4"), one("fe80::1", "IPv6")],
		lo: [one("127.0.0.1", "IPv4", true), one("::1", "IPv6", true)],
	};
	for (const [socket, others, wanted] of [
		[at("0.0.0.0"), [at("::1")], "127.0.0.1"],
		[at("::"), [at("0.0.0.0")], "::1"],
		[at("*"), [], "127.0.0.1"],
		[at("0.0.0.0"), [at("127.0.0.1")], "192.0.2.1"],
		[at("0.0.0.0", "eth0"), [at("127.0.0.1")], "192.0.2.1"],
		[at("::", "eth0"), [], "fe80::1%eth0"],
		[at("0.0.0.0"), [at("127.0.0.1"), at("0.0.0.0", "eth0")], undefined],
		[at("0.0.0.0", "wlan0"), [], undefined],
		[at("192.0.2.1"), [at("127.0.0.1")], "192.0.2.1"],
		[at("fe80::1", "eth0"), [], "fe80::1%eth0"],
	] as const)
		t.equal(
			callAddress(socket, [socket, ...others], interfaces),
			wanted,
			`${socket.address} ${socket.device ?? ""} beside ${others.length}`,
		);
});
