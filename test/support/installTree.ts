import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { builtProgram } from "./builtProgram.ts";
import { compiledCode } from "./hostPlaces.ts";

const execute = promisify(execFile);
const project = path.join(import.meta.dirname, "../..");

/** What a first installation configures. */
const config = {
	upstream: { url: "unix:/run/llamagate-ollama/ollama.sock" },
	admin: { metrics: "off" },
};

/**
 * Puts the program, as it is in this tree now, where its Debian package puts
 * it, into a Debian that is not running and has its Node.
 */
export async function installTree(root: string): Promise<void> {
	const library = path.join(root, "usr/lib/llamagate");
	const app = path.join(library, "app");
	await mkdir(app, { recursive: true });
	await cp(await builtProgram(), app, { recursive: true });

	await cp(
		path.join(project, "systemd/follow-tailscale"),
		path.join(library, "follow-tailscale"),
	);
	await chmod(path.join(library, "follow-tailscale"), 0o755);
	await execute("sh", [
		...["-euc", '"$1/packaging/debian/root-folder" "$2"', "sh"],
		...[project, path.join(library, "root")],
	]);
	const wrapper = path.join(root, "usr/bin/llamagate");
	await writeFile(
		wrapper,
		'#!/bin/sh\nexec /usr/lib/llamagate/bin/node /usr/lib/llamagate/app/bin/llamagate.js "$@"\n',
	);
	await chmod(wrapper, 0o755);
	await execute("sh", [
		...["-euc", 'cp "$1"/*.service "$1"/*.socket "$1"/*.timer "$2"', "sh"],
		...[path.join(project, "systemd"), path.join(root, "lib/systemd/system")],
	]);

	await execute("chroot", [
		...[root, "useradd", "--system", "--user-group", "--no-create-home"],
		...["--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"],
		"llamagate",
	]);
	await mkdir(path.join(root, "etc/llamagate"));
	await writeFile(
		path.join(root, "etc/llamagate/config.json"),
		`${JSON.stringify(config, undefined, 2)}\n`,
	);
	await execute("chroot", [
		...[root, "sh", "-euc"],
		`chown -R root:llamagate /etc/llamagate
		chmod 0750 /etc/llamagate
		chmod 0640 /etc/llamagate/config.json`,
	]);
	await compileAll(root);
}

/** Installs a package of the program into such a Debian. */
export async function installPackage(
	root: string,
	file: string,
): Promise<void> {
	await cp(file, path.join(root, "tmp/llamagate.deb"));
	await execute("chroot", [
		...[root, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"],
		...["DEBIAN_FRONTEND=noninteractive", "dpkg", "--install"],
		"/tmp/llamagate.deb",
	]);
	await rm(path.join(root, "tmp/llamagate.deb"));
	await compileAll(root);
}

/**
 * Has Node keep what it has compiled of a run of the commands that hosts run most.
 * A doctor finds little there, with no network and no service, and changes nothing.
 */
async function compileAll(root: string): Promise<void> {
	await execute("unshare", [
		...["--net", "--pid", "--fork", "--mount", "sh", "-euc"],
		`mount -t proc proc "$1/proc"
		llamagate() {
			chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$cache" llamagate "$@"
		}
		root=$1 cache=$2
		llamagate --help
		llamagate setup --help
		llamagate keys --help
		llamagate doctor || :`,
		...["sh", root, `NODE_COMPILE_CACHE=/${compiledCode}`],
	]);
}

/** Copies the dependencies that are no developer's alone, as package-lock.json has them. */
export async function copyDependencies(target: string): Promise<void> {
	const lock = JSON.parse(
		await readFile(path.join(project, "package-lock.json"), "utf8"),
	) as { packages: Record<string, { dev?: boolean; devOptional?: boolean }> };
	const wanted = Object.entries(lock.packages)
		.filter(
			([folder, { dev, devOptional }]) => folder !== "" && !dev && !devOptional,
		)
		.map(([folder]) => folder)
		// One that lies in another comes along with it.
		.filter((folder) => folder.split("node_modules/").length === 2);
	// One for another platform is not there.
	const present = wanted.filter((folder) =>
		existsSync(path.join(project, folder)),
	);
	await execute("cp", ["-R", "--parents", "--", ...present, target], {
		cwd: project,
	});
}
