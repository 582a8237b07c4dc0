import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { type BuildOptions, build, type Metafile, type Plugin } from "esbuild";
import { replacements } from "./leftOut.ts";
import { compiledValidators } from "./validators.ts";

const root = path.join(import.meta.dirname, "../..");

/** For what is no ES module, and loads Node's own. */
export const banner = {
	js: 'const require = process.getBuiltinModule("node:module").createRequire(import.meta.url);',
};

/**
 * Puts the program and its dependencies into `dist` of a folder, as readable as
 * they were: nothing is renamed or squeezed, and beside each file lies its map.
 *
 * @returns what went into each file
 */
export async function bundle(folder: string): Promise<Metafile[]> {
	const shared: BuildOptions & { metafile: true; write: false } = {
		absWorkingDir: root,
		preserveSymlinks: true,
		bundle: true,
		format: "esm",
		platform: "node",
		target: "node22.19",
		// What is ES modules already need not be wrapped.
		mainFields: ["module", "main"],
		// As seen from here, wherever it goes: the same sources give the same maps.
		outdir: path.join(root, "dist"),
		write: false,
		entryNames: "[name]",
		// What is imported when it is wanted has files of its own.
		splitting: true,
		sourcemap: true,
		metafile: true,
		logLevel: "warning",
		banner,
		plugins: [
			compiledAhead,
			assetsWithin,
			leaveOut,
			loadLittleOfNode,
			keepApart,
		],
	};
	const results = [
		await build({
			...shared,
			entryPoints: ["src/main.ts", "src/net/notifier.ts"],
		}),
		// To find and read thirty files takes longer than to read one.
		await build({ ...shared, entryPoints: ["src/serve.ts"] }),
		await build({ ...shared, entryPoints: [path.join("src", library)] }),
	];
	await mkdir(path.join(folder, "dist"), { recursive: true });
	for (const { path: name, contents } of results.flatMap(
		({ outputFiles }) => outputFiles,
	))
		await writeFile(path.join(folder, "dist", path.basename(name)), contents);
	return results.map(({ metafile }) => metafile);
}

/** A client library that few gates use, in a file of its own: others do not even share helpers with it. */
const library = "valkey/iovalkey.ts";

const keepApart: Plugin = {
	name: "what few gates use is loaded by those",
	setup({ onResolve }) {
		onResolve({ filter: /[/]iovalkey\.ts$/ }, ({ kind }) =>
			kind === "dynamic-import"
				? {
						path: `./${path.basename(library, ".ts")}.js`,
						external: true,
					}
				: undefined,
		);
	},
};

export const compiledAhead: Plugin = {
	name: "schemas are compiled ahead",
	setup({ onLoad }) {
		onLoad({ filter: /[/]src[/]config[/]validator\.ts$/ }, () => ({
			contents: compiledValidators(),
			loader: "js",
			resolveDir: root,
		}));
	},
};

const assetsWithin: Plugin = {
	name: "what a browser is sent is in the program",
	setup({ onLoad }) {
		onLoad(
			{ filter: /[/]src[/]dashboard[/]assets\.ts$/ },
			async ({ path: file }) => ({
				contents: importedAsText(await readFile(file, "utf8")),
				loader: "ts",
			}),
		);
	},
};

/**
 * Has the file that reads the page's files import them as texts, so that they are
 * in the program, and their package is among its parts.
 */
export function importedAsText(code: string): string {
	const found = [
		...code.matchAll(
			/^export const (\w+): string = read\(\s*"([^"]+)",?\s*\);$/gm,
		),
	];
	if (found.length === 0) throw new Error("there are no files to import");
	return found
		.map(([, name, file = ""]) => {
			const from = file.replace(/^node_modules\//, "");
			return `export { default as ${name} } from ${JSON.stringify(from === file ? path.join(root, file) : from)} with { type: "text" };\n`;
		})
		.join("");
}

export const leaveOut: Plugin = {
	name: "what is never used is left out",
	setup({ onLoad, onResolve }) {
		const namespace = "in place of";
		onResolve({ filter: /^[^.]/ }, ({ kind, path: wanted, importer }) => {
			if (kind !== "require-call") return undefined;
			const found = replacements.find(
				(one) => one.wanted === wanted && one.by === packageOf(importer),
			);
			return (
				found && {
					path: `${wanted}, for ${found.by}`,
					namespace,
					pluginData: found,
				}
			);
		});
		onLoad({ filter: /.*/, namespace }, ({ pluginData }) => ({
			contents: pluginData.given as string,
			loader: "js",
			resolveDir: root,
		}));
	},
};

/** The name of the package that a file is of. */
function packageOf(file: string): string | undefined {
	return /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1];
}

const loadLittleOfNode: Plugin = {
	name: "Node's own modules are loaded without what hangs on them",
	setup({ onLoad }) {
		onLoad({ filter: /[/]src[/].*\.ts$/ }, async ({ path: file }) => ({
			contents: withoutFacades(await readFile(file, "utf8")),
			loader: "ts",
		}));
	},
};

/**
 * An import of `node:http` evaluates all that it exports, a client for WebSocket
 * among them, and with that TLS, HTTP/2 and more: 13 MB and 20 ms. Only what is
 * named is asked for here. Lines stay where they are.
 */
export function withoutFacades(code: string): string {
	return code.replace(
		/^import (?!type )([^;"]+?) from ("node:[^"]+");$/gm,
		(whole: string, names: string, module: string) => {
			const pattern = names.startsWith("{")
				? names.replace(/\btype \w+( as \w+)?,?/g, "").replace(/ as /g, ": ")
				: names.replace(/^\* as /, "");
			if (!/^(\w+|\{[\s\w:,]*\})$/.test(pattern))
				throw new Error(`cannot rewrite ${whole}`);
			return `const ${pattern} = process.getBuiltinModule(${module});`;
		},
	);
}
