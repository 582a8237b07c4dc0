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
import { leaveOut } from "../scripts/build/bundle.ts";
import { compiledValidators } from "../scripts/build/validators.ts";

const root = path.join(import.meta.dirname, "..");

/** By where it lies, tap leaves its own lines out of what it shows of an error, as ever. */
const folder = path.join(root, "node_modules/.cache/node_modules/@tapjs");

/** By what they are imported as. */
const entries: Readonly<Record<string, () => string | Promise<string>>> = {
	tap: () => 'export * from "tap"; export { default } from "tap";',
	fastify: () => exportsOf("fastify"),
	"@fastify/http-proxy": () => exportsOf("@fastify/http-proxy"),
	"@fastify/rate-limit": () => exportsOf("@fastify/rate-limit"),
	pino: () => exportsOf("pino"),
	undici: () => exportsOf("undici"),
	"./validator.ts": compiledValidators,
};

/** Of what is no ES module. */
async function exportsOf(name: string): Promise<string> {
	const names = Object.keys((await import(name)) as object).filter(
		(one) => one !== "default" && /^\w+$/.test(one),
	);
	return `import whole, * as parts from "${name}";
		export default whole;
		export const { ${names.join(", ")} } = parts;`;
}

const namespace = "ahead";
const entriesPlugin: Plugin = {
	name: "each has a file that exports all that it does",
	setup({ onLoad, onResolve }) {
		onResolve({ filter: /^ahead:/ }, ({ path: entry }) => ({
			...{ path: entry.slice("ahead:".length), namespace },
		}));
		onLoad({ filter: /.*/, namespace }, async ({ path: name }) => ({
			...{ contents: (await entries[name]?.()) ?? "", resolveDir: root },
		}));
	},
};

async function makeEntries(into: string): Promise<void> {
	const files = Object.keys(entries).map((name, index) => ({
		...{ name, out: String(index) },
	}));
	await build({
		absWorkingDir: root,
		entryPoints: files.map(({ name, out }) => ({ in: `ahead:${name}`, out })),
		...{ outdir: into, outExtension: { ".js": ".mjs" } },
		...{ bundle: true, splitting: true, platform: "node", format: "esm" },
		plugins: [entriesPlugin, leaveOut],
		banner: {
			js: 'const require = process.getBuiltinModule("node:module").createRequire(import.meta.url);',
		},
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
