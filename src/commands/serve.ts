import { bridgesVariable } from "../config/bridges.ts";
import { defaultConfigPath } from "../config/load.ts";
import { Finding } from "../errors.ts";
import { startDaemon } from "../gate/daemon.ts";
import { partingMs } from "../gate/drain.ts";
import { loadRules } from "../gate/rules.ts";
import { endProcess, standardOutput } from "../log.ts";
import { ListenError } from "../net/listener.ts";
import { giveUp } from "../permission.ts";
import { describePortHolder } from "../system/portHolder.ts";
import { type Command, readArgs } from "./command.ts";

/** Why it cannot listen, and who is there already. */
export async function explainListenError({
	message,
	takenPort,
}: ListenError): Promise<string> {
	return takenPort === undefined
		? message
		: `${message}. It is held by ${await describePortHolder(takenPort)}`;
}

export const serve: Command = {
	help: `
Usage: llamagate serve [--config FILE]

Runs the gate until it is told to stop. Its log goes to standard output, one
JSON object a line.

  -c, --config FILE  the configuration (default: ${defaultConfigPath})

SIGHUP   reads configuration and keys anew; a broken file changes nothing
SIGTERM  stops accepting, lets streams finish for drainTimeout, then cuts them;
         a second one does not wait

Exit codes: 0 stopped as told, 1 cannot listen, 2 usage, 78 bad configuration

Example: llamagate serve --config /etc/llamagate/config.json
`,
	async run(args) {
		const { values } = readArgs(args, {
			config: { type: "string", short: "c", default: defaultConfigPath },
		});
		// What ss, top and systemctl show is "MainThread" otherwise.
		process.title = "llamagate";
		const sink = standardOutput();
		// Signals are heard from the start: one that comes while files are read must not be lost.
		const { promise: stopped, resolve: stop } = Promise.withResolvers<void>();
		let stopping = false;
		const onStop = () => {
			if (stopping) void endProcess(sink);
			stopping = true;
			stop();
		};
		process.on("SIGTERM", onStop);
		process.on("SIGINT", onStop);
		let isToldEarly = false;
		let reload = () => {
			isToldEarly = true;
		};
		process.on("SIGHUP", () => reload());

		const daemon = await startDaemon(
			() => loadRules(values.config, process.env[bridgesVariable]),
			sink,
		).catch(async (error: unknown) => {
			throw error instanceof ListenError
				? new Finding(await explainListenError(error))
				: error;
		});
		// The admin socket is made; what comes now is read.
		giveUp("fs.write");
		reload = () => void daemon.reload();
		if (isToldEarly) reload();
		await stopped;
		await daemon.stop(partingMs);
		// Nothing is left to do; whatever a client still holds open does not keep the process.
		return endProcess(sink);
	},
};
