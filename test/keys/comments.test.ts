import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { changeKeys } from "../../src/keys/changeKeys.ts";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { temporaryFolder } from "../support/gate.ts";

const digests = { a: "0a", b: "1b", c: "2c" } as const;
const entryOf = (name: keyof typeof digests): KeyEntry => ({
	name,
	sha256: digests[name].repeat(32),
});
const a = JSON.stringify(entryOf("a"));
const b = JSON.stringify(entryOf("b"));

/** What a keys file is once keys have been added or taken out. */
async function change(
	t: Parameters<typeof temporaryFolder>[0],
	text: string,
	how: (keys: readonly KeyEntry[]) => readonly KeyEntry[],
): Promise<string> {
	const file = path.join(await temporaryFolder(t), "keys.json");
	await writeFile(file, text, { mode: 0o600 });
	await changeKeys(file, false, how);
	return await readFile(file, "utf8");
}

const without = (name: string) => (keys: readonly KeyEntry[]) =>
	keys.filter((key) => key.name !== name);
const withC = (keys: readonly KeyEntry[]) => [...keys, entryOf("c")];

const both = `{
  "keys": [
    ${a}, // Anna, left
    ${b} // Bob, keep
  ]
}
`;

t.test("a comment on a key's line goes with that key alone", async (t) => {
	t.equal(
		await change(t, both, without("a")),
		both.replace(`    ${a}, // Anna, left\n`, ""),
	);
	t.equal(
		await change(t, both, without("b")),
		both
			.replace(`${a}, // Anna`, `${a} // Anna`)
			.replace(`\n    ${b} // Bob, keep`, ""),
	);
	t.equal(await change(t, both, () => []), '{\n  "keys": []\n}\n');
});

t.test("a new key stands behind the last one's comment", async (t) => {
	const text = await change(t, both, withC);
	t.ok(text.startsWith(both.slice(0, both.indexOf(" // Bob")).concat(",")));
	t.match(text, /\}, \/\/ Bob, keep\n {4}\{\n {6}"name": "c",/);
});

t.test("a key's comment stays with it when the key is changed", async (t) => {
	const text = await change(t, both, (keys) =>
		keys.map((key) => ({ ...key, share: 2 })),
	);
	t.equal(text, both.replaceAll('"}', '","share":2}').replaceAll('""', '"'));
});

t.test("comments on lines of their own stay, wherever they are", async (t) => {
	for (const text of [
		`{ "keys": [\n  // head\n  ${a},\n  // of b\n  ${b}\n  // end\n] }`,
		`{ "keys": [\n  // head\n  ${a},\n  // of b\n  ${b},\n  // end\n] }`,
		`{ "keys": [ /* head */ ${a}, /* of b */ ${b} ] } // end`,
		`{ "keys": [\r\n\t// head\r\n\t${a}\r\n\t// of b\r\n\t, ${b}] // end\r\n}\r\n`,
	])
		for (const how of [without("a"), without("b"), withC]) {
			const changed = await change(t, text, how);
			const comments = (of: string) => of.match(/head|of b|end\b/g);
			t.strictSame(comments(changed), comments(text), changed);
		}
});
