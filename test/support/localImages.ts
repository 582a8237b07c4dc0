import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { debianRootTools, pristineDebianRoot } from "./debianRoot.ts";

/** What these tests need of tap. */
interface Test {
	teardown(action: () => unknown): unknown;
}

const execute = promisify(execFile);

/** Where Debian keeps the certificates that a machine trusts. */
const authorities = "/etc/ssl/certs/ca-certificates.crt";

/** The programs that this module runs, and what they need for it. */
export const imageTools = [
	...["buildah", "podman", "runc", "ldd", "npm"],
	...debianRootTools,
];

/** A store of images that only one test sees, and the programs that work on it. */
export interface ImageStore {
	/** What buildah or podman says on stdout; it must succeed. */
	run(program: "buildah" | "podman", ...args: string[]): Promise<string>;
	/** Their own options, for whoever runs them, and what must stand in the environment. */
	options(program: "buildah" | "podman"): string[];
	readonly environment: NodeJS.ProcessEnv;
}

/** Makes an empty store. It goes with the test, and all its containers with it. */
export async function imageStore(t: Test): Promise<ImageStore> {
	const folder = await mkdtemp(path.join(os.tmpdir(), "llamagate-images-"));
	// The other driver needs nothing of the kernel, and copies all files for each layer and container.
	const driver = (await canOverlay(folder)) ? "overlay" : "vfs";
	const options: ImageStore["options"] = (program) => [
		...["--storage-driver", driver, "--root", path.join(folder, "root")],
		...["--runroot", path.join(folder, "run")],
		...(program === "podman"
			? ["--runtime", "runc", "--cgroup-manager", "cgroupfs"]
			: []),
	];
	const environment = {
		...process.env,
		// An isolation that needs nothing of the kernel.
		BUILDAH_ISOLATION: "chroot",
		TMPDIR: folder,
	};
	const run: ImageStore["run"] = async (program, ...args) => {
		const { stdout } = await execute(program, [...options(program), ...args], {
			env: environment,
			maxBuffer: 1 << 26,
		});
		return stdout.trim();
	};
	t.teardown(async () => {
		await run("podman", "rm", "--all", "--force", "--time", "0");
		await run("buildah", "rm", "--all");
		await rm(folder, { recursive: true });
	});
	return { run, options, environment };
}

/** Whether an overlay can be mounted here on folders of this place; in many a container it cannot. */
async function canOverlay(folder: string): Promise<boolean> {
	const place = path.join(folder, "overlay");
	await mkdir(place);
	try {
		await execute("sh", [
			"-euc",
			`cd "$1"
			mkdir lower upper work merged
			mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
			umount merged`,
			...["sh", place],
		]);
		return true;
	} catch {
		return false;
	} finally {
		await rm(place, { recursive: true });
	}
}

/**
 * Makes an image with nothing in it but the libraries that Node needs: no
 * shell, no other program, no list of users.
 */
export async function makeLibraryImage(
	store: ImageStore,
	name: string,
): Promise<void> {
	const { stdout } = await execute("ldd", [process.execPath]);
	await makeImage(store, name, async (folder) => {
		for (const [library] of stdout.matchAll(/\/\S+/g)) {
			const target = path.join(folder, library);
			await mkdir(path.dirname(target), { recursive: true });
			await cp(library, target, { dereference: true });
		}
	});
}

/**
 * Makes an image that stands in for one of Node's: a Debian with this Node at
 * /usr/local/bin, and this machine's npm with its settings, so that it finds
 * the registry that it finds here.
 */
export async function makeNodeImage(
	store: ImageStore,
	name: string,
): Promise<void> {
	const debian = await pristineDebianRoot();
	const { stdout: script } = await execute("sh", [
		...["-euc", 'readlink -f "$(command -v npm)"'],
	]);
	const npm = path.dirname(path.dirname(script.trim()));
	const setting = async (key: string) => {
		const { stdout } = await execute("npm", ["config", "get", key]);
		return stdout.trim();
	};
	const registry = await setting("registry");
	const userConfig = await setting("userconfig");

	await makeImage(store, name, async (folder) => {
		// What neither npm nor a shell reads is more than half of it.
		const unread = ["./var", "./usr/share", "./usr/lib/python3*", "./boot"];
		await execute("sh", [
			"-euc",
			'from=$1 to=$2; shift 2; tar -C "$from" "$@" -cf - . | tar -C "$to" -xpf -',
			...["sh", debian, folder],
			...unread.map((part) => `--exclude=${part}`),
		]);
		const local = path.join(folder, "usr/local");
		await cp(process.execPath, path.join(local, "bin/node"));
		await writeFile(path.join(local, "LICENSE"), "Node.js is licensed…\n");
		await cp(npm, path.join(local, "lib/node_modules/npm"), {
			recursive: true,
		});
		await execute("ln", [
			...["-s", "../lib/node_modules/npm/bin/npm-cli.js"],
			path.join(local, "bin/npm"),
		]);
		// What this machine trusts, and who it is to the registry.
		await cp(authorities, path.join(folder, authorities));
		await mkdir(path.join(local, "etc"), { recursive: true });
		await writeFile(
			path.join(local, "etc/npmrc"),
			`registry=${registry}\ncafile=${authorities}\n`,
		);
		if (existsSync(userConfig))
			await cp(userConfig, path.join(folder, "root/.npmrc"));
	});
}

async function makeImage(
	{ run }: ImageStore,
	name: string,
	fill: (folder: string) => Promise<void>,
): Promise<void> {
	const container = await run("buildah", "from", "scratch");
	await fill(await run("buildah", "mount", container));
	await run("buildah", "commit", "--quiet", "--rm", container, name);
}
