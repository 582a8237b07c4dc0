import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";

/**
 * Loaded before the program: kills it, without a warning, before the step with
 * the number in KILL_AT_STEP. A step is what changes a file or a folder, or half
 * of it where it can be half done.
 */
const wanted = Number(process.env.KILL_AT_STEP);
let steps = 0;

function step() {
	steps += 1;
	if (steps === wanted) process.kill(process.pid, "SIGKILL");
}

/** @param {Record<string, Function>} owner @param {string} name */
function watch(owner, name) {
	const real = owner[name];
	owner[name] = async function (...args) {
		step();
		return real.apply(this, args);
	};
}

const handle = await fs.open(import.meta.filename);
const FileHandle = Object.getPrototypeOf(handle);
await handle.close();
for (const name of ["chown", "chmod", "sync"]) watch(FileHandle, name);
const { writeFile } = FileHandle;
FileHandle.writeFile = async function (text) {
	step();
	const half = text.length >> 1;
	await writeFile.call(this, text.slice(0, half));
	step();
	await writeFile.call(this, text.slice(half));
};
for (const name of ["open", "rename", "link", "unlink"]) watch(fs, name);
syncBuiltinESMExports();
