import t from "tap";
import { testKeys } from "../support/gate.ts";
import {
	gateV4,
	joinTailnet,
	makeNamespace,
	network,
	startDaemon,
	startStandInProcess,
	startStream,
} from "../support/namespaces.ts";
import { requireTool } from "../support/tools.ts";

t.test(
	"a client that vanishes without a word is found by TCP, and its request upstream is cancelled",
	network(),
	async (t) => {
		if (!requireTool(t, "nft", "sysctl")) return;
		const host = await makeNamespace(t);
		const peer = await makeNamespace(t);
		await joinTailnet(host, peer);
		// Linux sends anew for some 15 minutes before it gives up; here, for seconds.
		await host.run("sysctl", "-w", "net.ipv4.tcp_retries2=1");
		const standIn = await startStandInProcess(host, { tokenIntervalMs: 20 });
		const daemon = await startDaemon(t, host);
		await daemon.log.seen(({ msg }) => msg === "started");
		const stream = startStream(peer, gateV4, testKeys.user);
		await stream.seen(({ done }) => done === false);
		const { stdout: sockets } = await host.run(
			...["ss", "-H", "-t", "-n", "-o", "state", "established"],
			...["src", gateV4],
		);
		t.match(
			sockets,
			/timer:\(keepalive,(30|[12]\d)sec/,
			"TCP looks for one who is silent after 30 s",
		);

		await peer.run(
			"nft",
			"add table inet gone; add chain inet gone in { type filter hook input priority 0; policy drop; }; add chain inet gone out { type filter hook output priority 0; policy drop; }",
		);
		const line = await daemon.log.seen(({ msg }) => msg === "request");
		t.match(line, { outcome: "client_gone", key: "user", status: 200 });
		await standIn.aborted("POST /api/chat");
	},
);
