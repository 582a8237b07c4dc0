import { globSync } from "node:fs";
import { chmod, mkdir } from "node:fs/promises";
import path from "node:path";
import { digestOf } from "./builtPackages.ts";
import { madeOnce } from "./madeOnce.ts";

const root = path.join(import.meta.dirname, "../..");
const store = path.join(root, "node_modules/.cache/program");

/** What an installation has beside `dist`. */
const parts = [
	...["bin", "systemd", "ufw", "fail2ban", "tailscale"],
	...["package.json", "config.example.json"],
];

/**
 * A folder with the program as it is published, built of this tree as it is
 * now. Whoever calls reads it only. The first call takes some seconds; later
 * ones, also of other processes, find it unless the tree has changed.
 */
export async function builtProgram(): Promise<string> {
	const files = globSync(
		[
			...["package-lock.json", "src/**", "scripts/build/**"],
			...parts.flatMap((part) => [part, `${part}/**`]),
		],
		{ cwd: root, withFileTypes: true },
	)
		.filter((entry) => entry.isFile())
		.map((entry) =>
			path.relative(root, path.join(entry.parentPath, entry.name)),
		);
	// Some tests run it as another user.
	await mkdir(store, { recursive: true });
	await chmod(store, 0o755);
	const folder = path.join(store, await digestOf("", files.toSorted()));
	await madeOnce(
		folder,
		`find "$(dirname "$1")" -mindepth 1 -maxdepth 1 -mmin +600 -exec rm -rf {} +
		umask 022
		target=$1 node=$2
		cd "$3"
		shift 3
		mkdir "$target"
		"$node" scripts/build/main.ts --into "$target"
		cp -R -- "$@" "$target"`,
		async () => ({
			args: [process.execPath, root, ...parts],
			environment: process.env,
		}),
	);
	return folder;
}
