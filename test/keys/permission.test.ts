import { execFile } from "node:child_process";
import { chmod, readFile, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import t from "tap";
import { temporaryFolder } from "../support/gate.ts";
import { program } from "../support/program.ts";

t.test(
	"keys are made under the permission model that the image sets",
	async (t) => {
		const folder = await temporaryFolder(t);
		const config = path.join(folder, "config.json");
		await writeFile(config, '{ "admin": { "socket": "off" } }', {
			mode: 0o600,
		});
		const keysFile = path.join(folder, "keys.json");
		const image = await readFile("Dockerfile", "utf8");
		const [, entry = ""] = /^ENTRYPOINT (.*)$/m.exec(image) ?? [];
		const flags = (JSON.parse(entry) as string[]).slice(1, -1);
		t.ok(flags.includes("--permission"));
		for (const [mode, ...what] of [
			[0o600, "laptop"],
			[0o640, "phone"],
			[0o644, "webui", "--people", "open-webui"],
		] as const) {
			if (mode !== 0o600) await chmod(keysFile, mode);
			const { stdout } = await promisify(execFile)(process.execPath, [
				...flags,
				...[program, "keys", "add", ...what, "--config", config],
			]);
			t.match(stdout, /^lg_[0-9a-f]{64}\n$/);
			t.equal((await stat(keysFile)).mode & 0o777, mode);
		}
	},
);
