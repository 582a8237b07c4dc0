import { readFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { madeOnce } from "./madeOnce.ts";

const root = path.join(import.meta.dirname, "../..");
const store = path.join(os.tmpdir(), "llamagate-nodes");

/** The oldest Node that package.json allows: its program, got from npm by the first who asks. */
export async function oldestNode(): Promise<string> {
	const { engines } = JSON.parse(
		await readFile(path.join(root, "package.json"), "utf8"),
	) as { engines: { node: string } };
	const [minor = ""] = /\d+\.\d+/.exec(engines.node) ?? [];
	const name = `node-linux-${process.arch}`;
	const folder = path.join(store, `${minor}.0-${process.arch}`);
	await madeOnce(
		folder,
		`mkdir "$1"
		cd "$1"
		npm install --no-audit --no-fund --no-save --prefix . "$2"`,
		async () => ({
			args: [`${name}@${minor}.0`],
			environment: process.env,
		}),
	);
	return path.join(folder, "node_modules", name, "bin/node");
}
