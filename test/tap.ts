/**
 * Prints the file that tests load in place of tap (test/run): all of it in one, which
 * takes 50 ms less of CPU than its two hundred. By where it lies, tap leaves its own
 * lines out of what it shows of an error, as ever.
 */
import { rename } from "node:fs/promises";
import path from "node:path";
import { build } from "esbuild";

const root = path.join(import.meta.dirname, "..");
const file = path.join(root, "node_modules/.cache/node_modules/@tapjs/tap.mjs");
const unfinished = `${file}.${process.pid}`;
await build({
	absWorkingDir: root,
	entryPoints: ["tap"],
	outfile: unfinished,
	...{ bundle: true, platform: "node", format: "esm" },
	// For those of its packages that are no ES modules.
	banner: {
		js: 'const require = process.getBuiltinModule("node:module").createRequire(import.meta.url);',
	},
});
// Tests that run already may be about to load it.
await rename(unfinished, file);
process.stdout.write(file);
