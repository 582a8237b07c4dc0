import { defaultConfigPath, loadConfig } from "../config/load.ts";
import { exitCodes, Finding } from "../errors.ts";
import { openLedger } from "../ledger/server.ts";
import { createLog, endProcess, standardOutput } from "../log.ts";
import { type Command, readArgs } from "./command.ts";

export const ledger: Command = {
	help: `
Usage: llamagate ledger [--config FILE]

Runs the ledger until it is told to stop: it takes the gate's records of who
used what on ledger.socket, keeps them in ledger.file, and answers "llamagate
usage". The gate serves with or without it. Its log goes to standard output,
one JSON object a line. No prompt and no reply is ever in it.

  -c, --config FILE  the configuration (default: ${defaultConfigPath}), which
                     needs a section "ledger"

SIGTERM  closes the file and ends

Exit codes: 0 stopped as told, 1 it cannot have the file or the socket, 2 usage,
78 bad configuration

Example: llamagate ledger --config /etc/llamagate/config.json
`,
	async run(args) {
		const { values } = readArgs(args, {
			config: { type: "string", short: "c", default: defaultConfigPath },
		});
		process.title = "llamagate-ledger";
		// What it makes is nobody else's to read; it tells the socket's group more.
		process.umask(0o077);
		const { promise: stopped, resolve: stop } = Promise.withResolvers<void>();
		process.on("SIGTERM", () => stop());
		process.on("SIGINT", () => stop());
		const settings = await loadConfig(values.config);
		if (settings.ledger === undefined)
			throw new Finding(
				`${values.config} has no section "ledger", so nothing is kept; add "ledger": {}`,
			);
		const sink = standardOutput();
		const log = createLog(settings.logLevel, sink);
		const opened = await openLedger(settings.ledger, log);
		await stopped;
		await opened.close();
		await endProcess(sink);
		return exitCodes.ok;
	},
};
