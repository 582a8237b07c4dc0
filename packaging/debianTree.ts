import {
	chmodSync,
	cpSync,
	existsSync,
	globSync,
	mkdirSync,
	readFileSync,
	symlinkSync,
	writeFileSync,
} from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { manPage } from "./manPage.ts";
import { root, run } from "./program.ts";

const app = "usr/lib/llamagate/app";
const documents = "usr/share/doc/llamagate";
const maximalGzip = (content: string | Buffer) =>
	gzipSync(content, { level: 9 });

/** What a package for Debian is made of. */
export interface Parts {
	/** The npm package, unpacked. */
	readonly app: string;
	/** A folder with `bin/node` and `LICENSE`. */
	readonly node: string;
	readonly nodeVersion: string;
	readonly version: string;
	readonly debianVersion: string;
	/** Of the sources. */
	readonly time: Date;
}

/** Lays everything that is installed into a new folder, where it is installed, with its mode. */
export function layTree(tree: string, parts: Parts): void {
	const place = (from: string, to: string) =>
		cpSync(from, path.join(tree, to), { recursive: true });
	const write = (to: string, content: string | Buffer) => {
		mkdirSync(path.dirname(path.join(tree, to)), { recursive: true });
		writeFileSync(path.join(tree, to), content);
	};
	const own = (name: string) => path.join(tree, app, name);

	place(parts.app, app);
	place(path.join(parts.node, "bin/node"), "usr/lib/llamagate/bin/node");
	place(template("llamagate"), "usr/bin/llamagate");
	place(template("sysusers.conf"), "usr/lib/sysusers.d/llamagate.conf");
	for (const unit of unitsOf(tree))
		place(own(`systemd/${unit}`), `lib/systemd/system/${unit}`);
	place(own("systemd/follow-tailscale"), "usr/lib/llamagate/follow-tailscale");
	mkdirSync(path.join(tree, "usr/lib/llamagate/root"));
	run(template("root-folder"), [path.join(tree, "usr/lib/llamagate/root")]);
	place(path.join(root, "packaging/config.json"), "etc/llamagate/config.json");
	if (existsSync(own("ufw/llamagate")))
		place(own("ufw/llamagate"), "etc/ufw/applications.d/llamagate");

	write(
		`${documents}/copyright`,
		copyright(parts, own("LICENSE"), own("dist/licences.txt")),
	);
	write(
		`${documents}/changelog.gz`,
		maximalGzip(readFileSync(own("CHANGELOG.md"))),
	);
	write(
		`${documents}/changelog.Debian.gz`,
		maximalGzip(debianChangelog(parts)),
	);
	for (const name of ["README.md", "SECURITY.md", "docs", "monitoring"])
		symlinkSync(
			`../../../lib/llamagate/app/${name}`,
			path.join(tree, documents, name),
		);
	const page = manPage(own("bin/llamagate.js"), parts.version, parts.time);
	write("usr/share/man/man8/llamagate.8.gz", maximalGzip(page));
	place(template("lintian-overrides"), "usr/share/lintian/overrides/llamagate");
	setModes(tree);
}

/** The systemd units of a tree, in the order of their names. */
export function unitsOf(tree: string): string[] {
	const cwd = path.join(tree, app, "systemd");
	return globSync("*.{service,socket,timer}", { cwd }).sort();
}

/** A file that a package is made from, such as the control file. */
export function template(name: string): string {
	return path.join(root, "packaging/debian", name);
}

function copyright(
	{ node, nodeVersion }: Parts,
	licence: string,
	ofPackages: string,
): string {
	return [
		readFileSync(template("copyright"), "utf8").replace(
			"@NODE_VERSION@",
			nodeVersion,
		),
		readFileSync(licence, "utf8"),
		`\nNode.js\n\n${readFileSync(path.join(node, "LICENSE"), "utf8")}`,
		`\nPackages\n\n${readFileSync(ofPackages, "utf8")}`,
	].join("");
}

function debianChangelog({ debianVersion, version, time }: Parts): string {
	const control = readFileSync(template("control"), "utf8");
	const maintainer = /^Maintainer: (.+)$/m.exec(control)?.[1] ?? "";
	const date = time.toUTCString().replace("GMT", "+0000");
	return `llamagate (${debianVersion}) unstable; urgency=medium

  * Made from llamagate ${version}: see changelog.gz.

 -- ${maintainer}  ${date}
`;
}

/** Nothing depends on the umask: programs are 0755, the configuration is the group's, the rest 0644. */
function setModes(tree: string): void {
	run("find", [tree, "-type", "d", "-exec", "chmod", "0755", "{}", "+"]);
	run("find", [tree, "-type", "f", "-exec", "chmod", "0644", "{}", "+"]);
	for (const [name, mode] of [
		["usr/bin/llamagate", 0o755],
		["usr/lib/llamagate/bin/node", 0o755],
		["usr/lib/llamagate/follow-tailscale", 0o755],
		// root's, until the group is made when the package is installed.
		["etc/llamagate", 0o750],
		["etc/llamagate/config.json", 0o640],
	] as const)
		chmodSync(path.join(tree, name), mode);
}
