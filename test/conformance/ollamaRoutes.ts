import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import {
	comparedOllama,
	refusedPaths,
	routes,
} from "../../src/ollama/routes.ts";

/**
 * Lists the routes of an Ollama beside the gate's table: `npm run routes --
 * 0.34.0`. The source is that version's Go module, so `go` has to be there. It
 * ends with 1 where the two differ.
 */

/** A route as Ollama registers it, or what could not be read of one. */
export interface Registered {
	/** `ANY` for every method. */
	readonly method: string;
	/** With `:name` or `*name` for what varies. */
	readonly path: string;
}

/** How the two tables compare. */
export interface Comparison {
	/** Ollama's routes, each with what the gate does with it. */
	readonly rows: readonly {
		readonly route: Registered;
		readonly verdict: string;
	}[];
	/** Of the gate's table, what this Ollama does not have. */
	readonly gone: readonly string[];
	/** Lines that register routes in a way that is not understood here. */
	readonly unread: readonly string[];
	readonly isSame: boolean;
}

/**
 * The routes in the text of server/routes.go.
 *
 * @param constantOf the text of a constant such as `proxy.Prefix`
 */
export function readRoutes(
	source: string,
	constantOf: (name: string) => string | undefined,
): { registered: Registered[]; unread: string[] } {
	const registered: Registered[] = [];
	const unread: string[] = [];
	const [, body = ""] =
		/^func \(s \*Server\) GenerateRoutes\(.*?\{\n(.*?)^\}/ms.exec(source) ?? [];
	for (const line of body.split("\n")) {
		const call = /^\s*\w+\.([A-Z]\w*)\(([^,]+),/.exec(line);
		const [, name = "", expression = ""] = call ?? [];
		const isMethod = /^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|Any)$/.test(
			name,
		);
		if (!isMethod) {
			if (/\.(Handle|Match|Group|Static\w*|NoRoute)\(/.test(line))
				unread.push(line.trim());
			continue;
		}
		const parts = expression
			.split("+")
			.map((part) => part.trim())
			.map((part) =>
				part.startsWith('"') ? part.slice(1, -1) : constantOf(part),
			);
		if (parts.includes(undefined)) unread.push(line.trim());
		else registered.push({ method: name.toUpperCase(), path: parts.join("") });
	}
	return { registered, unread };
}

/** `/v1/models/:model` and `/v1/models/:id` are the same to a router. */
const shapeOf = (routePath: string) =>
	routePath.replace(/:\w+/g, ":").replace(/\*\w*/g, "*");

/** Sets Ollama's routes beside the gate's. */
export function compareRoutes({
	registered,
	unread,
}: ReturnType<typeof readRoutes>): Comparison {
	const known = new Map(
		routes.map((route) => [`${route.method} ${shapeOf(route.path)}`, route]),
	);
	const rows = registered.map((route) => {
		const match = known.get(`${route.method} ${shapeOf(route.path)}`);
		if (match !== undefined) return { route, verdict: `scope ${match.scope}` };
		const isRefused = refusedPaths.some(
			(refused) => refused.path === shapeOf(route.path),
		);
		return {
			route,
			verdict: isRefused ? "refused by name" : "NOT IN THE TABLE",
		};
	});
	const there = new Set(
		registered.map((route) => `${route.method} ${shapeOf(route.path)}`),
	);
	const gone = routes
		.filter((route) => !there.has(`${route.method} ${shapeOf(route.path)}`))
		.map(({ id }) => id);
	return {
		rows,
		gone,
		unread,
		isSame:
			rows.length > 0 &&
			unread.length === 0 &&
			gone.length === 0 &&
			rows.every(({ verdict }) => verdict !== "NOT IN THE TABLE"),
	};
}

/** The string constants of a Go package, by `package.Name`. */
async function constantsIn(folder: string): Promise<Map<string, string>> {
	const constants = new Map<string, string>();
	for (const entry of await readdir(folder, {
		recursive: true,
		withFileTypes: true,
	})) {
		if (!entry.isFile() || !/^(?!.*_test).*\.go$/.test(entry.name)) continue;
		const text = await readFile(
			path.join(entry.parentPath, entry.name),
			"utf8",
		);
		const [, packageName = ""] = /^package (\w+)$/m.exec(text) ?? [];
		for (const [, name, value] of text.matchAll(
			/^\s*(?:const )?(\w+)\s+=\s+"([^"]*)"$/gm,
		))
			constants.set(`${packageName}.${name}`, value ?? "");
	}
	return constants;
}

async function main(version: string): Promise<void> {
	const { stdout } = await promisify(execFile)("go", [
		"mod",
		"download",
		"-json",
		`github.com/ollama/ollama@v${version}`,
	]);
	const { Dir: folder } = JSON.parse(stdout) as { Dir: string };
	const source = await readFile(path.join(folder, "server/routes.go"), "utf8");
	const constants = await constantsIn(path.join(folder, "internal"));
	const comparison = compareRoutes(
		readRoutes(source, (name) => constants.get(name)),
	);
	console.log(
		`Ollama ${version} beside the gate's table (compared last with ${comparedOllama}):\n`,
	);
	for (const { route, verdict } of comparison.rows)
		console.log(
			`${route.method.padEnd(6)} ${route.path.padEnd(44)} ${verdict}`,
		);
	for (const id of comparison.gone)
		console.log(`\n${id} is in the table, and not in this Ollama.`);
	for (const line of comparison.unread)
		console.log(`\nNot understood, look yourself: ${line}`);
	console.log(
		comparison.isSame
			? "\nThe table knows every one of them."
			: "\nThey differ. CONTRIBUTING.md says how a route is added.",
	);
	process.exitCode = comparison.isSame ? 0 : 1;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href)
	await main((process.argv[2] ?? comparedOllama).replace(/^v/, ""));
