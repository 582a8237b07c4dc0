import { execFileSync } from "node:child_process";
import { chmod, readFile, stat, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { writePage } from "../../src/commands/writePage.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

t.test("a page is its owner's alone, whatever was there before", async (t) => {
	const folder = await temporaryFolder(t);
	const file = path.join(folder, "page.html");
	for (const before of [undefined, "short", "something longer than the page"]) {
		if (before !== undefined) {
			await writeFile(file, before);
			await chmod(file, 0o644);
		}
		await writePage(file, "<!doctype html>");
		t.equal((await stat(file)).mode & 0o777, 0o600);
		t.equal(await readFile(file, "utf8"), "<!doctype html>");
	}
	const link = path.join(folder, "link.html");
	await symlink(file, link);
	await chmod(file, 0o644);
	await writePage(link, "<p>");
	t.equal((await stat(file)).mode & 0o777, 0o600);
});

t.test("what is no file keeps its mode", async (t) => {
	const pipe = path.join(await temporaryFolder(t), "pipe");
	execFileSync("mkfifo", ["-m", "644", pipe]);
	const [text] = await Promise.all([
		readFile(pipe, "utf8"),
		writePage(pipe, "<p>"),
	]);
	t.equal(text, "<p>");
	t.equal((await stat(pipe)).mode & 0o777, 0o644);
});

t.test("a page that cannot be written is told of", async (t) => {
	const folder = await temporaryFolder(t);
	await t.rejects(writePage(folder, "<p>"), {
		message: `${folder} cannot be written (EISDIR)`,
	});
});
