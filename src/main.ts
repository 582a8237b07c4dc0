#!/usr/bin/env node
import "./beforeServe.ts";
import { type Command, exitCodes, runCommand } from "./commands/command.ts";
import { nearest } from "./nearest.ts";
import { version } from "./version.ts";

const commands: Record<string, () => Promise<Command>> = {
	serve: async () => (await import("./commands/serve.ts")).serve,
	demo: async () => (await import("./commands/demo.ts")).demo,
	check: async () => (await import("./commands/check.ts")).check,
	reload: async () => (await import("./commands/reload.ts")).reload,
	keys: async () => (await import("./commands/keys.ts")).keys,
	connect: async () => (await import("./commands/connect.ts")).connect,
	setup: async () => (await import("./commands/setup.ts")).setup,
	probe: async () => (await import("./commands/probe.ts")).probe,
	doctor: async () => (await import("./commands/doctor.ts")).doctor,
	status: async () => (await import("./commands/status.ts")).status,
	logs: async () => (await import("./commands/logs.ts")).logs,
	policy: async () => (await import("./commands/policy.ts")).policy,
	unlock: async () => (await import("./commands/unlock.ts")).unlock,
};

/** What people type for a command that has another name. */
const otherWords = new Map(
	Object.entries({
		...{ start: "serve", run: "serve", install: "setup", init: "setup" },
		...{ uninstall: "setup --undo", undo: "setup --undo", test: "check" },
		...{ add: "keys add", list: "keys list", revoke: "keys revoke" },
		...{ rotate: "keys rotate", client: "connect", clients: "connect" },
	}),
);

async function help(): Promise<string> {
	const lines = await Promise.all(
		Object.entries(commands).map(
			async ([name, load]) => `  ${name.padEnd(8)}${(await load()).summary}`,
		),
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
		process.stdout.write(await help());
		return name === undefined ? exitCodes.usage : exitCodes.ok;
	}
	if (name === "--version" || name === "-V") {
		process.stdout.write(`${version}\n`);
		return exitCodes.ok;
	}
	const load = Object.hasOwn(commands, name) ? commands[name] : undefined;
	if (load === undefined) {
		const near =
			otherWords.get(name) ?? nearest(name, [...Object.keys(commands), "help"]);
		process.stderr.write(
			`llamagate: there is no command ${JSON.stringify(name)}${near === undefined ? "" : `; did you mean "${near}"?`}\nSee: llamagate --help\n`,
		);
		return exitCodes.usage;
	}
	return runCommand(name, await load(), args);
}

/** Waits until a reader has what was written for it, or has gone away. */
function flushed(stream: NodeJS.WriteStream): Promise<void> {
	return new Promise((resolve) => {
		if (stream.writableLength === 0 || stream.destroyed) return resolve();
		stream.write("", () => resolve());
	});
}

// `| head` reads what it wants and leaves; that is no fault of the program's.
for (const stream of [process.stdout, process.stderr])
	stream.on("error", ({ code }: NodeJS.ErrnoException) => {
		if (code !== "EPIPE") throw new Error(`cannot write: ${code}`);
	});

const code = await main(process.argv.slice(2));
// A pipe takes a long report in pieces, and an exit would cut it off.
await Promise.all([flushed(process.stdout), flushed(process.stderr)]);
// A command that has failed is over, whatever it had opened.
process.exit(code);
