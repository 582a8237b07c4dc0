import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import type { Writable } from "node:stream";

/** The cgroup hierarchies that a systemd keeps its units in. */
export function cgroupTrees(): { unified: string | undefined; all: string[] } {
	let unified: string | undefined;
	const all: string[] = [];
	for (const line of readFileSync("/proc/self/mounts", "utf8").split("\n")) {
		const [, folder = "", type, options = ""] = line.split(" ");
		if (!folder.startsWith("/sys/fs/cgroup")) continue;
		if (type === "cgroup2") unified = folder;
		if (type === "cgroup2" || options.split(",").includes("name=systemd"))
			all.push(folder);
	}
	return { unified, all };
}

/** Takes note of what must go, and outlives this process to remove what it could not. */
let reaper: Writable | undefined;

/**
 * Has something go once this process has ended, however that comes, if nobody
 * has removed it by then.
 *
 * @param kind a network namespace with what runs in it, a cgroup with the
 *   same, or a folder, of which `root` may be a mount
 */
export function reap(
	kind: "namespace" | "cgroup" | "folder",
	name: string,
): void {
	reaper ??= startReaper();
	reaper.write(`${kind} ${name}\n`);
}

function startReaper(): Writable {
	const child = spawn(
		"sh",
		[
			"-c",
			`list=$(cat)
			of() { echo "$list" | sed -n "s/^$1 //p"; }
			for name in $(of namespace); do
				ip netns pids "$name" 2>/dev/null | xargs -r kill -9
			done
			of cgroup | while read -r name; do
				for tree in ${cgroupTrees().all.join(" ")}; do
					[ -d "$tree/$name" ] || continue
					echo 1 >"$tree/$name/cgroup.kill"
					for try in 1 2 3 4 5 6 7 8 9; do
						find "$tree/$name" -depth -type d -exec rmdir {} + && break
						sleep 0.2
					done
				done
			done
			for name in $(of namespace); do ip netns delete "$name"; done
			of folder | while read -r name; do
				[ -d "$name" ] || continue
				if [ -d "$name/root" ]; then umount -R "$name/root"; fi
				rm -rf --one-file-system "$name"
			done`,
		],
		// Detached, so that no Ctrl-C reaches it. Its input ends when this process does, however that comes.
		{ detached: true, stdio: ["pipe", "ignore", "ignore"] },
	);
	child.unref();
	(child.stdin as Socket).unref();
	return child.stdin;
}
