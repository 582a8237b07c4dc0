import { readdirSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import {
	matches,
	parseScript,
	runScript,
	withOutputs,
} from "./support/cliScript.ts";
import { program } from "./support/program.ts";

/** The command line by scripts: commands and what they say. `TAP_SNAPSHOT=1` writes that anew. */
const folder = path.join(import.meta.dirname, "cli");
const llamagate = [process.execPath, path.resolve(program)];

for (const file of readdirSync(folder).sort()) {
	const place = path.join(folder, file);
	const text = await readFile(place, "utf8");
	const script = parseScript(text);
	t.test(script.name, async (t) => {
		const outputs = await runScript(t, script, llamagate);
		if (process.env.TAP_SNAPSHOT === "1") {
			await writeFile(place, withOutputs(script, outputs, text));
			return;
		}
		for (const [index, { command, expected }] of script.steps.entries()) {
			const output = outputs[index] ?? [];
			if (matches(output, expected)) t.pass(command);
			else t.strictSame(output, expected, `${file}: ${command}`);
		}
	});
}

t.test("a script's lines stand for what they say", async (t) => {
	const { name, steps, files } = parseScript(
		"# Shows it.\n\n$ a b\none\n\n# two\n! three\n= 2\n\n# And then:\n$ c\n\n-- f --\nx\n",
	);
	t.equal(name, "Shows it");
	t.strictSame(
		steps.map(({ command, expected }) => [command, ...expected]),
		[["a b", "one", "", "# two", "! three", "= 2"], ["c"]],
	);
	t.strictSame(files, [{ name: "f", text: "x\n" }]);
	for (const [output, expected, good] of [
		[["a 1 b"], ["a [..] b"], true],
		[["a 1 b", "c"], ["a [..] b"], false],
		[["x", "y", "z"], ["...", "z"], true],
		[["x", "y", "z"], ["x", "..."], true],
		[["x.z"], ["x?z"], false],
		[[], ["= 1"], false],
	] as const)
		t.equal(matches(output, expected), good, expected.join("|"));
});
