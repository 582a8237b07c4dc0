import { styleText } from "node:util";
import t from "tap";
import { formatTable } from "../../src/report/table.ts";

t.test("columns are as wide as their widest cell, without its colour", (t) => {
	const red = styleText("red", "bad", { validateStream: false });
	t.equal(
		formatTable(
			["NAME", "STATE"],
			[
				["a", red],
				["longer", "good"],
			],
		),
		`NAME    STATE\na       ${red}\nlonger  good\n`,
	);
	t.equal(formatTable(["NAME"], []), "NAME\n");
	t.end();
});

t.test("a table takes any number of rows", (t) => {
	const rows = Array.from({ length: 200_000 }, (_, at) => [`row${at}`, "x"]);
	const lines = formatTable(["NAME", "X"], rows).split("\n");
	t.equal(lines.length, 200_002);
	t.equal(lines[0], "NAME       X");
	t.end();
});
