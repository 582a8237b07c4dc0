import t, { type Test } from "tap";
import type { Outcome } from "../../src/doctor/check.ts";
import type { Look } from "../../src/host/firewall/facts.ts";
import {
	judgeGatePort,
	judgeSsh,
	judgeWebPorts,
} from "../../src/host/firewall/ports.ts";
import { judgeDefault } from "../../src/host/firewall/rules.ts";
import { parseIptables } from "../../src/netfilter/iptables.ts";
import { addresses, type Namespace, network } from "../support/namespaces.ts";
import { probePort } from "../support/setupHost.ts";
import { requireTool } from "../support/tools.ts";
import { makeUfwHost, type Ufw } from "../support/ufw.ts";

if (!requireTool(t, "ufw", "iptables")) process.exit();

t.jobs = 2;

const lan = "192.168.77.0/24";

interface Host {
	readonly ufw: Ufw;
	readonly server: Namespace;
	/** What doctor looks at. */
	look(gatePort?: number): Promise<Look>;
	/** Writes lines into UFW's files, each ahead of what stands there. */
	insert(...lines: (readonly [file: string, line: string])[]): Promise<void>;
	/** Does what a fix says, with `lines` for what it has taken out of UFW's files. */
	follow(outcome: Outcome, ...lines: string[]): Promise<void>;
	/** Whether a neighbour's packets to a port are let in; nothing listens. */
	letsNeighbour(port: number): Promise<boolean>;
	letsPeer(port: number): Promise<boolean>;
}

