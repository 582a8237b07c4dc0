import t from "tap";
import { chainsOf, guardTables } from "../../src/system/guard.ts";

const chain =
	'{"chain":{"family":"inet","table":"llamagate","name":"input","type":"filter","hook":"input","prio":-10,"policy":"accept"}}';
const table = '{"table":{"family":"inet","name":"llamagate","handle":1}}';
const listed = { code: 0, stdout: `{"nftables":[${table},${chain}]}` };
const written = (lines = "") => ({
	code: 0,
	stdout: `table inet llamagate {\n${lines}\tchain input {\n\t}\n}\n`,
});

t.test("a table that goes while nft lists it holds nothing", (t) => {
	const gone = { code: 1, stdout: "" };
	const nothing = { code: 0, stdout: "" };
	t.strictSame(chainsOf(nothing, written()), []);
	t.strictSame(chainsOf({ code: 0, stdout: '{"nftables": [' }, written()), []);
	t.strictSame(chainsOf(gone, gone), []);
	t.strictSame(chainsOf(listed, gone), []);
	t.strictSame(chainsOf(listed, nothing), []);
	t.equal(chainsOf(listed, written()).length, 1);
	t.end();
});

t.test("a table that sleeps holds nothing", (t) => {
	t.strictSame(chainsOf(listed, written("\tflags dormant\n")), []);
	t.strictSame(chainsOf(listed, written("\tflags owner,dormant\n")), []);
	t.equal(chainsOf(listed, written("\tflags owner\n")).length, 1);
	t.end();
});

t.test("the follower's own table is known by any name of its", (t) => {
	const names = (...tables: string[]) =>
		guardTables(tables.map((table) => `table inet ${table}\n`).join(""));
	t.strictSame(names("mine", "llamagate", "llamagate_held_4be90af1"), [
		"llamagate",
		"llamagate_held_4be90af1",
	]);
	t.strictSame(names("llamagate_held"), ["llamagate_held"], "the older one");
	t.strictSame(names("my_llamagate", "llamagate2", "llamagate_heldfast"), []);
	t.end();
});
