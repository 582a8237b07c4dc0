import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { madeOnce } from "./madeOnce.ts";

/** What these tests need of tap. */
interface Test {
	teardown(action: () => unknown): unknown;
}

const execute = promisify(execFile);

/** The release that the packages are made for. */
const release = "bookworm";

/** What a server has that llamagate is installed on, and what tests look at it with. */
const packages = [
	...["systemd", "systemd-sysv", "udev", "dbus", "procps"],
	...["iproute2", "iptables", "nftables", "ufw"],
	...["fail2ban", "python3-systemd", "openssh-server"],
	...["curl", "ca-certificates", "libstdc++6"],
];

/** Where roots are kept from one run to the next. */
const store = path.join(os.tmpdir(), "llamagate-debian");

/** The programs that this module runs; all but the first are part of any Debian. */
export const debianRootTools = ["debootstrap", "flock", "mount"];

/**
 * The path of a whole Debian as it is after its installation, for root only.
 * The first call makes it, in a minute or two, and others wait for that, in
 * whatever process; later runs find it. Nobody may write in it: copy it
 * (`cp -a --reflink=auto`), or take {@link debianRoot}.
 */
export function pristineDebianRoot(): Promise<string> {
	pristine ??= makePristine(release, packages);
	return pristine;
}

let pristine: Promise<string> | undefined;

/** The same of Debian 13 with its Docker, Compose and Valkey. */
export function pristineDockerRoot(): Promise<string> {
	docker ??= makePristine("trixie", [
		...["docker.io", "docker-cli", "docker-compose", "docker-buildx"],
		...["iptables", "iproute2", "curl", "openssl", "valkey-server"],
	]);
	return docker;
}

let docker: Promise<string> | undefined;

async function makePristine(
	release: string,
	packages: readonly string[],
): Promise<string> {
	const list = packages.join(",");
	const digest = createHash("sha256").update(list).digest("hex").slice(0, 8);
	const root = path.join(store, `${release}-${digest}`);
	await madeOnce(
		root,
		`debootstrap --variant=minbase --include="$2" "$3" "$1" "$4"
		rm -f "$1"/var/cache/apt/archives/*.deb`,
		async () => ({
			args: [list, release, await mirror()],
			environment: { ...process.env, ...(await proxies()), LC_ALL: "C" },
		}),
	);
	return root;
}

/**
 * A Debian of the test's own, to be changed at will: the pristine one with an
 * overlay on it. It goes with the test, which has to end what runs in it first.
 */
export async function debianRoot(t: Test): Promise<string> {
	const lower = await pristineDebianRoot();
	const folder = await mkdtemp(path.join(store, "overlay-"));
	t.teardown(() => rm(folder, { recursive: true }));
	const [upper, work, root] = ["upper", "work", "root"].map((name) =>
		path.join(folder, name),
	) as [string, string, string];
	for (const part of [upper, work, root]) await mkdir(part);
	await execute("mount", [
		...["-t", "overlay", "overlay"],
		...["-o", `lowerdir=${lower},upperdir=${upper},workdir=${work}`, root],
	]);
	t.teardown(() => execute("umount", ["--recursive", root]));
	return root;
}

/** Where this machine's own apt has Debian from. */
async function mirror(): Promise<string> {
	const { stdout } = await execute("apt-get", [
		...["indextargets", "--format", "$(REPO_URI)"],
		// The archive with the releases, which is not the one with security updates.
		...["Created-By: Packages", "Origin: Debian", "Label: Debian"],
	]);
	const [first] = stdout.split("\n");
	if (first === undefined || first === "")
		throw new Error("apt knows no mirror of Debian: run apt-get update");
	return first;
}

/** The proxies that apt is told to use, for the program that debootstrap fetches with. */
async function proxies(): Promise<Record<string, string>> {
	const { stdout } = await execute("apt-config", [
		...["dump", "--format", "%f %v%n"],
		...["Acquire::http::Proxy", "Acquire::https::Proxy"],
	]);
	return Object.fromEntries(
		[...stdout.matchAll(/^Acquire::(https?)::Proxy (\S+)$/gm)].map(
			([, scheme, url = ""]) => [
				`${scheme}_proxy`,
				url === "DIRECT" ? "" : url,
			],
		),
	);
}
