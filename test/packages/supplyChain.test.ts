import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { builtProgram } from "../support/builtProgram.ts";

const root = path.join(import.meta.dirname, "../..");

/** What package-lock.json says of a package, as far as it matters here. */
interface Locked {
	readonly version?: string;
	readonly resolved?: string;
	readonly integrity?: string;
	readonly link?: boolean;
	readonly dev?: boolean;
	readonly license?: string;
	readonly hasInstallScript?: boolean;
	readonly dependencies?: Record<string, string>;
	readonly optionalDependencies?: Record<string, string>;
	readonly devDependencies?: Record<string, string>;
}

/** What a package says of itself. */
interface Manifest {
	readonly license?: string;
	readonly scripts?: Record<string, string>;
	readonly allowScripts?: Record<string, boolean>;
}

const readJson = async <T>(name: string) =>
	JSON.parse(await readFile(path.join(root, name), "utf8")) as T;
const lock = await readJson<{
	lockfileVersion: number;
	packages: Record<string, Locked>;
}>("package-lock.json");
const own = await readJson<Manifest>("package.json");
const packages = Object.entries(lock.packages).filter(
	([folder]) => folder !== "",
);
/** What runs at the users': of what something is in the program. */
const shipped = await packagesInProgram();

async function packagesInProgram(): Promise<typeof packages> {
	const folder = await builtProgram();
	// A map names each file that something was taken of.
	const found = new Set<string>();
	for (const name of await readdir(path.join(folder, "dist"))) {
		if (!name.endsWith(".map")) continue;
		const file = path.join(folder, "dist", name);
		const { sources } = JSON.parse(await readFile(file, "utf8")) as {
			sources: string[];
		};
		for (const source of sources) {
			const part =
				/(node_modules\/.*)?node_modules\/(@[^/]+\/)?[^/]+(?=\/)/.exec(source);
			if (part !== null) found.add(part[0]);
		}
	}
	return packages.filter(([name]) => found.has(name));
}

/** Licences that ask for nothing but that their text comes along. */
const allowed = [
	...["0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause"],
	...["BlueOak-1.0.0", "ISC", "MIT"],
];

/** Runs when a package is installed. `prepare` does for a checkout only. */
const installScripts = ["preinstall", "install", "postinstall"];

t.test(
	"the lock file has a strong digest of every package, and the settings keep its addresses out",
	async (t) => {
		t.equal(lock.lockfileVersion, 3);
		t.ok(packages.length > 300);
		t.strictSame(
			packages.filter(
				([, { integrity = "" }]) => !/^sha512-[\w+/]{86}==$/.test(integrity),
			),
			[],
		);
		// Whatever registry npm is told to use, and no other: nothing says where from.
		t.strictSame(
			packages.filter(([, part]) => part.resolved !== undefined || part.link),
			[],
		);
		t.match(
			await readFile(path.join(root, ".npmrc"), "utf8"),
			/^omit-lockfile-registry-resolved=true$/m,
		);
	},
);

t.test(
	"every dependency is a registry's, and none of git or a URL",
	async (t) => {
		const specs = Object.values(lock.packages).flatMap((part) =>
			[
				part.dependencies,
				part.optionalDependencies,
				part.devDependencies,
			].flatMap((list) => Object.values(list ?? {})),
		);
		t.ok(specs.length > 300);
		// `npm:name@1` is another name for a package of the same registry.
		t.strictSame(
			specs.filter((spec) => /[:/]/.test(spec.replace(/^npm:(@[^/]+\/)?/, ""))),
			[],
		);
	},
);

t.test("what is shipped is under licences that let it be", async (t) => {
	t.ok(shipped.length > 30);
	for (const [folder, { license }] of shipped) {
		const manifest = await readJson<Manifest>(`${folder}/package.json`);
		t.equal(manifest.license, license, folder);
		t.ok(allowed.includes(license ?? ""), `${folder}: ${license}`);
	}
});

t.test(
	"nothing that is shipped runs a script when it is installed, and of the developers' packages the one that is allowed to",
	async (t) => {
		for (const [folder, { hasInstallScript }] of shipped) {
			t.notOk(hasInstallScript, folder);
			const { scripts = {} } = await readJson<Manifest>(
				`${folder}/package.json`,
			);
			t.notOk(
				installScripts.some((name) => name in scripts),
				folder,
			);
			// npm makes a script of its own of this file.
			const files = await readdir(path.join(root, folder));
			t.notOk(files.includes("binding.gyp"), folder);
		}
		t.strictSame(
			installScripts.filter((name) => name in (own.scripts ?? {})),
			[],
			"llamagate's own package has none",
		);
		t.strictSame(
			packages
				.filter(([, { hasInstallScript }]) => hasInstallScript)
				.map(([folder]) => folder.replace("node_modules/", "")),
			Object.keys(own.allowScripts ?? {}),
			"each has been thought of",
		);
		t.strictSame(
			Object.entries(own.allowScripts ?? {})
				.filter(([, allowed]) => allowed)
				.map(([name]) => name),
			["node"],
		);
	},
);
