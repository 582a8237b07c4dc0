import { createHash } from "node:crypto";
import {
	chmodSync,
	mkdirSync,
	readFileSync,
	statSync,
	writeFileSync,
} from "node:fs";
import path from "node:path";
import { template, unitsOf } from "./debianTree.ts";
import { run } from "./program.ts";

/** Adds to a tree what dpkg reads: the control file, lists of files, and the scripts. */
export function writeControl(
	tree: string,
	debianVersion: string,
	architecture: string,
): void {
	const find = (...args: string[]) =>
		run("find", [tree, "-mindepth", "1", ...args, "-printf", "%P\\n"])
			.split("\n")
			.filter((name) => name !== "")
			.sort();
	const files = find("-type", "f");
	const sizeOf = (name: string) => statSync(path.join(tree, name)).size;
	// As dpkg-gencontrol counts: whole kibibytes, and one for what is no file.
	const sizeKib = files.reduce(
		(sum, name) => sum + Math.ceil(sizeOf(name) / 1024),
		find("!", "-type", "f").length,
	);
	const [conffiles, others] = [true, false].map((wanted) =>
		files.filter((name) => name.startsWith("etc/") === wanted),
	) as [string[], string[]];

	const control = path.join(tree, "DEBIAN");
	mkdirSync(control);
	chmodSync(control, 0o755);
	const write = (name: string, content: string, mode = 0o644) => {
		writeFileSync(path.join(control, name), content);
		chmodSync(path.join(control, name), mode);
	};
	const fill = (name: string) =>
		readFileSync(template(name), "utf8")
			.replaceAll("@UNITS@", unitsOf(tree).filter(isNoTemplate).join(" "))
			.replace("@VERSION@", debianVersion)
			.replace("@ARCHITECTURE@", architecture)
			.replace("@INSTALLED_SIZE@", String(sizeKib));
	write("control", fill("control"));
	write("conffiles", conffiles.map((name) => `/${name}\n`).join(""));
	write(
		"md5sums",
		others
			.map((name) => `${md5(readFileSync(path.join(tree, name)))}  ${name}\n`)
			.join(""),
	);
	for (const script of ["postinst", "prerm", "postrm"])
		write(script, fill(script), 0o755);
}

/** A template is no unit that could be stopped: its instances are. */
function isNoTemplate(unit: string): boolean {
	return !unit.includes("@");
}

/** The digest that dpkg --verify compares; it guards against accidents only. */
function md5(content: Buffer): string {
	return createHash("md5").update(content).digest("hex");
}
