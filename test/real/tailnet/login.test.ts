import path from "node:path";
import t from "tap";
import {
	ask,
	startDaemon,
	startStandInProcess,
} from "../../support/namespaces.ts";
import { startTailnet } from "./tailnet.ts";

// `identity.mode` `login`, where a real tailscaled says whose the devices are.

t.test(
	"owners whom a rule names need no key, and everybody else does",
	async (t) => {
		const tailnet = await startTailnet(t);
		const [server, laptop, phone, tablet, box] = await Promise.all([
			tailnet.device("server", { owner: "alice" }),
			tailnet.device("laptop", { owner: "alice" }),
			tailnet.device("phone", { owner: "bob" }),
			tailnet.device("tablet", { owner: "carol" }),
			tailnet.device("box", { owner: "tag:client" }),
		]);
		const ollama = await startStandInProcess(server.network);
		const daemon = await startDaemon(t, server.network, {
			identity: {
				mode: "login",
				socket: path.join(
					path.dirname(tailnet.certificate),
					"server/tailscaled.sock",
				),
				rules: [{ users: ["alice@example.com"] }, { users: ["carol@"] }],
			},
		});
		await daemon.log.seen(({ msg }) => msg === "started");
		const ways = [`${server.v4}:11434`, `[${server.v6}]:11434`];
		for (const at of ways)
			for (const { name, network } of [server, phone, box])
				t.equal((await ask(network, at)).status, 401, `${name} at ${at}`);

		// Serve's connections are tailscaled's own, from the server's address, whoever is behind them.
		for (const [how, port, to] of [
			["--tcp", "9001", `tcp://${server.v4}:11434`],
			["--http", "9002", `http://${server.v4}:11434`],
		] as const) {
			const served = await server.tailscale("serve", "--bg", how, port, to);
			t.equal(served.code, 0, served.stderr);
			const { stdout } = await laptop.network.run(
				...["curl", "-sS", "-H", `Host: server.tailnet.example:${port}`],
				`http://${server.v4}:${port}/api/tags`,
			);
			t.match(stdout, /a key is needed.*this server itself needs one/, to);
		}
		t.strictSame(ollama.calls(), []);

		for (const at of ways)
			for (const { name, network } of [laptop, tablet])
				t.equal((await ask(network, at)).status, 200, `${name} at ${at}`);
	},
);
