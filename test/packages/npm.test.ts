import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, readFile } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import t from "tap";
import {
	builtPackages,
	packagerEnvironment,
} from "../support/builtPackages.ts";
import { temporaryFolder } from "../support/gate.ts";
import { requireTool } from "../support/tools.ts";

// The first of these tests to run makes the packages.
const execute = promisify(execFile);
const root = path.join(import.meta.dirname, "../..");

async function tarball(): Promise<string> {
	const { version } = JSON.parse(
		await readFile(path.join(root, "package.json"), "utf8"),
	) as { version: string };
	return path.join(await builtPackages(), `llamagate-${version}.tgz`);
}

t.test(
	"the npm package has all that setup installs, and nothing of the developers'",
	async (t) => {
		if (!requireTool(t, "tar", "flock", "dpkg-deb")) return;
		const { stdout } = await execute("tar", ["-tzf", await tarball()]);
		const found = stdout.trim().split("\n");
		for (const name of [
			...["LICENSE", "README.md", "SECURITY.md", "CHANGELOG.md"],
			...["bin/llamagate.js", "dist/main.js", "config.example.json"],
			...["dist/serve.js", "dist/licences.txt", "dist/serve.js.map"],
			...["systemd/llamagate.service", "systemd/llamagate.socket"],
			...["systemd/follow-tailscale", "tailscale/policy.hujson"],
			...["docs/configuration.md", "docs/keys.md"],
			"monitoring/prometheus/llamagate.rules.yml",
			"monitoring/grafana/llamagate.json",
		])
			t.ok(found.includes(`package/${name}`), name);
		t.strictSame(
			[...new Set(found.map((name) => name.split("/")[1]))]
				.filter((name) => !name?.includes("."))
				.sort(),
			[
				...["LICENSE", "bin", "dist", "docs", "fail2ban", "monitoring"],
				...["systemd", "tailscale", "ufw"],
			],
		);
	},
);

t.test(
	"the npm package needs no other: what it uses of them is in it",
	async (t) => {
		if (!requireTool(t, "tar", "flock", "dpkg-deb")) return;
		const { stdout } = await execute("tar", [
			...["-xzOf", await tarball()],
			...["package/package.json", "package/dist/parts.json"],
		]);
		const [manifest = "", parts = ""] = stdout.split(/^(?=\[)/m);
		t.strictSame(Object.keys(JSON.parse(manifest)), [
			...["name", "version", "type", "engines", "description", "license"],
			...["bin", "files"],
		]);
		const names = (JSON.parse(parts) as { name: string }[]).map(
			({ name }) => name,
		);
		for (const name of ["fastify", "@fastify/http-proxy", "pino", "undici"])
			t.ok(names.includes(name), name);
	},
);

t.test(
	"npx runs the demo from the npm package, in an empty folder and with nothing cached",
	async (t) => {
		if (!requireTool(t, "npx", "flock", "dpkg-deb")) return;
		const folder = await temporaryFolder(t);
		const empty = path.join(folder, "empty");
		await mkdir(empty);
		const file = await tarball();
		await cp(file, path.join(folder, path.basename(file)));
		const demo = spawn(
			"npx",
			["--yes", `../${path.basename(file)}`, "demo", "--json"],
			{
				cwd: empty,
				// A group of its own, so that all of it can be ended.
				detached: true,
				env: {
					...packagerEnvironment,
					npm_config_cache: path.join(folder, "cache"),
					npm_config_prefix: path.join(folder, "prefix"),
				},
				stdio: ["ignore", "pipe", "inherit"],
			},
		);
		const closed = once(demo, "close");
		t.teardown(async () => {
			if (demo.pid !== undefined && demo.exitCode === null)
				process.kill(-demo.pid, "SIGTERM");
			await closed;
		});

		const lines = createInterface({ input: demo.stdout });
		const [line] = (await Promise.race([
			once(lines, "line"),
			closed.then(() => Promise.reject(new Error("the demo has ended"))),
		])) as [string];
		const { url, key } = JSON.parse(line) as { url: string; key: string };
		const status = async (headers: Record<string, string>) =>
			(await fetch(`${url}/api/tags`, { headers })).status;
		t.equal(await status({}), 401);
		t.equal(await status({ authorization: `Bearer ${key}` }), 200);
	},
);
