import asyncHooks from "node:async_hooks";
import { existsSync, readFileSync } from "node:fs";
import { registerHooks, syncBuiltinESMExports } from "node:module";
import { pathToFileURL } from "node:url";

/**
 * Loaded into every test before anything else (.taprc): what a test and the
 * programs that it starts find around them is the same in a terminal, over
 * SSH, under cron and in CI. A variable that is not named here does not reach them.
 */
const kept = [
	// To find programs, folders and, by way of a proxy, registries.
	/^(PATH|HOME|TMPDIR|XDG_RUNTIME_DIR|SSL_CERT_(FILE|DIR)|NODE_EXTRA_CA_CERTS)$/,
	/^((https?|no|all)_proxy|npm_.*)$/i,
	// Of the test runner.
	/^(TAP|_TAPJS_)/,
	// What a person tells the tests.
	/^(CI|LLAMAGATE_(AHEAD|DEB|PROGRAM|REAL|RESULTS|VALKEY)|NODE_COMPILE_CACHE)$/,
	/^(FIREWALL|FUZZ|SOAK)_/,
];
for (const name of Object.keys(process.env))
	if (!kept.some((pattern) => pattern.test(name))) delete process.env[name];
Object.assign(process.env, { LC_ALL: "C.UTF-8", TERM: "dumb", TZ: "UTC" });
process.umask(0o022);

// By a hook on each promise of a process tap finds the test that an error belongs to
// which nobody has caught. Without, such an error ends the file, which fails as well,
// and a test of many promises takes a tenth less CPU.
asyncHooks.createHook = () => {
	const hook = { enable: () => hook, disable: () => hook };
	return hook;
};
syncBuiltinESMExports();

// tap notes which files each process of a test loads, in children by NODE_OPTIONS, and
// reads their source maps. That is for `--changed` and coverage, which nobody asks for
// here, and more than half of the CPU that a test file takes to start. It also changed
// what a Node of other people's does when it is interrupted.
const notes = /[/]@tapjs[/]processinfo[/]dist[/]esm[/]import\.mjs$/;
process.setSourceMapsEnabled(false);
process.setSourceMapsEnabled = () => {};

// Made by test/run (test/ahead.ts); without it all is loaded as it was installed and written.
const { LLAMAGATE_AHEAD: ahead } = process.env;
const entries = new Map(
	ahead === undefined
		? []
		: Object.entries<string>(
				JSON.parse(readFileSync(`${ahead}/entries.json`, "utf8")),
			),
);
const root = new URL("../..", import.meta.url).href;
registerHooks({
	resolve(specifier, context, resolve) {
		if (notes.test(specifier))
			return { url: "data:text/javascript,", shortCircuit: true };
		const entry = entries.get(specifier);
		return entry === undefined
			? resolve(specifier, context)
			: { url: pathToFileURL(`${ahead}/${entry}`).href, shortCircuit: true };
	},
	load(url, context, load) {
		if (ahead === undefined || !url.endsWith(".test.ts"))
			return load(url, context);
		const stripped = `${ahead}/${url.slice(root.length)}`;
		if (!existsSync(stripped)) return load(url, context);
		const source = readFileSync(stripped, "utf8");
		return { format: "module", source, shortCircuit: true };
	},
});
