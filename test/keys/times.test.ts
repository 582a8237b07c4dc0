import { stat, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { parseKeys, parseTime } from "../../src/keys/keyFile.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import { runCli, temporaryFolder } from "../support/gate.ts";

const noDays = [
	"2030-02-31T00:00:00Z",
	"2030-02-29T12:00Z",
	"2100-02-29T00:00:00Z",
	"2030-04-31T23:59:59.999+14:00",
	"2030-01-32T00:00:00Z",
	"2030-01-00T00:00:00Z",
	"2030-13-01T00:00:00Z",
];

t.test("a time is on a day that the calendar has", (t) => {
	for (const [text, is] of [
		["2028-02-29T00:00:00Z", "2028-02-29T00:00:00.000Z"],
		["2030-01-01T00:30:00+02:00", "2029-12-31T22:30:00.000Z"],
		["2030-12-31T23:00-02:00", "2031-01-01T01:00:00.000Z"],
		["2030-01-31T24:00:00Z", "2030-02-01T00:00:00.000Z"],
		["0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"],
	] as const)
		t.equal(parseTime(text), Date.parse(is), text);
	for (const text of noDays) t.equal(parseTime(text), undefined, text);
	t.end();
});

t.test("a keys file's mistake in a day is told with its line", (t) => {
	for (const expires of noDays)
		t.throws(
			() =>
				parseKeys(
					`{"keys":[{"name":"a","sha256":"${digestOf("a")}",\n"expires":"${expires}"}]}`,
					"keys.json",
				),
			{ message: /line 2: keys\[0\]\.expires: expected a time such as/ },
			expires,
		);
	t.end();
});

t.test("--expires takes no day that does not exist", async (t) => {
	const folder = await temporaryFolder(t);
	const config = path.join(folder, "config.json");
	await writeFile(config, '{ "admin": { "socket": "off" } }');
	for (const expires of ["2030-02-31", "2030-02-31T00:00:00Z"]) {
		const { code, stderr } = await runCli([
			...["keys", "add", "a", "--expires", expires, "--config", config],
		]);
		t.equal(code, 2, expires);
		t.match(stderr, `--expires ${expires} is neither a duration`);
	}
	await t.rejects(stat(path.join(folder, "keys.json")), { code: "ENOENT" });
});
