import t from "tap";
import { rebind } from "../../src/host/openWebUi/container.ts";
import { obstacleOfNetworks } from "../../src/host/openWebUi/networks.ts";
import { entranceTo } from "../../src/host/openWebUi/serve.ts";
import { type Container, differences } from "../../src/system/docker.ts";
import { readServeConfig } from "../../src/tailscale/serveConfig.ts";

type Networks = NonNullable<
	NonNullable<Container["NetworkSettings"]>["Networks"]
>;
const id = "4f66ad9a0b2e6c1d7a1d6ab3f2a4c5d6e7f80912a3b4c5d6e7f8091a2b3c4d5e";

/** An Open WebUI that the LAN reaches, in networks of Docker's. */
const inNetworks = (
	NetworkMode: string,
	Networks: Networks,
	ollama = "http://ollama:11434",
): Container => ({
	Id: id,
	Name: "/open-webui",
	State: { Running: true },
	Config: {
		Image: "ghcr.io/open-webui/open-webui:main",
		Env: [`OLLAMA_BASE_URL=${ollama}`],
	},
	HostConfig: {
		NetworkMode,
		Binds: ["open-webui:/app/backend/data"],
		PortBindings: { "8080/tcp": [{ HostIp: "", HostPort: "3000" }] },
		RestartPolicy: { Name: "always", MaximumRetryCount: 0 },
	},
	NetworkSettings: { Networks },
});
const obstacle = (container: Container) =>
	obstacleOfNetworks(container, rebind(container, 8080).container);
/** As engines before version 25 name it by themselves. */
const plain = { Aliases: [id.slice(0, 12)], IPAMConfig: {} };

t.test(
	"a container that one docker run does not give all its networks back is left to the person",
	async (t) => {
		t.equal(obstacle(inNetworks("bridge", { bridge: plain })), undefined);
		t.equal(obstacle(inNetworks("front", { front: plain })), undefined);
		for (const [networks, words] of [
			[{ front: plain, backend: plain }, "networks backend and front,"],
			[{ front: { Aliases: ["chat"] } }, "is called chat in front,"],
			[
				{ front: { IPAMConfig: { IPv4Address: "172.20.0.5" } } },
				"is at an address of its own in front,",
			],
		] as const)
			t.match(obstacle(inNetworks("front", networks)), words);
	},
);

t.test(
	"a container goes into the host's network from Docker's own bridge alone, where it knows no other by name",
	async (t) => {
		const hosts = "http://host.docker.internal:11434";
		for (const mode of ["default", "bridge"])
			t.equal(obstacle(inNetworks(mode, { bridge: plain }, hosts)), undefined);
		t.match(
			obstacle(inNetworks("front", { front: plain }, hosts)),
			"network front, which it would leave",
		);
		t.match(
			obstacle(inNetworks("bridge", { bridge: plain, db: plain }, hosts)),
			"network db, which it would leave",
		);
		t.equal(
			obstacle(inNetworks("host", { host: plain }, hosts)),
			undefined,
			"one that is there stays there",
		);
	},
);

t.test("a network that got lost is named", async (t) => {
	const both = inNetworks("front", { front: plain, backend: plain });
	t.strictSame(differences(both, both, []), []);
	t.strictSame(
		differences(
			both,
			{ ...both, Id: `99${id.slice(2)}`, NetworkSettings: {} },
			[],
		),
		["NetworkSettings.Networks"],
	);
	for (const front of [
		{ ...plain, Aliases: ["chat"] },
		{ ...plain, IPAMConfig: { IPv4Address: "172.20.0.5" } },
	])
		t.strictSame(
			differences(
				inNetworks("front", { front }),
				inNetworks("front", { front: plain }),
				[],
			),
			["NetworkSettings.Networks"],
		);
	t.strictSame(
		differences(
			inNetworks("front", { front: plain }),
			inNetworks("front", { front: { Aliases: null, IPAMConfig: null } }),
			[],
		),
		[],
		"what an engine says by itself is none",
	);
	t.strictSame(
		differences(
			rebind(inNetworks("bridge", { bridge: plain }, "/ollama"), 8080)
				.container,
			{
				...rebind(inNetworks("bridge", {}, "/ollama"), 8080).container,
				NetworkSettings: { Networks: { host: plain } },
			},
			[],
		),
		[],
		"nor is the host's, where it was to go",
	);
});

t.test(
	"Serve leads to Open WebUI whatever it calls this host, and on any port of HTTPS",
	async (t) => {
		const served = (entries: Record<string, string>) =>
			readServeConfig(
				JSON.stringify({
					TCP: { 443: { HTTPS: true }, 8443: { HTTPS: true } },
					Web: Object.fromEntries(
						Object.entries(entries).map(([place, target]) => {
							const [port, mount] = place.split(/(?=\/)/);
							return [
								`h.example.ts.net:${port}`,
								{ Handlers: { [mount ?? "/"]: { Proxy: target } } },
							];
						}),
					),
				}),
			);
		for (const target of ["http://127.0.0.1:3000", "http://localhost:3000"])
			t.match(entranceTo(served({ 443: target }), 3000), { port: 443 }, target);
		t.match(
			entranceTo(
				served({ 443: "http://127.0.0.1:9", 8443: "http://127.0.0.1:3000" }),
				3000,
			),
			{ where: "https://h.example.ts.net:8443/" },
		);
		for (const entries of [
			{ 443: "http://127.0.0.1:3001" },
			{ 443: "http://192.168.1.5:3000" },
			{ "443/chat": "http://127.0.0.1:3000" },
		])
			t.equal(
				entranceTo(served(entries as Record<string, string>), 3000),
				undefined,
			);
	},
);
