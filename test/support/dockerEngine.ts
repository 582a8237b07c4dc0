import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { sourceFiles } from "./builtPackages.ts";
import { debianRootTools, pristineDockerRoot } from "./debianRoot.ts";
import { makeNamespace, type Namespace } from "./namespaces.ts";
import { childrenOf } from "./process.ts";
import { reap } from "./reaper.ts";

type Test = Parameters<typeof makeNamespace>[0];

const execute = promisify(execFile);
const root = path.join(import.meta.dirname, "../..");
/** A guard against hanging and nothing else: Docker starts in three seconds. */
const patienceMs = 120_000;

/** The programs that this module runs. */
export const dockerEngineTools = [
	...["nsenter", "unshare", "tar", "git", "find"],
	...debianRootTools,
];

/** A machine with Debian 13's Docker and Compose, and this checkout in /srv/llamagate. It reaches nothing, no registry either. */
export interface DockerEngine {
	/** Its own network: that of its containers' host. Another one after each boot. */
	readonly network: Namespace;
	/** Runs lines of sh in the checkout, as root. @returns what they say on stdout; they must succeed */
	type(lines: string): Promise<string>;
	/** Makes an image of a folder. @param changes lines of a Dockerfile, such as `CMD ["serve"]` */
	importImage(
		name: string,
		folder: string,
		changes?: readonly string[],
	): Promise<void>;
	/** Ends it with all that runs on it, as a power cut does, and boots it again. */
	powerCut(): Promise<void>;
}

/** What the machine does when it is switched on. Everything but its disk is new. */
const boot = `
	lower=$1 folder=$2 parent=$3
	mount -t overlay overlay -o "lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work" "$folder/machine"
	cd "$folder/machine"
	mkdir -p old srv/llamagate
	mount -t proc proc proc
	mount -t sysfs sysfs sys
	mount --rbind /sys/fs/cgroup sys/fs/cgroup
	mount --rbind /dev dev
	mount -t tmpfs tmpfs run
	# Docker's overlays cannot lie on this one.
	mkdir -p var/lib/docker
	mount --bind "$folder/docker" var/lib/docker
	hostname engine
	pivot_root . old
	cd /
	umount -l old
	ip link set lo up
	exec dockerd --log-level warn --cgroup-parent "/$parent"`;

/** Starts one. It goes with the test, and all its containers with it. */
export async function startDockerEngine(t: Test): Promise<DockerEngine> {
	const lower = await pristineDockerRoot();
	const folder = await mkdtemp(path.join(path.dirname(lower), "docker-"));
	reap("folder", folder);
	t.teardown(() => rm(folder, { recursive: true, force: true }));
	for (const part of ["upper", "work", "machine", "docker"])
		await mkdir(path.join(folder, part));
	let network = await makeNamespace(t);
	const parent = network.name;
	t.teardown(() => removeCgroups(parent));
	let machine = await switchOn(network, lower, folder, parent);
	t.teardown(() => machine.kill());

	const inside = (...command: string[]) => [
		...["nsenter", "-t", String(machine.init), "-m", "-u", "-i", "-n", "-p"],
		...["env", "-i", "HOME=/root", `PATH=${insidePath}`, ...command],
	];
	await feed(
		["tar", "-C", root, "-cf", "-", ...(await checkout())],
		inside("tar", "-C", "/srv/llamagate", "-xf", "-"),
	);
	return {
		get network() {
			return network;
		},
		async type(lines) {
			const [file = "", ...args] = inside(
				...["sh", "-euc", `cd /srv/llamagate\n${lines}`],
			);
			const { stdout } = await execute(file, args, { maxBuffer: 1 << 26 });
			return stdout;
		},
		importImage: (name, from, changes = []) =>
			feed(
				["tar", "-C", from, "-cf", "-", "."],
				inside(
					...["docker", "import"],
					...changes.flatMap((change) => ["--change", change]),
					...["-", name],
				),
			),
		async powerCut() {
			await machine.kill();
			network = await makeNamespace(t);
			machine = await switchOn(network, lower, folder, parent);
		},
	};
}

const insidePath =
	"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** What a reader's checkout has, as far as Docker is to see it. */
function checkout(): Promise<string[]> {
	return sourceFiles(
		...["docker", "Dockerfile", ".dockerignore", ".npmrc", "LICENSE"],
		...["package.json", "package-lock.json", "bin", "src", "scripts/build"],
	);
}

interface Machine {
	/** Its first process, as seen from outside. */
	readonly init: number;
	kill(): Promise<void>;
}

async function switchOn(
	network: Namespace,
	lower: string,
	folder: string,
	cgroup: string,
): Promise<Machine> {
	const child = spawn(
		"nsenter",
		[
			`--net=/run/netns/${network.name}`,
			...["unshare", "--mount", "--propagation", "private", "--uts", "--ipc"],
			...["--pid", "--fork", "--kill-child", "sh", "-euc", boot],
			...["sh", lower, folder, cgroup],
		],
		{ stdio: ["ignore", "pipe", "pipe"], env: { PATH: insidePath } },
	);
	let said = "";
	for (const stream of [child.stdout, child.stderr])
		stream.setEncoding("utf8").on("data", (text: string) => {
			said = (said + text).slice(-4_000);
		});
	// All that runs on the machine holds these two: once they are closed all of it has ended.
	const closed = once(child, "close");
	const kill = async () => {
		child.kill("SIGKILL");
		await closed;
	};
	const deadline = performance.now() + patienceMs;
	while (child.exitCode === null && performance.now() < deadline) {
		const [init] = childrenOf(child.pid);
		const answers = await execute("nsenter", [
			...["-t", String(init), "-m", "-n", "docker", "info"],
		]).then(
			() => true,
			() => false,
		);
		if (init !== undefined && answers) return { init, kill };
		await delay(50);
	}
	await kill();
	throw new Error(`Docker did not start; it said: ${said}`);
}

/** Removes the cgroups that Docker has made, as soon as the kernel is done with what was killed in them. */
async function removeCgroups(name: string): Promise<void> {
	const deadline = performance.now() + patienceMs;
	const find = (...args: string[]) => execute("find", args);
	for (;;) {
		const { stdout } = await find(
			...["/sys/fs/cgroup", "-maxdepth", "2", "-type", "d", "-name", name],
		);
		const folders = stdout.split("\n").filter(Boolean);
		if (folders.length === 0) return;
		try {
			await find(
				...folders,
				"-depth",
				"-type",
				"d",
				"-exec",
				"rmdir",
				"{}",
				"+",
			);
		} catch (error) {
			if (performance.now() > deadline) throw error;
			await delay(20);
		}
	}
}

/** Has one program read what another writes. */
async function feed(
	[writer = "", ...writerArgs]: readonly string[],
	[reader = "", ...readerArgs]: readonly string[],
): Promise<void> {
	const from = spawn(writer, writerArgs, {
		stdio: ["ignore", "pipe", "inherit"],
	});
	const to = spawn(reader, readerArgs, { stdio: ["pipe", "ignore", "pipe"] });
	let said = "";
	to.stderr.setEncoding("utf8").on("data", (text: string) => {
		said += text;
	});
	to.stdin.on("error", () => {});
	from.stdout.pipe(to.stdin);
	const codes = await Promise.all(
		[from, to].map(async (child) => (await once(child, "close"))[0] as number),
	);
	if (codes.some((code) => code !== 0))
		throw new Error(`${writer} | ${readerArgs.join(" ")}: ${codes}: ${said}`);
}
