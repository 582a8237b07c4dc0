/** Prints what doctor reads of the packet filter of the network that this runs in, after each of the scripts that it is given, for tests. */
import { execFileSync } from "node:child_process";
import { judgeForged } from "../../src/host/firewall/forged.ts";
import { judgeDefault } from "../../src/host/firewall/rules.ts";
import { translatedWays } from "../../src/host/ollama/portForwards.ts";
import { wayIn } from "../../src/netfilter/evaluate.ts";
import { rangeOf } from "../../src/netfilter/ufwPackets.ts";
import { kernelFilter } from "../../src/system/kernelFilter.ts";
import { inOneLook } from "../../src/system/memo.ts";
import type { ListeningSocket } from "../../src/system/sockets.ts";

for (const script of process.argv.slice(2)) {
	execFileSync("sh", ["-euc", script], {
		stdio: ["ignore", "ignore", "inherit"],
	});
	await inOneLook(look);
}

async function look(): Promise<void> {
	const { ways, missed } = await translatedWays([11434]);
	const led = ways.map(({ says }) => says);
	const tell = (report: object) =>
		console.log(JSON.stringify({ ...report, led, missed }));
	const packets = {
		...({ family: "ipv4", protocol: "tcp", port: 22 } as const),
		...{ interfaceIn: "eth0", from: rangeOf("0.0.0.0/0") },
	};
	const filter = await kernelFilter().catch((error: Error) => error.message);
	if (typeof filter === "string") tell({ failed: filter });
	else {
		const firewall = {
			...{
				filter,
				sockets: [],
				udpSockets: [],
				sshSockets: new Set<ListeningSocket>(),
			},
			...{ hasTailnet: true, gatePort: 11434, sshPorts: [], ufwRules: [] },
			...{ tailnet: "tailscale0", tailscaled: undefined },
		};
		const { share, by } = wayIn(filter, packets);
		tell({
			ssh: share,
			ollama: wayIn(filter, { ...packets, port: 11434 }).share,
			byDefault: judgeDefault(firewall).state,
			forged: judgeForged(firewall).state,
			unread: filter.unread,
			by: by.map(
				({ rule, chain }) => rule?.text ?? `${chain.table} ${chain.name}`,
			),
		});
	}
}
