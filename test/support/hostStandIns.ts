import { execFile } from "node:child_process";
import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { build } from "esbuild";
import { standInFolder, standInNode } from "./hostPlaces.ts";
import * as docker from "./hostStandIns/dockerState.ts";
import {
	initialState,
	stateFile,
	commands as tailscaleCommands,
	writeState,
} from "./hostStandIns/tailscaleState.ts";

const execute = promisify(execFile);
const project = path.join(import.meta.dirname, "../..");

/** What stands in a host for what cannot be had in a test. */
export interface StandInOptions {
	/**
	 * Ollama as its installer sets it up, which is on loopback; or with the drop-in
	 * by which people open it to their network; or not at all.
	 */
	readonly ollama?: "loopback" | "everywhere" | "none";
	/** Whether there is a tailscaled and a `tailscale`, logged in; by default there is. */
	readonly tailscale?: boolean;
	/**
	 * Docker with Open WebUI as its README starts it, published on all addresses;
	 * or without a container; or, by default, not at all.
	 */
	readonly docker?: "none" | "empty" | "open-webui";
}

/** Those that are started, by their files' names. */
const programs = ["docker", "ollama", "openWebUi", "tailscale", "tailscaled"];

/** Puts the programs into a Debian that is not running and has their Node. They do nothing by themselves. */
export async function copyStandIns(root: string): Promise<void> {
	// In one file each, since they start often: it is a third of a start of many.
	await build({
		absWorkingDir: project,
		entryPoints: programs.map((name) => `test/support/hostStandIns/${name}.ts`),
		outdir: path.join(root, standInFolder),
		outExtension: { ".js": ".mjs" },
		...{ bundle: true, platform: "node", format: "esm" },
	});
	await leaveOutGenerators(root);
}

/**
 * A container has no disks, and none of what these look for. Left in, they take
 * a tenth of the time of a test whose host reloads systemd again and again.
 */
async function leaveOutGenerators(root: string): Promise<void> {
	const folder = path.join(root, "etc/systemd/system-generators");
	await mkdir(folder, { recursive: true });
	for (const name of [
		...["cryptsetup", "integritysetup", "veritysetup", "gpt-auto"],
		...["hibernate-resume", "system-update", "rc-local", "debug", "run"],
		...["fstab", "getty", "sysv"],
	])
		await symlink("/dev/null", path.join(folder, `systemd-${name}-generator`));
}

/** Sets them up as their installers would, in a Debian that has their programs and is not running. */
export async function addStandIns(
	root: string,
	{ ollama = "loopback", tailscale = true, docker = "none" }: StandInOptions,
): Promise<void> {
	if (ollama !== "none") await addOllama(root, ollama === "everywhere");
	if (tailscale) await addTailscale(root);
	if (docker !== "none") await addDocker(root, docker === "open-webui");
}

/** As https://ollama.com/install.sh leaves it. */
async function addOllama(root: string, everywhere: boolean): Promise<void> {
	await write(root, "usr/local/bin/ollama", starting("ollama"), 0o755);
	await execute("chroot", [
		...[root, "useradd", "--system", "--user-group", "--create-home"],
		...["--home-dir", "/usr/share/ollama", "--shell", "/bin/false", "ollama"],
	]);
	await addUnit(
		root,
		"etc/systemd/system/ollama.service",
		`[Unit]
Description=Ollama Service
After=network-online.target

[Service]
ExecStart=/usr/local/bin/ollama serve
User=ollama
Group=ollama
Restart=always
RestartSec=3
Environment="PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

[Install]
WantedBy=default.target
`,
	);
	if (everywhere)
		await write(
			root,
			"etc/systemd/system/ollama.service.d/override.conf",
			`[Service]
Environment="OLLAMA_HOST=0.0.0.0:11434"
Environment="OLLAMA_API_KEY=secret-that-protects-nothing"
`,
		);
}

