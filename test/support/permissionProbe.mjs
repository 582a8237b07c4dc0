import { spawnSync } from "node:child_process";
import fs from "node:fs";
import inspector from "node:inspector";
import { registerHooks } from "node:module";
import { Worker } from "node:worker_threads";

/**
 * Loaded into the daemon itself (`node --import`): waits until the daemon has
 * given up what its start needed, tries what Node is to refuse it from then on,
 * says what came of each, and lets the daemon go on.
 */
const results = {};

/** @param {string} what @param {() => unknown} act */
function attempt(what, act) {
	try {
		act();
		results[what] = "ok";
	} catch (error) {
		results[what] = error.code ?? error.message;
	}
}

/** @param {string} program @param {string[]} args */
function run(program, ...args) {
	const { error } = spawnSync(program, args);
	if (error !== undefined) throw error;
}

// Runs before the first line of each file of a dependency, which in what is published
// stands below a comment with its name.
let dependencies = 0;
globalThis.onDependency = () => {
	const what = "run a program as a dependency that is loaded";
	dependencies++;
	if (results[what] !== "ok")
		attempt(what, () => run("systemd-notify", "--version"));
};
registerHooks({
	load(url, context, next) {
		const loaded = next(url, context);
		return url.includes("/dist/") && loaded.format === "module"
			? {
					...loaded,
					source: `${loaded.source}`
						.replace(
							/^( *)"node_modules\/.*\(.*\) \{$/gm,
							"$&globalThis.onDependency();",
						)
						.replace(
							/^\/\/ node_modules\/.*\n(?!var require_)/gm,
							"$&globalThis.onDependency();",
						),
				}
			: loaded;
	},
});

function probe() {
	results["dependencies were seen"] = dependencies > 50;
	for (const file of [
		"/etc/llamagate/keys.json",
		"/etc/passwd",
		"/proc/self/environ",
		process.execPath,
	])
		attempt(`read ${file}`, () => fs.closeSync(fs.openSync(file)));
	for (const folder of ["/etc/llamagate", "/run/llamagate", "/tmp"])
		attempt(`write in ${folder}`, () =>
			fs.writeFileSync(`${folder}/new`, "new"),
		);
	for (const program of ["systemd-notify", process.execPath])
		attempt(`run ${program}`, () => run(program, "--version"));
	attempt("become another program", () =>
		process.execve(process.execPath, ["node", "--version"]),
	);
	attempt("start a thread", () => new Worker("", { eval: true }));
	attempt("load an addon", () => process.dlopen({ exports: {} }, "/x.node"));
	attempt("be inspected", () => inspector.open(0));
	console.log(JSON.stringify({ msg: "permissionProbe", results }));
}

function waitAndProbe() {
	const { permission } = process;
	if (permission.has("child") || permission.has("fs.write", "/run/llamagate"))
		setTimeout(waitAndProbe, 20);
	else probe();
}

// Other programs of the same container or unit are left alone.
if (process.argv[2] === "serve") waitAndProbe();
