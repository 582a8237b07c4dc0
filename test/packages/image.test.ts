import { chown, cp, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { temporaryFolder, testEntries, testKeys } from "../support/gate.ts";
import {
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

t.test(
	"the image, built here and run by podman and runc, serves a tailnet with a read-only root, no capability, no user's name and no shell",
	network(),
	async (t) => {
		if (!requireTool(t, ...imageTools)) return;
		const store = await imageStore(t);
		await makeNodeImage(store, "localhost/node");
		await makeLibraryImage(store, "localhost/libraries");
		await store.run(
			"buildah",
			...["build", "--format", "docker", "--pull-never", "--quiet"],
			...["--build-arg", "BUILD_IMAGE=localhost/node"],
			...["--build-arg", "RUNTIME_IMAGE=localhost/libraries"],
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
