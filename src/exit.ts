/**
 * Ends the process with the exit code that a run comes to, when its readers have
 * what was written for them.
 */
export async function exitAfter(run: () => Promise<number>): Promise<never> {
	// `| head` reads what it wants and leaves; that is not the program's fault.
	for (const stream of [process.stdout, process.stderr])
		stream.on("error", ({ code }: NodeJS.ErrnoException) => {
			if (code !== "EPIPE") throw new Error(`cannot write: ${code}`);
		});
	const code = await run();
	// A pipe takes a long report in pieces, and an exit would cut it off.
	await Promise.all([flushed(process.stdout), flushed(process.stderr)]);
	// A command that has failed is over, whatever it had opened.
	process.exit(code);
}

/** Waits until a reader has what was written for it, or has gone away. */
function flushed(stream: NodeJS.WriteStream): Promise<void> {
	return new Promise((resolve) => {
		if (stream.writableLength === 0 || stream.destroyed) return resolve();
		stream.write("", () => resolve());
	});
}
