import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { root, run } from "./program.ts";
import { type Bom, onlyParts } from "./sbom.ts";

/** What package.json says to developers, and not to those who install. */
interface Manifest {
	readonly files: readonly string[];
	readonly dependencies: Record<string, string>;
	readonly private?: unknown;
	readonly devDependencies?: unknown;
	readonly scripts?: unknown;
	readonly allowScripts?: unknown;
}

/**
 * Makes llamagate's npm package in a folder; its name comes back. It depends on no
 * other: what it uses of them is in it.
 */
export function pack(folder: string, work: string): string {
	const stage = path.join(work, "npm");
	run(process.execPath, ["scripts/build/main.ts", "--into", stage]);
	const {
		private: _private,
		dependencies: _dependencies,
		devDependencies: _developers,
		scripts: _scripts,
		allowScripts: _allowed,
		...manifest
	} = readJson<Manifest>("package.json");
	for (const name of [...manifest.files, "README.md", "LICENSE"])
		if (name !== "dist")
			cpSync(path.join(root, name), path.join(stage, name), {
				recursive: true,
			});
	writeFileSync(
		path.join(stage, "package.json"),
		`${JSON.stringify(manifest, undefined, "\t")}\n`,
	);
	const options = ["--silent", "--pack-destination", folder];
	return run("npm", ["pack", ...options], stage).trim();
}

/** Unpacks llamagate's npm package into a new folder. All that it runs with is in there. */
export function unpack(tarball: string, folder: string): void {
	mkdirSync(folder, { recursive: true });
	run("tar", ["-xzf", tarball, "--strip-components=1"], folder);
}

/**
 * npm's CycloneDX bill of materials, from the lock file, of what is in the program:
 * llamagate itself, and the packages of which anything went into it.
 *
 * The lists are cut down to what runs first: `npm sbom --omit=dev` leaves out
 * every package that something of the developers' uses too (npm 11.19, where
 * undici was missing).
 *
 * @param app the unpacked npm package
 */
export function listParts(app: string, work: string): Bom {
	const parts = JSON.parse(
		readFileSync(path.join(app, "dist/parts.json"), "utf8"),
	) as { name: string; version: string }[];
	// npm calls the whole by its folder's name.
	const folder = path.join(work, "sbom/llamagate");
	mkdirSync(folder, { recursive: true });
	for (const name of ["package-lock.json", ".npmrc"])
		cpSync(path.join(root, name), path.join(folder, name));
	const { devDependencies: _, ...rest } = readJson<Manifest>("package.json");
	writeFileSync(path.join(folder, "package.json"), JSON.stringify(rest));
	const lockOnly = ["--package-lock-only", "--offline", "--silent"];
	run("npm", ["install", "--ignore-scripts", ...lockOnly], folder);
	const sbom = ["sbom", "--sbom-format=cyclonedx", ...lockOnly];
	return onlyParts(JSON.parse(run("npm", sbom, folder)) as Bom, parts);
}

/** The Node that the checkout's tests run with. */
export function nodeVersion(): string {
	const lock = readJson<{
		packages: Record<string, { version: string } | undefined>;
	}>("package-lock.json");
	const version = lock.packages["node_modules/node"]?.version;
	if (version === undefined) throw new Error("package-lock.json has no node");
	return version;
}

/**
 * Fetches Node's program (`bin/node`) and licence into a new folder, and throws
 * if npm's registry has another package of that version than packaging/node.json
 * knows.
 */
export function fetchNode(
	npmPackage: string,
	version: string,
	folder: string,
): void {
	const known = readJson<
		Record<string, Record<string, string | undefined> | undefined>
	>("packaging/node.json");
	const wanted = known[version]?.[npmPackage];
	const spec = `${npmPackage}@${version}`;
	if (wanted === undefined)
		throw new Error(
			`packaging/node.json lacks ${spec}: look at npm view ${spec} dist.integrity`,
		);

	mkdirSync(folder);
	const [packed] = JSON.parse(
		run("npm", ["pack", "--silent", "--json", spec], folder),
	) as [{ filename: string; integrity: string }];
	if (packed.integrity !== wanted)
		throw new Error(
			`${spec} is ${packed.integrity}, and packaging/node.json wants ${wanted}`,
		);
	run(
		"tar",
		[
			...["-xzf", packed.filename, "--strip-components=1"],
			...["package/bin/node", "package/LICENSE"],
		],
		folder,
	);
}

function readJson<T>(name: string): T {
	return JSON.parse(readFileSync(path.join(root, name), "utf8")) as T;
}
