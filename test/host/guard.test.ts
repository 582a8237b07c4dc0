import { chmod, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { readGuard } from "../../src/host/guard.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

t.test("a table that goes while nft lists it holds nothing", async (t) => {
	const folder = await temporaryFolder(t);
	const nft = path.join(folder, "nft");
	await writeFile(nft, "#!/bin/sh\nexit 0\n");
	await chmod(nft, 0o755);
	const before = process.env.PATH;
	process.env.PATH = `${folder}:${before}`;
	t.teardown(() => {
		process.env.PATH = before;
	});
	const guard = await readGuard();
	t.strictSame(
		guard.holding({ protocol: "tcp", address: "100.101.102.104", port: 11434 }),
		[],
	);
});
