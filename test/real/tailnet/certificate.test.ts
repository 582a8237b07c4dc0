import path from "node:path";
import t from "tap";
import { ask, startDaemon } from "../../support/namespaces.ts";
import { startTailnet } from "./tailnet.ts";

// `listen.tls` `tailscale`, where a real tailscaled of a real headscale is asked.

t.test(
	"a tailnet of headscale has no certificate, and the gate says what to do",
	async (t) => {
		const tailnet = await startTailnet(t);
		const [server, laptop] = await Promise.all([
			tailnet.device("server", { owner: "alice" }),
			tailnet.device("laptop", { owner: "alice" }),
		]);
		const said = await server.tailscale("cert", "server.tailnet.example");
		t.match(said.stderr + said.stdout, /does not support getting TLS certs/);

		const daemon = await startDaemon(t, server.network, {
			listen: { tls: "tailscale" },
			identity: {
				socket: path.join(
					path.dirname(tailnet.certificate),
					"server/tailscaled.sock",
				),
			},
		});
		const refused = await daemon.log.seen(
			({ event }) => event === "certificate_refused",
		);
		t.match(
			refused.why,
			/tailscaled answered 500: your Tailscale account does not support getting TLS certs; enable HTTPS certificates .*Headscale has none: name files with a certificate of your own in listen\.tls/,
		);
		t.match(refused.msg, /every connection is closed/);
		const plain = await ask(laptop.network, `${server.v4}:11434`);
		t.equal(plain.status, 400, "whoever speaks HTTP is told so");
	},
);
