import t from "tap";
import { bootHost, booting } from "../support/bootedHost.ts";
import { testKeys } from "../support/gate.ts";
import {
	readState,
	stateFile,
	writeState,
} from "../support/hostStandIns/tailscaleState.ts";
import { ask, becomes, gateV4 } from "../support/namespaces.ts";

const key = testKeys.user;

t.test("the gate's ways out of its sandbox", booting(), async (t) => {
	const host = await bootHost(t);
	const peer = await host.plugTailnet();
	const status = async (options = {}) =>
		(await ask(peer, gateV4, { key, ...options })).status;
	await becomes(t, status, 200, "Ollama answers through the bridge");
	const log = async () =>
		(await host.journal("llamagate.service"))
			.filter((line) => line.startsWith("{"))
			.map((line) => JSON.parse(line) as Record<string, unknown>);
	const ollamaSaw = async (what: string) =>
		(await host.journal("ollama.service")).filter((line) => line.includes(what))
			.length;

	await t.test(
		"the bridge is taken for running, and not for something that never comes up",
		async (t) => {
			const state = await host.must(
				...["systemctl", "show", "--property=SubState", "--value"],
				"llamagate-ollama.service",
			);
			t.equal(state.trim(), "running");
		},
	);

	await t.test("Ollama hears that a client has left", async (t) => {
		const child = peer.start(
			...["curl", "--silent", "--no-buffer"],
			...["--header", `authorization: Bearer ${key}`],
			...[
				"--data",
				'{"model":"qwen3:8b","prompt":"a","options":{"num_predict":1000000}}',
			],
			`http://${gateV4}/api/generate`,
		);
		await new Promise((resolve) => child.stdout.once("data", resolve));
		t.equal(await ollamaSaw('"abort"'), 0, "not yet");
		child.kill();
		await becomes(t, () => ollamaSaw('"abort":"POST /api/generate"'), 1, "now");
	});

	await t.test(
		"while Ollama is down the gate says so, and when it is back all is well",
		async (t) => {
			await host.must("systemctl", "stop", "ollama");
			const answer = await ask(peer, gateV4, { key });
			t.equal(answer.status, 502);
			t.match(JSON.parse(answer.body), { error: /Ollama/ });
			await host.must("systemctl", "start", "ollama");
			await becomes(t, status, 200, "it answers again");
		},
	);

	await t.test("the gate goes on when its bridge is restarted", async (t) => {
		await host.must("systemctl", "restart", "llamagate-ollama.service");
		t.equal(await status(), 200);
		await host.must(
			"systemctl",
			"kill",
			"--signal=KILL",
			"llamagate-ollama.service",
		);
		await becomes(t, status, 200, "also when it was killed");
	});

	await t.test(
		"with identity.mode the log names the device, also after tailscaled made its socket anew",
		async (t) => {
			const config = JSON.parse(
				await host.read("/etc/llamagate/config.json"),
			) as Record<string, unknown>;
			await host.write(
				"/etc/llamagate/config.json",
				JSON.stringify({ ...config, identity: { mode: "require" } }),
				0o640,
			);
			await host.must("systemctl", "reload", "llamagate");
			t.equal(await status(), 200);
			const named = async (node: string) =>
				(await log()).some((line) => line.node === node);
			await becomes(t, () => named("laptop"), true, "the log names it");

			// What was answered is kept for some seconds: another device asks anew.
			const phone = "100.101.102.107";
			await peer.ip(`addr add ${phone}/32 dev tailscale0`);
			t.equal(await status({ source: phone }), 403, "a device nobody knows");
			const state = readState(`${host.root}${stateFile}`);
			state.peers.push({
				name: "phone",
				addresses: [phone, "100.101.102.108"],
			});
			writeState(state, `${host.root}/${stateFile}`);
			await host.must("systemctl", "restart", "tailscaled");
			await peer.ip("addr add 100.101.102.108/32 dev tailscale0");
			await becomes(
				t,
				() => status({ source: "100.101.102.108" }),
				200,
				"a device that the new one knows",
			);
			await becomes(t, () => named("phone"), true, "the log names it");

			await host.must("systemctl", "stop", "tailscaled");
			await peer.ip("addr add 100.101.102.109/32 dev tailscale0");
			t.equal(
				await status({ source: "100.101.102.109" }),
				503,
				"without a tailscaled nobody new is let in",
			);
		},
	);
});
