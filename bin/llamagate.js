#!/usr/bin/env node
// The published package has dist/; a checkout has src/, which Node runs as it is.
import { existsSync } from "node:fs";

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < 22 || (major === 22 && minor < 19)) {
	process.stderr.write(
		`llamagate needs Node 22.19 or newer; this is ${process.version}.\n` +
			"In a checkout, npm brings its own: npm run llamagate -- --help\n",
	);
	process.exit(1);
}
const source = new URL("../src/main.ts", import.meta.url);
// The daemon has a file of its own, with nothing in it that it does not need.
const built = process.argv[2] === "serve" ? "serve" : "main";
await import(
	existsSync(source)
		? source.href
		: new URL(`../dist/${built}.js`, import.meta.url).href
);
