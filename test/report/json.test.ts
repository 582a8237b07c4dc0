import { readFile } from "node:fs/promises";
import { Ajv } from "ajv";
import t from "tap";
import { formatJson, type JsonReport, toJson } from "../../src/report/json.ts";
import { layers, type Result, severities } from "../../src/report/result.ts";
import {
	hostileHost,
	lockedHost,
	openHost,
	withoutRoot,
} from "../support/exampleResults.ts";

const schema = JSON.parse(
	await readFile(
		new URL("../../docs/report.schema.json", import.meta.url),
		"utf8",
	),
);
const validate = new Ajv({ allErrors: true, strict: true }).compile(schema);

const report = (results: readonly Result[]) =>
	toJson({
		version: "0.1.0",
		at: new Date("2026-03-03T10:11:12Z"),
		target: "mini.tail1a2b.ts.net",
		results,
	});

t.test("what is printed is what the schema says, and reads back", async (t) => {
	for (const results of [[], lockedHost, openHost, withoutRoot, hostileHost]) {
		const printed: unknown = JSON.parse(formatJson(report(results)));
		t.ok(validate(printed), JSON.stringify(validate.errors));
		t.same(printed, report(results));
	}
});

t.test("the schema says no more and no less", async (t) => {
	const { result } = schema.definitions;
	t.same(result.properties.layer.enum, layers);
	t.same(result.properties.severity.enum, severities);
	t.same(result.properties.state.enum, ["ok", "finding", "absent", "unknown"]);
	const whole = report(openHost);
	const first = whole.results[0];
	t.same(Object.keys(whole), Object.keys(schema.properties));
	t.same(
		Object.keys(first ?? {}).toSorted(),
		Object.keys(result.properties).toSorted(),
	);
	for (const name of schema.required)
		t.notOk(validate({ ...whole, [name]: undefined }), name);
	for (const name of result.required)
		t.notOk(
			validate({ ...whole, results: [{ ...first, [name]: undefined }] }),
			name,
		);
	t.ok(validate({ ...whole, results: [first] }));
	t.notOk(validate({ ...whole, results: [{ ...first, state: "pass" }] }));
	t.notOk(validate({ ...whole, at: "yesterday" }));
});

t.test("what a result carries besides stays out", async (t) => {
	const results = lockedHost.map((result) => ({ ...result, key: "lg_secret" }));
	t.notMatch(formatJson(report(results)), "lg_secret");
});

t.test(
	"it is not ok with a critical or high finding, and else it is",
	async (t) => {
		const ok = (change: Partial<Result>) =>
			report(lockedHost.map((result) => ({ ...result, ...change }))).ok;
		t.equal(ok({ state: "finding", severity: "critical" }), false);
		t.equal(ok({ state: "finding", severity: "high" }), false);
		t.equal(ok({ state: "finding", severity: "warn" }), true);
		t.equal(ok({ state: "unknown", severity: "critical" }), true);
		t.equal(report([]).ok, true);
	},
);

t.test("nothing in it steers a terminal", async (t) => {
	const steers: JsonReport = {
		...report(hostileHost),
		target: "\u009b2J\u202e",
	};
	const printed = formatJson(steers);
	t.match(printed, "\\u009b2J\\u202e");
	t.notMatch(printed, /(?!\n)[\p{Cc}\p{Cf}\u2028\u2029]/u);
	t.same(JSON.parse(printed), steers);
});
