import { execFile, spawnSync } from "node:child_process";
import { cp, mkdir, readdir, readFile, symlink } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import t from "tap";
import {
	builtPackages,
	commitTime,
	packagerEnvironment,
	packageTools,
	sourceFiles,
} from "../support/builtPackages.ts";
import { temporaryFolder } from "../support/gate.ts";
import { requireTool } from "../support/tools.ts";

// Two Nodes are packed with xz, and a third time to see the same bytes.
const root = path.join(import.meta.dirname, "../..");
const execute = promisify(execFile);

const architectures = [
	{ debian: "amd64", machine: "Advanced Micro Devices X86-64" },
	{ debian: "arm64", machine: "AArch64" },
];

/** What a program says; it must succeed. */
async function output(file: string, ...args: string[]): Promise<string> {
	const { stdout } = await execute(file, args, {
		env: packagerEnvironment,
		maxBuffer: 1 << 26,
	});
	return stdout;
}

async function packageFor(architecture: string): Promise<string> {
	const folder = await builtPackages();
	const [name] = (await readdir(folder)).filter((file) =>
		file.endsWith(`_${architecture}.deb`),
	);
	// The assertion says more than a missing file would.
	if (name === undefined) throw new Error(`no package for ${architecture}`);
	return path.join(folder, name);
}

/** For tests that only read what they are given: Node in it takes a while to unpack. */
function once<T>(make: (file: string) => Promise<T>) {
	const made = new Map<string, Promise<T>>();
	return (file: string): Promise<T> => {
		const found = made.get(file) ?? make(file);
		made.set(file, found);
		return found;
	};
}

/** The folder that a package is unpacked in. */
const unpacked = once(async (file) => {
	const folder = await temporaryFolder(t);
	await output("dpkg-deb", "--extract", file, folder);
	return folder;
});

/** The mode and owner of everything in a package, by path. */
const contents = once(async (file) => {
	const lines = (await output("dpkg-deb", "--contents", file)).split("\n");
	return new Map(
		lines
			.filter((line) => line !== "")
			.map((line) => {
				const [mode, owner, , , , name = ""] = line.split(/\s+/);
				return [name.replace(/^\.|\/$/g, ""), `${mode} ${owner}`] as const;
			}),
	);
});

for (const { debian, machine } of architectures)
	t.test(
		`the package for ${debian} has the program, a Node for ${debian}, and everything where the units look for it`,
		async (t) => {
			if (!requireTool(t, ...packageTools, "readelf")) return;
			const file = await packageFor(debian);
			const field = (name: string) =>
				output("dpkg-deb", "--field", file, name).then((text) => text.trim());
			t.equal(await field("Architecture"), debian);
			const { version } = JSON.parse(
				await readFile(path.join(root, "package.json"), "utf8"),
			) as { version: string };
			t.equal(await field("Version"), `${version}-1`);

			const found = await contents(file);
			const app = "/usr/lib/llamagate/app";
			for (const [name, wanted] of [
				["/usr/bin/llamagate", "-rwxr-xr-x root/root"],
				["/usr/lib/llamagate/bin/node", "-rwxr-xr-x root/root"],
				["/usr/lib/llamagate/follow-tailscale", "-rwxr-xr-x root/root"],
				["/usr/lib/llamagate/root", "drwxr-xr-x root/root"],
				[`${app}/bin/llamagate.js`, "-rw-r--r-- root/root"],
				[`${app}/dist/main.js`, "-rw-r--r-- root/root"],
				[`${app}/package.json`, "-rw-r--r-- root/root"],
				[`${app}/config.example.json`, "-rw-r--r-- root/root"],
				[`${app}/tailscale/policy.hujson`, "-rw-r--r-- root/root"],
				[
					`${app}/monitoring/prometheus/llamagate.rules.yml`,
					"-rw-r--r-- root/root",
				],
				["/etc/llamagate", "drwxr-x--- root/root"],
				["/etc/llamagate/config.json", "-rw-r----- root/root"],
				["/usr/lib/sysusers.d/llamagate.conf", "-rw-r--r-- root/root"],
				["/usr/share/doc/llamagate/copyright", "-rw-r--r-- root/root"],
				["/usr/share/man/man8/llamagate.8.gz", "-rw-r--r-- root/root"],
			] as const)
				t.equal(found.get(name), wanted, name);
			t.notOk(found.has("/etc/llamagate/keys.json"), "keys are made later");
			const units = (await readdir(path.join(root, "systemd"))).filter((name) =>
				/\.(service|socket|timer)$/.test(name),
			);
			for (const unit of units)
				t.ok(found.has(`/lib/systemd/system/${unit}`), unit);

			const folder = await unpacked(file);
			const node = path.join(folder, "usr/lib/llamagate/bin/node");
			t.match(await output("readelf", "--file-header", node), machine);
			const libraries = await output("readelf", "--dynamic", node);
			t.strictSame(
				[...libraries.matchAll(/\(NEEDED\).*\[(.+)\]/g)]
					.map(([, name]) => name)
					.filter((name) => !name?.startsWith("ld-linux"))
					.sort(),
				[
					...["libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6"],
					...["libpthread.so.0", "libstdc++.so.6"],
				],
				"all of them are in libc6, libgcc-s1 and libstdc++6",
			);
			const depends = await field("Depends");
			for (const name of ["libc6", "libgcc-s1", "libstdc++6", "systemd"])
				t.ok(depends.includes(`${name} (`), name);
		},
	);

