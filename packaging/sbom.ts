import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";

/** The parts of a CycloneDX document that are read or changed here. */
export interface Bom {
	serialNumber?: string;
	metadata: { timestamp?: string; component?: Component };
	components: Component[];
	dependencies?: { ref: string; dependsOn?: string[] }[];
}

interface Component {
	"bom-ref": string;
	name: string;
	group?: string;
	version: string;
	[more: string]: unknown;
}

/**
 * A bill of materials without the packages that nothing was taken of.
 *
 * @throws if it lacks one that something was taken of
 */
export function onlyParts(
	bom: Bom,
	parts: readonly { readonly name: string; readonly version: string }[],
): Bom {
	const idOf = ({ name, version }: { name: string; version: string }) =>
		`${name}@${version}`;
	const wanted = new Set(parts.map(idOf));
	const components = bom.components.filter((part) => wanted.has(idOf(part)));
	const found = new Set(components.map(idOf));
	const missing = [...wanted].filter((id) => !found.has(id));
	if (missing.length > 0)
		throw new Error(`the bill of materials lacks ${missing.join(", ")}`);
	const refs = new Set([
		bom.metadata.component?.["bom-ref"],
		...components.map((part) => part["bom-ref"]),
	]);
	const dependencies = (bom.dependencies ?? [])
		.filter(({ ref }) => refs.has(ref))
		.map(({ ref, dependsOn = [] }) => ({
			ref,
			dependsOn: dependsOn.filter((other) => refs.has(other)),
		}));
	return { ...bom, components, dependencies };
}

/**
 * Makes npm's bill of materials the same for every build of the same sources:
 * without its random number, and with the time of the sources.
 */
export function settle(bom: Bom, time: Date): Bom {
	const { serialNumber: _, ...rest } = bom;
	return { ...rest, metadata: { ...bom.metadata, timestamp: time.toJSON() } };
}

/** The bill of materials with a Node beside the packages that npm knows of. */
export async function withNode(
	bom: Bom,
	node: {
		readonly npmPackage: string;
		readonly version: string;
		readonly file: string;
	},
): Promise<Bom> {
	const purl = `pkg:npm/${node.npmPackage}@${node.version}`;
	return {
		...bom,
		components: [
			...bom.components,
			{
				"bom-ref": `${node.npmPackage}@${node.version}`,
				type: "platform",
				name: "node",
				version: node.version,
				description: "The runtime, as it lies at /usr/lib/llamagate/bin/node",
				purl,
				cpe: `cpe:2.3:a:nodejs:node.js:${node.version}:*:*:*:*:*:*:*`,
				licenses: [{ license: { id: "MIT" } }],
				hashes: [{ alg: "SHA-256", content: await sha256(node.file) }],
			},
		],
	};
}

/** A file's SHA-256 in hexadecimal. */
export async function sha256(file: string): Promise<string> {
	const hash = createHash("sha256");
	await pipeline(createReadStream(file), hash);
	return hash.digest("hex");
}
