import { globSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";

/**
 * The rooms of src/, each above those that it may use. CONTRIBUTING.md has the
 * same list, with what is in them.
 */
const rooms = [
	["main.ts", "serve.ts"],
	["beforeServe.ts"],
	["commands"],
	["dashboard"],
	["host"],
	["doctor"],
	["setup"],
	["probe"],
	["clients"],
	["gate"],
	["queue"],
	["admin"],
	["valkey"],
	["tls"],
	["keys"],
	["tailscale"],
	["system"],
	["netfilter"],
	["upstream"],
	["ledger"],
	["config"],
	["ollama"],
	["report"],
	["net"],
	[
		...[
			"duration.ts",
			"errors.ts",
			"exit.ts",
			"lock.ts",
			"log.ts",
			"nearest.ts",
			"permission.ts",
			"priority.ts",
		],
		...["version.ts", "visible.ts"],
	],
	["packageFolder.ts"],
];

interface Import {
	readonly from: string;
	readonly to: string;
	readonly typeOnly: boolean;
}

const statement =
	/^(?:import|export)\s+(type\s)?(?:[^"';]*?\sfrom\s+)?"(\.[^"]+)"|\bimport\("(\.[^"]+)"\)/gm;

async function importsOf(file: string): Promise<Import[]> {
	const text = await readFile(path.join("src", file), "utf8");
	return [...text.matchAll(statement)].map(([, type, plain, dynamic]) => ({
		from: file,
		to: path.join(path.dirname(file), plain ?? dynamic ?? ""),
		typeOnly: type !== undefined,
	}));
}

async function allImports(): Promise<Import[]> {
	const files = globSync("**/*.ts", { cwd: "src" });
	return (await Promise.all(files.map(importsOf))).flat();
}

const roomOf = (file: string) => file.split("/")[0] ?? "";
const levelOf = (file: string) =>
	rooms.findIndex((names) => names.includes(roomOf(file)));

t.test("every file is in a room of the list", async (t) => {
	const files = globSync("**/*.ts", { cwd: "src" });
	t.ok(files.length > 100);
	t.same(
		files.filter((file) => levelOf(file) < 0),
		[],
	);
});

t.test("no file has more than 400 lines", async (t) => {
	const files = globSync("**/*.ts", { cwd: "src" });
	const lines = await Promise.all(
		files.map(async (file) => {
			const text = await readFile(path.join("src", file), "utf8");
			return text.split("\n").length - 1;
		}),
	);
	t.same(
		files.filter((_, index) => (lines[index] ?? 0) > 400),
		[],
	);
});

t.test("no import runs upwards, not even for a type", async (t) => {
	const imports = await allImports();
	t.ok(imports.length > 500);
	t.same(
		imports
			.filter(
				({ from, to }) =>
					roomOf(from) !== roomOf(to) && levelOf(to) <= levelOf(from),
			)
			.map(({ from, to }) => `${from} uses ${to}`),
		[],
	);
});

t.test("no files import each other in a circle", async (t) => {
	const uses = new Map<string, string[]>();
	// Types are gone when the program runs; within a room two may know each other.
	for (const { from, to, typeOnly } of await allImports())
		if (!typeOnly) uses.set(from, [...(uses.get(from) ?? []), to]);
	const done = new Set<string>();
	const circles: string[] = [];
	const walk = (file: string, way: readonly string[]) => {
		if (way.includes(file))
			circles.push([...way.slice(way.indexOf(file)), file].join(" > "));
		if (done.has(file)) return;
		done.add(file);
		for (const used of uses.get(file) ?? []) walk(used, [...way, file]);
	};
	for (const file of uses.keys()) walk(file, []);
	t.same(circles, []);
});

t.test("CONTRIBUTING.md lists the rooms in this order", async (t) => {
	const text = await readFile("CONTRIBUTING.md", "utf8");
	const listed = [...text.matchAll(/^\| `src\/([^`]+?)\/?` \|/gm)].map(
		([, name]) => name,
	);
	t.same(
		listed,
		rooms.flat().filter((name) => name === "main.ts" || !name.endsWith(".ts")),
	);
});
