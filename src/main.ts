#!/usr/bin/env node
import "./beforeServe.ts";
import { type Command, runCommand } from "./commands/command.ts";
import { exitCodes } from "./errors.ts";
import { exitAfter } from "./exit.ts";
import { nearest } from "./nearest.ts";
import { version } from "./version.ts";

interface Entry {
	/** One line for the list of commands. */
	readonly summary: string;
	/** What a command needs is loaded only for it. */
	readonly load: () => Promise<Command>;
}

const commands: Record<string, Entry> = {
	serve: {
		summary: "run the gate",
		load: async () => (await import("./commands/serve.ts")).serve,
	},
	demo: {
		summary: "try the gate on this machine, with nothing set up",
		load: async () => (await import("./commands/demo.ts")).demo,
	},
	check: {
		summary:
			"say whether the gate would start, where it would listen, and whether Ollama answers",
		load: async () => (await import("./commands/check.ts")).check,
	},
	reload: {
		summary: "have the running gate read its configuration and keys anew",
		load: async () => (await import("./commands/reload.ts")).reload,
	},
	keys: {
		summary: "make, change, list, rotate and revoke keys",
		load: async () => (await import("./commands/keys.ts")).keys,
	},
	connect: {
		summary: "show how to connect a client, and try it",
		load: async () => (await import("./commands/connect.ts")).connect,
	},
	setup: {
		summary:
			"lock this host: Ollama, the gate, UFW, Open WebUI, sshd, fail2ban",
		load: async () => (await import("./commands/setup.ts")).setup,
	},
	probe: {
		summary:
			"from another device: say whether the gate holds, and how it streams",
		load: async () => (await import("./commands/probe.ts")).probe,
	},
	doctor: {
		summary:
			"look whether this host is closed and the gate open to the right people only",
		load: async () => (await import("./commands/doctor.ts")).doctor,
	},
	status: {
		summary: "say how the running gate does, and what doctor found last",
		load: async () => (await import("./commands/status.ts")).status,
	},
	top: {
		summary: "show who is at work now, and who waits",
		load: async () => (await import("./commands/top.ts")).top,
	},
	dashboard: {
		summary: "serve a live page: who works, who waits, who used what",
		load: async () => (await import("./commands/dashboard.ts")).dashboard,
	},
	logs: {
		summary: "show the gate's log, one line a request",
		load: async () => (await import("./commands/logs.ts")).logs,
	},
	usage: {
		summary: "say who used what: requests, tokens, the GPU's time",
		load: async () => (await import("./commands/usage.ts")).usage,
	},
	ledger: {
		summary: "run the ledger, which keeps who used what",
		load: async () => (await import("./commands/ledger.ts")).ledger,
	},
	policy: {
		summary: "write a tailnet policy for the server, or judge the one you have",
		load: async () => (await import("./commands/policy.ts")).policy,
	},
	unlock: {
		summary: "let an address in again that wrong keys have locked out",
		load: async () => (await import("./commands/unlock.ts")).unlock,
	},
};

/** What people type for a command that has another name. */
const otherWords = new Map(
	Object.entries({
		start: "serve",
		run: "serve",
		install: "setup",
		init: "setup",
		uninstall: "setup --undo",
		undo: "setup --undo",
		test: "check",
		add: "keys add",
		list: "keys list",
		revoke: "keys revoke",
		rotate: "keys rotate",
		client: "connect",
		clients: "connect",
		ps: "top",
		queue: "top",
	}),
);

function help(): string {
	const lines = Object.entries(commands).map(
		([name, { summary }]) => `  ${name.padEnd(10)}${summary}`,
	);
	return `llamagate ${version}: a lock in front of Ollama

Usage: llamagate COMMAND [options]

${lines.join("\n")}

Each command has --help. Try it without setting anything up: llamagate demo
`;
}

async function main([name, ...args]: string[]): Promise<number> {
	if (
		name === undefined ||
		name === "--help" ||
		name === "-h" ||
		name === "help"
	) {
		process.stdout.write(help());
		return name === undefined ? exitCodes.usage : exitCodes.ok;
	}
	if (name === "--version" || name === "-V") {
		process.stdout.write(`${version}\n`);
		return exitCodes.ok;
	}
	const entry = Object.hasOwn(commands, name) ? commands[name] : undefined;
	if (entry === undefined) {
		const near =
			otherWords.get(name) ?? nearest(name, [...Object.keys(commands), "help"]);
		process.stderr.write(
			`llamagate: unknown command ${JSON.stringify(name)}${near === undefined ? "" : `; did you mean "${near}"?`}\nSee: llamagate --help\n`,
		);
		return exitCodes.usage;
	}
	return runCommand(name, await entry.load(), args);
}

await exitAfter(() => main(process.argv.slice(2)));
