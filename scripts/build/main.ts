import { rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { bundle } from "./bundle.ts";
import { licencesOf, partsOf } from "./parts.ts";

/**
 * npm run build: makes `dist`, which the published program runs from, in the
 * checkout or in `--into`: llamagate and what it uses of its dependencies, their
 * licences (licences.txt), and which packages they are (parts.json).
 */
const root = path.join(import.meta.dirname, "../..");
const { values } = parseArgs({
	options: { into: { type: "string", default: root } },
});
const dist = path.join(values.into, "dist");
rmSync(dist, { recursive: true, force: true });
const parts = partsOf(root, await bundle(values.into));
const listed = parts.map(({ folder: _, ...part }) => part);
writeFileSync(
	path.join(dist, "parts.json"),
	`${JSON.stringify(listed, undefined, "\t")}\n`,
);
writeFileSync(path.join(dist, "licences.txt"), licencesOf(root, parts));
