import t from "tap";
import { standingOf } from "../../src/host/openWebUi/standing.ts";
import {
	type Container,
	differences,
	publishedPorts,
	readContainers,
	runCommand,
} from "../../src/system/docker.ts";

/** As `docker inspect` shows Open WebUI, started from a terminal by the command in its documentation. */
const container: Container & { HostConfig: Record<string, unknown> } = {
	Id: "4f66ad9a0b2e6c1d7a1d6ab3f2a4c5d6e7f80912a3b4c5d6e7f8091a2b3c4d5e",
	Name: "/open-webui",
	State: { Running: true },
	Config: {
		Hostname: "4f66ad9a0b2e",
		User: "0:0",
		Env: [
			"WEBUI_SECRET_KEY=a b'c\"d",
			"OLLAMA_BASE_URL=http://host.docker.internal:11434",
			"PATH=/usr/local/bin:/usr/bin",
			"PORT=8080",
		],
		Cmd: ["bash", "start.sh"],
		Image: "ghcr.io/open-webui/open-webui:main",
		WorkingDir: "/app/backend",
		Entrypoint: null,
		Labels: { "org.opencontainers.image.title": "Open WebUI", mine: "yes" },
	},
	HostConfig: {
		Binds: ["open-webui:/app/backend/data"],
		ContainerIDFile: "",
		NetworkMode: "bridge",
		PortBindings: { "8080/tcp": [{ HostIp: "", HostPort: "3000" }] },
		RestartPolicy: { Name: "always", MaximumRetryCount: 0 },
		ConsoleSize: [36, 161],
		CapAdd: null,
		CapDrop: null,
		ExtraHosts: ["host.docker.internal:host-gateway"],
		SecurityOpt: null,
		ShmSize: 67108864,
		Memory: 0,
		DeviceRequests: [
			{
				Driver: "",
				Count: -1,
				DeviceIDs: null,
				Capabilities: [["gpu"]],
				Options: {},
			} as { Count: number },
		],
		Privileged: false,
	},
};
const image = {
	Env: ["PATH=/usr/local/bin:/usr/bin", "PORT=8080"],
	Cmd: ["bash", "start.sh"],
	User: "0:0",
	WorkingDir: "/app/backend",
	Labels: { "org.opencontainers.image.title": "Open WebUI" },
};

/** The same container with other settings. */
const withHost = (HostConfig: Record<string, unknown>) => ({
	...container,
	HostConfig: { ...container.HostConfig, ...HostConfig },
});
const withConfig = (Config: Record<string, unknown>) => ({
	...container,
	Config: { ...container.Config, ...Config },
});

t.test(
	"a container is made anew as it is, with nothing that its image says anyway",
	async (t) => {
		t.strictSame(runCommand(container, image, ["127.0.0.1:3000:8080"], []), [
			...["docker", "run", "-d", "--name", "open-webui"],
			...["--restart", "always", "-p", "127.0.0.1:3000:8080"],
			...["-v", "open-webui:/app/backend/data"],
			...["--add-host", "host.docker.internal:host-gateway", "--gpus", "all"],
			...["-e", "WEBUI_SECRET_KEY=a b'c\"d"],
			...["-e", "OLLAMA_BASE_URL=http://host.docker.internal:11434"],
			...["--label", "mine=yes", "ghcr.io/open-webui/open-webui:main"],
		]);
	},
);

t.test("whatever else a container was given, it is given again", async (t) => {
	for (const [other, words] of [
		[withHost({ NetworkMode: "host" }), "--network host"],
		[
			withHost({ RestartPolicy: { Name: "on-failure", MaximumRetryCount: 3 } }),
			"--restart on-failure:3",
		],
		[
			withHost({ DeviceRequests: [{ Count: 0, DeviceIDs: ["0", "2"] }] }),
			'--gpus "device=0,2"',
		],
		[
			withHost({
				Mounts: [
					{ Type: "bind", Source: "/srv", Target: "/data", ReadOnly: true },
				],
			}),
			"--mount type=bind,source=/srv,target=/data,readonly",
		],
		[withHost({ ShmSize: 1073741824 }), "--shm-size 1073741824"],
		[withHost({ CapDrop: ["ALL"] }), "--cap-drop ALL"],
		[withHost({ Privileged: true }), "--privileged"],
		[withConfig({ Hostname: "chat" }), "--hostname chat"],
		[withConfig({ User: "1000" }), "--user 1000"],
		[
			withConfig({ Cmd: ["bash", "other.sh"] }),
			"open-webui:main bash other.sh",
		],
	] as const)
		t.ok(runCommand(other, image, [], []).join(" ").includes(words), words);
	const plain = runCommand(
		withHost({ RestartPolicy: { Name: "no", MaximumRetryCount: 0 } }),
		image,
		[],
		[],
	);
	t.notOk(plain.includes("--restart"));
	t.notOk(
		plain.includes("--hostname"),
		"the start of the id is nobody's choice",
	);
	t.strictSame(
		runCommand(
			withConfig({ Env: ["HOST=0.0.0.0"] }),
			image,
			[],
			["HOST=127.0.0.1"],
		).filter((word) => word.startsWith("HOST=")),
		["HOST=127.0.0.1"],
		"a variable of ours takes the place of theirs",
	);
});

