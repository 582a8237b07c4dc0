import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import {
	mkdir,
	readdir,
	readFile,
	rename,
	rm,
	statfs,
	writeFile,
} from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { npmBefore, type PinnedClient, pinnedClients } from "./clients.ts";

const run = promisify(execFile);
/** Those of every run take two minutes at most, from an empty npm cache. */
const patienceMs = (client: PinnedClient) =>
	(client.takes === undefined ? 8 : 60) * 60_000;

/** Where a client is kept: a folder a version, so that a new one is another. */
export function folderOf(
	cache: string,
	{ name, version }: PinnedClient,
): string {
	return path.join(cache, "clients", `${name}-${version}`);
}

/**
 * The folder of a client that has been installed.
 *
 * @throws if it is not there, in one line that says how to get it
 */
export function clientFolder(cache: string, name: string): string {
	const client = pinned(name);
	const folder = folderOf(cache, client);
	if (!existsSync(folder))
		throw new Error(
			`${client.package} ${client.version} is not in ${cache}: npm run test:${client.takes === undefined ? "real" : client.name} gets it`,
		);
	return folder;
}

/** A line of the table of clients. */
export function pinned(name: string): PinnedClient {
	const client = pinnedClients.find((one) => one.name === name);
	if (client === undefined) throw new Error(`no client is called ${name}`);
	return client;
}

/**
 * Installs into the cache what it does not have yet, one client after the
 * other. A client is there whole or not at all.
 *
 * @param say is told a line before and after each
 * @throws in one line that says which client could not be had, and why
 */
export async function installClients(
	cache: string,
	say: (line: string) => void,
	clients: readonly PinnedClient[],
): Promise<void> {
	for (const client of clients) {
		const folder = folderOf(cache, client);
		const title = `${client.package} ${client.version}`;
		await checkPrograms(client);
		if (existsSync(folder)) continue;
		await checkRoom(client, cache);
		say(`${title}: installing from ${client.registry}`);
		const startedAt = performance.now();
		const unfinished = `${folder}.unfinished-${process.pid}`;
		await mkdir(unfinished, { recursive: true });
		try {
			if (client.registry === "npm") await installFromNpm(client, unfinished);
			else
				await installFromPyPi(client, unfinished, (step) =>
					say(`${title}: ${step}`),
				);
			await rename(unfinished, folder);
		} catch (error) {
			throw new Error(`${title} cannot be installed: ${reasonOf(error)}`);
		} finally {
			await rm(unfinished, { recursive: true, force: true });
		}
		const seconds = (performance.now() - startedAt) / 1000;
		say(`${title}: installed in ${seconds.toFixed(0)} s`);
	}
}

async function installFromNpm(
	client: PinnedClient,
	folder: string,
): Promise<void> {
	await writeFile(
		path.join(folder, "package.json"),
		JSON.stringify({
			private: true,
			dependencies: { [client.package]: client.version },
		}),
	);
	await run(
		"npm",
		[
			"install",
			"--no-audit",
			"--no-fund",
			"--loglevel=error",
			`--before=${npmBefore}`,
		],
		{ cwd: folder, timeout: patienceMs(client) },
	);
	const lock = JSON.parse(
		await readFile(
			path.join(folder, "node_modules/.package-lock.json"),
			"utf8",
		),
	) as { packages: Record<string, { integrity?: string }> };
	check(client, lock.packages[`node_modules/${client.package}`]?.integrity);
}

async function installFromPyPi(
	client: PinnedClient,
	folder: string,
	say: (step: string) => void,
): Promise<void> {
	// Its programs in bin/ name the path it was made at; all but the interpreter go unused.
	const timeout = patienceMs(client);
	await run("python3", ["-m", "venv", folder], { timeout });
	const pip = (...args: string[]) =>
		run(
			path.join(folder, "bin/python"),
			["-m", "pip", "--disable-pip-version-check", "--quiet", ...args],
			{ timeout },
		);
	const wheels = path.join(folder, "wheel");
	await pip(
		"download",
		"--no-deps",
		"--dest",
		wheels,
		`${client.package}==${client.version}`,
	);
	const [name = ""] = await readdir(wheels);
	const wheel = path.join(wheels, name);
	check(
		client,
		createHash("sha256")
			.update(await readFile(wheel))
			.digest("hex"),
	);
	if (client.takes !== undefined)
		say(`installing what it needs, ${client.takes.gigabytes} GB`);
	await pip(
		"install",
		client.extras === undefined ? wheel : `${wheel}[${client.extras}]`,
	);
	await rm(wheels, { recursive: true });
}

/** Throws in one line where a program is missing that the client takes. */
async function checkPrograms({
	package: name,
	takes,
}: PinnedClient): Promise<void> {
	for (const program of takes?.programs ?? [])
		await run("sh", ["-c", `command -v ${program}`]).catch(() => {
			throw new Error(`${name} takes ${program}, which is not in the PATH`);
		});
}

/** Throws in one line where there is not the Python or the disk that the client takes. */
async function checkRoom(
	{ package: name, takes }: PinnedClient,
	cache: string,
): Promise<void> {
	if (takes === undefined) return;
	const { stdout } = await run("python3", ["--version"]);
	const [, minor] = /^Python 3\.(\d+)/.exec(stdout) ?? [];
	if (!takes.python.includes(Number(minor)))
		throw new Error(
			`${name} takes Python ${takes.python.map((one) => `3.${one}`).join(" or ")}, and python3 is ${stdout.trim()}`,
		);
	const { bavail, bsize } = await statfs(cache);
	const free = (bavail * bsize) / 1e9;
	if (free < takes.gigabytes)
		throw new Error(
			`${name} takes ${takes.gigabytes} GB of the disk, and ${cache} has ${free.toFixed(1)} GB`,
		);
}

function check(client: PinnedClient, found: string | undefined): void {
	if (found !== client.checksum)
		throw new Error(
			`its checksum is ${found ?? "not told"}, and ${client.checksum} was expected`,
		);
}

/** The last line that a program wrote to its standard error says most. */
function reasonOf(error: unknown): string {
	const { stderr, message } = error as { stderr?: string; message: string };
	const lines = (stderr ?? "").trim().split("\n");
	return lines.at(-1) || message.split("\n", 1)[0] || "for no reason told";
}

/** `node test/real/clients/install.ts FOLDER [FILES]`: what the tests in these files are about, or all that npm run test:real takes. */
if (import.meta.main) {
	const [cache = "", ...files] = process.argv.slice(2);
	const names = files.map((file) =>
		path.basename(file).replace(/(\.test)?\.ts$/, ""),
	);
	try {
		await installClients(
			path.resolve(cache),
			(line) => process.stdout.write(`${line}\n`),
			pinnedClients.filter(
				({ name, takes }) =>
					names.includes(name) || (files.length === 0 && takes === undefined),
			),
		);
	} catch (error) {
		process.stderr.write(`${(error as Error).message}\n`);
		process.exitCode = 1;
	}
}
