import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import t from "tap";
import { node, temporaryFolder } from "../support/gate.ts";
import { program } from "../support/program.ts";

t.test(
	"keys are made under the permission model that the image sets",
	async (t) => {
		const folder = await temporaryFolder(t);
		const config = path.join(folder, "config.json");
		await writeFile(config, '{ "admin": { "socket": "off" } }', {
			mode: 0o600,
		});
		const image = await readFile("Dockerfile", "utf8");
		const [, entry = ""] = /^ENTRYPOINT (.*)$/m.exec(image) ?? [];
		const flags = (JSON.parse(entry) as string[]).slice(1, -1);
		t.ok(flags.includes("--permission"));
		const [file = "", ...args] = node;
		for (const what of [
			["laptop"],
			["phone"],
			["webui", "--people", "open-webui"],
		]) {
			const { stdout } = await promisify(execFile)(file, [
				...args,
				...flags,
				...[program, "keys", "add", ...what, "--config", config],
			]);
			t.match(stdout, /^lg_[0-9a-f]{64}\n$/);
		}
	},
);
