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
		[modelPart.replace("whisper", "") + end, ""],
	] as const)
		for (const pieceBytes of [1, 2, 3, 4, 5, 7, 50, 1 << 20])
			t.equal(read(form, pieceBytes), `model ${model}`, `${pieceBytes}`);
});

/** How libraries write `model` and a file; parts that one of them writes are not the others'. */
const libraries: [library: string, boundary: string, ...heads: string[]][] = [
	[
		"Dart's http",
		"dart-http-boundary-Qx.+aZ0_-k3Wc1.pL8+vRt5yUe2oNb7mGh4jFd9sXzQwErTyUiO",
		'content-disposition: form-data; name="model"',
		'content-type: audio/wav\r\ncontent-disposition: form-data; name="file"; filename="a.wav"',
	],
	[
		"Alamofire",
		"alamofire.boundary.b990eade8c5319d6",
		`${disposition} name="model"`,
		`${disposition} name="file"; filename="a.wav"\r\nContent-Type: audio/wav`,
	],
	[
		".NET",
		'"0b7f2a6e-9c1d"',
		`Content-Type: text/plain; charset=utf-8\r\n${disposition} name=model`,
		`${disposition} name=file; filename=a.wav; filename*=utf-8''a.wav`,
	],
	[
		"OpenAI's for .NET",
		'"7=QkZ_ab3"',
		`${disposition} name=model`,
		`${disposition} name=file; filename="a b.wav"; filename*=utf-8''a%20b.wav`,
	],
	[
		"Qt",
		'"boundary_.oOo._MTg0Nz/k1+Q=="',
		`${disposition} name="model"`,
		`Content-Type: audio/wav\r\n${disposition} name="file"; filename="a.wav"`,
	],
	[
		"Ktor, OkHttp 4 and Guzzle",
		"6a2d41f8",
		`${disposition} name="model"\r\nContent-Length: 7`,
		`${disposition} name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\nContent-Length: 5`,
	],
	[
		"Retrofit",
		"6a2d41f8",
		`${disposition} name="model"\r\nContent-Transfer-Encoding: binary\r\nContent-Type: multipart/form-data; charset=utf-8\r\nContent-Length: 7`,
		`${disposition} name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\nContent-Length: 5`,
	],
	[
		"Apache's HttpClient",
		"gT9-x_; charset=UTF-8",
		`${disposition} name="model"\r\nContent-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: 8bit`,
		`${disposition} name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\nContent-Transfer-Encoding: binary`,
	],
	[
		"urllib3",
		"0a1b2c",
		`${disposition} name="model"`,
		`${disposition} name="file"; filename*=utf-8''%C3%BC.wav`,
	],
];
for (const [library, parameter, ...heads] of libraries)
	t.test(`the form of ${library} is read`, async (t) => {
		const boundary = parameter.replace(/;.*|"/g, "");
		const form = heads
			.map(
				(head, at) =>
					`--${boundary}\r\n${head}\r\n\r\n${["whisper", "sound"][at]}\r\n`,
			)
			.join("");
		for (const pieceBytes of [1, 2, 3, 5, 50, 1 << 20])
			t.equal(
				read(
					`${form}--${boundary}--\r\n`,
					pieceBytes,
					`multipart/form-data; boundary=${parameter}`,
				),
				"model whisper",
				`${pieceBytes}`,
			);
	});

t.test("a Content-Type may say UTF-8, as Spring's does", async (t) => {
	t.equal(
		read(modelPart + end, 5, "multipart/form-data;charset=UTF-8;boundary=x"),
		"model whisper",
	);
});

t.test("a part is as long as it says", async (t) => {
	const saying = (length: string, data: string) =>
		`--x\r\n${disposition} name="file"\r\nContent-Length: ${length}\r\n\r\n${data}--x\r\n${disposition} name="model"\r\n\r\nw\r\n${end}`;
	for (const pieceBytes of [1, 2, 3, 4, 6, 1 << 20]) {
		for (const [length, data] of [
			["5", "sound\r\n"],
			["7", "\r\n-\r\n--\r\n"],
			["0", "\r\n"],
		] as const)
			t.equal(read(saying(length, data), pieceBytes), "model w", data);
		for (const length of ["0", "4", "6", "7", "900"])
			t.match(read(saying(length, "sound\r\n"), pieceBytes), /not as long/);
	}
	for (const length of ["05", "+5", "5 ", "0x5", "5, 5", "", "1".repeat(16)])
		t.match(read(saying(length, "sound\r\n")), /two ways/, length);
});

/** Heads of which one reader or another would make something else than the others do. */
const doubtful: [what: string, head: string, message?: RegExp][] = [
	[
		"quoted-printable",
		`${disposition} name="a"\r\nContent-Transfer-Encoding: quoted-printable`,
	],
	["base64", `${disposition} name="a"\r\nContent-Transfer-Encoding: base64`],
	[
		"two codings",
		`${disposition} name="a"\r\nContent-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: 8bit`,
	],
	[
		"two lengths",
		`${disposition} name="a"\r\nContent-Length: 1\r\nContent-Length: 1`,
	],
	[
		"two types",
		`${disposition} name="a"\r\nContent-Type: a/b\r\nContent-Type: a/b`,
	],
	["two dispositions", `${disposition} name="a"\r\n${disposition} name="a"`],
	["a packed part", `${disposition} name="a"\r\nContent-Encoding: gzip`],
	[
		"parts within the part",
		`${disposition} name="a"\r\nContent-Type: multipart/mixed; Boundary=y`,
	],
	["a line that goes on", `${disposition} name="a";\r\n name="b"`],
	["a control character", `${disposition} name="a"; filename="\x0b"`],
	["a length in front of nothing", `Content-Length: 1`],
	["an unquoted name with more", `${disposition} name=a b`],
	["an unquoted name with quotes in it", `${disposition} name=a"b"`],
	["an unquoted name with a star", `${disposition} name=utf-8''model`],
	["two names", `${disposition} name=a; name=b`],
	["a name behind the file's", `${disposition} filename=a; name=b`],
	["a file called model", `${disposition} name=a; filename="model"`],
	["a slash in front", `${disposition} name="/model"`],
	["a semicolon in a name", `${disposition} name="a; name=model"`],
	["an encoded word", `${disposition} name="=?utf-8?q?model?="`],
	["a name with quotes within", `${disposition} name="a\\"b"`],
	[
		"a file's name in Latin-1",
		`${disposition} name="a"; filename*=iso-8859-1''a`,
	],
	["a file's name in pieces", `${disposition} name="a"; filename*0=a`],
	[
		"a file's quoted name in UTF-8",
		`${disposition} name="a"; filename*="utf-8''a"`,
	],
	["names in capitals", `Content-Disposition: form-data; NAME="a"`],
	["the charset of all others", `${disposition} name="_charset_"`],
	[
		"a model in UTF-7",
		`${disposition} name="model"\r\nContent-Type: text/plain; charset=utf-7`,
	],
	[
		"a model in two charsets",
		`${disposition} name="model"\r\nContent-Type: a; charset=utf-8; charset=utf-7`,
	],
	[
		"a model that is a file",
		`${disposition} name="model"; filename=a`,
		/exactly one/,
	],
	[
		"a model that is a file by its other name",
		`${disposition} name="model"; filename*=utf-8''a`,
		/exactly one/,
	],
	["one of several models", `${disposition} name="model[]"`, /exactly one/],
	["Model", `${disposition} name=Model`, /exactly one/],
];
for (const [what, head, message = /two ways/] of doubtful)
	t.test(`a head is refused: ${what}`, async (t) => {
		const part = `--x\r\n${head}\r\n\r\na\r\n`;
		t.match(read(part + modelPart + end), message, "in front of the model");
		t.match(read(modelPart + part + end), message, "behind it");
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
	[
		"an empty part without a line's end",
		`--x\r\n${disposition} name="a"\r\n\r\n${modelPart}${end}`,
		/not set apart/,
	],
	[
		"an empty part that says so, without a line's end",
		`--x\r\n${disposition} name="a"\r\nContent-Length: 0\r\n\r\n${modelPart}${end}`,
		/not set apart/,
	],
	[
		"an empty model without a line's end",
		modelPart.replace("whisper\r\n", "") + end,
		/not set apart/,
	],
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
			"multipart/form-data; boundary=x; charset=utf-7",
			"multipart/form-data; charset=utf-8; charset=utf-7; boundary=x",
			"multipart/form-data; boundary=x=",
			"multipart/form-data; boundary=x/y",
			'multipart/form-data; boundary="x',
			'multipart/form-data; boundary="x y"',
			'multipart/form-data; boundary="=?utf-8?q?x?="',
			'multipart/form-data; boundary="x(y)"',
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
