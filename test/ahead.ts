/**
 * Makes, once for all tests, what each of them would find, read and compile anew, and
 * prints the folder (test/run): packages of hundreds of files in a few, the checks of
 * the configuration as they are published, and the tests without their types.
 */
import { globSync } from "node:fs";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import path from "node:path";
import { build, type Plugin } from "esbuild";
import { banner, compiledAhead, leaveOut } from "../scripts/build/bundle.ts";

const root = path.join(import.meta.dirname, "..");

/** By where it lies, tap leaves its own lines out of what it shows of an error, as ever. */
const folder = path.join(root, "node_modules/.cache/node_modules/@tapjs");

/** Those that are no ES modules, so that esbuild has to be told what they export. */
const packages = [
	...["fastify", "@fastify/http-proxy", "@fastify/rate-limit"],
	...["pino", "undici"],
];

/** What is made of what, by what it is imported as. */
const entries: Readonly<Record<string, string>> = {
	tap: "tap",
	"./validator.ts": "src/config/validator.ts",
	...Object.fromEntries(packages.map((name) => [name, `all of ${name}`])),
};

const allOfPackages: Plugin = {
	name: "a package has a file that exports all that it does",
	setup({ onLoad, onResolve }) {
		const filter = /^all of /;
		onResolve({ filter }, ({ path: entry }) => ({
			...{ path: entry.replace(filter, ""), namespace: "all of" },
		}));
		onLoad({ filter: /.*/, namespace: "all of" }, async ({ path: name }) => {
			const names = Object.keys((await import(name)) as object).filter(
				(one) => one !== "default" && /^\w+$/.test(one),
			);
			return {
				contents: `import whole, * as parts from "${name}";
					export default whole;
					export const { ${names.join(", ")} } = parts;`,
				resolveDir: root,
			};
		});
	},
};

async function makeEntries(into: string): Promise<void> {
	const files = Object.entries(entries).map(([name, made], index) => ({
		...{ name, in: made, out: String(index) },
	}));
	await build({
		absWorkingDir: root,
		entryPoints: files.map(({ in: made, out }) => ({ in: made, out })),
		...{ outdir: into, outExtension: { ".js": ".mjs" } },
		...{ bundle: true, splitting: true, platform: "node", format: "esm" },
		plugins: [allOfPackages, compiledAhead, leaveOut],
		banner,
	});
	const found = Object.fromEntries(
		files.map(({ name, out }) => [name, `${out}.mjs`]),
	);
	await writeFile(path.join(into, "entries.json"), JSON.stringify(found));
}

/** Node itself keeps what it has made of a file for the next that loads it; a test is loaded once. */
async function stripTests(into: string): Promise<void> {
	for (const test of globSync("test/**/*.test.ts", { cwd: root })) {
		const code = await readFile(path.join(root, test), "utf8");
		await mkdir(path.join(into, path.dirname(test)), { recursive: true });
		await writeFile(path.join(into, test), stripTypeScriptTypes(code));
	}
}

const unfinished = `${folder}.${process.pid}`;
await rm(unfinished, { recursive: true, force: true });
await mkdir(unfinished, { recursive: true });
await Promise.all([makeEntries(unfinished), stripTests(unfinished)]);
const before = `${unfinished}.before`;
await rename(folder, before).catch(() => {});
await rename(unfinished, folder);
await rm(before, { recursive: true, force: true });
process.stdout.write(folder);