t.test(
	"what depends on who started a container, and how, is no difference",
	async (t) => {
		const anew = {
			...container,
			Id: `99${container.Id.slice(2)}`,
			Config: {
				...container.Config,
				Hostname: `99${container.Id.slice(2, 12)}`,
				Env: container.Config.Env?.toReversed() ?? [],
				AttachStdout: false,
				AttachStderr: false,
				ExposedPorts: { "8080/tcp": {} },
			},
			HostConfig: {
				...container.HostConfig,
				ConsoleSize: [0, 0],
				PortBindings: {
					"8080/tcp": [{ HostIp: "127.0.0.1", HostPort: "3000" }],
				},
				CapAdd: [],
			},
		};
		const inForeground = {
			...container,
			Config: { ...container.Config, AttachStdout: true, AttachStderr: true },
			HostConfig: {
				...container.HostConfig,
				// As an older engine called it, and docker update left it.
				NetworkMode: "default",
				RestartPolicy: { Name: "no", MaximumRetryCount: 0 },
			},
		};
		t.strictSame(differences(container, anew, []), []);
		t.strictSame(differences(inForeground, anew, []), []);
	},
);

t.test("a setting that got lost is named", async (t) => {
	for (const [other, name] of [
		[withHost({ Binds: null }), "HostConfig.Binds"],
		[
			withHost({ Ulimits: [{ Name: "nofile", Soft: 1, Hard: 1 }] }),
			"HostConfig.Ulimits",
		],
		[withHost({ NetworkMode: "host" }), "HostConfig.NetworkMode"],
		[withHost({ DeviceRequests: null }), "HostConfig.DeviceRequests"],
		[withConfig({ Env: container.Config.Env?.slice(1) ?? [] }), "Config.Env"],
		[withConfig({ Entrypoint: ["/mine"] }), "Config.Entrypoint"],
		[withConfig({ Hostname: "chat" }), "Config.Hostname"],
	] as const)
		t.strictSame(differences(other, container, []), [name]);
	t.strictSame(
		differences(
			withConfig({ Env: [...(container.Config.Env ?? []), "HOST=0.0.0.0"] }),
			withConfig({ Env: [...(container.Config.Env ?? []), "HOST=127.0.0.1"] }),
			["HOST="],
		),
		[],
		"a variable that setup changes is none",
	);
});

t.test(
	"a port that was published without an address is published to everybody",
	async (t) => {
		t.strictSame(publishedPorts(container), [
			{ containerPort: "8080/tcp", hostAddress: "0.0.0.0", hostPort: 3000 },
		]);
		t.strictSame(publishedPorts(withHost({ PortBindings: null })), []);
		t.strictSame(
			publishedPorts(
				withHost({
					PortBindings: {
						"8080/tcp": [
							{ HostIp: "127.0.0.1", HostPort: "3000" },
							{ HostIp: "::", HostPort: "3000" },
						],
						"9000/tcp": null,
					},
				}),
			).map(({ hostAddress }) => hostAddress),
			["127.0.0.1", "::"],
		);
	},
);

/** The same container, as it publishes its ports. */
const publishing = (
	ports: Record<string, string>,
	{ more = {}, isStopped = false } = {},
): Container => {
	const bindings = Object.fromEntries(
		Object.entries(ports).map(([inside, place]) => {
			const [, HostIp = "", HostPort = ""] = /^(.*):(\d+)$/.exec(place) ?? [];
			return [inside, [{ HostIp, HostPort }]];
		}),
	);
	return {
		...withHost({ PortBindings: bindings, ...more }),
		State: { Running: !isStopped },
		NetworkSettings: { Ports: isStopped ? {} : bindings },
	};
};
const elsewhere = (one: Container): Container => ({
	...one,
	Config: {
		...one.Config,
		Env: ["OLLAMA_BASE_URL=http://100.101.102.103:11434"],
	},
});
const onLoopback = { "8080/tcp": "127.0.0.1:3000" };