async function addTailscale(root: string): Promise<void> {
	await write(
		root,
		"usr/bin/tailscale",
		asking(
			tailscaleCommands,
			`exec("/${standInNode}", "/${standInFolder}/tailscale.mjs", @ARGV);`,
		),
		0o755,
	);
	await write(root, "usr/sbin/tailscaled", starting("tailscaled"), 0o755);
	writeState(initialState, path.join(root, stateFile));
	await addUnit(
		root,
		"lib/systemd/system/tailscaled.service",
		`[Unit]
Description=Tailscale node agent
Documentation=https://tailscale.com/docs/
Wants=network-pre.target
After=network-pre.target NetworkManager.service systemd-resolved.service

[Service]
Type=notify
NotifyAccess=all
ExecStart=/usr/sbin/tailscaled
Restart=on-failure
RuntimeDirectory=tailscale
RuntimeDirectoryMode=0755
StateDirectory=tailscale
StateDirectoryMode=0700

[Install]
WantedBy=multi-user.target
`,
	);
}

/** As people start it: https://github.com/open-webui/open-webui, "If Ollama is on your computer". */
const openWebUiCommand = `docker run -d -p 3000:8080 --add-host=host.docker.internal:host-gateway -v open-webui:/app/backend/data --name open-webui --restart always ${docker.openWebUi}`;

async function addDocker(root: string, withOpenWebUi: boolean): Promise<void> {
	await write(
		root,
		"usr/bin/docker",
		asking(
			docker.commands,
			`die("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\\n");`,
		),
		0o755,
	);
	docker.writeState(docker.initialState, path.join(root, docker.stateFile));
	// At its first boot the container is started as by hand, later by its restart policy.
	const first = withOpenWebUi
		? `ExecStartPost=sh -c "docker inspect open-webui >/dev/null 2>&1 || test -e /var/lib/docker-stand-in/started || ${openWebUiCommand}"
ExecStartPost=touch /var/lib/docker-stand-in/started
`
		: "";
	await addUnit(
		root,
		"lib/systemd/system/docker.service",
		`[Unit]
Description=Docker Application Container Engine
Documentation=https://docs.docker.com
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
NotifyAccess=all
ExecStart=/${standInNode} /${standInFolder}/docker.mjs
${first}
[Install]
WantedBy=multi-user.target
`,
	);
}

/** A command that is one of the programs here. */
function starting(program: string): string {
	return `#!/bin/sh
exec /${standInNode} /${standInFolder}/${program}.mjs "$@"
`;
}

/**
 * A command that the one behind a socket answers (answerCommands.ts), who runs
 * already: these are asked often, and Node takes thirty times as long to start.
 *
 * @param otherwise what is done where nobody answers
 */
function asking(socket: string, otherwise: string): string {
	return String.raw`#!/usr/bin/perl
my $answer = "";
socket(my $asked, 1, 1, 0);
if (connect($asked, pack("Sa108", 1, "${socket}"))) {
	my @environment = map { "$_=$ENV{$_}" } keys(%ENV);
	syswrite($asked, join("\0", scalar(@ARGV), @ARGV, @environment));
	shutdown($asked, 1);
	local $/;
	$answer = <$asked>;
}
if ($answer =~ /^(\d+) (\d+)\n(.*)/s) {
	print(STDOUT substr($3, 0, $2));
	print(STDERR substr($3, $2));
	exit($1);
}
${otherwise}
`;
}

/** A unit that starts at boot. */
async function addUnit(
	root: string,
	file: string,
	content: string,
): Promise<void> {
	await write(root, file, content);
	await execute("systemctl", [
		...[`--root=${root}`, "--quiet", "enable", path.basename(file)],
	]);
}

async function write(
	root: string,
	file: string,
	content: string,
	mode = 0o644,
): Promise<void> {
	const target = path.join(root, file);
	await mkdir(path.dirname(target), { recursive: true });
	await writeFile(target, content);
	await chmod(target, mode);
}
