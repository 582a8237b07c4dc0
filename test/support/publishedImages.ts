import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, cp, mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { build } from "esbuild";
import { pristineDockerRoot } from "./debianRoot.ts";
import type { DockerEngine } from "./dockerEngine.ts";
import { temporaryFolder } from "./temporaryFolder.ts";

const execute = promisify(execFile);
const root = path.join(import.meta.dirname, "../..");
const node = "/usr/local/bin/node";

/** The programs that this module runs, and those that it puts into images. */
export const publishedImageTools = [
	...["ldd", "chroot", "tar"],
	...["sh", "env", "cat", "chmod", "cmp", "cp", "ln", "mkdir", "sleep", "ip"],
];

/**
 * Gives a Docker that reaches no registry what stands for the images that the
 * Dockerfile and the Compose files name, under those names: this Node with npm,
 * Debian's Valkey, the stand-in for Ollama, and a Tailscale without a network.
 */
export async function importPublishedImages(
	t: Parameters<typeof temporaryFolder>[0],
	engine: DockerEngine,
): Promise<void> {
	const folder = await temporaryFolder(t);
	for (const [name, fill, changes = []] of [
		["node:24-slim", fillNode],
		[
			"gcr.io/distroless/cc-debian12",
			(to: string) => copyLibraries(to, "/", [process.execPath]),
		],
		["valkey/valkey:8", fillValkey, ["WORKDIR /data", 'CMD ["valkey-server"]']],
		[
			"ollama/ollama",
			fillOllama,
			[
				...["ENV OLLAMA_HOST=0.0.0.0:11434", "EXPOSE 11434"],
				...['ENTRYPOINT ["/bin/ollama"]', 'CMD ["serve"]'],
			],
		],
		[
			"tailscale/tailscale:stable",
			fillTailscale,
			['CMD ["/usr/local/bin/containerboot"]'],
		],
	] as const) {
		const to = path.join(folder, name.replaceAll(/\W/g, "-"));
		await mkdir(to);
		await fill(to);
		await engine.importImage(name, to, [
			"ENV PATH=/usr/local/bin:/usr/bin:/bin:/sbin",
			...changes,
		]);
	}
}

/** Copies the libraries that programs of a root ask for. */
async function copyLibraries(
	to: string,
	from: string,
	programs: readonly string[],
): Promise<void> {
	const { stdout } = await execute("chroot", [from, "ldd", ...programs]);
	const libraries = [...stdout.matchAll(/(?:^\t|=> )(\/\S+) /gm)].map(
		([, library = ""]) => library,
	);
	for (const library of new Set(libraries)) await copyFrom(from, library, to);
}

async function copyPrograms(
	to: string,
	from: string,
	programs: readonly string[],
): Promise<void> {
	await copyLibraries(to, from, programs);
	for (const program of programs) await copyFrom(from, program, to);
}

async function copyFrom(from: string, file: string, to: string) {
	const target = path.join(to, file);
	await mkdir(path.dirname(target), { recursive: true });
	await cp(path.join(from, file), target, { dereference: true });
}

/** Copies programs of this machine, wherever its PATH has them, to /bin. */
async function copyOwnPrograms(
	to: string,
	names: readonly string[],
): Promise<void> {
	const { stdout } = await execute("sh", [
		...["-euc", 'for name; do command -v "$name"; done', "sh", ...names],
	]);
	const files = stdout.trim().split("\n");
	await copyLibraries(to, "/", files);
	await mkdir(path.join(to, "bin"), { recursive: true });
	for (const file of files)
		await cp(file, path.join(to, "bin", path.basename(file)), {
			dereference: true,
		});
}

async function writeProgram(file: string, content: string): Promise<void> {
	await mkdir(path.dirname(file), { recursive: true });
	await writeFile(file, content);
	await chmod(file, 0o755);
}

async function copyNode(to: string): Promise<void> {
	await copyLibraries(to, "/", [process.execPath]);
	await mkdir(path.join(to, path.dirname(node)), { recursive: true });
	await cp(process.execPath, path.join(to, node));
}

/** With what `npm ci` fetches for the build; test/packages/image.test.ts has npm fetch it. */
async function fillNode(to: string): Promise<void> {
	await copyOwnPrograms(to, ["sh", "env", "chmod", "cmp", "cp", "ln", "mkdir"]);
	await copyNode(to);
	await mkdir(path.join(to, "tmp"));
	const local = path.join(to, "usr/local");
	await writeFile(path.join(local, "LICENSE"), "Node.js is licensed…\n");
	const ready = path.join(local, "ready");
	await mkdir(ready);
	const lockFile = path.join(root, "package-lock.json");
	await cp(lockFile, path.join(ready, "lock"));
	const { packages } = JSON.parse(await readFile(lockFile, "utf8")) as {
		packages: Record<string, { dev?: boolean; optional?: boolean }>;
	};
	const wanted = Object.entries(packages)
		.filter(([name, { dev }]) => name !== "" && (!dev || /esbuild/.test(name)))
		.map(([name]) => name)
		.filter((name) => existsSync(path.join(root, name)));
	await execute("sh", [
		"-euc",
		'from=$1 to=$2; shift 2; tar -C "$from" -cf - "$@" | tar -C "$to" -xf -',
		...["sh", root, ready, ...wanted],
	]);
	await writeProgram(
		path.join(local, "bin/npm"),
		`#!/bin/sh
set -eu
case $* in
"ci --ignore-scripts")
	cmp package-lock.json /usr/local/ready/lock
	exec ln -s /usr/local/ready/node_modules node_modules
	;;
"run --silent build") exec sh -c "$(node --print 'require("./package.json").scripts.build')" ;;
*) exit 2 ;;
esac
`,
	);
}

async function fillValkey(to: string): Promise<void> {
	await mkdir(path.join(to, "data"));
	await copyPrograms(to, await pristineDockerRoot(), [
		"/usr/bin/valkey-server",
	]);
}

async function fillOllama(to: string): Promise<void> {
	await copyNode(to);
	await build({
		stdin: {
			contents: `import { startStandIn } from "./src/ollama/standIn.ts";
const [host, port] = process.env.OLLAMA_HOST.split(":");
process.on("SIGTERM", () => process.exit());
await startStandIn({ host, port: Number(port) });`,
			resolveDir: root,
		},
		...{ bundle: true, platform: "node", format: "esm", logLevel: "error" },
		outfile: path.join(to, "usr/lib/ollama.mjs"),
	});
	await writeProgram(
		path.join(to, "bin/ollama"),
		`#!${node}\nimport("/usr/lib/ollama.mjs");\n`,
	);
}

/** It looks for what the real one needs, and waits. Whoever tests plugs in tailscale0. */
async function fillTailscale(to: string): Promise<void> {
	await copyOwnPrograms(to, ["sh", "cat", "ip", "sleep"]);
	await mkdir(path.join(to, "etc"));
	await writeProgram(
		path.join(to, "usr/local/bin/containerboot"),
		`#!/bin/sh
set -eu
case $(cat "\${TS_AUTHKEY#file:}") in tskey-*) ;; *) exit 1 ;; esac
test -c /dev/net/tun
test "$TS_USERSPACE" = false
: >"$TS_STATE_DIR/tailscaled.state"
# Only who may administer the network may do this.
ip link set lo up
trap 'exit 0' TERM
echo "$TS_HOSTNAME is up"
while :; do
	sleep 1000 &
	wait $!
done
`,
	);
}
