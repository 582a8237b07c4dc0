import {
	cpSync,
	globSync,
	mkdirSync,
	readdirSync,
	readFileSync,
	rmSync,
	writeFileSync,
} from "node:fs";
import path from "node:path";
import { root, run } from "./program.ts";

/** Makes llamagate's npm package in a folder; its name comes back. */
export function pack(folder: string): string {
	return run("npm", ["pack", "--silent", "--pack-destination", folder]).trim();
}

/**
 * npm's CycloneDX bill of materials of what runs, from the lock file.
 *
 * The lists are cut down to what runs first: `npm sbom --omit=dev` leaves out
 * every package that something of the developers' uses too (npm 11.19, where
 * undici was missing).
 */
export function listParts(work: string): string {
	// npm calls the whole by its folder's name.
	const folder = path.join(work, "sbom/llamagate");
	copyLists(folder);
	const { devDependencies: _, ...rest } = readJson<{
		devDependencies: unknown;
	}>("package.json");
	writeFileSync(path.join(folder, "package.json"), JSON.stringify(rest));
	const lockOnly = ["--package-lock-only", "--offline", "--silent"];
	run("npm", ["install", "--ignore-scripts", ...lockOnly], folder);
	return run("npm", ["sbom", "--sbom-format=cyclonedx", ...lockOnly], folder);
}

/** Unpacks llamagate's npm package into a new folder, with the dependencies that it runs with. */
export function install(tarball: string, folder: string): void {
	copyLists(folder);
	run("npm", ["ci", "--omit=dev", "--ignore-scripts", "--silent"], folder);
	run("tar", ["-xzf", tarball, "--strip-components=1"], folder);
	for (const name of ["package-lock.json", ".npmrc"])
		rmSync(path.join(folder, name));
	strip(path.join(folder, "node_modules"));
}

function copyLists(folder: string): void {
	mkdirSync(folder, { recursive: true });
	for (const name of ["package.json", "package-lock.json", ".npmrc"])
		cpSync(path.join(root, name), path.join(folder, name));
}

/**
 * Takes out what no program reads: types, maps, pages, tests, and npm's own
 * notes, which say where the packages were fetched from. Licences stay, and
 * where there is none, the readme that names it.
 */
function strip(modules: string): void {
	const packageFolders = "{,**/node_modules/}{@*/*,[!@]*}";
	for (const pattern of [
		"**/.*",
		"**/*.{d.ts,d.cts,d.mts,map,html,md,sh}",
		`${packageFolders}/{benchmark,benchmarks,docs,example,examples,integration,scripts,test,tests}`,
	])
		for (const name of globSync(pattern, { cwd: modules }))
			if (!isLicence(path.join(modules, name)))
				rmSync(path.join(modules, name), { recursive: true, force: true });
	run("find", [modules, "-type", "d", "-empty", "-delete"]);
}

function isLicence(file: string): boolean {
	const licence = /^licen[cs]e/i;
	const name = path.basename(file);
	if (!/^readme\b/i.test(name)) return licence.test(name);
	const beside = readdirSync(path.dirname(file));
	return (
		beside.includes("package.json") && !beside.some((n) => licence.test(n))
	);
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
