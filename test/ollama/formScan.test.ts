import t from "tap";
import { FormScan } from "../../src/ollama/formScan.ts";

const disposition = "Content-Disposition: form-data;";
const modelPart = `--x\r\n${disposition} name="model"\r\n\r\nwhisper\r\n`;
const filePart = (data: string) =>
	`--x\r\n${disposition} name="file"; filename="a"\r\nContent-Type: audio/wav\r\n\r\n${data}\r\n`;
const end = "--x--\r\n";

function read(
	form: string,
	pieceBytes = Number.POSITIVE_INFINITY,
	type = "multipart/form-data; boundary=x",
): string {
	const scan = new FormScan(type);
	const bytes = Buffer.from(form, "latin1");
	for (let at = 0; at < bytes.length; at += pieceBytes)
		scan.push(bytes.subarray(at, Math.min(bytes.length, at + pieceBytes)));
	const result = scan.finish();
	return result.kind === "model" ? `model ${result.value}` : result.message;
}

t.test("a form's model is found, whatever the pieces", async (t) => {
	for (const [form, model] of [
		[modelPart + filePart("sound") + end, "whisper"],
		[filePart("so\r\n-x\r\n--\r\n\r\n--y") + modelPart + end, "whisper"],
		[filePart("") + modelPart + end.trimEnd(), "whisper"],
		[modelPart.replace("whisper", "a\r\n\r\nb") + end, "a\r\n\r\nb"],
		[modelPart.replace("whisper\r\n", "") + end, ""],
	] as const)
		for (const pieceBytes of [1, 2, 3, 4, 5, 7, 50, 1 << 20])
			t.equal(read(form, pieceBytes), `model ${model}`, `${pieceBytes}`);
});

const refused: [string, string, RegExp][] = [
	["two models", modelPart + modelPart + end, /exactly one/],
	["no model", filePart("a") + end, /exactly one/],
	["a preamble", `a\r\n${modelPart}${end}`, /its parts and nothing else/],
	["something behind", `${modelPart}${end}x`, /its parts and nothing else/],
	["no end", modelPart, /its parts and nothing else/],
	["half an end", `${modelPart}--x-`, /its parts and nothing else/],
	["the boundary in a line", filePart("a --x b") + end, /not set apart/],
	["the boundary alone", "--x".repeat(1000), /not set apart/],
	["a space behind it", `${modelPart}--x \r\n`, /not set apart/],
	[
		"the boundary in a head",
		`--x\r\n${disposition} name="--x"\r\n\r\n\r\n${modelPart}${end}`,
		/two ways/,
	],
	["a head without a name", `--x\r\nX: y\r\n\r\n\r\n${end}`, /two ways/],
	[
		"a name in RFC 2231's form",
		`--x\r\n${disposition} name*=utf-8''model\r\n\r\na\r\n${end}`,
		/two ways/,
	],
	[
		"a head without end",
		`--x\r\n${disposition} name="${"a".repeat(5000)}`,
		/more than 4 KiB/,
	],
	[
		"a model without end",
		modelPart.replace("whisper", "w".repeat(5000)) + end,
		/not a name/,
	],
	["parts without end", filePart("").repeat(101), /more than 100 parts/],
];
for (const [what, form, message] of refused)
	t.test(`refused: ${what}`, async (t) => {
		for (const pieceBytes of [1, 3, 64, 1 << 20])
			t.match(read(form, pieceBytes), message, `${pieceBytes}`);
	});

t.test("a hundred parts are a form", async (t) => {
	t.equal(read(filePart("").repeat(99) + modelPart + end), "model whisper");
});

t.test(
	"a Content-Type that could be read in two ways is refused",
	async (t) => {
		for (const type of [
			"multipart/form-data",
			"multipart/form-data; boundary=x; boundary=y",
			"multipart/form-data; boundary*=x; boundary=x",
			"multipart/mixed; boundary=x",
			"application/json",
		])
			t.match(read(modelPart + end, 5, type), /one plain boundary/, type);
	},
);

t.test("nothing is read behind the first thing that is wrong", async (t) => {
	const scan = new FormScan("multipart/form-data; boundary=x");
	t.ok(scan.push(Buffer.from("--x")));
	t.notOk(scan.push(Buffer.from("--x")));
	t.notOk(scan.push(Buffer.from(modelPart)));
	t.match(scan.finish(), { kind: "unclear" });
});
