import { readdir, readFile } from "node:fs/promises";
import t from "tap";

const folder = "test/faults";

/** The names of a file's tests; what changes in one is an ellipsis. */
async function testsIn(file: string): Promise<string[]> {
	const source = await readFile(file, "utf8");
	return [...source.matchAll(/t\.test\(\s*(["`])(.*?)\1,/gs)].map(
		([, , name = ""]) => name.replace(/\$\{[^}]*\}/g, "…"),
	);
}

t.test("docs/faults.md and the tests hold the same promises", async (t) => {
	const page = await readFile("docs/faults.md", "utf8");
	const rows = [
		...page.matchAll(/^\| (?<promise>.*?) \| .* (?<file>test\/\S+) \|$/gm),
	].map(({ groups }) => ({
		promise: groups?.promise ?? "",
		file: groups?.file ?? "",
	}));
	for (const { promise, file } of rows)
		t.ok((await testsIn(file)).includes(promise), `${file}: ${promise}`);
	for (const name of await readdir(folder)) {
		const file = `${folder}/${name}`;
		if (import.meta.filename.endsWith(file)) continue;
		for (const promise of await testsIn(file))
			t.ok(
				rows.some((row) => row.promise === promise && row.file === file),
				`on the page: ${promise}`,
			);
	}
});
