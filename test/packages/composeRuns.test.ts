import t, { type Test } from "tap";
import {
	commandsUpToStart,
	commandsWith,
	replaceSudo,
	runContainersUnit,
	servicesOf,
	shownKey,
} from "../support/composeFiles.ts";
import {
	type DockerEngine,
	dockerEngineTools,
	startDockerEngine,
} from "../support/dockerEngine.ts";
import {
	addresses,
	ask,
	becomes,
	curlExits,
	gateV4,
	joinTailnet,
	makeNamespace,
	type Namespace,
	network,
	startStandInProcess,
} from "../support/namespaces.ts";
import {
	importPublishedImages,
	publishedImageTools,
} from "../support/publishedImages.ts";
import { requireTool } from "../support/tools.ts";

/** The tailnet addresses of the two gates. */
const [one, other] = ["100.101.102.104", "100.101.102.106"] as const;

const prompt = { model: "qwen3:8b", prompt: "a", stream: false };

/** Asks a gate so many times, one after the other, and says each answer's status. */
async function manyTimes(
	from: Namespace,
	address: string,
	key: string,
	count: number,
	body?: unknown,
): Promise<number[]> {
	const url = `http://${address}:11434/api/${body === undefined ? "tags" : "generate"}`;
	const { stdout } = await from.run(
		...["curl", "--silent", "--header", `authorization: Bearer ${key}`],
		...(body === undefined ? [] : ["--data", JSON.stringify(body)]),
		...["--write-out", "%{http_code}\n"],
		...Array(count).fill(["--output", "/dev/null", url]).flat(),
	);
	return stdout.trim().split("\n").map(Number);
}

let links = 0;

/** Plugs tailscale0 into a container's network, as a Tailscale that is up has it. */
async function plugTailscale(
	engine: DockerEngine,
	container: string,
	peer: Namespace,
	address: string,
): Promise<void> {
	const link = `ts${++links}`;
	await engine.type(`
		pid=$(docker inspect --format '{{.State.Pid}}' ${container})
		ip link add ${link} type veth peer name tailscale0 netns "$pid"`);
	await engine.network.ip(`link set ${link} netns ${peer.name}`);
	await peer.ip(
		`link set ${link} master tailnet`,
		`link set ${link} up`,
		// The address may have been another link's.
		"neigh flush dev tailnet",
	);
	await engine.type(`
		pid=$(docker inspect --format '{{.State.Pid}}' ${container})
		nsenter -t "$pid" -n ip link set tailscale0 up
		nsenter -t "$pid" -n ip addr add ${address}/10 dev tailscale0`);
}

/** A device of the tailnet with room for several others. */
async function makeTailnet(
	t: Parameters<typeof makeNamespace>[0],
): Promise<Namespace> {
	const peer = await makeNamespace(t);
	await peer.ip(
		"link add tailnet type bridge",
		"link set tailnet up",
		`addr add ${addresses.peer.v4}/10 dev tailnet`,
	);
	return peer;
}

t.test("with Debian's Docker and Compose", network(), async (t) => {
	if (!requireTool(t, ...dockerEngineTools, ...publishedImageTools)) return;
	const engine = await startDockerEngine(t);
	await importPublishedImages(t, engine);
	await replaceSudo(engine);

	await t.test(
		"two gates and three Ollamas are started by the commands of their file",
		(t) => twoGates(t, engine),
	);

	await t.test("so are Tailscale, Ollama and the gate by theirs", async (t) => {
		const file = "docker/compose.sidecar.yaml";
		const laptop = shownKey(await engine.type(await commandsUpToStart(file)));
		t.strictSame(await servicesOf(engine, file), [
			...["llamagate running", "network running"],
			...["ollama running", "tailscale running"],
		]);
		const peer = await makeTailnet(t);
		await plugTailscale(engine, "llamagate-network-1", peer, one);
		await becomes(
			t,
			async () => (await ask(peer, `${one}:11434`, { key: laptop })).status,
			200,
			"with the key that was printed",
		);
		t.equal((await ask(peer, `${one}:11434`)).status, 401);
		await engine.type(await commandsWith(file, "kill -s HUP"));
		await engine.type(`docker compose -f ${file} down`);
	});

	await t.test(
		"so is the gate beside a Tailscale and an Ollama of its host, by docker/compose.yaml and the Dockerfile",
		async (t) => {
			const peer = await makeNamespace(t);
			await joinTailnet(engine.network, peer);
			await startStandInProcess(engine.network);
			for (const [file, end] of [
				["docker/compose.yaml", "docker compose -f docker/compose.yaml down"],
				["Dockerfile", "docker rm --force llamagate"],
			] as const) {
				const laptop = shownKey(
					await engine.type(await commandsUpToStart(file)),
				);
				await becomes(
					t,
					async () => (await ask(peer, gateV4, { key: laptop })).status,
					200,
					`${file}: with the key that was printed`,
				);
				await engine.type(`${end}\nrm -r /etc/llamagate`);
			}
		},
	);
});

