import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import type { Metafile } from "esbuild";

/** A package of which something is in the published program. */
export interface Part {
	readonly name: string;
	readonly version: string;
	/** By its SPDX identifier. */
	readonly license: string;
	/** Seen from the checkout. */
	readonly folder: string;
}

/** The packages of which anything went into a build, by their names. */
export function partsOf(root: string, metafiles: readonly Metafile[]): Part[] {
	const folders = new Set(
		metafiles
			.flatMap(({ outputs }) => Object.values(outputs))
			.flatMap(({ inputs }) => Object.entries(inputs))
			.filter(([, { bytesInOutput }]) => bytesInOutput > 0)
			.map(
				([file]) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(file)?.[0],
			)
			.filter((folder) => folder !== undefined),
	);
	return [...folders].sort().map((folder) => {
		const text = readFileSync(path.join(root, folder, "package.json"), "utf8");
		const { name, version, license } = JSON.parse(text) as Part;
		return { name, version, license, folder };
	});
}

/** The licences of packages, as each has it: in a file, or else in its readme. */
export function licencesOf(root: string, parts: readonly Part[]): string {
	const rule = "-".repeat(72);
	return `What is in this folder is llamagate, under the licence in LICENSE beside it, and of
these packages what it uses, each under the licence of its authors.

${parts.map((part) => `${rule}\n${part.name} ${part.version} (${part.license})\n\n${licenceOf(path.join(root, part.folder))}\n`).join("\n")}`;
}

function licenceOf(folder: string): string {
	const files = readdirSync(folder).sort();
	const found = files.filter((name) => /^licen[cs]e/i.test(name));
	const named =
		found.length > 0
			? found
			: files.filter((name) => /^readme(\.md)?$/i.test(name));
	if (named.length === 0)
		throw new Error(`${folder} has neither a licence nor a readme`);
	return named
		.map((name) => readFileSync(path.join(folder, name), "utf8").trim())
		.join("\n\n");
}
