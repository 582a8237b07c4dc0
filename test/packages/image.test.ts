import { execFile } from "node:child_process";
import { chown, cp, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import t from "tap";
import {
	commandsBelow,
	commandsInComment,
} from "../support/documentedCommands.ts";
import { temporaryFolder, testEntries, testKeys } from "../support/gate.ts";
import {
	type ImageStore,
	imageStore,
	imageTools,
	makeLibraryImage,
	makeNodeImage,
} from "../support/localImages.ts";
import {
	ask,
	becomes,
	gateV4,
	joinTailnet,
	makeNamespace,
	network,
	startStandInProcess,
} from "../support/namespaces.ts";
import { requireTool } from "../support/tools.ts";

const root = path.join(import.meta.dirname, "../..");
/** The user that the image runs as. */
const uid = 65532;

/** What stands for the images that the Dockerfile names. */
const buildArguments = [
	...["--build-arg", "BUILD_IMAGE=localhost/node"],
	...["--build-arg", "RUNTIME_IMAGE=localhost/libraries"],
];

/** One for all these tests: what the first has built is there for the others. */
let store: Promise<ImageStore> | undefined;
function storeWithBases(): Promise<ImageStore> {
	store ??= (async () => {
		const made = await imageStore(t);
		await makeNodeImage(made, "localhost/node");
		await makeLibraryImage(made, "localhost/libraries");
		return made;
	})();
	return store;
}

t.test(
	"the image, built here and run by podman and runc, serves a tailnet with a read-only root, no capability, no user's name and no shell",
	network(),
	async (t) => {
		if (!requireTool(t, ...imageTools)) return;
		const store = await storeWithBases();
		await store.run(
			"buildah",
			...["build", "--format", "docker", "--pull-never", "--quiet"],
			...buildArguments,
			...["--tag", "localhost/llamagate", root],
		);

		const server = await makeNamespace(t);
		const peer = await makeNamespace(t);
		await joinTailnet(server, peer);
		await startStandInProcess(server);
		const settings = await temporaryFolder(t);
		await chown(settings, uid, uid);
		for (const [name, content] of [
			["config.json", {}],
			["keys.json", { keys: testEntries }],
		] as const) {
			const file = path.join(settings, name);
			await writeFile(file, JSON.stringify(content), { mode: 0o600 });
			await chown(file, uid, uid);
		}
		await cp(
			path.join(root, "test/support/permissionProbe.mjs"),
			path.join(settings, "permissionProbe.mjs"),
		);
		// As docker/compose.yaml has it, on a network that the test has made.
		await store.run(
			"podman",
			...["run", "--detach", "--name", "gate", "--read-only"],
			// As with Docker: podman would lay a tmpfs of its own over /run.
			"--read-only-tmpfs=false",
			...["--network", `ns:/run/netns/${server.name}`],
			...["--cap-drop", "ALL", "--security-opt", "no-new-privileges"],
			...["--tmpfs", "/run/llamagate:mode=1777"],
			...["--volume", `${settings}:/etc/llamagate:ro`],
			"--env",
			"NODE_OPTIONS=--import=/etc/llamagate/permissionProbe.mjs",
			// podman's own limits are higher than root may set everywhere.
			...["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"],
			// The test asks itself, and podman would want a systemd for its timer.
			...["--health-interval", "disable"],
			"localhost/llamagate",
		);

		await becomes(
			t,
			async () => (await ask(peer, gateV4)).status,
			401,
			"without a key",
		);
		t.equal((await ask(peer, gateV4, { key: testKeys.reader })).status, 200);
		await store.run("podman", "healthcheck", "run", "gate");
		t.pass("the health check has succeeded");

		const probed = async () =>
			(await store.run("podman", "logs", "gate"))
				.split("\n")
				.find((line) => line.includes('"msg":"permissionProbe"'));
		await becomes(
			t,
			async () => (await probed()) !== undefined,
			true,
			"the daemon has tried what it may not",
		);
		const { results } = JSON.parse((await probed()) ?? "{}") as {
			results: Record<string, string>;
		};
		t.match(results, {
			"run a program as a dependency that is loaded": "ERR_ACCESS_DENIED",
			"write in /run/llamagate": "ERR_ACCESS_DENIED",
			"run /usr/local/bin/node": "ERR_ACCESS_DENIED",
			"become another program": "ERR_ACCESS_DENIED",
			"start a thread": "ERR_ACCESS_DENIED",
			"load an addon": "ERR_DLOPEN_DISABLED",
			"be inspected": "ERR_ACCESS_DENIED",
		});

		const inspect = (format: string) =>
			store.run("podman", "inspect", "--format", format, "gate");
		t.equal(await inspect("{{.HostConfig.ReadonlyRootfs}}"), "true");
		t.match(
			await store.run(
				"podman",
				...["exec", "gate", "/usr/local/bin/node", "--print"],
				'["/proc/1/status", "/usr/local/LICENSE"].map((name) => fs.readFileSync(name, "utf8")).join("")',
			),
			new RegExp(
				`Uid:\\s${uid}\\s[^]*CapEff:\\s0{16}\\n[^]*NoNewPrivs:\\s1\\n[^]*\\nNode\\.js is licensed`,
			),
		);
		await t.rejects(
			store.run("podman", "exec", "gate", "/bin/sh", "-c", "true"),
			/executable file|no such file/i,
		);
		await store.run("podman", "stop", "--time", "45", "gate");
		t.equal(await inspect("{{.State.ExitCode}}"), "0", "it stops when told");
	},
);

for (const [place, commands] of [
	["docs/install.md", () => commandsBelow("docs/install.md", "Docker")],
	["the Dockerfile", () => commandsInComment("Dockerfile")],
] as const)
	t.test(
		`the commands for Docker in ${place} start the gate, run in their order by podman`,
		network(),
		async (t) => {
			if (!requireTool(t, ...imageTools)) return;
			const images = await storeWithBases();
			const server = await makeNamespace(t);
			const peer = await makeNamespace(t);
			await joinTailnet(server, peer);
			await startStandInProcess(server);
			const folder = await temporaryFolder(t);
			const settings = path.join(folder, "etc");
			for (const [program, command] of [
				["sudo", '"$@"'],
				["docker", `python3 "${root}/test/support/dockerByPodman.py" "$@"`],
			] as const)
				await writeFile(
					path.join(folder, program),
					`#!/bin/sh\nexec ${command}\n`,
					{ mode: 0o755 },
				);
			t.teardown(() =>
				images.run("podman", "rm", "--all", "--force", "--time", "0"),
			);
			const type = async (line: string) => {
				const { stdout } = await promisify(execFile)(
					"sh",
					// This machine's own folder is not the test's.
					["-euc", line.replaceAll(" /etc/llamagate", ` ${settings}`)],
					{
						cwd: root,
						env: {
							...images.environment,
							PATH: `${folder}:${process.env.PATH}`,
							DOCKER_STAND_IN: JSON.stringify({
								prefix: "localhost/",
								options: images.options("podman"),
								buildOptions: images.options("buildah"),
								buildArguments,
								root,
								network: `ns:/run/netns/${server.name}`,
								folders: { "/etc/llamagate": settings },
							}),
						},
					},
				);
				return stdout;
			};

			const lines = await commands();
			const upTo = lines.findIndex((line) => /up -d$|run -d /.test(line)) + 1;
			t.equal(upTo, 5, "build, folder, settings, key, start");
			let said = "";
			for (const line of lines.slice(0, upTo)) said += await type(line);
			const [key = ""] = /lg_[0-9a-f]{64}/.exec(said) ?? [];
			t.not(key, "", said);
			await becomes(
				t,
				async () => (await ask(peer, gateV4, { key })).status,
				200,
				"with the key that was printed",
			);
			t.equal((await ask(peer, gateV4)).status, 401);
			// Those that are for afterwards; what is below the HUP is about others.
			if (place === "the Dockerfile")
				for (const line of lines.slice(upTo)) await type(line);
			else {
				const hup = lines.findIndex((line) => line.includes("-s HUP"));
				let shown = "";
				for (const line of lines.slice(upTo, hup)) shown += await type(line);
				t.match(shown, /keys: 1: laptop\n/, "status has asked the gate");
				t.match(
					shown,
					/200 GET \/api\/tags: .*laptop/,
					"logs has read the log",
				);
				t.equal(
					(await ask(peer, gateV4, { key })).status,
					200,
					"nobody told it",
				);
				await type(lines[hup] ?? "");
				await becomes(
					t,
					async () => (await ask(peer, gateV4, { key })).status,
					401,
					"the key is revoked",
				);
			}
		},
	);

t.test("the Compose files and install.md say the same", async (t) => {
	const wanted = (await commandsBelow("docs/install.md", "Docker")).slice(0, 5);
	t.strictSame(
		(await commandsInComment("docker/compose.yaml")).slice(0, 5),
		wanted,
	);
	const sidecar = await commandsInComment("docker/compose.sidecar.yaml");
	t.strictSame(
		sidecar
			.filter((line) => !line.includes("tailscale.authkey"))
			.slice(0, 5)
			.map((line) =>
				line
					.replace("compose.sidecar.yaml", "compose.yaml")
					.replace(
						'"$PWD/docker/etc:/etc/llamagate"',
						"/etc/llamagate:/etc/llamagate",
					)
					.replace(/ docker\/etc/, " /etc/llamagate"),
			),
		wanted,
	);
});
