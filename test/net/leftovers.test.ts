import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import t, { type Test } from "tap";
import { eventually } from "../support/gate.ts";
import { network } from "../support/namespaces.ts";
import { childrenOf } from "../support/process.ts";
import { within } from "../support/raw.ts";
import { cgroupTrees } from "../support/reaper.ts";

// Tests that are killed leave nothing that the next run would trip over.

const script = "test/support/leaveThingsBehind.ts";

interface Things {
	readonly namespace: string;
	readonly folder: string;
	readonly pids: readonly number[];
}

async function leave(
	t: Test,
): Promise<{ child: ChildProcess; things: Things }> {
	const child = spawn(process.execPath, [script], {
		stdio: ["ignore", "pipe", "inherit"],
	});
	t.teardown(() => child.kill("SIGKILL"));
	const [line] = await within(
		once(child.stdout.setEncoding("utf8"), "data"),
		"what was made",
	);
	return { child, things: JSON.parse(line) as Things };
}

/** What is still there of it. */
function remains({ namespace, folder, pids }: Things): string[] {
	const running = (pid: number) => {
		try {
			return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
		} catch {
			return false;
		}
	};
	return [
		existsSync(`/run/netns/${namespace}`) && "namespace",
		...pids.map((pid) => running(pid) && "process"),
		...cgroupTrees().all.map(
			(tree) => existsSync(path.join(tree, namespace)) && "cgroup",
		),
		readFileSync("/proc/self/mounts", "utf8").includes(folder) && "mount",
		existsSync(folder) && "folder",
	].filter((what) => what !== false);
}

const everything = (things: Things) =>
	remains(things).length === 5 + cgroupTrees().all.length;

t.test("what a test has made goes when it is killed", network(), async (t) => {
	const { child, things } = await leave(t);
	t.ok(everything(things), remains(things).join(" "));
	child.kill("SIGKILL");
	await within(
		eventually(() => remains(things).length === 0),
		"all of it to go",
	);
});

t.test(
	"where its reaper is killed too, the next run removes it, and nothing of a run that lives",
	network(),
	async (t) => {
		const dead = await leave(t);
		const alive = await leave(t);
		const [reaper] = childrenOf(dead.child.pid ?? 0).filter(
			(pid) => readFileSync(`/proc/${pid}/comm`, "utf8") === "sh\n",
		);
		if (reaper === undefined) throw new Error("it has no reaper");
		// It waits in a program of its own for the end of its input.
		await eventually(() => childrenOf(reaper).length === 1);
		for (const pid of [reaper, ...childrenOf(reaper)])
			process.kill(pid, "SIGKILL");
		dead.child.kill("SIGKILL");
		await once(dead.child, "exit");
		t.ok(everything(dead.things), remains(dead.things).join(" "));
		execFileSync(process.execPath, [script, "next"]);
		// What is killed may take its moment.
		await within(
			eventually(() => remains(dead.things).length === 0),
			"all of it to go",
		);
		t.ok(everything(alive.things), remains(alive.things).join(" "));
	},
);