async function twoGates(t: Test, engine: DockerEngine): Promise<void> {
	const file = "docker/compose.two-gates.yaml";
	const project = "llamagate-two-gates";
	const compose = (command: string) =>
		engine.type(`docker compose -f ${file} ${command}`);
	const laptop = shownKey(await engine.type(await commandsUpToStart(file)));
	const names = [
		...["gate-one", "gate-other", "network-one", "network-other"],
		...["ollama-one", "ollama-one-second", "ollama-other"],
		...["tailscale-one", "tailscale-other", "valkey"],
	];
	// What is published would stand behind "running".
	const running = names.map((name) => `${name} running`);
	t.strictSame(await servicesOf(engine, file), running);
	t.strictSame(await engine.network.listeners(), [], "nor is it on the host");

	const peer = await makeTailnet(t);
	const addressOf = { one, other } as const;
	const plug = (name: "one" | "other") =>
		plugTailscale(
			...([engine, `${project}-network-${name}-1`, peer] as const),
			addressOf[name],
		);
	const serves = (address: string, message: string) =>
		becomes(
			t,
			async () => (await ask(peer, `${address}:11434`, { key: laptop })).status,
			200,
			message,
		);
	await plug("one");
	await plug("other");
	for (const address of [one, other]) {
		await serves(address, `${address}: with the key that was printed`);
		t.equal((await ask(peer, `${address}:11434`)).status, 401);
	}
	await t.test(
		"a key's limit holds once, whichever gate it is shown to",
		async (t) => {
			const limited = shownKey(
				await engine.type(
					(await commandsWith(file, "keys add")).replace(
						"keys add laptop",
						"keys add limited --requests-per-minute 60",
					),
				),
			);
			await engine.type(await commandsWith(file, "kill -s HUP"));
			for (const name of ["one", "other"])
				await becomes(
					t,
					// Not by a request with the key, which would count. It ends with 1
					// where the gate has not found Valkey yet.
					async () => {
						const shown = await compose(
							`exec gate-${name} /usr/local/bin/node /app/bin/llamagate.js status --config /etc/llamagate/${name}.json || [ $? = 1 ]`,
						);
						return (
							/keys: 2: laptop, limited/.test(shown) &&
							/gates: 2 share their limits/.test(shown)
						);
					},
					true,
					"it has read the keys, and shares its limits",
				);
			const statuses = await Promise.all(
				[one, other].map((address) => manyTimes(peer, address, limited, 40)),
			);
			const all = statuses.flat();
			t.equal(all.filter((status) => status === 200).length, 60);
			t.equal(all.filter((status) => status === 429).length, 20);
		},
	);

	await t.test("an Ollama and a gate may end, and others go on", async (t) => {
		await compose("kill ollama-one");
		t.strictSame(
			await manyTimes(peer, one, laptop, 10, prompt),
			Array(10).fill(200),
			"the second Ollama answers",
		);
		const restarted = compose("restart gate-one");
		t.strictSame(
			await manyTimes(peer, other, laptop, 50, prompt),
			Array(50).fill(200),
			"the other gate answers",
		);
		await restarted;
		await serves(one, "the gate is back");
		await engine.type(await commandsWith(file, "up -d"));
		t.strictSame(await servicesOf(engine, file), running, "and so is Ollama");
	});

	await t.test(
		"nothing but a gate is reached, and that by the tailnet alone",
		async (t) => {
			const ips = await engine.type(
				`docker network inspect --format '{{range .Containers}}{{.IPv4Address}} {{end}}' ${project}_default`,
			);
			const containers = [...ips.matchAll(/(\S+)\/\d+/g)].map(([, ip]) => ip);
			t.equal(containers.length, 2);
			const reach = async (from: Namespace, place: string) =>
				(
					await from.run(
						"curl",
						"--silent",
						"--max-time",
						"20",
						`http://${place}/`,
					)
				).code;
			for (const ip of containers)
				for (const port of [11434, 11435, 9464])
					t.equal(
						await reach(engine.network, `${ip}:${port}`),
						curlExits.refused,
					);
			for (const port of [11435, 9464, 6379])
				t.equal(await reach(peer, `${one}:${port}`), curlExits.refused);
			// Linux takes what is meant for any of a machine's addresses on all its links.
			await engine.network.ip(`route add ${one} via ${containers[0]}`);
			await engine.network.ip(`route add ${other} via ${containers[1]}`);
			for (const address of [one, other]) {
				const { status } = await ask(engine.network, `${address}:11434`, {
					key: laptop,
				});
				t.not(status, 200, `${address} by way of Docker's bridge: ${status}`);
			}
		},
	);

	await t.test(
		"Tailscale may end, and comes back beside its gate",
		async (t) => {
			const state = async () =>
				engine.type(
					`docker inspect --format '{{.RestartCount}} {{.State.Status}}' ${project}-tailscale-one-1`,
				);
			await engine.type(`
			network=$(docker inspect --format '{{.State.Pid}}' ${project}-network-one-1)
			nsenter -t "$network" -n ip link delete tailscale0
			kill -9 "$(docker inspect --format '{{.State.Pid}}' ${project}-tailscale-one-1)"`);
			await becomes(t, state, "1 running\n", "Docker has started it again");
			const networks = await engine.type(`
			for name in tailscale gate ollama; do
				readlink "/proc/$(docker inspect --format '{{.State.Pid}}' ${project}-$name-one-1)/ns/net"
			done | sort -u`);
			t.match(networks, /^net:\[\d+\]\n$/, "in the network of the others");
			await plug("one");
			await serves(one, "without a command of anybody's");
		},
	);

	await t.test("after a power cut all are back", async (t) => {
		for (const line of (await commandsWith(file, ".service")).split("\n"))
			if (!line.includes("systemctl")) await engine.type(line);
		await engine.powerCut();
		await runContainersUnit(engine);
		t.strictSame(await servicesOf(engine, file), running);
		await plug("one");
		await serves(one, "the gate serves again");
	});
	await compose("down");
}
