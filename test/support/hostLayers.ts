import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { debianPackage, digestOf, sourceFiles } from "./builtPackages.ts";
import { pristineDebianRoot } from "./debianRoot.ts";
import { llamagateNode, standInNode } from "./hostPlaces.ts";
import { madeOnce } from "./madeOnce.ts";

/** The programs that this module runs. */
export const layerTools = ["chroot", "flock", "git", "mount", "unshare"];

/**
 * What lies over a pristine Debian in hosts that have llamagate: the package
 * that LLAMAGATE_DEB names or, in CI, that this tree makes, as people get it;
 * else the tree, which needs no minutes to be packed.
 *
 * @returns a folder; it stays for other processes and runs
 */
export function llamagateLayer(): Promise<string> {
	llamagate ??= makeLlamagateLayer();
	return llamagate;
}

let llamagate: Promise<string> | undefined;

async function makeLlamagateLayer(): Promise<string> {
	const { LLAMAGATE_DEB, CI } = process.env;
	if (LLAMAGATE_DEB === undefined && !CI)
		return madeLayer("tree", await treeDigest(), llamagateNode, [
			...["installTree.ts", "installTree"],
		]);
	const file = path.resolve(LLAMAGATE_DEB ?? (await debianPackage()));
	const digest = createHash("sha256").update(await readFile(file));
	return madeLayer("package", digest.digest("hex").slice(0, 12), "", [
		...["installTree.ts", "installPackage", file],
	]);
}

/** What lies over it in every host: the programs that stand in for what cannot be had in a test. */
export function standInLayer(): Promise<string> {
	standIns ??= treeDigest().then((digest) =>
		madeLayer("stand-ins", digest, standInNode, [
			...["hostStandIns.ts", "copyStandIns"],
		]),
	);
	return standIns;
}

let standIns: Promise<string> | undefined;

let tree: Promise<string> | undefined;

/** Names what both are made from: this tree as it is now, and Node. */
function treeDigest(): Promise<string> {
	tree ??= Promise.all([
		sourceFiles(".", ":!bench", ":!docs", ":!test"),
		sourceFiles("test/support"),
	]).then((files) => digestOf(process.version, files.flat()));
	return tree;
}

/**
 * @param nodeAt where it has this Node, 120 MB which all layers share; nowhere if empty
 * @param install a module beside this one, its function that is called with
 *   the root of a Debian that is not running, and further arguments of it
 */
async function madeLayer(
	name: string,
	digest: string,
	nodeAt: string,
	install: readonly string[],
): Promise<string> {
	const pristine = await pristineDebianRoot();
	const store = path.dirname(pristine);
	const node = path.join(store, `node-${process.version}-${process.arch}`);
	await madeOnce(node, 'mkdir "$1"; cp "$2" "$1/node"', async () => ({
		args: [process.execPath],
		environment: process.env,
	}));
	const folder = path.join(
		store,
		`${name}-${digest}-${path.basename(pristine)}`,
	);
	await madeOnce(
		folder,
		// The mount goes with the process, however that ends.
		`find "$(dirname "$1")" -mindepth 1 -maxdepth 1 -name "$2-*" -mmin +120 -exec rm -rf {} +
		mkdir -p "$1/upper" "$1/work" "$1/root"
		test -z "$5" || {
			mkdir -p "$1/upper/$(dirname "$5")"
			ln "$4/node" "$1/upper/$5"
		}
		exec unshare --mount sh -euc '
			folder=$1 pristine=$3
			mount -t overlay overlay -o "lowerdir=$pristine,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
			shift 5
			"$@" "$folder/root"
		' sh "$@"`,
		async () => ({
			args: [
				...[name, pristine, node, nodeAt, process.execPath, "--eval"],
				"const [file, make, ...rest] = process.argv.slice(1); import(file).then((module) => module[make](rest.pop(), ...rest))",
				...[path.join(import.meta.dirname, install[0] ?? "")],
				...install.slice(1),
			],
			environment: process.env,
		}),
	);
	return path.join(folder, "upper");
}