t.test("lintian finds no error and no warning", async (t) => {
	if (!requireTool(t, ...packageTools, "lintian")) return;
	t.equal(
		await output(
			"lintian",
			...["--allow-root", "--fail-on", "error,warning"],
			// It only informs, and reads all of Node for it.
			...["--dont-check-part", "binaries/spelling"],
			...(await Promise.all(
				architectures.map(({ debian }) => packageFor(debian)),
			)),
		),
		"",
	);
});

t.test(
	"the maintainer's scripts run nothing of npm's, and shellcheck finds nothing in them",
	async (t) => {
		if (!requireTool(t, ...packageTools, "shellcheck")) return;
		const folder = await temporaryFolder(t);
		await output("dpkg-deb", "--control", await packageFor("amd64"), folder);
		const scripts = ["postinst", "postrm", "prerm"];
		t.strictSame(
			(await readdir(folder)).sort(),
			["conffiles", "control", "md5sums", ...scripts].sort(),
		);
		for (const name of scripts)
			t.notMatch(
				await readFile(path.join(folder, name), "utf8"),
				/\b(node|npm|npx|llamagate\.js)\b/,
				`${name} runs nothing that comes from npm`,
			);
		t.equal(
			await output(
				"shellcheck",
				...scripts.map((name) => path.join(folder, name)),
				path.join(root, "packaging/debian/llamagate"),
			),
			"",
		);
	},
);

