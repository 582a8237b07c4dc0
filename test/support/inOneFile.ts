import path from "node:path";
import { build } from "esbuild";
import { temporaryFolder } from "./temporaryFolder.ts";

/** What this module needs of tap. */
interface Test {
	teardown(action: () => unknown): unknown;
}

/**
 * Makes one file of a program of this folder and all that it imports, for those that
 * start often: it starts in less than half the time. It goes with the test.
 */
export async function inOneFile(t: Test, name: string): Promise<string> {
	const outfile = path.join(await temporaryFolder(t), `${name}.mjs`);
	await build({
		entryPoints: [path.join(import.meta.dirname, `${name}.ts`)],
		outfile,
		...{ bundle: true, platform: "node", format: "esm" },
		mainFields: ["module", "main"],
	});
	return outfile;
}
