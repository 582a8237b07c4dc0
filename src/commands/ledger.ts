import { defaultConfigPath, loadConfig } from "../config/load.ts";
import { exitCodes, Finding } from "../errors.ts";
import { loadAlarmTargets } from "../ledger/alarms/targets.ts";
import { tryAlarmsOf } from "../ledger/ask.ts";
import { openLedger } from "../ledger/server.ts";
import { createLog, endProcess, standardOutput } from "../log.ts";
import { visible } from "../visible.ts";
import { type Command, readArgs } from "./command.ts";

export const ledger: Command = {
	help: `
Usage: llamagate ledger [--config FILE]
       llamagate ledger --test-alarm [--config FILE]

Runs the ledger until it is told to stop: it takes the gate's records of who
used what on ledger.socket, keeps them in ledger.file, and answers "llamagate
usage". The gate serves with or without it. Its log goes to standard output,
one JSON object a line. No prompt and no reply is ever in it.

  -c, --config FILE  the configuration (default: ${defaultConfigPath}), which
                     needs a section "ledger"
  --test-alarm       has the running ledger send a message to each of "alarms",
                     and says whether it arrived

SIGTERM  closes the file and ends

Exit codes: 0 stopped as told, 1 it cannot have the file or the socket, or a
message did not arrive, 2 usage, 78 bad configuration

Example: llamagate ledger --config /etc/llamagate/config.json
`,
	async run(args) {
		const { values } = readArgs(args, {
			config: { type: "string", short: "c", default: defaultConfigPath },
			"test-alarm": { type: "boolean", default: false },
		});
		if (values["test-alarm"]) return tryAlarms(values.config);
		process.title = "llamagate-ledger";
		// What it makes is nobody else's to read; it tells the socket's group more.
		process.umask(0o077);
		const { promise: stopped, resolve: stop } = Promise.withResolvers<void>();
		process.on("SIGTERM", () => stop());
		process.on("SIGINT", () => stop());
		const { ledger, ...settings } = await loadConfig(values.config);
		if (ledger === undefined) throw nothingKept(values.config);
		const alarms = await loadAlarmTargets(settings);
		const sink = standardOutput();
		const log = createLog(settings.logLevel, sink);
		const hosts = settings.hosts?.map(({ name }) => name) ?? [];
		const opened = await openLedger({ ...ledger, alarms, hosts }, log);
		await stopped;
		await opened.close();
		await endProcess(sink);
		return exitCodes.ok;
	},
};

function nothingKept(configFile: string): Finding {
	return new Finding(
		`${configFile} has no section "ledger", so nothing is kept; add "ledger": {}`,
	);
}

/** Has the running ledger send a message to everybody: it is what has the way out. */
async function tryAlarms(configFile: string): Promise<number> {
	const { ledger, alarms } = await loadConfig(configFile);
	if (ledger === undefined) throw nothingKept(configFile);
	if (alarms.length === 0)
		throw new Finding(
			`${configFile} has no "alarms"; add "alarms": [{ "url": "https://ntfy.example/topic" }]`,
		);
	const trials = await tryAlarmsOf(ledger.socket);
	if (typeof trials === "string")
		throw new Finding(`${trials}. See: systemctl status llamagate-ledger`);
	if (trials.length === 0)
		throw new Finding(
			'the running ledger has no "alarms"; run: sudo llamagate setup --only gate, or start it anew',
		);
	for (const { to, ok, why } of trials)
		process.stdout.write(
			visible(ok ? `ok    ${to}\n` : `look  ${to}: ${why ?? "it failed"}\n`),
		);
	return trials.every(({ ok }) => ok) ? exitCodes.ok : exitCodes.finding;
}