t.test("an Open WebUI on loopback is left there", async (t) => {
	const container = elsewhere(publishing(onLoopback));
	const local = { kind: "local", port: 3000 };
	t.match(standingOf(container, true), local);
	t.match(standingOf(publishing(onLoopback), false), local, "without Ollama");
	const onHost = (host: string, isStopped = false) => ({
		...publishing({}, { more: { NetworkMode: "host" }, isStopped }),
		Config: { ...container.Config, Env: [`HOST=${host}`, "PORT=9090"] },
	});
	t.match(standingOf(onHost("127.0.0.1"), true), { kind: "local", port: 9090 });
	t.match(standingOf(onHost("127.0.0.1", true), true), { kind: "stopped" });
	t.match(standingOf(onHost("0.0.0.0"), true), { kind: "to move" });
});

t.test(
	"an Open WebUI that publishes no port is nowhere on this host",
	async (t) => {
		const container = publishing({}, { more: { NetworkMode: "chat" } });
		t.match(standingOf(elsewhere(container), true), {
			kind: "hidden",
			says: /publishes no port/,
		});
		t.match(standingOf(container, false), { kind: "hidden" });
		t.match(
			standingOf(elsewhere(publishing({ "9000/tcp": "127.0.0.1:9000" })), true),
			{ kind: "hidden" },
			"another port is not its own",
		);
		t.match(
			standingOf(elsewhere(publishing({ "9000/tcp": "0.0.0.0:9000" })), true),
			{ kind: "unsafe", says: /0\.0\.0\.0:9000 for its 9000\/tcp, past UFW/ },
		);
		t.match(standingOf(container, true), {
			kind: "unsafe",
			says: /out of its reach once Ollama is on loopback/,
		});
	},
);

t.test("an Open WebUI that is stopped is nowhere either", async (t) => {
	for (const ports of [onLoopback, {}])
		t.match(standingOf(publishing(ports, { isStopped: true }), true), {
			kind: "stopped",
		});
	t.match(
		standingOf(
			publishing({ "8080/tcp": "0.0.0.0:3000" }, { isStopped: true }),
			true,
		),
		{ kind: "to move" },
		"one that comes back open is looked at",
	);
});

t.test(
	"an Open WebUI that would lose this host's Ollama moves, or is left to the person",
	async (t) => {
		t.match(standingOf(publishing(onLoopback), true), {
			kind: "to move",
			port: 3000,
			keepsPort: true,
		});
		const chat = publishing(onLoopback, { more: { NetworkMode: "chat" } });
		t.match(standingOf(chat, true), {
			kind: "unsafe",
			says: /is in Docker's network chat, from where/,
		});
		t.match(
			standingOf(
				publishing({ ...onLoopback, "9000/tcp": "127.0.0.1:9000" }),
				true,
			),
			{ kind: "unsafe", says: /publishes other ports too/ },
		);
	},
);

t.test("an Open WebUI that others reach moves", async (t) => {
	for (const place of ["0.0.0.0:3000", ":3000", "::1:3000"])
		t.match(standingOf(elsewhere(publishing({ "8080/tcp": place })), true), {
			kind: "to move",
			port: 3000,
			keepsPort: false,
		});
	t.match(
		standingOf(
			elsewhere({
				...publishing({}),
				NetworkSettings: {
					Ports: { "8080/tcp": [{ HostIp: "0.0.0.0", HostPort: "32768" }] },
				},
			}),
			true,
		),
		{ kind: "unsafe", says: /\(-P\): on 0\.0\.0\.0:32768/ },
	);
});

t.test(
	"a container that goes while Docker is asked takes no other along",
	async (t) => {
		const others = JSON.stringify([container]);
		for (const stderr of [
			"Error response from daemon: No such container: 0123\n",
			"Error: No such container: 0123\nError: No such container: 4567\n",
			// podman's
			"error inspecting object: no such container 4567\nError: inspecting object: no such container 0123\n",
		])
			t.match(readContainers({ code: 1, stdout: others, stderr }), [
				{ Id: container.Id },
			]);
		for (const stderr of [
			"",
			"Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n",
			"Error response from daemon: No such container: 0123\nno end after 30 s\n",
		])
			t.equal(
				readContainers({ code: 1, stdout: others, stderr }),
				undefined,
				stderr,
			);
	},
);
