import { rmSync } from "node:fs";
import { createServer } from "node:net";

/** A command as somebody gave it. */
export interface Command {
	readonly args: string[];
	readonly environment: Readonly<Record<string, string>>;
}

/** How it ends. */
export interface Ending {
	readonly code: number;
	readonly stdout: string;
	readonly stderr: string;
}

/**
 * Answers what commands ask at a socket (hostStandIns.ts): one after another, as if
 * each were a process with a lock.
 *
 * @param answer gives back nothing where that is for the command itself
 */
export function answerCommands(
	socket: string,
	answer: (command: Command) => Promise<Ending | undefined>,
): Promise<void> {
	// Made anew at each start: the one before may have been killed.
	rmSync(socket, { force: true });
	let before: Promise<unknown> = Promise.resolve();
	const server = createServer({ allowHalfOpen: true }, (asker) => {
		// Whoever asked may have been killed; the command is carried out nevertheless.
		asker.on("error", () => {});
		const asked: string[] = [];
		asker.setEncoding("utf8").on("data", (text: string) => asked.push(text));
		asker.on("end", () => {
			before = before
				.then(() => answer(readCommand(asked.join(""))))
				// As if its program had thrown.
				.catch((error: Error) => failure(1, `${error.stack}`))
				.then((ending) => asker.end(ending ? write(ending) : ""));
		});
	});
	return new Promise((resolve) => server.listen(socket, resolve));
}

/** What a command ends with that fails and says why. */
export function failure(code: number, message: string): Ending {
	return { code, stdout: "", stderr: `${message}\n` };
}

function readCommand(text: string): Command {
	const [count = "", ...strings] = text.split("\0");
	const environment = strings.splice(Number(count));
	return {
		args: strings,
		environment: Object.fromEntries(
			environment.map((line) => line.split(/=(.*)/s).slice(0, 2)),
		),
	};
}

function write({ code, stdout, stderr }: Ending): string {
	return `${code} ${Buffer.byteLength(stdout)}\n${stdout}${stderr}`;
}
