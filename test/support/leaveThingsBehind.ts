/**
 * A test's process that makes what a test may make, says so and waits to be
 * killed: a network with a program in it, a cgroup with one, and a folder with
 * a mount. With the argument `next` it is the run after that: it makes a
 * network, and ends.
 */
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { newNamespaceName } from "./namespaces.ts";
import { cgroupTrees, reap } from "./reaper.ts";

const namespace = newNamespaceName();
execFileSync("ip", ["netns", "add", namespace]);
if (process.argv[2] === "next") execFileSync("ip", ["netns", "del", namespace]);
else {
	const outlives = { detached: true, stdio: "ignore" } as const;
	const inNetwork = spawn(
		"ip",
		["netns", "exec", namespace, "sleep", "600"],
		outlives,
	);
	const { all, unified = "" } = cgroupTrees();
	reap("cgroup", namespace);
	for (const tree of all) mkdirSync(path.join(tree, namespace));
	const inCgroup = spawn(
		"sh",
		[
			"-euc",
			`echo $$ >"$1/cgroup.procs"; exec sleep 600`,
			...["sh", path.join(unified, namespace)],
		],
		outlives,
	);
	const folder = mkdtempSync(path.join(tmpdir(), "llamagate-left-"));
	reap("folder", folder);
	mkdirSync(path.join(folder, "root"));
	execFileSync("mount", [
		...["-t", "tmpfs", "tmpfs", path.join(folder, "root")],
	]);
	process.stdout.write(
		`${JSON.stringify({ namespace, folder, pids: [inNetwork.pid, inCgroup.pid] })}\n`,
	);
	setInterval(() => {}, 1_000);
}
