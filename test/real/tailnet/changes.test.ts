import t, { type Test } from "tap";
import type { BootedHost } from "../../support/bootedHost.ts";
import {
	comesOut,
	evidenceOf,
	examine,
	statesOf,
} from "../../support/doctor.ts";
import { testKeys } from "../../support/gate.ts";
import {
	ask,
	becomes,
	linesOf,
	type Namespace,
	ollama,
	startStream,
} from "../../support/namespaces.ts";
import { probePort } from "../../support/setupHost.ts";
import { bootServer } from "./server.ts";
import { recordTailnet, startTailnet } from "./tailnet.ts";

// What happens to a server in a tailnet over time, with streams that run meanwhile.

const key = testKeys.user;

t.test("a server whose tailnet changes under it", async (t) => {
	const tailnet = await startTailnet(t);
	const [server, laptop] = await Promise.all([
		bootServer(t, tailnet, { llamagate: "enabled" }),
		tailnet.device("laptop", { owner: "alice" }),
	]);
	const { host } = server;
	let [v4, v6] = await server.addresses();
	const status = async (address: string) =>
		(await ask(laptop.network, hostPort(address))).status;
	const serves = async (t: Test) => {
		await becomes(t, () => status(v4), 401, "the gate serves over IPv4");
		await becomes(t, () => status(v6), 401, "and over IPv6");
	};
	/** Those of the gate that are not for root alone. */
	const sockets = async () =>
		(await host.network.listeners())
			.filter((at) => at.endsWith(":11434") && at !== ollama)
			.sort();
	const expectedSockets = () => [hostPort(v4), hostPort(v6)].sort();
	await serves(t);

	for (const [name, command] of [
		["restarted", ["systemctl", "restart", "tailscaled"]],
		["killed", ["systemctl", "kill", "--signal=KILL", "tailscaled"]],
	] as const)
		await t.test(
			`tailscaled is ${name} under a stream, which comes whole`,
			async (t) => {
				const pid = await mainPid(host);
				const reply = startReply(laptop.network, v4, 200);
				await reply.seen((_, index) => index === 3);
				await host.must(...command);
				const last = await reply.seen(({ done }) => done === true);
				t.equal(last.eval_count, 200);
				t.equal(reply.all.length, 201, "with every line");
				await serves(t);
				t.equal(await mainPid(host), pid, "by the same gate");
			},
		);

	await t.test(
		"it goes down and up again under a stream, which goes on",
		async (t) => {
			const stream = startStream(laptop.network, hostPort(v4), key);
			await stream.seen((_, index) => index === 3);
			await host.must("tailscale", "down");
			await comesOut(
				t,
				host,
				{ "tailscale.running": "high" },
				"doctor says so",
			);
			await host.must("tailscale", "up");
			const { length } = stream.all;
			await stream.seen((_, index) => index > length);
			await serves(t);
		},
	);

	await t.test(
		"it signs in again under a stream, with the addresses that it had, and the stream goes on",
		async (t) => {
			const [pid, node] = [await mainPid(host), await server.nodeKey()];
			const stream = startStream(laptop.network, hostPort(v4), key);
			await stream.seen((_, index) => index === 3);
			await server.join("tag:gpu", "--force-reauth");
			t.not(await server.nodeKey(), node, "it has another key");
			t.strictSame(await server.addresses(), [v4, v6]);
			const { length } = stream.all;
			await stream.seen((_, index) => index > length);
			await serves(t);
			t.equal(await mainPid(host), pid, "by the same gate");
		},
	);

	await t.test(
		"a device is deleted under a stream: nothing reaches it, nor it the gate, and the stream is given up",
		async (t) => {
			const phone = await tailnet.device("phone", { owner: "bob" });
			const reaches = async () =>
				(await probePort(phone.network, v4, 11434)) === "open";
			await becomes(t, reaches, true, "it reaches the gate");
			// Linux sends anew for some 15 minutes before it gives up; here, for seconds.
			const retries = await host.must(
				...["sysctl", "-n", "net.ipv4.tcp_retries2"],
			);
			await host.must("sysctl", "-qw", "net.ipv4.tcp_retries2=1");
			const stream = startStream(phone.network, hostPort(v4), key);
			await stream.seen((_, index) => index === 3);
			const node = (await tailnet.nodes()).find(({ name }) => name === "phone");
			await tailnet.headscale(
				...["nodes", "delete", "--identifier", String(node?.id), "--force"],
			);
			await becomes(t, reaches, false, "it does not any more");
			const given = async () =>
				(await host.journal("llamagate")).some(
					(line) =>
						line.includes(`"ip":"${phone.v4}"`) &&
						line.includes('"outcome":"client_gone"'),
				);
			await becomes(t, given, true, "its stream is given up");
			await host.must(
				"sysctl",
				"-qw",
				`net.ipv4.tcp_retries2=${retries.trim()}`,
			);
			await serves(t);
		},
	);

	await t.test(
		"tailscaled is away for longer than streams are kept, and nothing has to start when it is back",
		async (t) => {
			const stream = startStream(laptop.network, hostPort(v4), key);
			await stream.seen((_, index) => index === 3);
			const pid = await mainPid(host);
			const aborts = async () =>
				(await host.journal("ollama")).filter((line) =>
					line.includes('"abort":"POST /api/chat"'),
				).length;
			const before = await aborts();
			await host.must("systemctl", "stop", "tailscaled");
			await becomes(
				t,
				async () =>
					![pid, "0"].includes(await mainPid(host)) &&
					(await host.run("systemctl", "is-active", "llamagate.service"))
						.stdout,
				"active\n",
				"its stream is given up",
			);
			t.ok((await aborts()) > before, "so that Ollama makes it for nobody");
			const second = await mainPid(host);
			t.strictSame(await sockets(), expectedSockets(), "the sockets stay");
			await host.must("systemctl", "start", "tailscaled");
			await serves(t);
			t.equal(await mainPid(host), second, "the gate was not started again");
		},
	);

	await t.test(
		"its key expires: peers wait, doctor says so, and a new node mends it",
		async (t) => {
			const [node] = (await tailnet.nodes()).filter(
				({ name }) => name === "server",
			);
			await tailnet.headscale(
				"nodes",
				"expire",
				"--identifier",
				String(node?.id),
			);
			await comesOut(t, host, { "tailscale.running": "high" }, "doctor");
			t.not(await probePort(laptop.network, v4, 11434), "open");
			// headscale takes back no tagged node whose key has expired; its owner removes it.
			await tailnet.headscale(
				...["nodes", "delete", "--identifier", String(node?.id), "--force"],
			);
			await server.join();
			const after = await server.addresses();
			t.not(after[0], v4, "it is another node, with other addresses");
			[v4, v6] = after;
			await serves(t);
			await becomes(t, sockets, expectedSockets(), "and on no others");
		},
	);

	await t.test(
		"without a tunnel device peers get to Ollama, and doctor calls it critical",
		async (t) => {
			await host.sh(`sed -i 's/^FLAGS=.*/FLAGS="--tun=userspace-networking"/' /etc/default/tailscaled
			systemctl restart tailscaled`);
			await becomes(
				t,
				async () =>
					(await ask(laptop.network, hostPort(v4), { key: "none" })).status !==
					0,
				true,
				"a peer is answered",
			);
			const answer = await laptop.network.run(
				...[
					"curl",
					"--silent",
					"--header",
					"Host: localhost",
					`http://${hostPort(v4)}/api/tags`,
				],
			);
			t.match(answer.stdout, /"models"/, "by Ollama, which asks for no key");
			const found = await examine(host, ["tailscale", "ollama", "gate"]);
			t.match(statesOf(found), {
				"ollama.listening": "critical",
				"ollama.reachable": "critical",
				"tailscale.tunnel": "high",
				"gate.listening": "high",
			});
			t.match(evidenceOf(found, "ollama.reachable"), /Ollama without a key/);
			await host.sh(`sed -i 's/^FLAGS=.*/FLAGS=""/' /etc/default/tailscaled
			systemctl restart tailscaled`);
			await serves(t);
			await comesOut(
				t,
				host,
				{
					"ollama.reachable": "ok",
					"tailscale.tunnel": "ok",
					"gate.listening": "ok",
				},
				"mended as doctor says",
			);
		},
	);

	if (t.passing())
		recordTailnet("a server whose tailnet changes", {
			ran: [
				"tailscaled restarted and killed under a stream",
				"down and up again",
				"signed in again under a stream",
				"a device deleted under a stream",
				"away for more than 30 s",
				"an expired key and a new node with other addresses",
				"userspace networking",
			],
			differs: [
				"With userspace networking peers reach Ollama past the gate, which doctor calls critical.",
			],
		});
});

function hostPort(address: string): string {
	return `${address.includes(":") ? `[${address}]` : address}:11434`;
}

async function mainPid(host: BootedHost): Promise<string> {
	const value = await host.must(
		...["systemctl", "show", "--property=MainPID", "--value"],
		"llamagate.service",
	);
	return value.trim();
}

/** Starts a reply of so many tokens; the lines are what has come of it. */
function startReply(from: Namespace, address: string, tokens: number) {
	const child = from.start(
		...["curl", "--silent", "--no-buffer"],
		...["--header", `Authorization: Bearer ${key}`, "--data"],
		JSON.stringify({
			...{ model: "qwen3:8b", messages: [{ role: "user", content: "go on" }] },
			options: { num_predict: tokens },
		}),
		`http://${hostPort(address)}/api/chat`,
	);
	return linesOf(child, (line) => JSON.parse(line) as Record<string, unknown>);
}
