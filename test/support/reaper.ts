import { spawn, spawnSync } from "node:child_process";
import {
	appendFileSync,
	lstatSync,
	mkdirSync,
	readdirSync,
	readFileSync,
	readlinkSync,
} from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
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

/** Where each process writes down what must go after it: its end, and that of its reaper, may come in any way. */
const records = path.join(tmpdir(), "llamagate-leftovers");

/**
 * Removes what is in the files that it is given, and then those. What it may
 * remove has names as this project's tests give them.
 */
const removal = `
	list=$(cat "$@" 2>/dev/null)
	of() { echo "$list" | grep -xE "$1 ($2)" | sed "s/^$1 //"; }
	named='llamagate-[0-9]+-[0-9]+'
	namespaces=$(of namespace "$named")
	for name in $namespaces; do
		ip netns pids "$name" 2>/dev/null | xargs -r kill -9
	done
	of cgroup "$named" | while read -r name; do
		for tree in ${cgroupTrees().all.join(" ")}; do
			[ -d "$tree/$name" ] || continue
			echo 1 >"$tree/$name/cgroup.kill"
			for try in 1 2 3 4 5 6 7 8 9; do
				find "$tree/$name" -depth -type d -exec rmdir {} + && break
				sleep 0.2
			done
		done
	done
	for name in $namespaces; do ip netns delete "$name"; done
	of folder "${tmpdir()}/llamagate-[-a-zA-Z0-9/]+" | while read -r name; do
		[ -d "$name" ] || continue
		if [ -d "$name/root" ]; then umount -R "$name/root"; fi
		rm -rf --one-file-system "$name"
	done
	rm -f "$@"`;

/** Its input ends when this process does. */
let reaper: Writable | undefined;
let record = "";

/**
 * Has something go once this process has ended, however that comes, if nobody
 * has removed it by then. Whoever next calls this removes what dead processes
 * have left whose reaper was ended too.
 *
 * @param kind a network namespace with what runs in it, a cgroup with the
 *   same, or a folder, of which `root` may be a mount
 */
export function reap(
	kind: "namespace" | "cgroup" | "folder",
	name: string,
): void {
	if (reaper === undefined) {
		mkdirSync(records, { recursive: true, mode: 0o700 });
		const { uid, mode } = lstatSync(records);
		if (uid !== process.getuid?.() || (mode & 0o022) !== 0)
			throw new Error(`${records} can be written by others: remove it`);
		removeLeftovers();
		record = path.join(records, ownName());
		reaper = startReaper(record);
	}
	appendFileSync(record, `${kind} ${name}\n`);
}

/** A process's id, its start and where that id counts: no later process has the same. */
function nameOf(pid: number): string | undefined {
	try {
		const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
		// proc_pid_stat(5): what follows the name, which may have blanks, begins with the third.
		const start = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
		return `${pid}.${start}.${pidNamespace()}`;
	} catch {
		return undefined;
	}
}

function pidNamespace(): string {
	return /\d+/.exec(readlinkSync("/proc/self/ns/pid"))?.[0] ?? "";
}

function ownName(): string {
	const name = nameOf(process.pid);
	if (name === undefined) throw new Error("/proc has nothing of this process");
	return name;
}

/** What was written down by processes that are no more. */
function removeLeftovers(): void {
	const dead = readdirSync(records)
		.filter((name) => {
			const [pid, , space] = name.split(".");
			return space === pidNamespace() && nameOf(Number(pid)) !== name;
		})
		.map((name) => path.join(records, name));
	if (dead.length > 0)
		spawnSync("sh", ["-c", removal, "sh", ...dead], { stdio: "ignore" });
}

function startReaper(file: string): Writable {
	const child = spawn(
		"sh",
		["-c", `cat >/dev/null\n${removal}`, "sh", file],
		// Detached, so that no Ctrl-C reaches it. Its input ends when this process does, however that comes.
		{ detached: true, stdio: ["pipe", "ignore", "ignore"] },
	);
	child.unref();
	(child.stdin as Socket).unref();
	return child.stdin;
}