t.test(
	"the bill of materials names each package of which something is in there, with a licence and without an install script, and the very Node",
	async (t) => {
		if (!requireTool(t, ...packageTools, "sha256sum")) return;
		const file = await packageFor("amd64");
		const bom = JSON.parse(
			await readFile(file.replace(/\.deb$/, ".cdx.json"), "utf8"),
		) as {
			bomFormat: string;
			metadata: { component: { name: string } };
			components: {
				name: string;
				version: string;
				hashes: { alg: string; content: string }[];
			}[];
		};
		t.equal(bom.bomFormat, "CycloneDX");
		t.equal(bom.metadata.component.name, "llamagate");

		const folder = await unpacked(file);
		const library = path.join(folder, "usr/lib/llamagate");
		const app = path.join(library, "app");
		t.notOk(
			[...(await contents(file)).keys()].some((name) =>
				name.includes("node_modules"),
			),
			"there is no package beside the program",
		);
		// The maps name each file that something was taken of.
		const found = new Set<string>();
		for (const name of await readdir(path.join(app, "dist"))) {
			if (!name.endsWith(".map")) continue;
			const map = await readFile(path.join(app, "dist", name), "utf8");
			const { sources } = JSON.parse(map) as { sources: string[] };
			for (const source of sources) {
				const folder =
					/node_modules\/.*(?<=node_modules\/(@[^/]+\/)?[^/@]+)(?=\/)/;
				const [part] = folder.exec(source) ?? [];
				if (part !== undefined) found.add(part);
			}
		}
		const licences = await readFile(
			path.join(app, "dist/licences.txt"),
			"utf8",
		);
		const wanted = new Set<string>();
		for (const part of found) {
			const {
				name,
				version,
				license,
				scripts = {},
			} = JSON.parse(
				await readFile(path.join(root, part, "package.json"), "utf8"),
			) as (typeof bom.components)[0] & {
				license: string;
				scripts?: Record<string, string>;
			};
			wanted.add(`${name}@${version}`);
			t.notMatch(
				Object.keys(scripts).join(" "),
				/\b(preinstall|install|postinstall)\b/,
				name,
			);
			t.ok(licences.includes(`\n${name} ${version} (${license})\n\n`), name);
		}
		t.ok(wanted.size > 20);
		t.match(licences, /Copyright \(c\).*The Fastify team/i);
		const copyright = await readFile(
			path.join(folder, "usr/share/doc/llamagate/copyright"),
			"utf8",
		);
		for (const notice of [
			await readFile(path.join(root, "LICENSE"), "utf8"),
			"Node.js is licensed for use as follows:",
			"- OpenSSL, located at deps/openssl",
			licences,
		])
			t.ok(copyright.includes(notice), notice.slice(0, 60));

		const node = bom.components.filter(({ name }) => name === "node");
		t.strictSame(
			bom.components
				.filter((part) => !node.includes(part))
				.map(({ name, version }) => `${name}@${version}`)
				.sort(),
			[...wanted].sort(),
		);
		const digest = async (file: string) =>
			(await output("sha256sum", file)).slice(0, 64);
		const packed = await digest(path.join(library, "bin/node"));
		t.strictSame(
			node.map(({ version, hashes }) => [version, hashes[0]?.content]),
			[[process.version.slice(1), packed]],
		);
		// The tests' own was fetched by a script of npm's package, without a digest.
		if (process.arch === "x64")
			t.equal(await digest(process.execPath), packed, "tests run with it, too");
	},
);

t.test("SHA256SUMS has the digest of every file beside it", async (t) => {
	if (!requireTool(t, ...packageTools, "sha256sum")) return;
	const folder = await builtPackages();
	const { stdout } = await execute(
		"sha256sum",
		["--check", "--strict", "SHA256SUMS"],
		{ cwd: folder },
	);
	t.strictSame(
		stdout.trim().split("\n").sort(),
		(await readdir(folder))
			.filter((name) => name !== "SHA256SUMS")
			.map((name) => `${name}: OK`)
			.sort(),
	);
});

t.test(
	"the same sources give the same bytes in another folder, time zone and umask",
	async (t) => {
		if (!requireTool(t, ...packageTools)) return;
		const first = await builtPackages();
		const other = path.join(await temporaryFolder(t), "elsewhere");
		for (const file of await sourceFiles()) {
			await mkdir(path.dirname(path.join(other, file)), { recursive: true });
			await cp(path.join(root, file), path.join(other, file));
		}
		await symlink(
			path.join(root, "node_modules"),
			path.join(other, "node_modules"),
		);
		const out = path.join(other, "packages");
		await execute(
			"sh",
			[
				"-euc",
				'umask 077; exec npm run package:deb -- --architecture arm64 --out "$1"',
				...["sh", out],
			],
			{
				cwd: other,
				env: {
					...packagerEnvironment,
					SOURCE_DATE_EPOCH: await commitTime(),
					TZ: "Asia/Tokyo",
				},
			},
		);
		const sums = async (folder: string) =>
			(await readFile(path.join(folder, "SHA256SUMS"), "utf8"))
				.split("\n")
				.filter((line) => !line.includes("amd64"));
		t.strictSame(await sums(out), await sums(first));
	},
);

t.test(
	"an architecture that has no package is named, without a stack",
	async (t) => {
		const made = spawnSync(
			process.execPath,
			[path.join(root, "packaging/deb.ts"), "--architecture", "amd65"],
			{ encoding: "utf8" },
		);
		t.equal(made.status, 2);
		t.equal(
			made.stderr,
			"package:deb: there is no package for amd65; known: --architecture amd64, --architecture arm64\n",
		);
	},
);
