import { spawn } from "node:child_process";
import { access, constants, readdir, readFile, stat } from "node:fs/promises";
import { visible } from "../visible.ts";
import { askedOnce } from "./memo.ts";
import { becomesTrue } from "./waiting.ts";

/** How a program of the host ended. */
export interface Ended {
	/** Its exit code; 127 if it does not exist, 124 if it took too long, 125 if it printed too much. */
	readonly code: number;
	readonly stdout: string;
	readonly stderr: string;
}

/** What is looked at takes no longer; what changes something is given more. */
const defaultTimeoutMs = 30_000;

/** Characters; what is longer was made so on purpose. */
const mostOutputMiB = 16;

/** What a program of a run that was killed is known by. */
const marker = "LLAMAGATE_STARTED_BY_SETUP=1";

/** Found by name in these alone, whatever PATH root was given; output in English, without colours or pager. */
const environment = {
	PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin",
	LC_ALL: "C.UTF-8",
	SYSTEMD_PAGER: "",
	SYSTEMD_COLORS: "0",
	HOME: "/root",
	LLAMAGATE_STARTED_BY_SETUP: "1",
};

interface RunOptions {
	readonly timeoutMs?: number | undefined;
	/** What it is given to read; by default nothing. */
	readonly input?: string;
}

/**
 * Runs a program of the host to its end, once in a look (see inOneLook). No
 * shell takes part, and it never throws: a program that is not there has ended
 * with 127.
 */
export function runProgram(
	command: readonly string[],
	options: RunOptions = {},
): Promise<Ended> {
	return askedOnce(JSON.stringify([command, options]), () =>
		runAnew(command, options),
	);
}

function runAnew(
	[name = "", ...args]: readonly string[],
	{ timeoutMs = defaultTimeoutMs, input }: RunOptions,
): Promise<Ended> {
	return new Promise((resolve) => {
		const child = spawn(name, args, {
			env: environment,
			stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
		});
		// One that ends before it has read all of it says why by its exit code.
		child.stdin?.on("error", () => {}).end(input);
		let stdout = "";
		let stderr = "";
		let killed: { code: number; why: string } | undefined;
		const kill = (code: number, why: string) => {
			killed ??= { code, why };
			child.kill("SIGKILL");
			// What it has started may hold them open, and goes on.
			child.stdout?.destroy();
			child.stderr?.destroy();
		};
		const keep = (kept: string, text: string) => {
			if (kept.length + text.length <= mostOutputMiB * 2 ** 20)
				return kept + text;
			kill(125, `more than ${mostOutputMiB} MiB of output`);
			return kept;
		};
		child.stdout?.setEncoding("utf8").on("data", (text: string) => {
			stdout = keep(stdout, text);
		});
		child.stderr?.setEncoding("utf8").on("data", (text: string) => {
			stderr = keep(stderr, text);
		});
		const timer = setTimeout(
			() => kill(124, `no end after ${timeoutMs / 1000} s`),
			timeoutMs,
		);
		const end = (code: number) => {
			clearTimeout(timer);
			resolve({ code, stdout, stderr });
		};
		child.on("error", ({ message, code }: NodeJS.ErrnoException) => {
			stderr += code === "ENOENT" ? missingProgram(name) : message;
			end(127);
		});
		child.on("close", (code) => {
			if (killed !== undefined) stderr += `${killed.why}\n`;
			end(killed?.code ?? code ?? 1);
		});
	});
}

/**
 * Waits until nothing runs any more that a killed run of this program had
 * started: it would go on changing what is about to be taken back.
 *
 * @returns the process ids of what still runs after a minute
 */
export async function orphansEnd(): Promise<string[]> {
	let pids: string[] = [];
	await becomesTrue(async () => {
		pids = [];
		for (const pid of await readdir("/proc")) {
			if (!/^\d+$/.test(pid)) continue;
			const folder = `/proc/${pid}`;
			// Anybody may give a program of theirs that variable; what counts is root's.
			const owner = await stat(folder).catch(() => undefined);
			if (owner?.uid !== 0) continue;
			const environ = await readFile(`${folder}/environ`, "latin1").catch(
				() => "",
			);
			if (environ.split("\0").includes(marker)) pids.push(pid);
		}
		return pids.length === 0;
	}, 60_000);
	return pids;
}

/** Of programs that a package of another name has. */
const packages: Readonly<Record<string, string>> = {
	nft: "nftables",
	ss: "iproute2",
	ip: "iproute2",
	ip6tables: "iptables",
	"fail2ban-client": "fail2ban",
	"systemd-analyze": "systemd",
	systemctl: "systemd",
	journalctl: "systemd",
};

/** That a program is missing, and how it is had: "nftables is not installed: sudo apt install nftables". */
export function missingProgram(program: string): string {
	const name = packages[program] ?? program;
	return `${name} is not installed: sudo apt install ${name}`;
}

/** What a program printed, or `undefined` if it is missing or failed. */
export async function outputOf(
	...command: readonly string[]
): Promise<string | undefined> {
	const { code, stdout } = await runProgram(command);
	return code === 0 ? stdout : undefined;
}

/** Whether the host has a program of that name. */
export async function hasProgram(name: string): Promise<boolean> {
	for (const folder of environment.PATH.split(":")) {
		const file = `${folder}/${name}`;
		const isProgram = await access(file, constants.X_OK)
			.then(() => stat(file))
			.then(
				(found) => found.isFile(),
				() => false,
			);
		if (isProgram) return true;
	}
	return false;
}

/** What a container is started with is shown by name: a URL or a label may hold a password, too. */
function withoutSecrets(command: readonly string[]): readonly string[] {
	return command.map((word, index) => {
		const isValue = ["-e", "--label"].includes(command[index - 1] ?? "");
		const isPlain = /^(HOST|PORT|OLLAMA_BASE_URL|llamagate\.setup)=[^@]*$/.test(
			word,
		);
		return isValue && !isPlain ? word.replace(/=.*/s, "=...") : word;
	});
}

/** A command as a person would type it into a shell, without what is secret. */
export function formatCommand(command: readonly string[]): string {
	return withoutSecrets(command)
		.map(visible)
		.map((word) =>
			/^[A-Za-z0-9_@%+=:,./-]+$/.test(word)
				? word
				: `'${word.replaceAll("'", "'\\''")}'`,
		)
		.join(" ");
}
