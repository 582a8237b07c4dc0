import t, { type Test } from "tap";
import {
	type BootedHost,
	bootHost,
	booting,
	publicAddresses,
} from "../support/bootedHost.ts";
import {
	addresses,
	ask,
	becomes,
	gateV4,
	type Namespace,
	startStream,
} from "../support/namespaces.ts";
import {
	fingerprint,
	installSshKey,
	probePort,
	runSetup,
	statesOf,
} from "../support/setupHost.ts";
import { replayTailscaledRules } from "../support/tailscaledRules.ts";

interface Neighbours {
	readonly stranger: Namespace;
	readonly neighbour: Namespace;
	readonly peer: Namespace;
}

/** What each side of the network finds on a host that setup has locked. */
async function lookFromOutside(
	t: Test,
	{ stranger, neighbour, peer }: Neighbours,
	key: string,
): Promise<void> {
	// All at once: what is filtered is waited for.
	const looks: Promise<void>[] = [];
	const look = (
		name: string,
		wanted: string,
		...where: Parameters<typeof probePort>
	) =>
		looks.push(
			probePort(...where).then((found) => {
				t.equal(found, wanted, name);
			}),
		);
	for (const [name, from, address] of [
		["the internet", stranger, publicAddresses.server],
		["the LAN", neighbour, addresses.lanServer.v4],
		["the LAN by IPv6", neighbour, addresses.lanServer.v6],
	] as const) {
		for (const port of [11434, 3000, 8080])
			look(`${name} does not reach ${port}`, "filtered", from, address, port);
		look(`${name}: SSH`, "open", from, address, 22);
	}
	// A neighbour that takes the way over the LAN to the tailnet's addresses is turned
	// away; what goes to an address of the tailnet does not come back to it.
	for (const [source, wanted] of [
		[addresses.lanNeighbour.v4, "closed"],
		["100.99.1.2", "filtered"],
	] as const)
		look(
			`the LAN reaches nothing on the tailnet's address as ${source}`,
			wanted,
			...([neighbour, addresses.server.v4, 11434, source] as const),
		);
	await Promise.all(looks);
	t.equal((await ask(peer, gateV4)).status, 401, "the tailnet needs a key");
	t.equal((await ask(peer, gateV4, { key })).status, 200, "and has one");
	const stream = startStream(peer, gateV4, key);
	await stream.seen((_, index) => index >= 3);
	for (const port of [3000, 8080])
		t.not(
			await probePort(peer, addresses.server.v4, port),
			"open",
			`the tailnet does not reach ${port}`,
		);
}

async function plugAll(host: BootedHost): Promise<Neighbours> {
	const stranger = await host.plugPublic();
	const neighbour = await host.plugLan();
	const peer = await host.plugTailnet();
	await neighbour.ip("addr add 100.99.1.2/32 dev eth0");
	return { stranger, neighbour, peer };
}

/** Until the next boot, the gate runs for a while before it is taken to the tailnet's addresses. */
async function slowFollower(host: BootedHost): Promise<void> {
	const folder = "/run/systemd/system/llamagate-listen.service.d";
	await host.sh(`mkdir -p ${folder}
		printf '[Service]\\nExecStart=\\nExecStart=sh -c "sleep 3; exec /usr/lib/llamagate/follow-tailscale"\\n' >${folder}/slow.conf
		systemctl daemon-reload`);
}

t.test(
	"one command locks a host that was open, and another gives it back as it was",
	booting(),
	async (t) => {
		const host = await bootHost(t, {
			llamagate: "installed",
			ollama: "everywhere",
			docker: "open-webui",
		});
		await installSshKey(host);
		const neighbours = await plugAll(host);
		await replayTailscaledRules(host);
		const { stranger, neighbour } = neighbours;
		t.equal(
			await probePort(stranger, publicAddresses.server, 11434),
			"open",
			"before: the internet reaches Ollama",
		);
		t.equal(
			await probePort(neighbour, addresses.lanServer.v4, 3000),
			"open",
			"before: the LAN reaches Open WebUI",
		);
		const before = await fingerprint(host);

		const parallel = ["--parallel", "4"];
		const dry = await runSetup(host, "--dry-run", ...parallel);
		t.equal(dry.code, 0, dry.stderr);
		t.equal(dry.report.applied, false);
		t.equal(await fingerprint(host), before, "a dry run changes nothing");

		await slowFollower(host);
		const { code, report } = await runSetup(host, "--yes", ...parallel);
		t.equal(code, 0, JSON.stringify(report, undefined, 2));
		t.match(
			JSON.parse(await host.read("/etc/llamagate/config.json")),
			{ queue: { parallel: 4 } },
			"the gate counts on as many requests at once as Ollama was told",
		);
		const heard = (await host.journal("llamagate")).map(
			(line) => /"msg":"(\w+)"/.exec(line)?.[1],
		);
		t.ok(
			heard.indexOf("request") > heard.lastIndexOf("stopped"),
			`it asks the gate once that has its last sockets: ${heard}`,
		);
		t.strictSame(statesOf(report), {
			account: "changed",
			ollama: "changed",
			gate: "changed",
			bridges: "absent",
			ufw: "changed",
			tailscale: "done",
			"open-webui": "changed",
			sshd: "changed",
			fail2ban: "changed",
		});
		t.strictSame(
			report.steps.map(({ actions }) => actions),
			dry.report.steps.map(({ actions }) => actions),
			"it did what the plan said",
		);
		const notes = report.steps.flatMap((step) => step.notes).join("\n");
		t.match(notes, /OLLAMA_API_KEY .*protects nothing/);
		t.match(notes, /UFW.* does not filter the tailnet/);
		const key = report.key ?? "";
		t.match(key, /^lg_[0-9a-f]{64}$/);
		await lookFromOutside(t, neighbours, key);

		const settled = await fingerprint(host);
		const again = await runSetup(host, "--yes");
		t.equal(again.code, 0, JSON.stringify(again.report, undefined, 2));
		t.strictSame(
			again.report.steps.flatMap(({ actions }) => actions),
			[],
			"a second run has nothing to do",
		);
		t.equal(await fingerprint(host), settled, "and changes nothing");

		await host.reboot();
		await replayTailscaledRules(host);
		await lookFromOutside(t, neighbours, key);

		const undone = await host.run("llamagate", "setup", "--undo", "--yes");
		t.equal(undone.code, 0, undone.stdout + undone.stderr);
		t.equal(await fingerprint(host), before, "byte for byte as before");
		t.equal(
			await host.must("docker", "ps", "-a", "--format", "{{.Names}}"),
			"open-webui\n",
		);
		await becomes(
			t,
			() => probePort(stranger, publicAddresses.server, 11434),
			"open",
			"open to the internet again, as it was",
		);
		t.match(await host.must("ufw", "status"), "Status: inactive");
		t.match(
			await host.must("tailscale", "serve", "status", "--json"),
			/^\{\s*\}\s*$/,
		);
		for (const unit of ["llamagate.service", "llamagate.socket"])
			t.not((await host.run("systemctl", "is-active", unit)).code, 0, unit);
	},
);
