import { execFileSync } from "node:child_process";
import { globSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { requireTool } from "./support/tools.ts";

const scripts = globSync("findings/*.sh");

t.test("shellcheck finds nothing in the findings", async (t) => {
	if (!requireTool(t, "shellcheck")) return;
	const files = ["findings/run", "findings/finding.bash", ...scripts];
	t.equal(
		execFileSync("shellcheck", ["--external-sources", ...files], {
			encoding: "utf8",
		}),
		"",
	);
});

t.test("each finding has its line in the README, and no other", async (t) => {
	const readme = await readFile("findings/README.md", "utf8");
	t.strictSame(
		[...readme.matchAll(/^\| `(\S+)` \|/gm)].map(([, name]) => name).sort(),
		scripts.map((file) => path.basename(file, ".sh")).sort(),
	);
});
