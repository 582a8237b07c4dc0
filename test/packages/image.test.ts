import { chown, writeFile } from "node:fs/promises";
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

t.setTimeout(900_000);
const root = path.join(import.meta.dirname, "../..");
/** The user that the image runs as. */
const uid = 65532;

t.test(
	"the image, built here and run by podman and runc, serves a tailnet with a read-only root, no capability, no user's name and no shell",
	network(),
	async (t) => {
		t.setTimeout(900_000);
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

		const inspect = (format: string) =>
			store.run("podman", "inspect", "--format", format, "gate");
		t.equal(await inspect("{{.HostConfig.ReadonlyRootfs}}"), "true");
		t.match(
			await store.run(
				"podman",
				...["exec", "gate", "/usr/local/bin/node", "--print"],
				'require("node:fs").readFileSync("/proc/1/status", "utf8")',
			),
			new RegExp(
				`Uid:\\s${uid}\\s[^]*CapEff:\\s0{16}\\n[^]*NoNewPrivs:\\s1\\n`,
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