/** A server with the real UFW between a LAN and a tailnet, of which tailscaled's rules know nothing. */
async function startHost(t: Test, ...commands: string[]): Promise<Host> {
	const { server, peer, neighbour, ufw } = await makeUfwHost(t);
	await ufw.ufw(...commands, "--force enable");
	const chains = async (command: string, family: "ipv4" | "ipv6") =>
		parseIptables(
			(await ufw.must(command, "-S")).replace(/^#.*$/gm, ""),
			...([command, "filter", family] as const),
		);
	const lets = async (from: Namespace, address: string, port: number) =>
		(await probePort(from, address, port)) === "closed";
	return {
		...{ ufw, server },
		look: async (gatePort = 11434) => ({
			filter: {
				baseChains: [
					...(await chains("iptables", "ipv4")),
					...(await chains("ip6tables", "ipv6")),
				],
				...{ outside: ["eth0"], families: ["ipv4", "ipv6"], unread: [] },
			},
			...{ sshPorts: [22], tailnet: "tailscale0", gatePort },
			ufwRules: await ufw.lists(),
			...{ sockets: [], udpSockets: [], sshSockets: new Set() },
			...{ tailscaled: undefined, hasTailnet: true },
		}),
		async insert(...lines) {
			for (const [file, line] of lines)
				await ufw.must(
					...["sed", "-i", `/^# End required lines/a ${line}`],
					`/etc/ufw/${file}`,
				);
			await ufw.ufw("reload");
		},
		async follow({ fix = "false" }, ...lines) {
			const isCommand = (part: string) => part.startsWith("sudo ");
			for (const part of fix.split(/,? then:? | && |: (?=sudo)/))
				if (isCommand(part)) await ufw.must("sh", "-c", part.slice(5));
				else
					for (const line of lines)
						for (const [file = ""] of part.matchAll(/\/etc\/ufw\/\S+/g))
							await ufw.must("sed", "-i", `\\|^${line}$|d`, file);
		},
		letsNeighbour: (port) => lets(neighbour, addresses.lanServer.v4, port),
		letsPeer: (port) => lets(peer, addresses.server.v4, port),
	};
}

t.test(
	"what before.rules lets in is taken out there: UFW's commands come too late for it",
	network(),
	async (t) => {
		const host = await startHost(t, "allow 22/tcp", "allow 8080/tcp");
		const [web4, web6, ssh] = [
			"-A ufw-before-input -p tcp --dport 8080 -j ACCEPT",
			"-A ufw6-before-input -p tcp --dport 3000 -j ACCEPT",
			"-A ufw-before-input -p tcp --dport 22 -j ACCEPT",
		];
		await host.insert(
			["before.rules", web4],
			["before6.rules", web6],
			["before.rules", ssh],
		);
		t.ok(await host.letsNeighbour(8080));
		const web = judgeWebPorts(await host.look());
		t.match(
			web.fix,
			/take out of \/etc\/ufw\/before\.rules what makes "-A ufw-before-input -p tcp -m tcp --dport 8080 -j ACCEPT".*, then: sudo ufw reload/,
		);
		t.match(
			web.fix,
			/take out of \/etc\/ufw\/before6\.rules what makes "-A ufw6-before-input/,
		);
		t.match(web.fix, /sudo ufw delete allow 8080\/tcp/, "and UFW's own");
		t.notMatch(web.fix, /prepend/);
		await host.follow(web, web4, web6);
		t.match(judgeWebPorts(await host.look()), { state: "ok" });
		t.notOk(await host.letsNeighbour(8080));

		const open = judgeSsh(await host.look());
		t.match(open.fix, /before\.rules what makes .*--dport 22/);
		await host.follow(open, ssh);
		t.match(judgeSsh(await host.look()), { state: "ok" });
	},
);

t.test(
	"who gets in by SSH because of before.rules still does when that is mended",
	network(),
	async (t) => {
		const host = await startHost(t, "deny 11434/tcp");
		for (const line of [
			`-A ufw-before-input -s ${lan} -j ACCEPT`,
			"-A ufw-before-input -j ACCEPT",
		]) {
			await host.insert(["before.rules", line]);
			t.ok(await host.letsNeighbour(11434));
			const seen = await host.look();
			const outcome = line.includes(lan)
				? judgeGatePort(seen)
				: judgeDefault(seen);
			t.match(
				outcome.fix,
				/^sudo ufw prepend allow .*22.*, then take out of \/etc\/ufw\/before\.rules .*, then: sudo ufw reload$/,
			);
			await host.follow(outcome, line);
			t.match(judgeDefault(await host.look()), { state: "ok" });
			t.notOk(await host.letsNeighbour(11434));
			t.ok(await host.letsNeighbour(22));
		}
	},
);

t.test(
	"for Ollama's port setup is the fix where UFW's commands help, and nowhere else",
	network(),
	async (t) => {
		const host = await startHost(
			t,
			"allow in on tailscale0 to any port 11434 proto tcp",
			"allow 22/tcp",
		);
		t.match(judgeGatePort(await host.look()), { state: "ok" });
		await host.ufw.ufw("prepend allow 11434/tcp");
		const byUfw = judgeGatePort(await host.look());
		t.equal(byUfw.state, "finding");
		t.equal(byUfw.fix, undefined, "the check's own: setup");
		await host.ufw.ufw("delete allow 11434/tcp");

		await host.ufw.must("sh", "-c", `iptables -I INPUT -s ${lan} -j ACCEPT`);
		t.ok(await host.letsNeighbour(11434));
		const ahead = judgeGatePort(await host.look());
		t.equal(ahead.fix, `sudo iptables -D INPUT -s ${lan} -j ACCEPT`);
		await host.follow(ahead);
		t.match(judgeGatePort(await host.look()), { state: "ok" });

		const line = `-A ufw-before-input -p tcp --dport 11434 -s ${lan} -j ACCEPT`;
		await host.insert(["before.rules", line]);
		const inFile = judgeGatePort(await host.look());
		t.match(inFile.fix, /^take out of \/etc\/ufw\/before\.rules/);
		await host.follow(inFile, line);
		t.match(judgeGatePort(await host.look()), { state: "ok" });
		t.notOk(await host.letsNeighbour(11434));
	},
);

t.test(
	"a gate's port is shut for the LAN and stays open to the tailnet, where tailscaled sets no rules",
	network(),
	async (t) => {
		const toGate = "allow in on tailscale0 to any port 9000 proto tcp";
		const host = await startHost(t, `allow from ${lan}`, toGate);
		for (const rules of [
			[],
			["delete deny 9000/tcp", "prepend deny 9000/tcp"],
		]) {
			await host.ufw.ufw(...rules);
			const outcome = judgeGatePort(await host.look(9000));
			t.equal(outcome.state, "finding");
			await host.follow(outcome);
			t.match(judgeGatePort(await host.look(9000)), { state: "ok" });
			t.notOk(await host.letsNeighbour(9000));
			t.ok(await host.letsNeighbour(22), "SSH stays");
			t.ok(await host.letsPeer(9000));
		}

		await host.ufw.ufw(`delete ${toGate}`, "delete deny 9000/tcp");
		await host.ufw.ufw(
			"prepend allow 9000/tcp",
			"delete allow from ".concat(lan),
		);
		const wide = judgeGatePort(await host.look(9000));
		t.equal(
			wide.fix,
			`sudo ufw delete allow 9000/tcp && sudo ufw prepend ${toGate}`,
		);
		await host.follow(wide);
		t.match(judgeGatePort(await host.look(9000)), { state: "ok" });
		await host.ufw.ufw("prepend allow 9000/tcp");
		t.equal(
			judgeGatePort(await host.look(9000)).fix,
			"sudo ufw delete allow 9000/tcp",
			"what lets the tailnet in already stays where it is",
		);
	},
);
