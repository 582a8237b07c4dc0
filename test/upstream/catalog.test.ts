import assert from "node:assert/strict";
import fc from "fast-check";
import t from "tap";
import {
	isVersion,
	modelKey,
	readCatalog,
	readLoaded,
} from "../../src/upstream/hosts/catalog.ts";

t.test("a list says what there is, by any name of it", async (t) => {
	const catalog = readCatalog(
		'{"models":[{"name":"qwen3:8b","digest":"abc","size":1},{"name":"Small","digest":"def"}]}',
		"ollama",
	);
	t.equal(catalog?.get(modelKey("qwen3:8b")), "abc");
	t.equal(
		catalog?.get(modelKey("registry.ollama.ai/library/small:latest")),
		"def",
	);
	t.equal(catalog?.get(modelKey("qwen3:4b")), undefined);
	t.strictSame(
		readLoaded('{"models":[{"name":"small:latest","digest":"def"}]}'),
		new Set(["def"]),
	);
});

t.test(
	"a cloud model is none of this host's that is called alike",
	async (t) => {
		t.not(modelKey("gpt-oss:20b-cloud"), modelKey("gpt-oss:20b"));
	},
);

t.test(
	"a server of OpenAI's calls may call its models as it likes",
	async (t) => {
		const catalog = readCatalog(
			'{"object":"list","data":[{"id":"/models/Smol.gguf"},{"id":"smol"}]}',
			"openai",
		);
		t.strictSame([...(catalog?.keys() ?? [])], ["/models/Smol.gguf", "smol"]);
	},
);

t.test("what is not a list is not read as one", async (t) => {
	for (const text of [
		"",
		"null",
		"[]",
		"{}",
		"<html>",
		'{"models":{}}',
		'{"models":[null]}',
		'{"models":["qwen3"]}',
		'{"models":[{"name":7}]}',
		'{"models":[{"name":""}]}',
		`{"models":[{"name":"${"x".repeat(513)}"}]}`,
		JSON.stringify({
			models: Array.from({ length: 10_001 }, () => ({ name: "a" })),
		}),
	]) {
		t.equal(readCatalog(text, "ollama"), undefined, text.slice(0, 40));
		t.equal(readLoaded(text), undefined);
	}
	t.equal(readCatalog('{"models":null}', "ollama")?.size, 0, "Go's empty list");
});

t.test("a version is one of letters, digits and dots", async (t) => {
	t.ok(isVersion('{"version":"0.32.15-rc1+x"}'));
	for (const text of [
		"{}",
		"",
		'{"version":7}',
		'{"version":"a b"}',
		`{"version":"${"1".repeat(65)}"}`,
	])
		t.notOk(isVersion(text), text);
});

t.test("no reply makes the reader throw", async (t) => {
	const anything = fc.oneof(
		fc.string(),
		fc.json(),
		fc.json().map((text) => `{"models":[${text}]}`),
	);
	fc.assert(
		fc.property(anything, (text) => {
			for (const kind of ["ollama", "openai"] as const) {
				const catalog = readCatalog(text, kind);
				for (const [key, file] of catalog ?? [])
					assert.ok(key !== "" && file !== "");
			}
			readLoaded(text);
			isVersion(text);
		}),
		{ numRuns: 2_000 },
	);
	t.pass();
});
